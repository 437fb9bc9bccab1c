//! From a directory to a tar stream: sorted, without owners, the same for the same tree.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fgetxattr, openat, readlinkat, statat},
    io::Errno,
};
use tar::{EntryType, Header};

use crate::{
    OPAQUE,
    error::{ArchiveError, refused, system},
    names::{Name, show},
    tree::{is_whiteout, kind},
    walk,
};

const BLOCK: u64 = 512;

/// How much a tree may hold.
#[derive(Debug, Clone, Copy)]
pub struct PackLimits {
    /// Bytes of files, holes counted.
    pub bytes: u64,
    /// Files, directories, links and whiteouts.
    pub entries: u64,
    /// Directories above a file.
    pub depth: usize,
}

/// What was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Entries written.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// FIFOs, sockets and devices that were left out.
    pub dropped: u64,
}

/// Writes directories of `root` as one stream: the named ones, each with what is below it.
///
/// Nobody may change the tree meanwhile. Links are written as links and never followed; hard links
/// within the tree stay hard links. Sorted by name, without owners, times in whole seconds: the
/// same tree gives the same bytes.
///
/// # Errors
///
/// [`ArchiveError::Refused`] when a limit is passed.
pub fn pack<W: Write>(
    root: BorrowedFd<'_>,
    names: &[&str],
    limits: &PackLimits,
    to: &mut W,
) -> Result<Packed, ArchiveError> {
    let mut job = Job {
        to,
        limits: *limits,
        done: Packed::default(),
        seen: HashMap::new(),
    };
    let mut names: Vec<_> = names.to_vec();
    names.sort_unstable();
    for name in names {
        let path = Name::parse(name.as_bytes(), limits.depth)?;
        job.entry(root, name.as_bytes(), &path, 0)?;
    }
    // Two blocks of zeros end an archive.
    job.write(&[0; 2 * BLOCK as usize])?;
    Ok(job.done)
}

struct Job<'a, W> {
    to: &'a mut W,
    limits: PackLimits,
    done: Packed,
    /// First names of files that have several.
    seen: HashMap<(u64, u64), Name>,
}

impl<W: Write> Job<'_, W> {
    fn entry(&mut self, dir: BorrowedFd<'_>, last: &[u8], name: &Name, depth: usize) -> Result<(), ArchiveError> {
        let step = || format!("read {}", show(name.bytes()));
        let stat = statat(dir, last, AtFlags::SYMLINK_NOFOLLOW).map_err(system(step()))?;
        self.done.entries += 1;
        if self.done.entries > self.limits.entries {
            return Err(refused(format!("there are more than {} files", self.limits.entries)));
        }
        if depth > self.limits.depth || name.bytes().len() > 4095 {
            return Err(refused(format!(
                "{} is deeper than {} directories",
                show(name.bytes()),
                self.limits.depth
            )));
        }
        match kind(&stat) {
            FileType::Directory => self.directory(dir, last, name, &stat, depth),
            FileType::RegularFile => self.file(dir, last, name, &stat),
            FileType::Symlink => {
                let target = readlinkat(dir, last, Vec::new()).map_err(system(step()))?;
                self.header(name, &stat, EntryType::Symlink, 0, Some(target.to_bytes()), false)
            }
            FileType::CharacterDevice if is_whiteout(&stat) => {
                self.header(name, &stat, EntryType::Char, 0, None, false)
            }
            _ => {
                self.done.dropped += 1;
                Ok(())
            }
        }
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        last: &[u8],
        name: &Name,
        stat: &Stat,
        depth: usize,
    ) -> Result<(), ArchiveError> {
        let step = || format!("read {}", show(name.bytes()));
        let dir = walk::open_dir(parent, last).map_err(system(step()))?;
        let opaque = is_opaque(dir.as_fd()).map_err(system(step()))?;
        self.header(name, stat, EntryType::Directory, 0, None, opaque)?;
        for entry in walk::names(dir.as_fd()).map_err(system(step()))? {
            self.entry(dir.as_fd(), &entry, &name.child(&entry), depth + 1)?;
        }
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd<'_>, last: &[u8], name: &Name, stat: &Stat) -> Result<(), ArchiveError> {
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.seen.get(&inode).cloned() {
                return self.header(name, stat, EntryType::Link, 0, Some(first.bytes()), false);
            }
            self.seen.insert(inode, name.clone());
        }
        let step = || format!("read {}", show(name.bytes()));
        // Not blocking: what was a file a moment ago might be a FIFO now.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(dir, last, flags, Mode::empty()).map_err(system(step()))?);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.done.bytes = self.done.bytes.saturating_add(size);
        if self.done.bytes > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(refused(format!(
                "with {} the files are larger than {limit} bytes",
                show(name.bytes())
            )));
        }
        self.header(name, stat, EntryType::Regular, size, None, false)?;
        let written = io::copy(&mut file.take(size), self.to).map_err(system(step()))?;
        if written != size {
            return Err(refused(format!(
                "{} became smaller while it was read",
                show(name.bytes())
            )));
        }
        self.pad(size)
    }

    fn header(
        &mut self,
        name: &Name,
        stat: &Stat,
        kind: EntryType,
        size: u64,
        link: Option<&[u8]>,
        opaque: bool,
    ) -> Result<(), ArchiveError> {
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        if !set_text(&mut header.as_old_mut().name, name.bytes()) {
            record(&mut records, b"path", name.bytes());
        }
        if let Some(link) = link
            && !set_text(&mut header.as_old_mut().linkname, link)
        {
            record(&mut records, b"linkpath", link);
        }
        if opaque {
            record(&mut records, format!("SCHILY.xattr.{OPAQUE}").as_bytes(), b"y");
        }
        if !records.is_empty() {
            self.extension(&records)?;
        }
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o1777);
        header.set_size(size);
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        self.block(&mut header)
    }

    fn extension(&mut self, records: &[u8]) -> Result<(), ArchiveError> {
        let mut header = Header::new_ustar();
        set_text(&mut header.as_old_mut().name, b"pax");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        self.block(&mut header)?;
        self.write(records)?;
        self.pad(records.len() as u64)
    }

    fn block(&mut self, header: &mut Header) -> Result<(), ArchiveError> {
        header.set_uid(0);
        header.set_gid(0);
        // A ustar header has these fields: setting them cannot fail.
        let _ = header.set_device_major(0).and(header.set_device_minor(0));
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let missing = size.next_multiple_of(BLOCK) - size;
        self.write(&[0; BLOCK as usize][..usize::try_from(missing).unwrap_or(0)])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.to.write_all(bytes).map_err(system("write the archive"))
    }
}

/// Puts text into a field of the header; `false` when it does not fit.
fn set_text(field: &mut [u8], text: &[u8]) -> bool {
    // Without its NUL a full field is legal and read wrongly by some.
    let fits = text.len() < field.len();
    let kept = &text[..text.len().min(field.len() - 1)];
    field[..kept.len()].copy_from_slice(kept);
    fits
}

/// One record of a pax header. Its length counts its own digits.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

fn is_opaque(dir: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut value = [0; 8];
    match fgetxattr(dir, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}
