//! Control messages. Unknown messages become `Unknown`, unknown fields are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::probe::{Observed, ProbeStart};

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
    /// The host has room for this much more output of the command, more of the file, or more
    /// changes of the watched directory.
    Credit {
        /// The request.
        id: u32,
        /// Credit to add, as [`crate::data_cost`] counts it; for a watch the number of changes.
        bytes: u64,
    },
    /// Kills the command and everything it started.
    Kill {
        /// The command.
        id: u32,
    },
    /// Sends a signal to the command's own process.
    Signal {
        /// The command.
        id: u32,
        /// By number (signal(7)).
        number: i32,
    },
    /// Gives the command's terminal another size.
    Resize {
        /// The command.
        id: u32,
        /// The new size.
        size: TerminalSize,
    },
    /// Asks for a regular file's content.
    ReadFile {
        /// The request.
        id: u32,
        /// Absolute path inside.
        path: String,
        /// Most bytes to answer with.
        limit: u64,
        /// Credit for the content, as [`crate::data_cost`] counts it. With it the Guest says
        /// [`FromGuest::Started`] first and sends as it is granted more; without it, all at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credit: Option<u64>,
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
    /// Replaces a file whose size is not known yet. The Guest says [`FromGuest::Started`], takes
    /// file frames, and puts the file in its place at [`ToGuest::UploadEnd`].
    Upload {
        /// The request.
        id: u32,
        /// Absolute path inside.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Most bytes it may have.
        limit: u64,
    },
    /// The file is whole.
    UploadEnd {
        /// The upload.
        id: u32,
    },
    /// The host wants no more of a request about files; an unfinished file is removed.
    Cancel {
        /// The request.
        id: u32,
    },
    /// Asks what a path names, without following a link in its last part.
    Stat {
        /// The request.
        id: u32,
        /// Absolute path inside.
        path: String,
    },
    /// Asks what is below a directory.
    List {
        /// The request.
        id: u32,
        /// Absolute path inside.
        path: String,
        /// Levels to go down; 1 is the directory's own entries.
        depth: u32,
        /// Most entries to answer with.
        limit: u32,
    },
    /// Makes a directory and its parents.
    MakeDir {
        /// The request.
        id: u32,
        /// Absolute path inside.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Removes a file, a link, or a directory.
    Remove {
        /// The request.
        id: u32,
        /// Absolute path inside.
        path: String,
        /// Whether a directory goes with what is in it.
        recursive: bool,
    },
    /// Gives something another name.
    Rename {
        /// The request.
        id: u32,
        /// Absolute path inside.
        from: String,
        /// Absolute path inside.
        to: String,
    },
    /// Asks to be told of changes in a directory. The Guest says [`FromGuest::Started`] when it
    /// watches, and [`FromGuest::Done`] when the directory is gone.
    Watch {
        /// The request.
        id: u32,
        /// Absolute path inside.
        path: String,
        /// Whether its subdirectories are watched too.
        recursive: bool,
        /// Changes the host has room for.
        credit: u64,
    },
    /// Asks every process but the Guest's own to end (SIGTERM). [`FromGuest::Done`] follows when
    /// they have, or when their time is over. No command is started any more.
    Terminate {
        /// The request.
        id: u32,
        /// Milliseconds to wait for them.
        grace_ms: u64,
    },
    /// Asks for a [`FromGuest::Pong`].
    Ping {
        /// The request.
        id: u32,
    },
    /// Asks whether there is room left where commands may write. [`FromGuest::Room`] follows.
    Room {
        /// The request.
        id: u32,
    },
    /// Tries what a command could do and tells what happened.
    Probe(ProbeStart),
    /// Gives up every privilege and installs system call filters, for good and for everything
    /// that is started later. For sandboxes whose maker cannot do that to the Guest.
    Confine {
        /// The request.
        id: u32,
        /// The filters in the order to install them: classic BPF (seccomp(2)), one number for
        /// each instruction: `code << 48 | jt << 40 | jf << 32 | k`.
        filters: Vec<Vec<u64>>,
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
    /// Most bytes of output; the whole tree is killed at the first byte over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u64>,
    /// Run on a terminal of this size: it is standard input, output and error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
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
    /// The command runs, the file is open, or the directory is watched.
    Started {
        /// The request.
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
    /// What a probe saw.
    Probed {
        /// The request.
        id: u32,
        /// The observations, not judged.
        observed: Box<Observed>,
    },
    /// Some of the entries a request asked for; more may follow.
    Entries {
        /// The request.
        id: u32,
        /// The entries, in no order.
        entries: Vec<FileEntry>,
        /// Whether some are left out.
        #[serde(default)]
        truncated: bool,
    },
    /// What changed in a watched directory, in the order the kernel told it.
    Changed {
        /// The request.
        id: u32,
        /// The changes.
        changes: Vec<FileChange>,
    },
    /// The request was carried out: a file was sent or written whole, entries were all told.
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
    /// Answer to [`ToGuest::Room`].
    Room {
        /// The request.
        id: u32,
        /// Whether no block or no file more fits somewhere commands may write.
        full: bool,
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
    /// It printed more than its limit.
    OutputLimit,
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Absolute path inside. Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last change of the content, in milliseconds after the epoch.
    pub modified_ms: i64,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    #[serde(other)]
    Other,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Absolute path inside. Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// What happened to it.
    pub what: ChangeKind,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is there now, new or by another name before.
    Created,
    /// Its content changed.
    Modified,
    /// It is gone.
    Removed,
    /// It has another name now.
    Moved,
    /// Changes were lost; the path is the watched one.
    #[serde(other)]
    Lost,
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
    fn an_older_hosts_requests_still_mean_what_they_did() {
        let text = r#"{"type":"read_file","id":1,"path":"/x","limit":9}"#;
        let read: ToGuest = serde_json::from_str(text).expect("parses");
        assert!(matches!(read, ToGuest::ReadFile { credit: None, .. }));
        assert_eq!(
            serde_json::to_string(&read).expect("serializes"),
            text,
            "nothing is added"
        );
        let text = r#"{"type":"exec","id":1,"argv":["a"],"env":{},"cwd":"/"}"#;
        let exec: ToGuest = serde_json::from_str(text).expect("parses");
        let ToGuest::Exec(start) = exec else { panic!("{exec:?}") };
        assert_eq!((start.max_output, start.terminal, start.stdin), (None, None, false));
    }

    #[test]
    fn kinds_of_a_later_version_fall_back() {
        assert_eq!(
            serde_json::from_str::<FileKind>(r#""door""#).expect("kind"),
            FileKind::Other
        );
        assert_eq!(
            serde_json::from_str::<ChangeKind>(r#""melted""#).expect("kind"),
            ChangeKind::Lost
        );
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
            max_output: Some(1),
            terminal: Some(TerminalSize { rows: 24, cols: 80 }),
        });
        let text = serde_json::to_string(&start).expect("serializes");
        assert_eq!(serde_json::from_str::<ToGuest>(&text).expect("parses"), start);
    }
}
