//! A real Debian, made by mmdebstrap, packed by umoci, copied to the registry by skopeo.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    craft::Store,
    server::{Server, run},
};

/// A minimal tree as a tar archive, made once and kept beside what cargo built.
fn archive() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (kept, lock) = (dir.join("debian.tar"), dir.join("debian.lock"));
    let lock = fs::File::create(lock).expect("lock");
    lock.lock().expect("lock");
    if !kept.exists() {
        let unfinished = dir.join("debian.new.tar");
        let path = unfinished.to_str().expect("text");
        let args = [
            "--variant=extract",
            "--include=dash,coreutils,base-files",
            "--quiet",
            "bookworm",
            path,
        ];
        run("mmdebstrap", "mmdebstrap", &args);
        fs::rename(unfinished, &kept).expect("kept");
    }
    kept
}

#[tokio::test]
async fn a_debian_is_pulled_with_gzip_and_zstd() {
    // skopeo would find the layer it pushed before and push no other.
    let (server, other, store) = (Server::start(), Server::start(), Store::new());
    let dir = tempfile::tempdir().expect("temp dir");
    let layout = format!("{}/layout", dir.path().display());
    let image = format!("{layout}:debian");
    run("umoci", "umoci", &["init", "--layout", &layout]);
    run("umoci", "umoci", &["new", "--image", &image]);
    let archive = archive();
    run(
        "umoci",
        "umoci",
        &["raw", "add-layer", "--image", &image, archive.to_str().expect("text")],
    );
    run(
        "umoci",
        "umoci",
        &["config", "--image", &image, "--config.env", "LANG=C.UTF-8"],
    );
    let from = format!("oci:{image}");
    for (format, server, extra, layer) in [
        ("gzip", &server, "--format=oci", "layer.v1.tar+gzip"),
        ("docker", &server, "--format=v2s2", "rootfs.diff.tar.gzip"),
        ("zstd", &other, "--dest-compress-format=zstd", "layer.v1.tar+zstd"),
    ] {
        let to = format!("docker://{}", server.name(&format!("debian:{format}")));
        run(
            "skopeo",
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--dest-tls-verify=false",
                extra,
                &from,
                &to,
            ],
        );
        let raw = run("skopeo", "skopeo", &["inspect", "--tls-verify=false", "--raw", &to]);
        assert!(raw.contains(layer), "{raw}");
        let digest = run(
            "skopeo",
            "skopeo",
            &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &to],
        );
        let reference = format!("{}@{}", server.name("debian"), digest.trim());
        let image = store.pull(&reference).await.unwrap_or_else(|e| panic!("{format}: {e}"));
        let root = &image.layers[0];
        assert!(
            fs::read_to_string(root.join("usr/lib/os-release"))
                .expect("os-release")
                .contains("bookworm")
        );
        assert!(root.join("usr/bin/env").exists());
        assert!(image.env.contains(&("LANG".to_owned(), "C.UTF-8".to_owned())));
    }
    // Three manifests, one content: the layer is kept once.
    assert_eq!((store.count("images/sha256"), store.count("layers/sha256")), (3, 1));
}
