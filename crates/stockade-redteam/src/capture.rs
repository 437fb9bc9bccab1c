//! The host's packets while something is attacked. Only root can look.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::field::Field;

/// Longest it may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// Packets since its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Those that held the word.
    pub(crate) held: u64,
    /// Those it could not look at: there were too many.
    pub(crate) lost: u64,
}

/// A capture under way. It ends when it is dropped.
pub(crate) struct Capture {
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Capture {
    /// Begins to count packets that hold a word; nothing where the red team may not.
    pub(crate) async fn begin(field: &Field, word: &str) -> Option<Self> {
        if !field.root {
            return None;
        }
        let mut command = Command::new(field.plants.attacker());
        command
            .args(["capture".to_owned(), format!("word={word}")])
            .current_dir(field.plants.outside())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().ok()?;
        let (stdin, lines) = (child.stdin.take()?, BufReader::new(child.stdout.take()?).lines());
        let mut this = Self {
            stdin,
            lines,
            _child: child,
        };
        this.until(|line| line["ready"] == true).await?;
        Some(this)
    }

    /// What it has counted so far.
    pub(crate) async fn counts(&mut self) -> Option<Counts> {
        self.stdin.write_all(b"\n").await.ok()?;
        self.stdin.flush().await.ok()?;
        let lost = self.until(|line| line["count"] == "lost").await?["number"].as_u64()?;
        let held = self.until(|line| line["count"] == "held").await?["number"].as_u64()?;
        Some(Counts { held, lost })
    }

    async fn until(&mut self, is: impl Fn(&Value) -> bool) -> Option<Value> {
        let find = async {
            while let Ok(Some(line)) = self.lines.next_line().await {
                let line: Value = serde_json::from_str(&line).ok()?;
                if is(&line) {
                    return Some(line);
                }
            }
            None
        };
        timeout(PATIENCE, find).await.ok()?
    }
}
