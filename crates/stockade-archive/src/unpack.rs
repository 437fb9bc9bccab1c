//! From a tar stream to a directory.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::BorrowedFd,
};

use rustix::fs::{FileType, Mode, fchmod};

use crate::{
    entry::{Entry, Kind, each, too_many},
    error::{ArchiveError, refused, system},
    names::{Name, show},
    tree::{Tree, is_whiteout, kind, set_link_time, set_time},
};

/// Start of the names by which image layers say that something is gone (OCI image
/// specification, "Whiteouts").
const GONE: &[u8] = b".wh.";
/// What hides everything below its directory.
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// Start of names that aufs kept for itself.
const AUFS: &[u8] = b".wh..wh.";

/// Whose dialect a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// A layer of an image. `.wh.` names become overlay's whiteouts and opaque directories.
    /// Devices are left out. An image has no owners here, so permission bits say for everybody
    /// what they say for the owner, and nobody may write.
    ImageLayer,
    /// What [`crate::pack()`] wrote: whiteouts are character devices 0:0, permission bits are kept.
    Snapshot,
}

/// How much a stream may ask for. How many bytes it has is the business of whoever reads it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries, and directories made because an entry is in them.
    pub entries: u64,
    /// Directories above an entry.
    pub depth: usize,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of the stream that made something.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Devices, FIFOs and aufs's own files that were left out.
    pub dropped: u64,
    /// The layer hides all layers below it. The root of an overlay cannot say so itself.
    pub opaque: bool,
}

/// Unpacks a stream into a directory, which should be empty and nobody else's.
///
/// Later entries replace earlier ones. On error what was unpacked so far is left there.
///
/// # Errors
///
/// [`ArchiveError::Refused`] with the entry and the reason; nothing outside `root` was touched.
pub fn unpack<R: Read>(
    stream: R,
    root: BorrowedFd<'_>,
    flavour: Flavour,
    limits: &Limits,
) -> Result<Unpacked, ArchiveError> {
    let root = crate::tree::reopen(root).map_err(system("open the directory"))?;
    let mut job = Job {
        tree: Tree::new(std::os::fd::AsFd::as_fd(&root)),
        flavour,
        limits: *limits,
        done: Unpacked::default(),
        directories: BTreeMap::new(),
    };
    each(stream, limits, |entry, content| job.entry(entry, content))?;
    job.finish()
}

struct Job<'a> {
    tree: Tree<'a>,
    flavour: Flavour,
    limits: Limits,
    done: Unpacked,
    /// Modes and times of directories, which they get at the end: a closed directory could not
    /// be filled, and filling changes the time.
    directories: BTreeMap<Name, (u32, i64)>,
}

impl Job<'_> {
    fn entry(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), ArchiveError> {
        self.done.entries += 1;
        if self.done.entries + self.tree.implied > self.limits.entries {
            return Err(too_many(self.limits.entries));
        }
        if self.flavour == Flavour::ImageLayer {
            if let Some((dir, last)) = entry.name.split()
                && last.starts_with(GONE)
            {
                return self.gone(&dir, last);
            }
            if matches!(entry.kind, Kind::Whiteout) {
                self.done.dropped += 1;
                return Ok(());
            }
        }
        self.place(entry, content)
    }

    /// A whiteout by name.
    fn gone(&mut self, dir: &Name, name: &[u8]) -> Result<(), ArchiveError> {
        if name == OPAQUE_NAME {
            if dir.is_root() {
                self.done.opaque = true;
                return Ok(());
            }
            return self.tree.opaque(dir);
        }
        if name.starts_with(AUFS) {
            self.done.dropped += 1;
            return Ok(());
        }
        let gone = &name[GONE.len()..];
        if gone.is_empty() || gone == b"." || gone == b".." {
            return Err(refused(format!(
                "entry {}: a whiteout of nothing",
                show(dir.child(name).bytes())
            )));
        }
        let gone = dir.child(gone);
        // It speaks of the layers below; what this layer has stays.
        match self.tree.look(&gone)? {
            None => self.tree.whiteout(&gone),
            Some(stat) if kind(&stat) == FileType::Directory => self.tree.opaque(&gone),
            Some(_) => Ok(()),
        }
    }

    fn place(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), ArchiveError> {
        let name = &entry.name;
        match &entry.kind {
            Kind::Directory => self.directory(&entry)?,
            Kind::File { size } => {
                self.tree.clear(name)?;
                let file = self.tree.file(name)?;
                self.fill(file, &entry, *size, content)?;
            }
            Kind::Symlink(target) => {
                self.tree.clear(name)?;
                self.tree.symlink(name, target)?;
                let modified = entry.modified;
                self.tree
                    .at(name, "set the time of", |dir, last| set_link_time(dir, last, modified))?;
            }
            Kind::Hard(target) => {
                if target == name {
                    return Err(refused(format!("entry {}: a hard link to itself", show(name.bytes()))));
                }
                self.tree.clear(name)?;
                self.tree.hard_link(name, target)?;
            }
            Kind::Whiteout => {
                self.tree.clear(name)?;
                self.tree.whiteout(name)?;
            }
            Kind::Special => self.done.dropped += 1,
        }
        Ok(())
    }

    fn directory(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        let name = &entry.name;
        let existing = self.tree.look(name)?;
        let there = name.is_root() || existing.is_some_and(|stat| kind(&stat) == FileType::Directory);
        if !there {
            let afresh = existing.is_some_and(|stat| is_whiteout(&stat));
            self.tree.clear(name)?;
            self.tree.directory(name)?;
            if afresh {
                self.tree.opaque(name)?;
            }
        }
        if entry.opaque && self.flavour == Flavour::Snapshot && !name.is_root() {
            self.tree.opaque(name)?;
        }
        self.directories
            .insert(name.clone(), (self.mode(entry.mode, true), entry.modified));
        Ok(())
    }

    fn fill(&mut self, mut file: File, entry: &Entry, size: u64, content: &mut dyn Read) -> Result<(), ArchiveError> {
        let what = || format!("write {}", show(entry.name.bytes()));
        let copied = copy(content, &mut file, what)?;
        if copied != size {
            return Err(refused(format!("the archive ends within {}", show(entry.name.bytes()))));
        }
        self.done.bytes += copied;
        let mode = Mode::from_raw_mode(self.mode(entry.mode, false));
        fchmod(&file, mode).map_err(system(what()))?;
        set_time(&file, entry.modified).map_err(system(what()))
    }

    fn mode(&self, raw: u32, directory: bool) -> u32 {
        match self.flavour {
            // The sticky bit stays: it only forbids.
            Flavour::Snapshot => raw & 0o1777,
            // The owner is whoever runs this and must be able to remove the tree.
            Flavour::ImageLayer if directory => 0o755,
            Flavour::ImageLayer if raw & 0o100 != 0 => 0o555,
            Flavour::ImageLayer => 0o444,
        }
    }

    fn finish(self) -> Result<Unpacked, ArchiveError> {
        // The innermost first: a directory that nobody may enter ends the way to those below it.
        for (name, (mode, modified)) in self.directories.iter().rev() {
            self.tree.finish(name, *mode, *modified)?;
        }
        Ok(self.done)
    }
}

/// Copies with reading and writing errors told apart.
fn copy(from: &mut dyn Read, to: &mut File, what: impl Fn() -> String) -> Result<u64, ArchiveError> {
    let mut buffer = [0; 64 * 1024];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                to.write_all(&buffer[..n]).map_err(system(what()))?;
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ArchiveError::Stream(e)),
        }
    }
}
