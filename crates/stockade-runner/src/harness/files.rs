//! `fs/read_text_file` and `fs/write_text_file`, for agents that write through the client.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use stockade_domain::{Action, ActionKind, Amounts, Outcome};
use stockade_gate::{Gate, Gated, Refusal, Scope, kind};
use stockade_ports::{SandboxError, SandboxHandle, sandbox::WORKSPACE};
use tokio_util::sync::CancellationToken;

use super::{
    permission::Signal,
    rpc::{INVALID_PARAMS, METHOD_NOT_FOUND, NOT_DONE, Peer},
};
use crate::{
    builtin::{Trouble, Write, Writes, normalized_path},
    mishap,
};

/// Largest file read or written this way, in bytes.
const FILE_LIMIT: u64 = 8 << 20;
/// Mode of a file written this way.
const MODE: u32 = 0o644;

/// The client's file system: the workspace and nothing else, every use an action.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) gate: Gate,
    pub(super) scope: Scope,
    pub(super) sandbox: Gated<kind::Tool, dyn SandboxHandle>,
    pub(super) writes: Writes,
    pub(super) signals: tokio::sync::mpsc::UnboundedSender<Signal>,
}

impl Files {
    /// Answers one request.
    pub(super) async fn serve(self, peer: Peer, id: Value, method: String, params: Value, turn: CancellationToken) {
        let answered = tokio::select! {
            () = turn.cancelled() => Err((NOT_DONE, "the turn was cancelled".to_owned())),
            answer = self.answer(&method, &params) => answer,
        };
        match answered {
            Ok(result) => peer.answer(&id, result).await,
            Err((code, message)) => peer.refuse(&id, code, &message).await,
        }
    }

    async fn answer(&self, method: &str, params: &Value) -> Result<Value, (i64, String)> {
        let invalid = |message: String| (INVALID_PARAMS, message);
        let path = params["path"]
            .as_str()
            .ok_or_else(|| invalid("'path' is missing".to_owned()))?;
        let path = normalized_path(path).map_err(invalid)?;
        if path.starts_with('/') || path == "." {
            return Err(invalid(format!("only files in {WORKSPACE} can be used this way")));
        }
        let mut args = Map::new();
        args.insert("path".to_owned(), json!(path));
        if method == "fs/write_text_file" {
            let content = params["content"]
                .as_str()
                .ok_or_else(|| invalid("'content' is missing".to_owned()))?;
            if content.len() as u64 > FILE_LIMIT {
                return Err(invalid(format!("more than {FILE_LIMIT} bytes")));
            }
            args.insert("content".to_owned(), json!(content));
        } else if method == "fs/read_text_file" {
            for key in ["line", "limit"] {
                if let Some(number) = params[key].as_u64() {
                    args.insert(key.to_owned(), json!(number));
                }
            }
        } else {
            return Err((METHOD_NOT_FOUND, format!("no method '{method}'")));
        }
        self.act(Action {
            kind: ActionKind::Tool,
            operation: method.to_owned(),
            target: path,
            args: Value::Object(args),
        })
        .await
    }

    async fn act(&self, action: Action) -> Result<Value, (i64, String)> {
        let action = self.writes.counted(action);
        let admitted = match self.gate.pass::<kind::Tool>(&self.scope, action, Amounts::ZERO).await {
            Ok(admitted) => admitted,
            Err(refusal) => return Err((NOT_DONE, self.refused(&refusal))),
        };
        let done = self.perform(self.sandbox.open(&admitted), admitted.action()).await;
        let done = done.map_err(|trouble| match trouble {
            Trouble::Sandbox(error) => error.to_string(),
            Trouble::Refused(refusal) => self.refused(&refusal),
        });
        let outcome = match &done {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::Failed { error: error.clone() },
        };
        if let Err(error) = admitted.settle(outcome, Amounts::ZERO, json!({})).await {
            let _ = self.signals.send(Signal::Fatal(mishap::store(&error)));
        }
        done.map_err(|error| (NOT_DONE, error))
    }

    /// What the agent hears of a refusal; some end the run.
    fn refused(&self, refusal: &Refusal) -> String {
        if mishap::ends_run(refusal) {
            let _ = self.signals.send(Signal::Fatal(mishap::refusal(refusal)));
        }
        refusal.to_string()
    }

    async fn perform(&self, sandbox: &dyn SandboxHandle, action: &Action) -> Result<Value, Trouble> {
        // A person may have edited the arguments; the confinement holds for theirs as well.
        let path = action.args["path"].as_str().and_then(|path| normalized_path(path).ok());
        let Some(path) = path.filter(|path| !path.starts_with('/') && path != ".") else {
            let message = format!("only files in {WORKSPACE} can be used this way");
            return Err(SandboxError::Invalid(message).into());
        };
        if action.operation == "fs/write_text_file" {
            let content = action.args["content"].as_str().unwrap_or_default().to_owned();
            let write = Write {
                operation: &action.operation,
                path: &path,
                content: Bytes::from(content),
                mode: MODE,
            };
            self.writes.put(sandbox, write).await?;
            return Ok(json!({}));
        }
        let path = format!("{WORKSPACE}/{path}");
        let bytes = sandbox.read_file(&path, FILE_LIMIT).await?;
        let text = String::from_utf8_lossy(&bytes);
        let number = |key: &str| action.args[key].as_u64().and_then(|n| usize::try_from(n).ok());
        let content = match (number("line"), number("limit")) {
            (None, None) => text.into_owned(),
            (line, limit) => text
                .split_inclusive('\n')
                .skip(line.unwrap_or(1).max(1) - 1)
                .take(limit.unwrap_or(usize::MAX))
                .collect(),
        };
        Ok(json!({ "content": content }))
    }
}
