//! Control messages. Unknown messages become `Unknown`, unknown fields are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A message from the host. `id` is chosen by the host and names one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGuest {
    /// The first message.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the host.
        version: u32,
    },
    /// Starts a command.
    Exec(ExecStart),
    /// No more input for the command.
    StdinEof {
        /// The command.
        id: u32,
    },
    /// The host has room for this much more output of the command.
    Credit {
        /// The command.
        id: u32,
        /// Credit to add, as [`crate::data_cost`] counts it.
        bytes: u64,
    },
    /// Kills the command and everything it started.
    Kill {
        /// The command.
        id: u32,
    },
    /// Asks for a regular file's content.
    ReadFile {
        /// The request.
        id: u32,
        /// Absolute path inside.
        path: String,
        /// Most bytes to answer with.
        limit: u64,
    },
    /// Replaces a file; its content follows in file frames, `size` bytes in all.
    WriteFile {
        /// The request.
        id: u32,
        /// Absolute path inside.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Bytes that follow.
        size: u64,
    },
    /// Asks for a [`FromGuest::Pong`].
    Ping {
        /// The request.
        id: u32,
    },
    /// Ends the Guest and with it the sandbox.
    Shutdown,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// A command to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStart {
    /// The request.
    pub id: u32,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// Milliseconds after which the whole tree is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Whether input follows; otherwise standard input is empty.
    #[serde(default)]
    pub stdin: bool,
}

/// A message from the Guest. The host believes none of it further than its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGuest {
    /// The Guest runs and knows this version.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the Guest.
        version: u32,
    },
    /// The command runs.
    Started {
        /// The command.
        id: u32,
    },
    /// The command has room for this much more input.
    StdinCredit {
        /// The command.
        id: u32,
        /// Credit to add, as [`crate::data_cost`] counts it.
        bytes: u64,
    },
    /// The command ended; all its output was sent before.
    Exited {
        /// The command.
        id: u32,
        /// How.
        status: ExitStatus,
    },
    /// A file was sent or written whole.
    Done {
        /// The request.
        id: u32,
    },
    /// The request failed.
    Failed {
        /// The request.
        id: u32,
        /// What kind of failure.
        kind: FailureKind,
        /// The reason in words.
        message: String,
    },
    /// Answer to [`ToGuest::Ping`].
    Pong {
        /// The request.
        id: u32,
    },
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// Exit code.
    Code(i32),
    /// Signal number.
    Signal(i32),
    /// Its time was up.
    TimedOut,
}

/// What kind of failure a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request makes no sense.
    Invalid,
    /// No such file or directory.
    NotFound,
    /// Over the limit the request named.
    TooLarge,
    /// The writable layer is full.
    DiskFull,
    /// Anything else the system said.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_messages_and_fields_do_not_break_this_version() {
        let message: ToGuest = serde_json::from_str(r#"{"type":"teleport","id":3}"#).expect("unknown message");
        assert_eq!(message, ToGuest::Unknown);
        let message: FromGuest = serde_json::from_str(r#"{"type":"pong","id":3,"mood":"good"}"#).expect("extra field");
        assert_eq!(message, FromGuest::Pong { id: 3 });
        assert!(serde_json::from_str::<FromGuest>(r#"{"type":"pong","id":-3}"#).is_err());
    }

    #[test]
    fn exec_round_trips() {
        let start = ToGuest::Exec(ExecStart {
            id: 1,
            argv: vec!["a".into()],
            env: BTreeMap::new(),
            cwd: "/".into(),
            timeout_ms: None,
            stdin: true,
        });
        let text = serde_json::to_string(&start).expect("serializes");
        assert_eq!(serde_json::from_str::<ToGuest>(&text).expect("parses"), start);
    }
}
