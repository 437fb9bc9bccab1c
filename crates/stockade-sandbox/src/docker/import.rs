//! The images containers start from, kept by the daemon and shared by all of them.
//!
//! For the host's programs that is a skeleton: empty directories to mount on. For an OCI image it
//! is the image's files, with the sandbox's accounts and places to mount on on top. Either is
//! named by its content, made when the daemon first says that it does not know it, and removed by
//! the reaper when it is of no use any more.

use std::{
    collections::HashMap,
    fs,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{
    Docker, body_full, body_try_stream,
    query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use stockade_ports::sandbox::{RootFs, SandboxError};
use tar::Builder;
use tokio::sync::mpsc;

use super::{
    daemon::{is_conflict, is_unknown, step, words},
    flat,
};
use crate::native::{
    etc,
    launch::{
        image::EMPTY,
        rootfs::{DIRECTORIES, PROGRAMS},
    },
    unique,
};

/// Repositories of our images; the tag is a hash of what decides the content.
const SKELETON: &str = "stockade/skeleton";
const COPY: &str = "stockade/copy";
/// Label with what the image is of: `host`, or a digest.
const OF: &str = "dev.stockade.image";
/// Changes when what is put on top of an image does.
const FORMAT: &str = "2";
/// Longest an unused copy of an image is kept; making it again takes seconds.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest the daemon may take to unpack what it is sent.
const IMPORT: Duration = Duration::from_secs(1800);
/// Bytes sent at once.
const PIECE: usize = 256 * 1024;

/// The name the daemon knows an image by.
pub(super) fn reference(rootfs: &RootFs) -> String {
    match rootfs {
        RootFs::Host => skeleton().name.clone(),
        RootFs::Image(tree) => copy(&tree.digest),
    }
}

/// The name of the copy of an image with that digest.
fn copy(digest: &str) -> String {
    let mut hash = Sha256::new();
    for part in [FORMAT, env!("CARGO_PKG_VERSION"), digest] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    format!("{COPY}:{}", short(hash))
}

fn short(hash: Sha256) -> String {
    hex::encode(&hash.finalize()[..16])
}

/// The whole image for the host's programs.
struct Skeleton {
    archive: Bytes,
    name: String,
}

fn skeleton() -> &'static Skeleton {
    static MADE: OnceLock<Skeleton> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut builder = Builder::new(Vec::new());
        // Writing to memory does not fail.
        let archive = write_skeleton(&mut builder).and_then(|()| builder.into_inner());
        let archive = archive.unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(&archive);
        Skeleton {
            archive: archive.into(),
            name: format!("{SKELETON}:{}", short(hash)),
        }
    })
}

/// Links among the host's directories with programs (merged `/usr`) are links inside as well.
fn write_skeleton<W: Write>(to: &mut Builder<W>) -> io::Result<()> {
    for name in PROGRAMS {
        let host = Path::new("/").join(name);
        match fs::read_link(&host) {
            Ok(target) => flat::link(to, name, &target)?,
            Err(_) if host.is_dir() => flat::empty_directory(to, name)?,
            Err(_) => {}
        }
    }
    for dir in DIRECTORIES {
        flat::empty_directory(to, dir)?;
    }
    flat::link(to, "var/run", Path::new("/run"))
}

/// Has the daemon make the image that [`reference`] names. `scratch` is a directory for files
/// that are gone afterwards.
pub(super) async fn import(api: &Docker, rootfs: &RootFs, scratch: &Path) -> Result<(), SandboxError> {
    let name = reference(rootfs);
    let (repository, tag) = name.split_once(':').unwrap_or((&name, ""));
    let (of, body) = match rootfs {
        RootFs::Host => ("host", body_full(skeleton().archive.clone())),
        RootFs::Image(tree) => {
            let top = scratch.join(format!("top-{}-{}", std::process::id(), unique()));
            let archive = archive(top, tree.layers.clone());
            (tree.digest.as_str(), body_try_stream(archive))
        }
    };
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(repository)
        .tag(tag)
        .changes(vec![format!("LABEL {OF}={of}")])
        .build();
    let patient = api.clone().with_timeout(IMPORT);
    let mut progress = std::pin::pin!(patient.create_image(Some(options), Some(body), None));
    while let Some(line) = progress.next().await {
        line.map_err(step("give the Docker daemon the image"))?;
    }
    tracing::info!(image = name, of, "the Docker daemon has a new image");
    Ok(())
}

/// The archive of an image's layers below what every sandbox has, made while it is sent.
fn archive(top: PathBuf, layers: Vec<PathBuf>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (pieces, sent) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let made = (|| {
            for dir in DIRECTORIES {
                fs::create_dir_all(top.join(dir))?;
            }
            etc::write_generated(&top.join("etc"))?;
            let mut builder = Builder::new(BufWriter::with_capacity(PIECE, Pieces(pieces.clone())));
            let all: Vec<_> = std::iter::once(top.clone()).chain(layers).collect();
            flat::write(&all, &EMPTY, &mut builder)?;
            builder.into_inner()?.flush()
        })();
        let _ = fs::remove_dir_all(&top);
        if let Err(error) = made {
            // The request breaks off, and the daemon keeps nothing of it.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    futures::stream::unfold(sent, |mut sent| async { Some((sent.recv().await?, sent)) })
}

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Ok(Bytes::copy_from_slice(bytes));
        let sent = self.0.blocking_send(piece);
        sent.map_err(|_| io::Error::other("the Docker daemon stopped listening"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes images of ours that no container uses and no new one would, or has for long.
pub(super) async fn collect(api: &Docker) -> Result<(), SandboxError> {
    let filters = HashMap::from([("label", vec![OF])]);
    let options = ListImagesOptionsBuilder::new().all(false).filters(&filters).build();
    let images = api.list_images(Some(options)).await;
    for image in images.map_err(step("list the Docker daemon's images"))? {
        let of = image.labels.get(OF).map_or("", String::as_str);
        let current = match of {
            "host" => skeleton().name.clone(),
            digest => copy(digest),
        };
        let useful = image.repo_tags.contains(&current) && (of == "host" || !is_old(image.created));
        if useful {
            continue;
        }
        // Without force: the daemon refuses while a container uses it.
        let options = RemoveImageOptionsBuilder::new().build();
        match api.remove_image(&image.id, Some(options), None).await {
            Ok(_) => {}
            Err(error) if is_unknown(&error) || is_conflict(&error) => {}
            Err(error) => tracing::warn!(image = image.id, cause = words(&error), "an old image stays"),
        }
    }
    Ok(())
}

fn is_old(created: i64) -> bool {
    let made = UNIX_EPOCH + Duration::from_secs(u64::try_from(created).unwrap_or(0));
    SystemTime::now().duration_since(made).is_ok_and(|age| age > KEEP)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_image_is_named_by_its_content() {
        assert_eq!(copy("sha256:1"), copy("sha256:1"));
        assert_ne!(copy("sha256:1"), copy("sha256:2"));
        assert!(reference(&RootFs::Host).starts_with("stockade/skeleton:"));
        assert!(is_old(0));
    }

    #[test]
    fn the_skeleton_has_a_place_for_every_mount() {
        let mut archive = tar::Archive::new(&skeleton().archive[..]);
        let entries = archive.entries().expect("entries").map(|entry| {
            let entry = entry.expect("entry");
            let path = entry
                .path()
                .expect("path")
                .to_string_lossy()
                .trim_end_matches('/')
                .to_owned();
            (path, entry.link_name().expect("link").map(|link| link.into_owned()))
        });
        let entries: BTreeMap<_, _> = entries.collect();
        for dir in [
            "usr",
            "workspace",
            "opt/agents",
            "run/stockade/base.git",
            "home/agent",
            "tmp",
        ] {
            assert_eq!(entries.get(dir), Some(&None), "{dir}");
        }
        assert_eq!(entries["var/run"].as_deref(), Some(Path::new("/run")));
        let bin = fs::read_link("/bin").ok();
        assert_eq!(entries["bin"], bin, "as on this host");
    }

    #[tokio::test]
    async fn an_image_carries_the_sandboxs_accounts_whatever_its_own_are() {
        let dir = tempfile::tempdir().expect("dir");
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("etc")).expect("mkdir");
        fs::write(layer.join("etc/passwd"), "evil:x:0:0::/:/bin/sh\n").expect("writes");
        fs::write(layer.join("etc/os-release"), "ID=small\n").expect("writes");
        let top = dir.path().join("top");
        let pieces: Vec<_> = archive(top.clone(), vec![layer]).collect().await;
        let bytes: Vec<u8> = pieces
            .into_iter()
            .flat_map(|piece| piece.expect("a piece").to_vec())
            .collect();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut files = BTreeMap::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("entry");
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).expect("text");
            files.insert(entry.path().expect("path").to_string_lossy().into_owned(), text);
        }
        assert!(files["etc/passwd"].contains("agent:x:1000"), "{files:?}");
        assert_eq!(files["etc/os-release"], "ID=small\n");
        assert!(files.keys().any(|path| path.trim_end_matches('/') == "run/stockade"));
        assert!(!top.exists());
    }
}
