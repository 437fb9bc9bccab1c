//! What the file rules look at in a change: every path with what becomes of it.
//!
//! Computed on the host from the trees that would leave, never from what the sandbox says. A
//! rename is a path that goes and a path that comes, so that a rule about either holds.

use std::collections::HashMap;

use stockade_domain::Failure;
use stockade_policy::files::{ExportedFile, ExportedKind, LONGEST_TARGET};

use crate::git::Git;

/// Git's modes (git-fast-import(1), git-diff-tree(1) "RAW OUTPUT FORMAT").
const GONE: &str = "000000";
const EXECUTABLE: &str = "100755";
const LINK: &str = "120000";
const SUBMODULE: &str = "160000";

/// A path that changed, as `git diff-tree --raw` tells it.
struct Raw {
    /// The modes it had, one for each parent.
    before: Vec<String>,
    after: String,
    object: String,
    path: String,
}

impl Raw {
    /// Whether git keeps content for what the path becomes.
    fn has_content(&self) -> bool {
        self.after != GONE && self.after != SUBMODULE
    }
}

/// A git directory in which changed paths are looked up.
pub(crate) struct Changes<'a> {
    /// Makes a command on that directory; the text names it in failures.
    pub(crate) git: &'a (dyn Fn(&str) -> Git + Send + Sync),
    /// Most bytes git may answer.
    pub(crate) limit: u64,
}

impl Changes<'_> {
    /// Every path of a raw list (`git diff-tree --raw -z --no-abbrev`, also of merges with `-c`).
    pub(crate) async fn files(&self, listed: &[u8]) -> Result<Vec<ExportedFile>, Failure> {
        let rows = rows(listed).ok_or_else(unreadable)?;
        let sizes = self.sizes(&rows).await?;
        let targets = self.targets(&rows, &sizes).await?;
        let file = |row: Raw| {
            let bytes = match row.has_content() {
                true => Some(*sizes.get(&row.object).ok_or_else(unreadable)?),
                false => None,
            };
            let kind = match row.after.as_str() {
                GONE => ExportedKind::Removed,
                SUBMODULE => ExportedKind::Submodule,
                LINK => ExportedKind::Link(targets.get(&row.object).cloned()),
                EXECUTABLE if row.before.iter().all(|mode| mode != EXECUTABLE) => ExportedKind::Executable,
                _ => ExportedKind::File,
            };
            Ok(ExportedFile {
                path: row.path,
                kind,
                bytes,
            })
        };
        rows.into_iter().map(file).collect()
    }

    /// Size of every object, by its name.
    async fn sizes(&self, rows: &[Raw]) -> Result<HashMap<String, u64>, Failure> {
        let names: String = rows
            .iter()
            .filter(|row| row.has_content())
            .map(|row| format!("{}\n", row.object))
            .collect();
        let answer = (self.git)("measuring the change")
            .args(["cat-file", "--batch-check=%(objectname) %(objectsize)"])
            .input(names.into_bytes())
            .limit(self.limit)
            .succeed()
            .await?;
        let text = String::from_utf8(answer.stdout).map_err(|_| unreadable())?;
        let size = |line: &str| {
            let (name, size) = line.split_once(' ')?;
            Some((name.to_owned(), size.parse().ok()?))
        };
        text.lines().map(|line| size(line).ok_or_else(unreadable)).collect()
    }

    /// Targets of links, by the object's name; those that are no text or too long are left out.
    async fn targets(&self, rows: &[Raw], sizes: &HashMap<String, u64>) -> Result<HashMap<String, String>, Failure> {
        let short = |row: &&Raw| {
            sizes
                .get(&row.object)
                .is_some_and(|size| *size <= LONGEST_TARGET as u64)
        };
        let mut names: Vec<&str> = rows
            .iter()
            .filter(|row| row.after == LINK)
            .filter(short)
            .map(|row| row.object.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let most = names.len() as u64 * (LONGEST_TARGET as u64 + 128);
        let answer = (self.git)("reading the links of the change")
            .args(["cat-file", "--batch"])
            .input(format!("{}\n", names.join("\n")).into_bytes())
            .limit(most)
            .succeed()
            .await?;
        contents(&answer.stdout).ok_or_else(unreadable)
    }
}

fn unreadable() -> Failure {
    Failure::unknown("git_failed", "git's list of the change could not be read")
}

/// Reads `:modes objects status`, NUL, path, NUL, and so on; a merge has one colon, mode and
/// object more for each parent more.
fn rows(bytes: &[u8]) -> Option<Vec<Raw>> {
    let fields: Vec<&[u8]> = bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|b| *b == 0).collect();
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    fields
        .chunks(2)
        .map(|pair| {
            let [head, path] = pair else { return None };
            let head = std::str::from_utf8(head).ok()?;
            let words: Vec<&str> = head.trim_start_matches(':').split(' ').collect();
            let parents = head.len() - head.trim_start_matches(':').len();
            if parents == 0 || words.len() != 2 * parents + 3 {
                return None;
            }
            Some(Raw {
                before: words.get(..parents)?.iter().map(|mode| (*mode).to_owned()).collect(),
                after: (*words.get(parents)?).to_owned(),
                object: (*words.get(2 * parents + 1)?).to_owned(),
                path: String::from_utf8_lossy(path).into_owned(),
            })
        })
        .collect()
}

/// Reads `object type size`, LF, content, LF, and so on.
fn contents(mut bytes: &[u8]) -> Option<HashMap<String, String>> {
    let mut found = HashMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut words = head.split(' ');
        let (name, _, size) = (words.next()?, words.next()?, words.next()?.parse::<usize>().ok()?);
        let content = bytes.get(end + 1..)?.get(..size)?;
        if let Ok(text) = std::str::from_utf8(content) {
            found.insert(name.to_owned(), text.to_owned());
        }
        bytes = bytes.get(end + 1 + size..)?.strip_prefix(b"\n")?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_whole_or_not_at_all() {
        let line = b":100644 100755 aa bb M\0a b\0:000000 120000 00 cc A\0l\xff\0";
        let read = rows(line).unwrap();
        assert_eq!(
            (read[0].path.as_str(), read[0].after.as_str(), read[0].object.as_str()),
            ("a b", EXECUTABLE, "bb")
        );
        assert_eq!((read[1].path.as_str(), read[1].after.as_str()), ("l\u{fffd}", LINK));
        assert!(rows(b"").unwrap().is_empty());
        let merge = rows(b"::100644 100755 100755 aa bb cc MM\0m\0").unwrap();
        assert_eq!(
            (merge[0].before.len(), merge[0].after.as_str(), merge[0].object.as_str()),
            (2, EXECUTABLE, "cc")
        );
        for broken in [
            &b":100644 100755 aa bb M\0"[..],
            b"100644 100755 aa bb M\0a\0",
            b":100644 aa M\0a\0",
            b"::100644 100755 aa bb M\0a\0",
        ] {
            assert!(rows(broken).is_none());
        }
    }

    #[test]
    fn contents_are_read_by_their_lengths() {
        let read = contents(b"aa blob 5\nx\nbb \ncc blob 1\n\xff\ndd blob 0\n\n").unwrap();
        assert_eq!(read.get("aa").map(String::as_str), Some("x\nbb "));
        assert_eq!((read.get("cc"), read.get("dd").map(String::as_str)), (None, Some("")));
        for broken in [&b"aa blob 9\nx\n"[..], b"aa missing\n", b"aa blob 1\nxy\n"] {
            assert!(contents(broken).is_none());
        }
    }
}
