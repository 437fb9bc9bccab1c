//! Layers of an image as one archive, the way a daemon imports it.
//!
//! The layers lie as overlayfs wants them (Documentation/filesystems/overlayfs.rst, "whiteouts
//! and opaque directories"): a character device 0:0 hides what is below it, and a directory with
//! the attribute `user.overlay.opaque=y` hides what is below that directory.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use tar::{Builder, EntryType, Header};

/// Writes everything that is visible in the layers, the uppermost first. Of the directories named
/// in `bare` only the uppermost layer's content is.
pub(super) fn write<W: Write>(layers: &[PathBuf], bare: &[&str], to: &mut Builder<W>) -> io::Result<()> {
    let mut flat = Flat {
        to,
        bare,
        linked: HashMap::new(),
    };
    let roots: Vec<PathBuf> = layers.to_vec();
    flat.directory(&roots, Path::new(""))
}

/// A directory without anything in it.
pub(super) fn empty_directory<W: Write>(to: &mut Builder<W>, path: &str) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    to.append_data(&mut header, path, io::empty())
}

/// A symbolic link.
pub(super) fn link<W: Write>(to: &mut Builder<W>, path: &str, target: &Path) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_mode(0o777);
    header.set_size(0);
    to.append_link(&mut header, path, target)
}

/// What the layers have under one name: directories are merged, of the rest the uppermost counts.
enum Seen {
    Hidden,
    Other(PathBuf, Metadata),
    Directories { all: Vec<PathBuf>, closed: bool },
}

struct Flat<'t, W: Write> {
    to: &'t mut Builder<W>,
    bare: &'t [&'t str],
    /// Files with several names, by device and number: the first name written.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Flat<'_, W> {
    fn directory(&mut self, layers: &[PathBuf], path: &Path) -> io::Result<()> {
        for (name, seen) in merged(layers)? {
            let path = path.join(name);
            match seen {
                Seen::Hidden => {}
                Seen::Other(from, meta) => self.other(&from, &meta, &path)?,
                Seen::Directories { mut all, .. } => {
                    if self.bare.iter().any(|bare| Path::new(bare) == path) {
                        all.truncate(1);
                    }
                    let meta = fs::symlink_metadata(&all[0])?;
                    let mut header = header(&meta, EntryType::Directory);
                    self.to.append_data(&mut header, &path, io::empty())?;
                    self.directory(&all, &path)?;
                }
            }
        }
        Ok(())
    }

    fn other(&mut self, from: &Path, meta: &Metadata, path: &Path) -> io::Result<()> {
        let kind = meta.file_type();
        if kind.is_symlink() {
            let mut header = header(meta, EntryType::Symlink);
            return self.to.append_link(&mut header, path, fs::read_link(from)?);
        }
        // Devices, sockets and pipes are nothing an image is for.
        if !kind.is_file() {
            return Ok(());
        }
        if meta.nlink() > 1 {
            let key = (meta.dev(), meta.ino());
            if let Some(first) = self.linked.get(&key) {
                let mut header = header(meta, EntryType::Link);
                return self.to.append_link(&mut header, path, first);
            }
            self.linked.insert(key, path.to_owned());
        }
        let mut header = header(meta, EntryType::Regular);
        header.set_size(meta.len());
        self.to.append_data(&mut header, path, File::open(from)?)
    }
}

fn header(meta: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(meta.uid().into());
    header.set_gid(meta.gid().into());
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// The names in one directory of several layers, sorted.
fn merged(layers: &[PathBuf]) -> io::Result<BTreeMap<OsString, Seen>> {
    let mut names: BTreeMap<OsString, Seen> = BTreeMap::new();
    for layer in layers {
        for entry in fs::read_dir(layer)? {
            let entry = entry?;
            let from = entry.path();
            let meta = fs::symlink_metadata(&from)?;
            let name = entry.file_name();
            match names.get_mut(&name) {
                None => {
                    names.insert(name, first(from, meta)?);
                }
                Some(Seen::Directories {
                    all,
                    closed: closed @ false,
                }) if meta.is_dir() => {
                    *closed = is_opaque(&from)?;
                    all.push(from);
                }
                // What is no directory ends the merge: whatever is below belongs to another one.
                Some(Seen::Directories { closed, .. }) => *closed = true,
                Some(_) => {}
            }
        }
    }
    Ok(names)
}

fn first(from: PathBuf, meta: Metadata) -> io::Result<Seen> {
    if meta.file_type().is_char_device() && meta.rdev() == 0 {
        return Ok(Seen::Hidden);
    }
    if meta.is_dir() {
        let closed = is_opaque(&from)?;
        return Ok(Seen::Directories {
            all: vec![from],
            closed,
        });
    }
    Ok(Seen::Other(from, meta))
}

fn is_opaque(dir: &Path) -> io::Result<bool> {
    let value = attribute(dir.as_os_str(), c"user.overlay.opaque")?;
    Ok(value.as_deref() == Some(b"y"))
}

#[allow(unsafe_code)]
fn attribute(path: &OsStr, name: &std::ffi::CStr) -> io::Result<Option<Vec<u8>>> {
    let path = std::ffi::CString::new(path.as_bytes())?;
    let mut value = [0_u8; 16];
    // SAFETY: both names end with NUL, and the kernel writes at most the length it is given.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match usize::try_from(length) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(_) => match io::Error::last_os_error() {
            e if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP | libc::ERANGE)) => Ok(None),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[allow(unsafe_code)]
    fn opaque(dir: &Path) {
        let path = std::ffi::CString::new(dir.as_os_str().as_bytes()).expect("path");
        // SAFETY: names end with NUL; one byte is read.
        let done = unsafe {
            libc::setxattr(
                path.as_ptr(),
                c"user.overlay.opaque".as_ptr(),
                b"y".as_ptr().cast(),
                1,
                0,
            )
        };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    #[allow(unsafe_code)]
    fn whiteout(path: &Path) {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("path");
        // SAFETY: the name ends with NUL.
        let done = unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR, 0) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(path, text).expect("write");
    }

    fn listing(layers: &[PathBuf]) -> BTreeMap<String, String> {
        let mut builder = Builder::new(Vec::new());
        write(layers, &["bare"], &mut builder).expect("writes");
        let bytes = builder.into_inner().expect("ends");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut found = BTreeMap::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("entry");
            let path = entry.path().expect("path").to_string_lossy().into_owned();
            let kind = entry.header().entry_type();
            let mut text = String::new();
            let target = entry
                .link_name()
                .expect("link")
                .map(|l| l.to_string_lossy().into_owned());
            match kind {
                EntryType::Directory => text.push('/'),
                EntryType::Symlink => text = format!("-> {}", target.expect("target")),
                EntryType::Link => text = format!("= {}", target.expect("target")),
                _ => {
                    io::Read::read_to_string(&mut entry, &mut text).expect("text");
                }
            }
            assert!(
                found.insert(path.trim_end_matches('/').to_owned(), text).is_none(),
                "{path} twice"
            );
        }
        found
    }

    #[test]
    fn the_uppermost_layer_wins_and_hides_what_it_removed() {
        let dir = tempfile::tempdir().expect("dir");
        let [top, middle, bottom] = ["top", "middle", "bottom"].map(|name| dir.path().join(name));
        put(&bottom, "etc/keep", "bottom");
        put(&bottom, "etc/change", "bottom");
        put(&bottom, "etc/gone", "bottom");
        put(&bottom, "data/old", "bottom");
        put(&bottom, "was-dir/inside", "bottom");
        put(&bottom, "was-file", "bottom");
        put(&bottom, "back/first", "bottom");
        put(&bottom, "bare/hidden", "bottom");
        put(&top, "bare/shown", "top");
        put(&middle, "etc/change", "middle");
        whiteout(&middle.join("etc/gone"));
        whiteout(&middle.join("back"));
        put(&middle, "was-dir", "now a file");
        put(&middle, "was-file/inside", "now a directory");
        put(&top, "data/new", "top");
        opaque(&top.join("data"));
        put(&top, "back/second", "top");
        symlink("/etc/keep", top.join("link")).expect("link");
        let seen = listing(&[top, middle, bottom]);
        let expected = [
            ("back", "/"),
            ("back/second", "top"),
            ("bare", "/"),
            ("bare/shown", "top"),
            ("data", "/"),
            ("data/new", "top"),
            ("etc", "/"),
            ("etc/change", "middle"),
            ("etc/keep", "bottom"),
            ("link", "-> /etc/keep"),
            ("was-dir", "now a file"),
            ("was-file", "/"),
            ("was-file/inside", "now a directory"),
        ];
        let expected = expected.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(seen, BTreeMap::from(expected));
    }

    #[test]
    fn one_file_with_two_names_stays_one_file() {
        let dir = tempfile::tempdir().expect("dir");
        put(dir.path(), "a", "same");
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).expect("link");
        let seen = listing(&[dir.path().to_owned()]);
        assert_eq!(seen["a"], "same");
        assert_eq!(seen["b"], "= a");
    }
}
