//! Answers to a push (gitprotocol-pack(5), "Report Status"): ours, which a git client prints, and
//! the server's, which is read on its way.

use bytes::Bytes;
use stockade_domain::RefUpdate;

use super::{
    commands::Replies,
    pkt::{MAX_DATA, Packet, PktReader, PktWriter},
};

/// Longest reason on one line.
const MAX_REASON: usize = 400;
/// A packet that says only that somebody is still there.
pub(super) const KEEP_ALIVE: &[u8] = b"0005\x01";
/// Most of a server's report that is remembered.
const MAX_REPORT: usize = 1 << 20;

/// A refusal as git prints it: `! [remote rejected] … (reason)` for each reference. `None` when the
/// client wants no report, so that only HTTP is left.
pub(super) fn refusal(replies: Replies, updates: &[RefUpdate], reasons: &[String], note: &str) -> Option<Bytes> {
    if !replies.status {
        return None;
    }
    let mut report = PktWriter::default();
    report.data(b"unpack ok\n");
    for (update, reason) in updates.iter().zip(reasons) {
        report.data(format!("ng {} {}\n", update.name, one_line(reason)).as_bytes());
    }
    report.flush();
    if !replies.side_band {
        return Some(report.finish());
    }
    let mut out = PktWriter::default();
    if !note.is_empty() {
        out.band(2, format!("{}\n", one_line(note)).as_bytes());
    }
    out.band(1, &report.finish());
    out.flush();
    Some(out.finish())
}

/// A line that the client prints behind `remote: `.
pub(super) fn progress(words: &str) -> Bytes {
    let mut out = PktWriter::default();
    out.band(2, format!("{}\n", one_line(words)).as_bytes());
    out.finish()
}

/// Text for a terminal: one line, no controls, cut.
fn one_line(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_REASON).collect()
}

/// What a server said about one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefResult {
    /// The reference.
    pub name: String,
    /// Why not; absent when it moved.
    pub refused: Option<String>,
}

/// What a server said about a push.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerReport {
    /// Whether it could unpack the pack; absent when it did not say.
    pub unpacked: Option<bool>,
    /// Each reference.
    pub refs: Vec<RefResult>,
}

impl ServerReport {
    /// Whether every one of so many references moved.
    pub fn all_moved(&self, count: usize) -> bool {
        self.unpacked == Some(true) && self.refs.len() == count && self.refs.iter().all(|one| one.refused.is_none())
    }
}

/// Reads a server's answer in any pieces. What is not understood says nothing.
#[derive(Debug)]
pub struct ReportReader {
    outer: Option<PktReader>,
    inner: PktReader,
    read: usize,
    report: ServerReport,
    lost: bool,
}

impl ReportReader {
    /// A reader for an answer with or without side bands.
    pub fn new(side_band: bool) -> Self {
        Self {
            outer: side_band.then(PktReader::default),
            inner: PktReader::default(),
            read: 0,
            report: ServerReport::default(),
            lost: false,
        }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.lost && self.read_more(bytes).is_none() {
            self.lost = true;
            self.report = ServerReport::default();
        }
    }

    /// What was said.
    pub fn finish(self) -> ServerReport {
        self.report
    }

    fn read_more(&mut self, bytes: &[u8]) -> Option<()> {
        let Some(outer) = &mut self.outer else {
            self.read = self.read.checked_add(bytes.len())?;
            self.inner.push(bytes);
            return self.lines();
        };
        outer.push(bytes);
        while let Some(packet) = outer.read().ok()? {
            if let Packet::Data(data) = packet
                && let Some((1, data)) = data.split_first()
            {
                self.read = self.read.checked_add(data.len())?;
                self.inner.push(data);
            }
        }
        self.lines()
    }

    fn lines(&mut self) -> Option<()> {
        if self.read > MAX_REPORT {
            return None;
        }
        while let Some(packet) = self.inner.read().ok()? {
            let Packet::Data(line) = packet else { continue };
            let line = String::from_utf8_lossy(&line[..line.len().min(MAX_DATA)])
                .trim_end()
                .to_owned();
            if let Some(how) = line.strip_prefix("unpack ") {
                self.report.unpacked = Some(how == "ok");
            } else if let Some(name) = line.strip_prefix("ok ") {
                let name = name.to_owned();
                self.report.refs.push(RefResult { name, refused: None });
            } else if let Some((name, why)) = line.strip_prefix("ng ").map(|l| l.split_once(' ').unwrap_or((l, ""))) {
                let refused = Some(one_line(why));
                self.report.refs.push(RefResult {
                    name: name.to_owned(),
                    refused,
                });
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updates() -> Vec<RefUpdate> {
        let update = |name: &str| RefUpdate {
            name: name.parse().unwrap(),
            old: "0".repeat(40).parse().unwrap(),
            new: "b".repeat(40).parse().unwrap(),
        };
        vec![update("refs/heads/a"), update("refs/heads/b")]
    }

    #[test]
    fn a_refusal_reads_back_line_by_line() {
        let reasons = ["not yours\r\nunpack ok".to_owned(), "x".repeat(100_000)];
        for side_band in [true, false] {
            let replies = Replies {
                status: true,
                side_band,
            };
            let bytes = refusal(replies, &updates(), &reasons, "the note").unwrap();
            let mut reader = ReportReader::new(side_band);
            for piece in bytes.chunks(3) {
                reader.push(piece);
            }
            let report = reader.finish();
            assert_eq!(report.unpacked, Some(true));
            assert_eq!(report.refs.len(), 2);
            assert_eq!(
                report.refs[0].refused.as_deref(),
                Some("not yours  unpack ok"),
                "one line stays one"
            );
            assert_eq!(report.refs[1].refused.as_deref().map(str::len), Some(MAX_REASON));
            assert!(!report.all_moved(2));
        }
        assert_eq!(refusal(Replies::default(), &updates(), &reasons, ""), None);
    }

    #[test]
    fn a_servers_report_is_believed_only_when_it_is_whole() {
        let mut reader = ReportReader::new(true);
        reader.push(b"002b\x01000eunpack ok\n0014ok refs/heads/a\n00000000");
        assert!(reader.finish().all_moved(1));
        let mut broken = ReportReader::new(true);
        broken.push(b"002b\x01000eunpack ok\n0014ok refs/heads/a\n0000zzzz");
        assert_eq!(broken.finish(), ServerReport::default());
        let mut silent = ReportReader::new(false);
        silent.push(b"");
        assert!(!silent.finish().all_moved(0));
    }
}
