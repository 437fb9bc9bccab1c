//! The writable layer kept and brought back: what was there, nothing else, and nothing changed.

use std::{
    fs,
    os::fd::AsFd,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use stockade_ports::sandbox::{Exit, SandboxError, SandboxHandle, SandboxSpec, Snapshot};

use stockade_archive::{PackLimits, pack};

use crate::{
    bed::{Bed, refused, sh},
    modes::{Mode, cases},
};

cases!(;
    native:
    what_was_written_comes_back,
    the_same_files_give_the_same_archive,
    a_changed_archive_is_refused,
    one_that_does_not_fit_is_refused,
    hostile_names_and_files_do_no_harm,
    an_archive_made_elsewhere_is_restored,
);

/// Whether sandboxes can be made to stand still here, which a snapshot needs. Rootless that takes a
/// delegated cgroup; without one the refusal must name what is missing, and leave nothing.
async fn can_be_taken(bed: &Bed) -> bool {
    let handle = bed.create().await;
    if handle.pause().await.is_ok() {
        handle.resume().await.expect("resumed");
        return true;
    }
    assert_ne!(bed.mode, Mode::Root, "root makes cgroups");
    let error = refused(handle.snapshot(&dir(bed)).await);
    assert!(error.to_string().contains("cgroup"), "{error}");
    assert_eq!(fs::read_dir(dir(bed)).expect("dir").count(), 0);
    false
}

/// A snapshot put together by hand: restoring needs nothing that an ordinary user lacks.
async fn an_archive_made_elsewhere_is_restored(bed: Bed) {
    let tree = bed.dir.join("state/tree");
    for name in ["d/home/sub", "d/tmp", "d/var-tmp", "w/upper/src", "d/shm", "r/usr"] {
        fs::create_dir_all(tree.join(name)).expect("mkdir");
    }
    for (name, text) in [
        ("d/home/sub/f", "1"),
        ("w/upper/new", "2"),
        ("w/kind", "stacked"),
        ("d/shm/x", "not kept"),
        ("r/usr/x", "no part"),
    ] {
        fs::write(tree.join(name), text).expect("write");
    }
    let gone = tree.join("w/upper/README");
    let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty());
    nix::sys::stat::mknod(&gone, kind, mode, 0).expect("whiteout");
    rustix::fs::setxattr(
        tree.join("w/upper/src"),
        "user.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .expect("opaque");
    let limits = PackLimits {
        bytes: 1 << 20,
        entries: 1000,
        depth: 10,
    };
    let mut tar = Vec::new();
    let root = fs::File::open(&tree).expect("tree");
    pack(root.as_fd(), &["d", "r", "w"], &limits, &mut tar).expect("packed");
    let bytes = zstd::encode_all(&tar[..], 3).expect("zstd");
    let archive = dir(&bed).join(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)));
    fs::write(&archive, bytes).expect("archive");
    let handle = bed.create_from(from(&bed, &archive)).await;
    let seen = says(
        &handle,
        "cat ~/sub/f new; ls -A . src /dev/shm; test -e /usr/x || echo none",
    )
    .await;
    assert_eq!(seen, "12.:\nnew\nsrc\n\n/dev/shm:\n\nsrc:\nnone");
    // Without the workspace it was taken on it would be something else.
    let mut spec = from(&bed, &archive);
    spec.workspace = None;
    let error = refused(bed.sandbox.create(spec).await);
    assert!(error.to_string().contains("workspace"), "{error}");
}

fn dir(bed: &Bed) -> PathBuf {
    let dir = bed.dir.join("state/snapshots");
    fs::create_dir_all(&dir).expect("mkdir");
    dir
}

async fn says(handle: &Arc<dyn SandboxHandle>, script: &str) -> String {
    sh(&**handle, script).await.ok().trim().to_owned()
}

async fn take(bed: &Bed, handle: &Arc<dyn SandboxHandle>) -> (Snapshot, PathBuf) {
    let snapshot = handle.snapshot(&dir(bed)).await.unwrap_or_else(|e| panic!("{e}"));
    let name = snapshot.digest.strip_prefix("sha256:").expect("a digest").to_owned();
    let path = dir(bed).join(name);
    let meta = fs::metadata(&path).expect("the archive");
    assert_eq!(
        (meta.len(), meta.permissions().mode() & 0o7777),
        (snapshot.bytes, 0o600)
    );
    assert_eq!(
        fs::read_dir(dir(bed))
            .expect("dir")
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with('.'))
            .count(),
        0
    );
    (snapshot, path)
}

fn from(bed: &Bed, archive: &Path) -> SandboxSpec {
    SandboxSpec {
        restore: Some(archive.to_owned()),
        ..bed.spec()
    }
}

/// Everything an agent may do to files, and what it looks like afterwards.
const CHANGES: &str = "echo one > new; echo two > README; rm src/lib; mkdir src/sub; echo x > src/sub/a; \
    mv src/sub src/renamed; mkdir gone; rmdir gone; ln -s /etc/passwd link; ln new hard; \
    echo h > ~/.profile; echo t > /tmp/t; echo v > /var/tmp/v; chmod 4751 new; chmod 0 README; touch -d @1000000000 ~/.profile; \
    mkdir -p ~/closed/in; echo c > ~/closed/in/f; chmod 0 ~/closed; echo s > /dev/shm/s";
const LOOK: &str = "chmod 600 README; chmod 700 ~/closed; cat new README src/renamed/a ~/.profile /tmp/t /var/tmp/v ~/closed/in/f; \
    ls -A . src /dev/shm; readlink link; stat -c '%a %h' new; stat -c %Y ~/.profile; stat -c %a /tmp /var/tmp ~";

async fn what_was_written_comes_back(bed: Bed) {
    if !can_be_taken(&bed).await {
        return;
    }
    let first = bed.create().await;
    says(&first, CHANGES).await;
    let (_, archive) = take(&bed, &first).await;
    assert_eq!(says(&first, "cat new; echo later >> new; echo on").await, "one\non");
    first.destroy().await.expect("destroyed");
    let again = bed.create_from(from(&bed, &archive)).await;
    let seen = says(&again, LOOK).await;
    let expected = "one\ntwo\nx\nh\nt\nv\nc\n.:\nREADME\nhard\nlink\nnew\nsrc\n\n/dev/shm:\n\nsrc:\nrenamed\n\
        /etc/passwd\n751 2\n1000000000\n1777\n1777\n755";
    assert_eq!(seen, expected);
    // It is a sandbox like any other, and the workspace outside is as it was.
    assert_eq!(
        says(&again, "rm -r src; echo y > new; ls").await,
        "README\nhard\nlink\nnew"
    );
    assert_eq!(
        fs::read_to_string(bed.dir.join("workspace/src/lib")).expect("kept"),
        "code"
    );
}

async fn the_same_files_give_the_same_archive(bed: Bed) {
    if !can_be_taken(&bed).await {
        return;
    }
    let first = bed.create().await;
    says(&first, "mkdir -p a/b; echo 1 > a/b/c; rm src/lib; echo 2 > ~/d").await;
    let (one, archive) = take(&bed, &first).await;
    let (two, _) = take(&bed, &first).await;
    assert_eq!(one, two);
    let again = bed.create_from(from(&bed, &archive)).await;
    let (three, _) = take(&bed, &again).await;
    assert_eq!(one, three, "restored and kept again it is the same");
    says(&again, "echo 3 > ~/d").await;
    assert_ne!(take(&bed, &again).await.0.digest, one.digest);
}

async fn a_changed_archive_is_refused(bed: Bed) {
    if !can_be_taken(&bed).await {
        return;
    }
    let first = bed.create().await;
    says(&first, "echo secret > note").await;
    let (_, archive) = take(&bed, &first).await;
    let honest = fs::read(&archive).expect("archive");
    let mut longer = honest.clone();
    longer.extend_from_slice(b"more");
    let mut flipped = honest.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for changed in [longer, flipped, honest[..honest.len() - 3].to_vec(), Vec::new()] {
        fs::write(&archive, changed).expect("changed");
        let error = refused(bed.sandbox.create(from(&bed, &archive)).await);
        assert!(error.to_string().contains("restore the snapshot"), "{error}");
    }
    let misnamed = archive.with_file_name("0".repeat(64));
    fs::write(&misnamed, &honest).expect("misnamed");
    let error = refused(bed.sandbox.create(from(&bed, &misnamed)).await);
    assert!(error.to_string().contains("changed"), "{error}");
    for wrong in [
        archive.with_file_name("snapshot.tar.zst"),
        archive.with_file_name("1".repeat(64)),
    ] {
        let error = refused(bed.sandbox.create(from(&bed, &wrong)).await);
        assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
    }
    // The control: the honest one is taken.
    fs::write(&archive, honest).expect("restored");
    assert_eq!(
        says(&bed.create_from(from(&bed, &archive)).await, "cat note").await,
        "secret"
    );
}

async fn one_that_does_not_fit_is_refused(bed: Bed) {
    if !can_be_taken(&bed).await {
        return;
    }
    let first = bed.create().await;
    let full = sh(
        &*first,
        "head -c 30000000 /dev/urandom > big; head -c 100000000 /dev/zero > ~/fill",
    )
    .await;
    assert_ne!(full.exit, Exit::Code(0), "the disk is full");
    let (_, archive) = take(&bed, &first).await;
    let mut spec = from(&bed, &archive);
    assert_eq!(
        says(&bed.create_from(spec.clone()).await, "stat -c %s big").await,
        "30000000"
    );
    spec.limits.disk_bytes = 16 << 20;
    let error = refused(bed.sandbox.create(spec).await);
    assert!(error.to_string().contains("does not fit"), "{error}");
    // A file larger than the disk, made of holes, is no way to fill the host's.
    says(&first, "rm ~/fill big; truncate -s 1T ~/holes").await;
    let error = refused(first.snapshot(&dir(&bed)).await);
    assert!(error.to_string().contains("holes"), "{error}");
    assert_eq!(
        fs::read_dir(dir(&bed)).expect("dir").count(),
        1,
        "nothing is left of it"
    );
    assert_eq!(says(&first, "echo alive").await, "alive", "and it goes on");
}

async fn hostile_names_and_files_do_no_harm(bed: Bed) {
    if !can_be_taken(&bed).await {
        return;
    }
    let first = bed.create().await;
    let long = "n".repeat(255);
    let script = format!(
        "mkfifo pipe; ln -s / root; ln -s ../../../.. up; ln -s /proc/1/root host; touch -- '-rf' \"$(printf 'a\\nb')\" \"$(printf '\\377\\001')\" \
         .wh.README .wh..wh..opq {long}; mkdir -p {long}x 2>/dev/null; mkdir root2; echo in > root2/f; \
         d=deep; i=0; while [ $i -lt 15 ]; do mkdir -p \"$d\"; d=\"$d/{long}\"; i=$((i+1)); done; ls -A | wc -l; find . | wc -l"
    );
    let before = sh(&*first, &script).await.ok();
    let (_, archive) = take(&bed, &first).await;
    let again = bed.create_from(from(&bed, &archive)).await;
    let after = says(
        &again,
        "ls -A | wc -l; find . | wc -l; test -e pipe || echo none; cat README; readlink root up host",
    )
    .await;
    let mut counts = before
        .split_whitespace()
        .map(|n| n.parse::<u32>().expect("a number") - 1);
    let (entries, all) = (counts.next().expect("entries"), counts.next().expect("all"));
    assert_eq!(
        after,
        format!("{entries}\n{all}\nnone\noriginal/\n../../../..\n/proc/1/root")
    );
    let owner = fs::metadata(&archive).expect("archive").uid();
    assert_eq!(
        owner,
        nix::unistd::geteuid().as_raw(),
        "the host's file, not the agent's"
    );
    // Deeper than anything an honest tree is.
    says(
        &first,
        "cd ~; i=0; while [ $i -lt 300 ]; do mkdir d && cd d; i=$((i+1)); done",
    )
    .await;
    let error = refused(first.snapshot(&dir(&bed)).await);
    assert!(error.to_string().contains("deeper"), "{error}");
}
