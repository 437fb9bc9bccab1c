//! Names of entries: what is a path beneath the root, and what is not.

use crate::error::{ArchiveError, refused};

/// Longest path in bytes, as the kernel has it (PATH_MAX, without the NUL).
const MAX_PATH: usize = 4095;
/// Longest name in bytes (NAME_MAX).
const MAX_NAME: usize = 255;

/// A path beneath the root: components without `/`, NUL, `.` and `..`. Empty is the root itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    /// Reads a path as an archive has it. A leading `./` and a trailing `/` are customary and fine.
    pub(crate) fn parse(raw: &[u8], max_depth: usize) -> Result<Self, ArchiveError> {
        let shown = || show(raw);
        if raw.is_empty() {
            return Err(refused("an entry has no name"));
        }
        if raw.len() > MAX_PATH {
            return Err(refused(format!(
                "an entry's name has {} bytes, more than {MAX_PATH}",
                raw.len()
            )));
        }
        if raw.contains(&0) {
            return Err(refused(format!("entry {}: its name has a NUL", shown())));
        }
        if raw.starts_with(b"/") && raw != b"/" {
            return Err(refused(format!("entry {}: its name is absolute", shown())));
        }
        let mut clean = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for part in raw
            .split(|&b| b == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
        {
            if part == b".." {
                return Err(refused(format!("entry {}: its name has '..'", shown())));
            }
            if part.len() > MAX_NAME {
                return Err(refused(format!("entry {}: a name over {MAX_NAME} bytes", shown())));
            }
            depth += 1;
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(part);
        }
        if depth > max_depth {
            return Err(refused(format!(
                "entry {}: deeper than {max_depth} directories",
                shown()
            )));
        }
        Ok(Self(clean))
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as the kernel takes it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Parent and last component. The root has neither.
    pub(crate) fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|&b| b == b'/') {
            Some(at) => (Self(self.0[..at].to_vec()), &self.0[at + 1..]),
            None => (Self::default(), &self.0[..]),
        })
    }

    /// The path of an entry of this directory.
    pub(crate) fn child(&self, name: &[u8]) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// Its components, outermost first.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|part| !part.is_empty())
    }
}

/// A name for a message: hostile bytes escaped, long ones cut.
pub(crate) fn show(raw: &[u8]) -> String {
    let cut = &raw[..raw.len().min(200)];
    let dots = if cut.len() < raw.len() { "…" } else { "" };
    format!("'{}{dots}'", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Result<Vec<u8>, String> {
        let name = Name::parse(raw.as_bytes(), 4).map_err(|e| e.to_string())?;
        Ok(name.bytes().to_vec())
    }

    #[test]
    fn customary_names_are_fine() {
        for (raw, clean) in [
            ("./", ""),
            ("/", ""),
            (".", ""),
            ("./a/b", "a/b"),
            ("a//b/", "a/b"),
            ("a/./b", "a/b"),
            ("...", "..."),
            ("..a/b..", "..a/b.."),
        ] {
            assert_eq!(read(raw).as_deref(), Ok(clean.as_bytes()), "{raw}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(256);
        let longer = "x/".repeat(2050);
        for raw in [
            "",
            "/etc/passwd",
            "..",
            "../a",
            "a/../../b",
            "a/..",
            "a\0b",
            &long,
            &longer,
            "a/b/c/d/e",
        ] {
            assert!(read(raw).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn a_path_comes_apart_and_together() {
        let name = Name::parse(b"a/b/c", 9).expect("fine");
        let (parent, last) = name.split().expect("not the root");
        assert_eq!((parent.bytes(), last), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(parent.child(last), name);
        assert_eq!(name.parts().count(), 3);
        assert!(Name::parse(b"./", 9).expect("fine").split().is_none());
    }
}
