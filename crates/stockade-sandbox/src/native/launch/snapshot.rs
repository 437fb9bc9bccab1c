//! The writable layer on its way out of a sandbox and into another.
//!
//! What is in it belongs to an agent, so nobody with rights on the host touches it. The archiver
//! is a process that the zygote forks and that becomes the sandbox's user: it enters the sandbox's
//! user namespace and makes the layer its root directory, so it can read every file of the
//! sandbox (the agent may have closed some to itself) and none of the host, whatever the files
//! are called or lead to. It has two descriptors: the layer, and the file it writes to. The
//! restorer is the first process of the new sandbox, before anything of it is mounted.
//!
//! Neither follows a link, and of special files only overlay's whiteouts pass.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::statvfs::fstatvfs,
    unistd::{chdir, chroot, fchdir, geteuid},
};
use sha2::{Digest, Sha256};
use stockade_archive::{ArchiveError, Flavour, Limits, PackLimits, pack, unpack};

use super::{
    child::take_identity,
    confine,
    rootfs::directory,
    wire::{self, Report},
};
use crate::failure::{Failure, Step};

/// What an archive holds, beneath the layer's root: home, temporary files, what differs from the
/// workspace, and how that is written down. Shared memory belongs to processes and is left out.
const PARTS: [&str; 5] = ["d/home", "d/tmp", "d/var-tmp", "w/upper", KIND];
/// Says whether the workspace is a difference or whole.
const KIND: &str = "w/kind";
/// Where an archive is unpacked before its parts take their places.
const ASIDE: &str = "s";
/// Directories above a file. Each costs a descriptor while it is walked.
const DEPTH: usize = 256;
const LEVEL: i32 = 3;
const OUT: &str = "archive the writable layer";
const IN: &str = "restore the snapshot";

/// An archive that is to be restored, opened with the rights of whoever may.
pub(super) struct Restore {
    archive: File,
    /// SHA-256 in hexadecimal.
    digest: String,
}

impl Restore {
    /// Opens an archive. Its name is its digest.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Ok(Self {
            archive: File::open(path).step(format!("open the snapshot {}", path.display()))?,
            digest: name.to_owned(),
        })
    }

    /// Fills the fresh layer, which is the working directory. Nothing of it is in use before the
    /// archive's last byte was read and its digest found right.
    pub(super) fn fill(&self) -> Result<(), Failure> {
        directory(ASIDE, 0o700)?;
        let root = File::open(ASIDE).step(IN)?;
        let hashing = Hashing {
            archive: &self.archive,
            hash: Sha256::new(),
        };
        let mut stream = zstd::Decoder::new(hashing).step(IN)?;
        let files = fstatvfs(&root).step(IN)?.files();
        let limits = Limits {
            entries: files,
            depth: DEPTH + 2,
        };
        unpack(&mut stream, root.as_fd(), Flavour::Snapshot, &limits).map_err(|e| unfit(&e))?;
        io::copy(&mut stream, &mut io::sink()).step(IN)?;
        // The decoder stops at the end of its frame; what follows counts for the digest.
        let mut hashing = stream.finish();
        io::copy(&mut hashing, &mut io::sink()).step(IN)?;
        let found = hex::encode(hashing.into_inner().hash.finalize());
        if found != self.digest {
            let why = format!(
                "its content is sha256:{found} and its name says {}: it was changed",
                self.digest
            );
            return Err(Failure::new(IN, why));
        }
        for part in PARTS {
            take_place(part)?;
        }
        fs::remove_dir_all(ASIDE).step(IN)
    }
}

/// Puts a part in its place, if the archive has it and it is what it should be.
fn take_place(part: &str) -> Result<(), Failure> {
    let from = format!("{ASIDE}/{part}");
    let Ok(meta) = fs::symlink_metadata(&from) else {
        return Ok(());
    };
    let right = if part == KIND { meta.is_file() } else { meta.is_dir() };
    if !right {
        return Err(Failure::new(IN, format!("'{part}' in it is not what it should be")));
    }
    fs::rename(&from, part).step(IN)
}

fn unfit(error: &ArchiveError) -> Failure {
    match error.is_full() {
        true => Failure::new(IN, "it does not fit into the sandbox's disk limit"),
        false => Failure::new(IN, error),
    }
}

/// Notes how the workspace is kept, or compares with how it was when the snapshot was taken.
pub(super) fn note_kind(kind: &str) -> Result<(), Failure> {
    match fs::read_to_string(KIND) {
        Ok(noted) if noted == kind => Ok(()),
        Ok(_) => Err(Failure::new(
            IN,
            "its workspace was kept in another way (stacked or copied, or there was none): restore it with the same \
             settings and workspace",
        )),
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::write(KIND, kind).step("note the kind of workspace"),
        Err(e) => Err(Failure::new(IN, e)),
    }
}

/// Hashes what is read through it.
struct Hashing<'a> {
    archive: &'a File,
    hash: Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.archive.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Runs the archiver; the result is the process's exit code. `fds` are the root of a layer, the
/// user namespace of its sandbox and the file to write to.
pub(super) fn run(host: BorrowedFd<'_>, fds: Vec<OwnedFd>) -> i32 {
    let done = match <[OwnedFd; 3]>::try_from(fds) {
        Ok([layer, user, out]) => archive(&layer, &user, out),
        Err(_) => Err(Failure::new(OUT, "descriptors are missing")),
    };
    let code = i32::from(done.is_err());
    let report = done.map_or_else(Report::Failed, |()| Report::Archived);
    let _ = wire::send(host, &report, &[]);
    code
}

fn archive(layer: &OwnedFd, user: &OwnedFd, out: OwnedFd) -> Result<(), Failure> {
    let root = geteuid().is_root();
    setns(user, CloneFlags::CLONE_NEWUSER).step(OUT)?;
    take_identity(root)?;
    confine::die_with_parent().step(OUT)?;
    fchdir(layer).step(OUT)?;
    chroot(".").step(OUT)?;
    chdir("/").step(OUT)?;
    let size = fstatvfs(layer).step(OUT)?;
    let limits = PackLimits {
        bytes: size.blocks().saturating_mul(size.fragment_size()),
        entries: size.files(),
        depth: DEPTH,
    };
    let mut stream = zstd::Encoder::new(File::from(out), LEVEL).step(OUT)?;
    let present: Vec<_> = PARTS
        .into_iter()
        .filter(|part| Path::new(part).symlink_metadata().is_ok())
        .collect();
    pack(layer.as_fd(), &present, &limits, &mut stream).step(OUT)?;
    stream.finish().and_then(|out| out.sync_all()).step(OUT)
}
