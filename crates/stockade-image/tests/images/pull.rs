//! Images that are as they should be.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use secrecy::SecretString;
use serde_json::json;
use stockade_image::Credential;
use stockade_ports::{ImageError, Images, PullProgress};

use crate::{
    craft::{As, Image, Layer, Store, digest, push, tree},
    server::{PASSWORD, Server, USER},
};

fn simple() -> Layer {
    let layer = Layer::new().dir("./").dir("./etc/").file("./etc/hello", "world");
    let layer = layer
        .entry("usr/bin/tool", b'0', 0o6755, "", b"#!/bin/sh\n")
        .symlink("link", "/etc/hello");
    layer.hard("usr/bin/same", "usr/bin/tool")
}

fn read(dir: &std::path::Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[tokio::test]
async fn layers_of_every_compression_come_out_the_same() {
    let (server, store) = (Server::start(), Store::new());
    for (name, how) in [
        ("tar", As::Tar),
        ("gzip", As::Gzip),
        ("zstd", As::Zstd),
        ("docker", As::DockerGzip),
    ] {
        // A file of its own: otherwise the second pull would find the first one's layer.
        let layer = simple().file("name", name);
        let reference = Image::of(vec![(layer, how)]).push(&server, name).await;
        let image = store.pull(&reference).await.unwrap_or_else(|e| panic!("{e}"));
        let tree = tree(&image);
        assert_eq!(
            (read(&tree, "name").as_str(), read(&tree, "etc/hello").as_str()),
            (name, "world")
        );
        assert_eq!(
            fs::read_link(tree.join("link")).expect("link").to_str(),
            Some("/etc/hello")
        );
        let tool = fs::metadata(tree.join("usr/bin/tool")).expect("tool");
        assert_eq!(
            tool.permissions().mode() & 0o7777,
            0o555,
            "no set-uid bit, not writable"
        );
        assert_eq!(tool.ino(), fs::metadata(tree.join("usr/bin/same")).expect("same").ino());
        assert_eq!(tool.mtime(), 1_000_000_000);
        assert_eq!(image.pinned, reference);
        assert_eq!(image.env, [("COLOUR".to_owned(), "blue".to_owned())]);
    }
    assert_eq!(store.count("downloads"), 0);
    assert_eq!(store.count("tmp"), 0);
}

#[tokio::test]
async fn whiteouts_are_what_overlayfs_takes_for_them() {
    let (server, store) = (Server::start(), Store::new());
    let below = Layer::new()
        .file("a", "1")
        .file("dir/b", "2")
        .file("dir/c", "3")
        .file("kept/d", "4");
    let above = Layer::new()
        .file(".wh.a", "")
        .file("dir/.wh..wh..opq", "")
        .file("dir/new", "5");
    // The layer's own file stays, whatever the order.
    let above = above
        .file("kept/d", "6")
        .file("kept/.wh.d", "")
        .file(".wh.back", "")
        .file("back/e", "7");
    let reference = Image::of(vec![(below, As::Gzip), (above, As::Gzip)])
        .push(&server, "w")
        .await;
    let image = store.pull(&reference).await.expect("pulled");
    let [upper, lower] = &image.layers[..] else {
        panic!("two layers");
    };
    assert_eq!(read(lower, "a"), "1");
    let gone = fs::symlink_metadata(upper.join("a")).expect("whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = |dir: &str| {
        let mut value = [0; 4];
        let got = rustix::fs::getxattr(upper.join(dir), "user.overlay.opaque", &mut value[..]);
        got.is_ok_and(|n| &value[..n] == b"y")
    };
    assert!(opaque("dir") && opaque("back") && !opaque("kept"));
    assert_eq!(
        (read(upper, "kept/d").as_str(), read(upper, "back/e").as_str()),
        ("6", "7")
    );
}

#[tokio::test]
async fn a_layer_that_hides_everything_ends_the_stack_and_a_repeated_one_counts_once() {
    let (server, store) = (Server::start(), Store::new());
    let (bottom, middle) = (Layer::new().file("bottom", ""), Layer::new().file("middle", ""));
    let opaque = Layer::new().file(".wh..wh..opq", "").file("opaque", "");
    let stack = [bottom, opaque, middle.clone(), Layer::new().file("top", ""), middle];
    let stack: Vec<_> = stack.into_iter().map(|layer| (layer, As::Gzip)).collect();
    let image = store
        .pull(&Image::of(stack).push(&server, "o").await)
        .await
        .expect("pulled");
    let names = ["middle", "top", "opaque"];
    assert_eq!(image.layers.len(), names.len());
    for (layer, name) in image.layers.iter().zip(names) {
        assert!(layer.join(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn an_index_leads_to_this_platform_and_is_remembered() {
    let (server, store) = (Server::start(), Store::new());
    let manifest = Image::gzip(simple()).push(&server, "multi").await;
    let ours = manifest.split_once('@').expect("digest").1.to_owned();
    let size = fs::metadata(server.blob(&ours)).expect("blob").len();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let entry = |digest: &str, arch: &str| {
        let platform = json!({"os": "linux", "architecture": arch});
        json!({"mediaType": kind, "digest": digest, "size": size, "platform": platform})
    };
    let index_kind = "application/vnd.oci.image.index.v1+json";
    let entries = [entry(&ours, "s390x"), entry(&ours, arch)];
    let index = json!({"schemaVersion": 2, "mediaType": index_kind, "manifests": entries});
    let reference = push(&server, "multi", Vec::new(), index.to_string().into_bytes(), index_kind).await;
    let image = store.pull(&reference).await.expect("pulled");
    assert_eq!(
        (image.pinned.as_str(), image.digest.as_str()),
        (reference.as_str(), ours.as_str())
    );
    drop(server);
    let again = store.pull(&reference).await.expect("without a registry");
    assert_eq!(again.layers, image.layers);
}

#[tokio::test]
async fn a_tag_is_resolved_and_pinned_unless_a_digest_is_required() {
    let server = Server::start();
    let (open, strict) = (Store::new(), Store::with(|config| config.require_digest = true));
    let pinned = Image::gzip(simple()).push(&server, "tagged").await;
    let tagged = format!("{}:1", server.name("tagged"));
    assert_eq!(open.pull(&tagged).await.expect("pulled").pinned, pinned);
    let refused = strict.pull(&tagged).await.expect_err("no digest");
    assert!(matches!(refused, ImageError::Reference { .. }), "{refused}");
    assert!(strict.store.check(&tagged).is_err() && strict.store.check(&pinned).is_ok());
    assert!(strict.pull(&pinned).await.is_ok());
    // The tag moves; the next question gets the new answer.
    let moved = Image::gzip(simple().file("more", "")).push(&server, "tagged").await;
    assert_ne!(moved, pinned);
    assert_eq!(open.pull(&tagged).await.expect("pulled").pinned, moved);
}

#[tokio::test]
async fn credentials_open_a_closed_registry_and_nothing_else_does() {
    let server = Server::closed();
    let host = format!("127.0.0.1:{}", server.port);
    let credential = |password: &str| Credential::Password {
        user: USER.to_owned(),
        password: SecretString::from(password),
    };
    let missing = format!("{host}/name@{}", digest(b""));
    for (password, allowed) in [(Some(PASSWORD), true), (Some("wrong"), false), (None, false)] {
        let store = Store::with(|config| {
            if let Some(password) = password {
                config.credentials.insert(host.clone(), credential(password));
            }
        });
        let error = store.pull(&missing).await.expect_err("there is no such image");
        let text = error.to_string();
        assert!(matches!(error, ImageError::Refused { .. }), "{text}");
        // Behind the door the answer is another one.
        assert_eq!(text.contains("unknown"), allowed, "{password:?}: {text}");
        assert_eq!(text.contains("credentials"), !allowed, "{password:?}: {text}");
        assert!(!text.contains(PASSWORD));
    }
}

#[derive(Default)]
struct Seen {
    told: AtomicU64,
    total: AtomicU64,
}

impl PullProgress for Seen {
    fn at(&self, _step: &'static str, done: u64, total: u64) {
        assert!(done <= total);
        self.told.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_max(total, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_ask_and_one_pulls() {
    let (server, store) = (Server::start(), Store::new());
    let noise: String = (0_u64..200_000)
        .map(|i| format!("{:x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let reference = Image::gzip(simple().file("noise", &noise)).push(&server, "busy").await;
    // Another process would be another store on the same directory.
    let other = Arc::new(crate::craft::open(store.dir.path(), |_| {}));
    let stores = [Arc::clone(&store.store), other];
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let (store, reference) = (Arc::clone(&stores[i % 2]), reference.clone());
            tokio::spawn(async move {
                let seen = Seen::default();
                let image = store.prepare(&reference, &seen).await;
                (image.map(|image| image.layers.clone()), seen)
            })
        })
        .collect();
    let mut layers = std::collections::HashSet::new();
    let mut told = 0;
    for task in tasks {
        let (image, seen) = task.await.expect("no panic");
        layers.insert(image.unwrap_or_else(|e| panic!("{e}")));
        told += seen.told.into_inner();
    }
    assert_eq!(layers.len(), 1);
    assert!(told >= 40, "everybody hears of it");
    assert_eq!(
        (
            store.count("layers/sha256"),
            store.count("downloads"),
            store.count("tmp")
        ),
        (1, 0, 0)
    );
}
