//! Files that go in and out piece by piece, and changes as they come.
//!
//! What comes out is bounded by credit, as a command's output is: a slow consumer stops the
//! Guest and nobody else. What goes in is bounded by the pipe, which the Guest always empties.

use bytes::Bytes;
use stockade_guest_proto::{FrameKind, INITIAL_CREDIT, ToGuest, WATCH_CREDIT, data_cost};
use stockade_ports::sandbox::{Download, SandboxError, Upload, Watched};
use tokio::sync::{mpsc, oneshot};

use super::{
    Client, FILE_CHUNK, checked_path,
    pending::{Item, Pending, StreamEntry},
};

/// Items waiting for a consumer.
const QUEUE: usize = 16;

/// Ends a transfer whose consumer has gone away before its end.
struct Abandoned {
    client: Client,
    id: u32,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if self.client.shared.table.remove(self.id) {
            self.client.send(&ToGuest::Cancel { id: self.id });
        }
    }
}

/// A transfer that has begun.
struct Begun {
    hold: Abandoned,
    items: mpsc::UnboundedReceiver<Item>,
}

impl Client {
    async fn begin(
        &self,
        operation: String,
        (limit, credit): (u64, u64),
        request: impl FnOnce(u32) -> ToGuest,
    ) -> Result<Begun, SandboxError> {
        let id = self.next_id();
        let what = operation.clone();
        let (entry, started, items) = StreamEntry::new(operation, limit, credit);
        self.shared.table.insert(id, Pending::Stream(entry))?;
        let client = self.clone();
        let hold = Abandoned { client, id };
        self.send(&request(id));
        started.await.unwrap_or(Err(SandboxError::Gone(what)))?;
        Ok(Begun { hold, items })
    }

    /// Reads a file piece by piece.
    pub(crate) async fn download(&self, path: &str, limit: u64) -> Result<Download, SandboxError> {
        let path = checked_path(path)?;
        let operation = format!("reading {path}");
        let credit = Some(INITIAL_CREDIT);
        let request = |id| ToGuest::ReadFile {
            id,
            path,
            limit,
            credit,
        };
        let begun = self.begin(operation, (limit, INITIAL_CREDIT), request).await?;
        let (tx, pieces) = mpsc::channel(QUEUE);
        tokio::spawn(drain(begun, tx));
        Ok(Download { pieces })
    }

    /// Writes a file piece by piece.
    pub(crate) async fn upload(&self, path: &str, mode: u32, limit: u64) -> Result<Upload, SandboxError> {
        let path = checked_path(path)?;
        let what = path.clone();
        let operation = format!("writing {path}");
        let request = |id| ToGuest::Upload { id, path, mode, limit };
        let begun = self.begin(operation, (limit, 0), request).await?;
        let (upload, pieces, tell) = Upload::channel();
        tokio::spawn(fill(begun, what, limit, pieces, tell));
        Ok(upload)
    }

    /// Tells what changes in a directory. A name that is there for the first time, or by another
    /// name before, is `created`; one that was given up for another is `moved`.
    pub(crate) async fn watch(&self, path: &str, recursive: bool) -> Result<Watched, SandboxError> {
        let path = checked_path(path)?;
        let operation = format!("watching {path}");
        let credit = WATCH_CREDIT;
        let request = |id| ToGuest::Watch {
            id,
            path,
            recursive,
            credit,
        };
        let begun = self.begin(operation, (0, credit), request).await?;
        let (tx, changes) = mpsc::channel(QUEUE);
        tokio::spawn(report(begun, tx));
        Ok(Watched { changes })
    }

    /// Lets the Guest send more, unless the transfer is over.
    fn grant(&self, id: u32, credit: u64) {
        if self.shared.table.grant(id, credit) {
            self.send(&ToGuest::Credit { id, bytes: credit });
        }
    }
}

async fn drain(begun: Begun, pieces: mpsc::Sender<Result<Bytes, SandboxError>>) {
    let Begun { hold, mut items } = begun;
    let mut taken = 0;
    loop {
        let item = tokio::select! {
            item = items.recv() => item,
            () = pieces.closed() => return,
        };
        let piece = match item {
            Some(Item::Bytes(bytes)) => Ok(bytes),
            Some(Item::End(Err(e))) => Err(e),
            Some(Item::End(Ok(())) | Item::Change(_)) | None => return,
        };
        let cost = piece.as_ref().map_or(0, |bytes| data_cost(bytes.len()));
        if pieces.send(piece).await.is_err() {
            return;
        }
        taken += cost;
        if taken >= INITIAL_CREDIT / 4 || items.is_empty() {
            hold.client.grant(hold.id, std::mem::take(&mut taken));
        }
    }
}

async fn report(begun: Begun, changes: mpsc::Sender<stockade_ports::sandbox::Change>) {
    let Begun { hold, mut items } = begun;
    let mut taken = 0;
    loop {
        let item = tokio::select! {
            item = items.recv() => item,
            () = changes.closed() => return,
        };
        let Some(Item::Change(change)) = item else { return };
        if changes.send(change).await.is_err() {
            return;
        }
        taken += 1;
        if taken >= WATCH_CREDIT / 4 || items.is_empty() {
            hold.client.grant(hold.id, std::mem::take(&mut taken));
        }
    }
}

async fn fill(
    begun: Begun,
    path: String,
    limit: u64,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
    tell: oneshot::Sender<Result<(), SandboxError>>,
) {
    let Begun { hold, mut items } = begun;
    let client = &hold.client;
    let mut left = limit;
    let ended = |item| match item {
        Some(Item::End(result)) => result,
        _ => Err(SandboxError::Gone(format!("it ended while {path} was written"))),
    };
    loop {
        let piece = tokio::select! {
            // Only an end can come: the Guest has refused.
            item = items.recv() => return drop(tell.send(ended(item))),
            piece = pieces.recv() => piece,
        };
        let Some(piece) = piece else { return };
        let Some(bytes) = piece else { break };
        let Some(rest) = left.checked_sub(bytes.len() as u64) else {
            let what = path.clone();
            return drop(tell.send(Err(SandboxError::TooLarge { what, limit })));
        };
        left = rest;
        for chunk in bytes.chunks(FILE_CHUNK) {
            if !client.shared.table.knows(hold.id) || !client.send_data(FrameKind::File, hold.id, chunk).await {
                break;
            }
        }
    }
    let json = serde_json::to_vec(&ToGuest::UploadEnd { id: hold.id }).unwrap_or_default();
    // Through the data queue: the end must not overtake the last bytes.
    client.send_data(FrameKind::Control, 0, &json).await;
    let _ = tell.send(ended(items.recv().await));
}
