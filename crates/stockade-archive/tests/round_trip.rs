//! What is packed comes out again; what the streams of images say is not believed. The attacks on
//! unpacking stand with the image store, where they come from a registry.
#![allow(unused_crate_dependencies)]

use std::{
    fs::{self, File, Permissions},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
};

use stockade_archive::{ArchiveError, Flavour, Limits, OPAQUE, PackLimits, pack, unpack};

const LIMITS: Limits = Limits {
    entries: 1000,
    depth: 20,
};
const PACK: PackLimits = PackLimits {
    bytes: 1 << 20,
    entries: 1000,
    depth: 20,
};

fn packed(dir: &Path, limits: &PackLimits) -> Result<Vec<u8>, ArchiveError> {
    let mut stream = Vec::new();
    let root = File::open(dir).expect("dir");
    pack(root.as_fd(), &["a"], limits, &mut stream).map(|_| stream)
}

fn unpacked(stream: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    let root = File::open(dir.path()).expect("dir");
    unpack(stream, root.as_fd(), Flavour::Snapshot, &LIMITS).expect("unpacks");
    dir
}

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    let a = dir.path().join("a");
    fs::create_dir_all(a.join("sub/empty")).expect("mkdir");
    let long = a.join("sub").join("l".repeat(200));
    fs::write(&long, "long").expect("write");
    fs::hard_link(&long, a.join("sub/same")).expect("link");
    symlink("t".repeat(300), a.join("to")).expect("link");
    fs::set_permissions(&long, Permissions::from_mode(0o4741)).expect("chmod");
    let device = rustix::fs::FileType::CharacterDevice;
    let (none, file) = (rustix::fs::Mode::empty(), rustix::fs::CWD);
    rustix::fs::mknodat(file, a.join("gone"), device, none, 0).expect("whiteout");
    rustix::fs::mknodat(file, a.join("pipe"), rustix::fs::FileType::Fifo, none, 0).expect("fifo");
    rustix::fs::setxattr(a.join("sub"), OPAQUE, b"y", rustix::fs::XattrFlags::empty()).expect("opaque");
    fs::set_permissions(a.join("sub/empty"), Permissions::from_mode(0o1777)).expect("chmod");
    dir
}

#[test]
fn a_tree_comes_back_and_gives_the_same_stream() {
    let source = tree();
    let stream = packed(source.path(), &PACK).expect("packed");
    let copy = unpacked(&stream);
    let a = copy.path().join("a");
    let long = fs::metadata(a.join("sub").join("l".repeat(200))).expect("long");
    assert_eq!(
        (long.nlink(), long.permissions().mode() & 0o7777),
        (2, 0o741),
        "no set-uid bit"
    );
    assert_eq!(fs::read_link(a.join("to")).expect("link").as_os_str().len(), 300);
    let gone = fs::symlink_metadata(a.join("gone")).expect("whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(!a.join("pipe").exists());
    assert_eq!(
        fs::metadata(a.join("sub/empty")).expect("dir").permissions().mode() & 0o7777,
        0o1777
    );
    let mut value = [0; 4];
    let got = rustix::fs::getxattr(a.join("sub"), OPAQUE, &mut value[..]).expect("opaque");
    assert_eq!(&value[..got], b"y");
    assert_eq!(packed(copy.path(), &PACK).expect("packed"), stream);
}

#[test]
fn other_programs_can_read_it() {
    let source = tree();
    let stream = packed(source.path(), &PACK).expect("packed");
    let mut archive = tar::Archive::new(&stream[..]);
    let names: Vec<_> = archive
        .entries()
        .expect("entries")
        .map(|e| e.expect("entry").path().expect("path").into_owned())
        .collect();
    assert_eq!(names.len(), 7);
    assert!(names.contains(&Path::new("a/sub").join("l".repeat(200))));
}

#[test]
fn more_than_the_limits_is_refused() {
    let source = tree();
    assert!(packed(source.path(), &PACK).is_ok());
    for (why, limits) in [
        ("files", PackLimits { entries: 5, ..PACK }),
        ("bytes", PackLimits { bytes: 3, ..PACK }),
        ("deeper", PackLimits { depth: 1, ..PACK }),
    ] {
        let refused = packed(source.path(), &limits).expect_err(why).to_string();
        assert!(refused.contains(why), "{refused}");
    }
}
