//! Copying a directory tree without following a link out of it.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{self as unix, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Whom the copies belong to; `None` keeps the caller.
pub(crate) type Owner = Option<(u32, u32)>;

/// Copies what is below `from` to below `to`, which exists. Links are copied as links;
/// sockets, devices and FIFOs are left out. Permission bits survive, set-uid bits do not.
pub(crate) fn copy_tree(from: &Path, to: &Path, owner: Owner) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&source, &target, owner)?;
            finish(&target, &meta, owner)?;
        } else if kind.is_symlink() {
            unix::symlink(fs::read_link(&source)?, &target)?;
            if let Some((uid, gid)) = owner {
                unix::lchown(&target, Some(uid), Some(gid))?;
            }
        } else if kind.is_file() {
            copy_file(&source, &target)?;
            finish(&target, &meta, owner)?;
        } else {
            debug_assert!(kind.is_fifo() || kind.is_socket() || !kind.is_file());
        }
    }
    Ok(())
}

fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    // The type was checked before; a link or FIFO put in its place meanwhile is refused.
    let mut from = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(source)?;
    if !from.metadata()?.is_file() {
        return Err(io::Error::other("it changed its type while it was copied"));
    }
    let mut to = File::create_new(target)?;
    io::copy(&mut from, &mut to).map(drop)
}

fn finish(target: &Path, meta: &fs::Metadata, owner: Owner) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        unix::chown(target, Some(uid), Some(gid))?;
    }
    fs::set_permissions(target, Permissions::from_mode(meta.mode() & 0o777))?;
    File::open(target)
        .and_then(|file| file.set_modified(meta.modified()?))
        // A directory without read permission cannot be opened; its time matters to nobody.
        .or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_links_and_special_files_stay_behind() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub")).expect("mkdir");
        fs::create_dir(&to).expect("mkdir");
        fs::write(from.join("sub/file"), b"text").expect("write");
        fs::set_permissions(from.join("sub/file"), Permissions::from_mode(0o4750)).expect("chmod");
        unix::symlink("/etc/passwd", from.join("link")).expect("link");
        nix::unistd::mkfifo(&from.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        copy_tree(&from, &to, None).expect("copies");
        assert_eq!(fs::read(to.join("sub/file")).expect("file"), b"text");
        let mode = fs::metadata(to.join("sub/file")).expect("meta").mode();
        assert_eq!(mode & 0o7777, 0o750);
        assert_eq!(fs::read_link(to.join("link")).expect("link"), Path::new("/etc/passwd"));
        assert!(!to.join("fifo").exists());
    }
}
