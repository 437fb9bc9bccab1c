//! Requests about files that have one answer.

use std::time::Duration;

use bytes::Bytes;
use stockade_guest_proto::{FrameKind, ToGuest};
use stockade_ports::sandbox::{Entry, Listing, SandboxError};
use tokio::time::timeout;

use super::{
    Client, FILE_CHUNK, Forget, checked_path,
    pending::{CallEntry, Pending, Reply},
};

/// How much later than asked for the Guest may answer that everything has ended.
const LATE: Duration = Duration::from_secs(1);

impl Client {
    /// Sends a request, what follows it, and waits for the answer. When the future is dropped the
    /// Guest gives the request up.
    async fn call(
        &self,
        operation: String,
        (limit, most): (u64, u32),
        request: impl FnOnce(u32) -> ToGuest,
        content: &[u8],
    ) -> Result<Reply, SandboxError> {
        let id = self.next_id();
        let what = operation.clone();
        let (entry, result) = CallEntry::new(operation, limit, most);
        self.shared.table.insert(id, Pending::Call(entry))?;
        let _forget = Forget { client: self, id };
        self.send(&request(id));
        for chunk in content.chunks(FILE_CHUNK) {
            // The Guest may have refused already; then nobody waits for the rest.
            if !self.shared.table.knows(id) || !self.send_data(FrameKind::File, id, chunk).await {
                break;
            }
        }
        result.await.unwrap_or(Err(SandboxError::Gone(what)))
    }

    /// Reads a file whole.
    pub(crate) async fn read_file(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        let path = checked_path(path)?;
        let operation = format!("reading {path}");
        let credit = None;
        let request = |id| ToGuest::ReadFile {
            id,
            path,
            limit,
            credit,
        };
        let reply = self.call(operation, (limit, 0), request, &[]).await?;
        Ok(reply.content.into())
    }

    /// Writes a file whole.
    pub(crate) async fn write_file(&self, path: &str, content: Bytes, mode: u32) -> Result<(), SandboxError> {
        let path = checked_path(path)?;
        let operation = format!("writing {path}");
        let size = content.len() as u64;
        let request = |id| ToGuest::WriteFile { id, path, mode, size };
        self.call(operation, (0, 0), request, &content).await.map(drop)
    }

    /// What a path names, without following a link in its last part.
    pub(crate) async fn stat(&self, path: &str) -> Result<Entry, SandboxError> {
        let path = checked_path(path)?;
        let operation = format!("looking at {path}");
        let request = |id| ToGuest::Stat { id, path };
        let mut reply = self.call(operation.clone(), (0, 1), request, &[]).await?;
        reply.entries.pop().ok_or(SandboxError::Inside {
            operation,
            cause: "there was no answer".to_owned(),
        })
    }

    /// What is below a directory.
    pub(crate) async fn list(&self, path: &str, depth: u32, limit: u32) -> Result<Listing, SandboxError> {
        if depth == 0 {
            let why = "a depth of zero: 1 is the directory's own entries".to_owned();
            return Err(SandboxError::Invalid(why));
        }
        let path = checked_path(path)?;
        let operation = format!("listing {path}");
        let request = |id| ToGuest::List { id, path, depth, limit };
        let reply = self.call(operation, (0, limit), request, &[]).await?;
        let (mut entries, truncated) = (reply.entries, reply.truncated);
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(Listing { entries, truncated })
    }

    /// Makes a directory and its parents.
    pub(crate) async fn make_dir(&self, path: &str, mode: u32) -> Result<(), SandboxError> {
        let path = checked_path(path)?;
        let operation = format!("making the directory {path}");
        let request = |id| ToGuest::MakeDir { id, path, mode };
        self.call(operation, (0, 0), request, &[]).await.map(drop)
    }

    /// Removes a file, a link or a directory.
    pub(crate) async fn remove(&self, path: &str, recursive: bool) -> Result<(), SandboxError> {
        let path = checked_path(path)?;
        let operation = format!("removing {path}");
        let request = |id| ToGuest::Remove { id, path, recursive };
        self.call(operation, (0, 0), request, &[]).await.map(drop)
    }

    /// Gives something another name.
    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<(), SandboxError> {
        let (from, to) = (checked_path(from)?, checked_path(to)?);
        let operation = format!("renaming {from}");
        let request = |id| ToGuest::Rename { id, from, to };
        self.call(operation, (0, 0), request, &[]).await.map(drop)
    }

    /// SIGTERM to everything, then waits at most `grace` (and a moment, for a sandbox that cannot
    /// answer) for the Guest to say that all ended. Nothing can be started any more.
    pub(crate) async fn terminate(&self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = |id| ToGuest::Terminate { id, grace_ms };
        let call = self.call("ending everything".to_owned(), (0, 0), request, &[]);
        // Whatever the answer: what is left is ended next.
        let _ = timeout(grace.saturating_add(LATE), call).await;
    }
}
