//! A sandbox whose root is an image: good ones, and ones made to do harm.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::fd::AsFd,
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use stockade_archive::{Flavour, Limits, unpack};
use stockade_ports::sandbox::{ImageTree, RootFs, SandboxError, SandboxHandle, SandboxSpec};

use crate::{
    bed::{Bed, CANARY, cases, collect, refused, request, run, sh},
    entries::paths,
};

cases!(
    as_many_layers_as_an_image_may_have,
    an_image_is_the_root,
    an_image_cannot_be_changed_and_sandboxes_share_it,
    layers_cover_each_other,
    an_image_of_links_leads_nowhere,
);

/// A tar stream under construction.
struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, name: &str, kind: tar::EntryType, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, name, content).expect("entry");
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(name, tar::EntryType::Regular, 0o644, content.as_bytes())
    }

    fn program(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(name, tar::EntryType::Regular, mode, content)
    }

    fn link(mut self, name: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.0.append_link(&mut header, name, target).expect("link");
        self
    }
}

/// A shell and what it needs, copied from the host: enough to be looked at from inside.
fn shell() -> Layer {
    let mut layer = Layer::new();
    let mut libraries = BTreeSet::new();
    for name in ["sh", "cat", "ls", "stat", "id", "touch", "chmod"] {
        let program = ["/usr/bin", "/bin"].map(|dir| PathBuf::from(dir).join(name));
        let program = program.into_iter().find(|p| p.exists()).expect(name);
        layer = layer.program(&format!("usr/bin/{name}"), 0o755, &fs::read(&program).expect(name));
        let listed = Command::new("ldd")
            .arg(&program)
            .output()
            .expect("ldd is part of libc-bin")
            .stdout;
        let listed = String::from_utf8(listed).expect("text");
        libraries.extend(
            listed
                .split_whitespace()
                .filter(|w| w.starts_with('/'))
                .map(str::to_owned),
        );
    }
    for library in libraries {
        layer = layer.program(&library[1..], 0o755, &fs::read(&library).expect("library"));
    }
    layer
}

/// Unpacks layers, the lowest first, as the image store does.
fn image(bed: &Bed, name: &str, layers: Vec<Layer>) -> Arc<ImageTree> {
    let dir = bed.dir.join("state").join(name);
    let unpacked = layers.into_iter().enumerate().map(|(number, layer)| {
        let dir = dir.join(number.to_string());
        fs::create_dir_all(&dir).expect("mkdir");
        let tar = layer.0.into_inner().expect("tar");
        let limits = Limits {
            entries: 10_000,
            depth: 64,
        };
        let root = File::open(&dir).expect("dir");
        unpack(&tar[..], root.as_fd(), Flavour::ImageLayer, &limits).expect("unpacks");
        dir
    });
    let mut layers: Vec<_> = unpacked.collect();
    layers.reverse();
    Arc::new(ImageTree {
        pinned: format!("example/{name}@sha256:{}", "0".repeat(64)),
        // Its own: the Docker daemon keeps one copy for each digest.
        digest: format!("sha256:{:0>64}", uuid::Uuid::new_v4().simple()),
        layers,
        env: vec![
            ("COLOUR".to_owned(), "blue".to_owned()),
            ("SHAPE".to_owned(), "round".to_owned()),
        ],
        keep: Box::new(()),
    })
}

fn spec(bed: &Bed, image: &Arc<ImageTree>) -> SandboxSpec {
    SandboxSpec {
        rootfs: RootFs::Image(Arc::clone(image)),
        ..bed.spec()
    }
}

async fn says(handle: &dyn SandboxHandle, script: &str) -> String {
    sh(handle, script).await.ok().trim().to_owned()
}

async fn an_image_is_the_root(bed: Bed) {
    let image = image(
        &bed,
        "plain",
        vec![shell().file("etc/os-release", "NAME=test\n").file("data", "here")],
    );
    let handle = bed.create_from(spec(&bed, &image)).await;
    assert_eq!(handle.evidence().image, image.pinned);
    assert_eq!(says(&*handle, "cat /data /etc/os-release").await, "hereNAME=test");
    // The control: the host has these, and a sandbox of the host's programs shows them.
    let host = bed.create().await;
    for program in ["/usr/bin/env", "/usr/bin/tr"] {
        assert_eq!(
            run(&*host, &["sh", "-c", &format!("test -x {program} && echo yes")])
                .await
                .ok(),
            "yes\n"
        );
        assert_eq!(says(&*handle, &format!("test -e {program} || echo no")).await, "no");
    }
    assert_eq!(says(&*handle, "echo $COLOUR $SHAPE").await, "blue round");
    let mut request = request(&["sh", "-c", "echo $COLOUR $SHAPE $HOME"]);
    request.env.insert("COLOUR".to_owned(), "red".to_owned());
    let process = handle.exec(request).await.expect("starts");
    assert_eq!(collect(process).await.ok(), "red round /home/agent\n");
    assert_eq!(says(&*handle, "id -un; cat /workspace/README").await, "agent\noriginal");
    assert_eq!(
        says(
            &*handle,
            "echo mine > ~/a; echo mine > /tmp/a; echo new > README; cat ~/a /tmp/a README"
        )
        .await,
        "mine\nmine\nnew"
    );
    let mounts = says(&*handle, "cat /proc/self/mountinfo").await;
    let dir = bed.dir.file_name().and_then(|name| name.to_str()).expect("name");
    assert!(
        mounts.contains(" / / ") && !mounts.contains(dir) && !mounts.contains("/plain/"),
        "{mounts}"
    );
    assert!(
        !says(&*handle, "cat /proc/self/environ; echo /run/* /mnt/* /srv/*")
            .await
            .contains(CANARY)
    );
}

async fn an_image_cannot_be_changed_and_sandboxes_share_it(bed: Bed) {
    let image = image(&bed, "shared", vec![shell().file("opt/data", "first")]);
    let (one, two) = (
        bed.create_from(spec(&bed, &image)).await,
        bed.create_from(spec(&bed, &image)).await,
    );
    for target in [
        "/opt/data",
        "/usr/bin/sh",
        "/new",
        "/etc/passwd",
        "/etc/new",
        "/usr/bin/new",
    ] {
        for script in [
            format!("echo x > {target}"),
            format!("touch {target}"),
            format!("chmod 777 {target}"),
        ] {
            let tried = sh(&*one, &script).await;
            assert!(
                !tried.out.contains('x') && tried.exit != stockade_ports::sandbox::Exit::Code(0),
                "{script}: {tried:?}"
            );
        }
    }
    // The control: where writing is allowed the same words write.
    assert_eq!(
        says(
            &*one,
            "echo x > /tmp/new && touch /tmp/new && chmod 777 /tmp/new && cat /tmp/new"
        )
        .await,
        "x"
    );
    for handle in [&one, &two] {
        assert_eq!(says(&**handle, "cat /opt/data").await, "first");
    }
    assert_eq!(says(&*two, "test -e /tmp/new || echo no").await, "no");
    // gVisor numbers files itself.
    if bed.mode.shares_the_kernel() {
        let inode = |handle| async move { says(handle, "stat -c %i /opt/data").await };
        assert_eq!(inode(&*one).await, inode(&*two).await, "one copy for all");
    }
    let copies = Command::new("find")
        .arg(bed.dir.join("state/sandboxes"))
        .args(["-name", "data"])
        .output();
    assert_eq!(copies.expect("runs").stdout, b"", "no sandbox has its own");
    assert_eq!(
        fs::read_to_string(image.layers[0].join("opt/data")).expect("kept"),
        "first"
    );
}

async fn layers_cover_each_other(bed: Bed) {
    let below = shell()
        .file("a", "1")
        .file("dir/b", "2")
        .file("dir/c", "3")
        .file("kept/d", "4")
        .file("was/file", "5");
    let above = Layer::new()
        .file(".wh.a", "")
        .file("dir/.wh..wh..opq", "")
        .file("dir/new", "6")
        .file("kept/e", "7");
    let above = above.link("was/link", "file").file(".wh.nothing", "");
    let image = image(&bed, "stack", vec![below, above]);
    let handle = bed.create_from(spec(&bed, &image)).await;
    assert_eq!(
        says(&*handle, "echo /a* /noth* /dir/* /dir/.[!.]* /kept/*; cat /was/link").await,
        "/a* /noth* /dir/new /dir/.[!.]* /kept/d /kept/e\n5"
    );
    for path in ["/a", "/nothing", "/dir/b", "/dir/.wh..wh..opq"] {
        let error = refused(handle.stat(path).await);
        assert!(matches!(error, SandboxError::NotFound(_)), "{path}: {error}");
    }
    for (dir, expected) in [("/dir", &["/dir/new"][..]), ("/kept", &["/kept/d", "/kept/e"])] {
        let listing = handle.list(dir, 1, 100).await.expect(dir);
        assert_eq!(paths(&listing.entries), expected);
    }
}

async fn an_image_of_links_leads_nowhere(bed: Bed) {
    let places = [
        "etc",
        "proc",
        "sys",
        "dev",
        "tmp",
        "run",
        "home",
        "workspace",
        "opt",
        "mnt",
        "root",
        "srv",
        "var",
    ];
    let mut links = Layer::new();
    for place in places {
        links = links.link(place, "/");
    }
    let tools = shell()
        .program("usr/bin/ip", 0o6755, b"#!/usr/bin/sh\nid -u\n")
        .program("usr/sbin/nsenter", 0o4755, b"#!/bin/sh\n");
    let tools = tools
        .file("sbin", "not a directory")
        .file("etc/passwd", "root::0:0::/:/bin/sh\n");
    let handle = bed
        .create_from(spec(&bed, &image(&bed, "links", vec![tools, links])))
        .await;
    for place in places {
        assert_eq!(
            says(
                &*handle,
                &format!("test -d /{place} && test ! -L /{place} && echo real")
            )
            .await,
            "real",
            "{place}"
        );
    }
    assert_eq!(
        says(
            &*handle,
            "cat /workspace/README; echo /opt/agents/* /run/stockade/base.git/*"
        )
        .await,
        "original/opt/agents/probe /run/stockade/base.git/HEAD"
    );
    assert_eq!(
        says(
            &*handle,
            "id -un; echo /proc/[1]; test -c /dev/null && test -d /dev/shm && echo devices"
        )
        .await,
        "agent\n/proc/1\ndevices"
    );
    assert_eq!(says(&*handle, "/usr/bin/ip").await, "1000", "no set-uid program");
    for program in ["/usr/bin/ip", "/usr/sbin/nsenter"] {
        assert_eq!(handle.stat(program).await.expect(program).mode, 0o555);
    }
    // What the host gives gVisor comes to the sandbox over a protocol.
    let tmp = if bed.mode.shares_the_kernel() { "tmpfs" } else { "v9fs" };
    assert_eq!(says(&*handle, "stat -f -c %T /proc /tmp").await, format!("proc\n{tmp}"));
    for place in ["/etc", "/dev", "/run", "/opt", "/mnt", "/"] {
        let tried = sh(&*handle, &format!("echo x > {place}/new")).await;
        assert_ne!(tried.exit, stockade_ports::sandbox::Exit::Code(0), "{place}");
    }
}

async fn as_many_layers_as_an_image_may_have(bed: Bed) {
    let mut layers = vec![shell()];
    layers.extend((1..127).map(|n| Layer::new().file(&format!("n/{n}"), "").file("last", &n.to_string())));
    let handle = bed.create_from(spec(&bed, &image(&bed, "many", layers))).await;
    assert_eq!(says(&*handle, "cat /last; set -- /n/*; echo :$#").await, "126:126");
}
