//! Entries of a tar stream (POSIX.1-2001 pax, ustar, and GNU's long names), with bounded memory.
//!
//! The tar crate is used raw: it would read extension headers of any size into memory.

use std::io::Read;

use tar::{Archive, EntryType, Header};

use crate::{
    OPAQUE,
    error::{ArchiveError, refused},
    names::{Name, show},
    unpack::Limits,
};

/// Longest extension header in bytes. The longest path is 4,095; the rest is for attributes that
/// are read over.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest target of a symbolic link in bytes, as the kernel has it.
const MAX_TARGET: usize = 4095;

/// What an entry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File {
        size: u64,
    },
    Directory,
    Symlink(Vec<u8>),
    /// Another name of an earlier entry.
    Hard(Name),
    /// A character device 0:0.
    Whiteout,
    /// Something no tree of ours holds.
    Special,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    /// Permission bits as they came.
    pub(crate) mode: u32,
    /// Seconds after the epoch.
    pub(crate) modified: i64,
    /// Carries overlay's mark of an opaque directory.
    pub(crate) opaque: bool,
}

/// What extension headers say about the entry after them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<i64>,
    opaque: bool,
}

/// Reads a stream entry by entry. The visitor gets the content of files.
pub(crate) fn each<R: Read>(
    stream: R,
    limits: &Limits,
    mut visit: impl FnMut(Entry, &mut dyn Read) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut archive = Archive::new(stream);
    let mut extensions = Extensions::default();
    let mut headers = 0;
    for raw in archive.entries().map_err(ArchiveError::Stream)?.raw(true) {
        let mut raw = raw.map_err(ArchiveError::Stream)?;
        headers += 1;
        // Every entry has at most a pax header, two long names and itself.
        if headers > limits.entries.saturating_mul(4) {
            return Err(too_many(limits.entries));
        }
        let header = raw.header().clone();
        match header.entry_type() {
            EntryType::XGlobalHeader => {}
            EntryType::XHeader => extensions.read_pax(&extension(&mut raw, &header)?)?,
            EntryType::GNULongName => extensions.path = Some(without_nul(extension(&mut raw, &header)?)),
            EntryType::GNULongLink => extensions.link = Some(without_nul(extension(&mut raw, &header)?)),
            _ => {
                let entry = entry(&header, std::mem::take(&mut extensions), limits)?;
                visit(entry, &mut raw)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn too_many(limit: u64) -> ArchiveError {
    refused(format!("more than {limit} entries"))
}

fn extension(raw: &mut impl Read, header: &Header) -> Result<Vec<u8>, ArchiveError> {
    let size = header.entry_size().map_err(ArchiveError::Stream)?;
    if size > MAX_EXTENSION {
        return Err(refused(format!(
            "an extension header of {size} bytes, more than {MAX_EXTENSION}"
        )));
    }
    let mut content = Vec::new();
    raw.read_to_end(&mut content).map_err(ArchiveError::Stream)?;
    if content.len() as u64 != size {
        return Err(refused("the archive ends within an extension header"));
    }
    Ok(content)
}

fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

impl Extensions {
    /// Records of the form `LENGTH KEY=VALUE\n` (pax(1), "pax Extended Header").
    fn read_pax(&mut self, mut rest: &[u8]) -> Result<(), ArchiveError> {
        let broken = || refused("a malformed pax header");
        while !rest.is_empty() {
            let space = rest.iter().position(|&b| b == b' ').ok_or_else(broken)?;
            let length: usize = number(&rest[..space]).ok_or_else(broken)?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(broken());
            }
            let record = &rest[space + 1..length - 1];
            let equals = record.iter().position(|&b| b == b'=').ok_or_else(broken)?;
            self.record(&record[..equals], &record[equals + 1..])
                .ok_or_else(broken)?;
            rest = &rest[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            // Fractions of a second are not kept.
            b"mtime" => self.modified = Some(number(value.split(|&b| b == b'.').next()?)?),
            _ => {
                let attribute = key.strip_prefix(b"SCHILY.xattr.");
                self.opaque |= attribute == Some(OPAQUE.as_bytes()) && value == b"y";
            }
        }
        Some(())
    }
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn entry(header: &Header, extensions: Extensions, limits: &Limits) -> Result<Entry, ArchiveError> {
    let raw = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let name = Name::parse(&raw, limits.depth)?;
    let size = header.entry_size().map_err(ArchiveError::Stream)?;
    // Readers that disagree on a size see different archives. The pax size exists for files that
    // do not fit the header, over 8 GiB.
    if extensions.size.is_some_and(|pax| pax != size) {
        return Err(refused(format!("entry {}: two different sizes", show(&raw))));
    }
    let link = || {
        let link = extensions
            .link
            .clone()
            .or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        link.ok_or_else(|| refused(format!("entry {}: a link to nowhere", show(&raw))))
    };
    let kind = match header.entry_type() {
        // A name that ends in a slash is a directory to everybody since the seventh edition of Unix.
        EntryType::Regular if raw.ends_with(b"/") && size == 0 => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File { size },
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target(link()?, &raw)?),
        EntryType::Link => Kind::Hard(Name::parse(&link()?, limits.depth)?),
        EntryType::Char if device(header) == Some((0, 0)) => Kind::Whiteout,
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
        other => {
            let code = char::from(other.as_byte()).escape_default();
            return Err(refused(format!("entry {}: unknown type '{code}'", show(&raw))));
        }
    };
    Ok(Entry {
        name,
        kind,
        mode: header.mode().map_err(ArchiveError::Stream)? & 0o7777,
        modified: extensions.modified.unwrap_or_else(|| header_time(header)),
        opaque: extensions.opaque,
    })
}

fn header_time(header: &Header) -> i64 {
    header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0)
}

fn device(header: &Header) -> Option<(u32, u32)> {
    let major = header.device_major().ok().flatten()?;
    let minor = header.device_minor().ok().flatten()?;
    Some((major, minor))
}

fn target(target: Vec<u8>, name: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
        return Err(refused(format!("entry {}: an impossible link target", show(name))));
    }
    Ok(target)
}
