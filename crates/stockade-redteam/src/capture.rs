//! The host's packets while something is attacked. Only root can look.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::field::Field;

/// Longest it may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// A capture under way.
pub(crate) struct Capture {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Capture {
    /// Begins to look for packets that hold a word; nothing where the red team may not.
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
        let mut lines = BufReader::new(child.stdout.take()?).lines();
        let ready = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("\"ready\"") {
                    return Some(());
                }
            }
            None
        };
        timeout(PATIENCE, ready).await.ok()??;
        Some(Self { child, lines })
    }

    /// How many packets held it.
    pub(crate) async fn end(mut self) -> Option<u64> {
        drop(self.child.stdin.take());
        let held = async {
            let mut held = None;
            while let Ok(Some(line)) = self.lines.next_line().await {
                let value: serde_json::Value = serde_json::from_str(&line).ok()?;
                if value["count"] == "held" {
                    held = value["number"].as_u64();
                }
            }
            held
        };
        timeout(PATIENCE, held).await.ok()?
    }
}
