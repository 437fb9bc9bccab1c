//! Images that would do harm if they were unpacked carelessly. Each attack stands beside a harmless
//! twin, which shows that it is the attack that is refused and not the form.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use stockade_image::ImageLimits;
use stockade_ports::{ImageError, sandbox::ImageTree};

use crate::{
    craft::{As, Image, Layer, Store, tree},
    server::Server,
};

/// A store, a registry, and something outside that must stay as it is.
struct Scene {
    server: Server,
    store: Store,
    outside: tempfile::TempDir,
}

impl Scene {
    fn set() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ImageLimits)) -> Self {
        let outside = tempfile::tempdir().expect("temp dir");
        fs::write(outside.path().join("victim"), "untouched").expect("victim");
        Self {
            server: Server::start(),
            store: Store::with(|config| change(&mut config.limits)),
            outside,
        }
    }

    fn outside(&self) -> String {
        self.outside.path().to_str().expect("text").to_owned()
    }

    async fn harmless(&self, layer: Layer) -> PathBuf {
        let image = self.pull(Image::gzip(layer)).await;
        tree(&image.unwrap_or_else(|e| panic!("the harmless twin is refused: {e}")))
    }

    async fn refused(&self, layer: Layer, why: &str) {
        self.refused_image(Image::gzip(layer), why).await;
    }

    async fn refused_image(&self, image: Image, why: &str) {
        let before = self.store.count("layers/sha256");
        match self.pull(image).await {
            Err(ImageError::Unsafe { why: said, .. }) => assert!(said.contains(why), "'{why}' is not in '{said}'"),
            Err(other) => panic!("refused for another reason: {other}"),
            Ok(_) => panic!("it was unpacked"),
        }
        assert_eq!(self.store.count("layers/sha256"), before, "nothing is kept");
        assert_eq!(
            (self.store.count("tmp"), self.store.count("downloads")),
            (0, 0),
            "nothing is left"
        );
        self.intact();
    }

    async fn pull(&self, image: Image) -> Result<std::sync::Arc<ImageTree>, ImageError> {
        let reference = image.push(&self.server, "attack").await;
        self.store.pull(&reference).await
    }

    fn intact(&self) {
        let entries: Vec<_> = fs::read_dir(self.outside.path()).expect("outside").flatten().collect();
        assert_eq!(entries.len(), 1, "something was made outside");
        let victim = fs::read_to_string(self.outside.path().join("victim"));
        assert_eq!(victim.expect("victim"), "untouched");
    }
}

/// A pax header with these records.
fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        content.extend_from_slice(format!("{length} {key}=").as_bytes());
        content.extend_from_slice(value);
        content.push(b'\n');
    }
    let layer = Layer::new().entry("pax", b'x', 0o644, "", &content).tar();
    layer[..layer.len() - 1024].to_vec()
}

#[tokio::test]
async fn names_with_dots_that_lead_up() {
    let scene = Scene::set();
    scene.harmless(Layer::new().file("..a/b..", "")).await;
    for name in ["../evil", "a/../../evil", "a/..", ".."] {
        scene.refused(Layer::new().dir("a").file(name, "evil"), "'..'").await;
    }
}

#[tokio::test]
async fn absolute_names() {
    let scene = Scene::set();
    let path = format!("{}/evil", scene.outside());
    scene.harmless(Layer::new().file(&path[1..], "inside")).await;
    scene.refused(Layer::new().file(&path, "evil"), "absolute").await;
}

#[tokio::test]
async fn empty_names_and_names_with_a_nul() {
    let scene = Scene::set();
    let named = |name: &[u8]| Layer::new().raw(&pax(&[("path", name)])).file("x", "");
    assert!(
        scene
            .harmless(named(b"named by pax"))
            .await
            .join("named by pax")
            .exists()
    );
    scene.refused(named(b""), "no name").await;
    scene.refused(named(b"a\0b"), "NUL").await;
    scene.refused(Layer::new().file("", "x"), "no name").await;
}

#[tokio::test]
async fn a_file_through_a_link_of_the_same_layer() {
    let scene = Scene::set();
    scene
        .harmless(Layer::new().dir("d").file("d/evil", "").symlink("to", &scene.outside()))
        .await;
    for target in [
        scene.outside(),
        "../../../../../../../../tmp".to_owned(),
        "d".to_owned(),
        "/".to_owned(),
    ] {
        let layer = Layer::new().dir("d").symlink("link", &target);
        scene
            .refused(layer.clone().file("link/evil", "evil"), "symbolic link")
            .await;
        scene
            .refused(layer.clone().dir("link/evil/deep"), "symbolic link")
            .await;
        scene
            .refused(layer.clone().file("link/.wh.victim", ""), "symbolic link")
            .await;
        scene.refused(layer.symlink("link/evil", "x"), "symbolic link").await;
    }
}

#[tokio::test]
async fn a_hard_link_to_the_outside() {
    let scene = Scene::set();
    let tree = scene
        .harmless(
            Layer::new()
                .file("a", "1")
                .hard("b", "./a")
                .symlink("s", "/etc")
                .hard("t", "s"),
        )
        .await;
    assert_eq!(fs::metadata(tree.join("a")).expect("a").nlink(), 2);
    assert_eq!(
        fs::read_link(tree.join("t"))
            .expect("a link to a link is a link")
            .to_str(),
        Some("/etc")
    );
    let victim = format!("{}/victim", scene.outside());
    scene.refused(Layer::new().hard("b", &victim), "absolute").await;
    scene.refused(Layer::new().hard("b", "../../victim"), "'..'").await;
    scene
        .refused(
            Layer::new().symlink("l", &scene.outside()).hard("b", "l/victim"),
            "hard link",
        )
        .await;
    scene.refused(Layer::new().hard("b", "missing"), "hard link").await;
    scene.refused(Layer::new().dir("d").hard("b", "d"), "no file").await;
    scene.refused(Layer::new().file("a", "").hard("a", "a"), "itself").await;
    scene.refused(Layer::new().hard("b", "./"), "root").await;
}

#[tokio::test]
async fn a_later_entry_replaces_an_earlier_one_and_not_what_it_leads_to() {
    let scene = Scene::set();
    let victim = format!("{}/victim", scene.outside());
    let layer = Layer::new()
        .symlink("f", &victim)
        .file("f", "new")
        .symlink("d", &scene.outside())
        .dir("d")
        .file("d/x", "1");
    let layer = layer
        .file("a", "old")
        .hard("b", "a")
        .file("b", "other")
        .dir("full")
        .file("full/x", "")
        .file("full", "file");
    let layer = layer
        .file("twice", "1")
        .file("twice", "2")
        .file("gone", "")
        .dir("gone")
        .file("gone/y", "");
    let tree = scene.harmless(layer).await;
    let read = |name: &str| fs::read_to_string(tree.join(name)).expect("file");
    assert_eq!(
        [read("f"), read("a"), read("b"), read("full"), read("twice")],
        ["new", "old", "other", "file", "2"]
    );
    assert!(tree.join("d/x").exists() && tree.join("gone/y").exists());
    scene.intact();
    scene
        .refused(Layer::new().file("d", "").file("d/x", ""), "not a directory")
        .await;
}

#[tokio::test]
async fn the_root_itself_cannot_be_replaced() {
    let scene = Scene::set();
    scene.harmless(Layer::new().dir("./").dir(".").file("x", "")).await;
    scene
        .refused(Layer::new().symlink("./", &scene.outside()).file("evil", ""), "root")
        .await;
    scene.refused(Layer::new().file(".", "x"), "root").await;
}

#[tokio::test]
async fn devices_fifos_and_foreign_whiteouts_are_left_out() {
    let scene = Scene::set();
    let layer = Layer::new()
        .file("kept", "")
        .entry("null", b'3', 0o666, "", b"")
        .entry("disk", b'4', 0o666, "", b"");
    let tree = scene.harmless(layer.entry("pipe", b'6', 0o666, "", b"")).await;
    let names: Vec<_> = fs::read_dir(tree)
        .expect("tree")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(names, ["kept"]);
}

#[tokio::test]
async fn attributes_are_left_out() {
    let scene = Scene::set();
    let records: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\xff\xff\xff\xff"),
        ("SCHILY.xattr.user.mine", b"1"),
    ];
    let tree = scene
        .harmless(
            Layer::new()
                .raw(&pax(&records))
                .dir("d")
                .raw(&pax(&records))
                .file("f", ""),
        )
        .await;
    for name in ["d", "f"] {
        let mut list = [0_u8; 256];
        let length = rustix::fs::listxattr(tree.join(name), &mut list[..]).expect("list");
        let list = String::from_utf8_lossy(&list[..length]).into_owned();
        assert!(!list.contains("user.") && !list.contains("capability"), "{list}");
    }
}

#[tokio::test]
async fn whiteouts_of_nothing_and_of_the_way_up() {
    let scene = Scene::set();
    scene
        .harmless(Layer::new().file("a/.wh.b", "").file(".wh..wh.plnk", "aufs's own"))
        .await;
    for name in [".wh.", "a/.wh..", "a/.wh..."] {
        scene.refused(Layer::new().file(name, ""), "whiteout of nothing").await;
    }
}

#[tokio::test]
async fn too_deep_too_long_too_many() {
    let scene = Scene::with(|limits| {
        limits.depth = 10;
        limits.entries = 50;
    });
    let deep = |n: usize| Layer::new().file("d/".repeat(n).trim_end_matches('/'), "");
    scene.harmless(deep(10)).await;
    scene.refused(deep(11), "deeper than 10").await;
    let many = |n: usize| (0..n).fold(Layer::new(), |layer, i| layer.file(&format!("f{i}"), ""));
    scene.harmless(many(50)).await;
    scene.refused(many(51), "more than 50 entries").await;
    // Directories nobody asked for count too.
    let implied = (0..10).fold(Layer::new(), |layer, i| layer.file(&format!("{i}/a/b/c/d/e"), ""));
    scene.refused(implied, "more than 50 entries").await;
    let long = |n: usize| {
        Layer::new()
            .raw(&pax(&[("path", "n".repeat(n).as_bytes())]))
            .file("x", "")
    };
    scene.harmless(long(255)).await;
    scene.refused(long(256), "255 bytes").await;
    scene
        .refused(
            Layer::new()
                .raw(&pax(&[("path", "n/".repeat(2050).as_bytes())]))
                .file("x", ""),
            "4095",
        )
        .await;
    let headers = (0..250).fold(Layer::new(), |layer, _| layer.raw(&pax(&[("comment", b"x")])));
    scene.refused(headers.file("x", ""), "more than 50 entries").await;
}

#[tokio::test]
async fn headers_that_fill_the_memory() {
    let scene = Scene::set();
    let value = vec![b'x'; 1 << 20];
    scene
        .harmless(Layer::new().raw(&pax(&[("comment", &value[..1 << 19])])).file("x", ""))
        .await;
    scene
        .refused(
            Layer::new().raw(&pax(&[("comment", &value)])).file("x", ""),
            "extension header",
        )
        .await;
    scene
        .refused(
            Layer::new()
                .entry("long", b'L', 0, "", &[b'x'; (1 << 20) + 1])
                .file("x", ""),
            "extension header",
        )
        .await;
}

#[tokio::test]
async fn bombs() {
    let zeros = |n: usize| Layer::new().entry("zeros", b'0', 0o644, "", &vec![0; n]);
    let scene = Scene::with(|limits| {
        limits.ratio = 100;
        limits.image_bytes = 200 << 20;
    });
    // Small ones are nobody's trouble, whatever the ratio.
    scene.harmless(zeros(60 << 20)).await;
    scene.refused(zeros(100 << 20), "bomb").await;
    let zstd = |n| Image::of(vec![(zeros(n), As::Zstd)]);
    scene.refused_image(zstd(100 << 20), "bomb").await;
    let scene = Scene::with(|limits| limits.image_bytes = 10 << 20);
    scene.harmless(zeros(9 << 20)).await;
    scene.refused(zeros(11 << 20), "bytes come out").await;
    // Three layers, each within the limit.
    let each = |name: &str| (zeros(4 << 20).file(name, ""), As::Gzip);
    let image = Image::of(vec![each("1"), each("2"), each("3")]);
    let reference = image.push(&scene.server, "attack").await;
    let refused = scene.store.pull(&reference).await.expect_err("too much together");
    assert!(refused.to_string().contains("bytes"), "{refused}");
}

#[tokio::test]
async fn archives_that_break_off_or_were_changed() {
    let scene = Scene::set();
    let whole = Layer::new().file("a", &"x".repeat(2000)).file("b", "");
    scene.harmless(whole.clone()).await;
    let tar = whole.tar();
    let cut = |n: usize| Image::of(vec![(Layer::new().raw(&tar[..n]), As::Tar)]);
    let mut image = cut(1200);
    // Without the two blocks of zeros that `Layer` adds.
    let short = tar[..1200].to_vec();
    image.manifest["layers"][0]["digest"] = crate::craft::digest(&short).into();
    image.manifest["layers"][0]["size"] = short.len().into();
    image.config["rootfs"]["diff_ids"][0] = crate::craft::digest(&short).into();
    image.blobs = vec![short];
    scene.refused_image(image, "ends within").await;
    let mut wrong = tar.clone();
    wrong[0] ^= 1;
    scene.refused(Layer::new().raw(&wrong), "checksum").await;
    let mut squeezed = As::Gzip.pack(&tar);
    squeezed.truncate(squeezed.len() / 2);
    let mut image = cut(512);
    image.manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    image.manifest["layers"][0]["digest"] = crate::craft::digest(&squeezed).into();
    image.manifest["layers"][0]["size"] = squeezed.len().into();
    image.blobs = vec![squeezed];
    scene.refused_image(image, "cannot be read").await;
}

#[tokio::test]
async fn sizes_and_types_that_readers_disagree_on() {
    let scene = Scene::set();
    let sized = |size: &str| Layer::new().raw(&pax(&[("size", size.as_bytes())])).file("a", "1234");
    scene.harmless(sized("4")).await;
    scene.refused(sized("0"), "two different sizes").await;
    scene
        .refused(Layer::new().entry("sparse", b'S', 0o644, "", b""), "unknown type")
        .await;
    scene
        .refused(Layer::new().entry("odd", b'Z', 0o644, "", b""), "unknown type")
        .await;
}

#[tokio::test]
async fn content_that_is_not_what_the_digests_say() {
    let scene = Scene::set();
    let layer = || Layer::new().file("a", "honest");
    scene.harmless(layer()).await;
    // The configuration names another content than the layer has.
    let mut image = Image::gzip(Layer::new().file("a", "other"));
    image.config["rootfs"]["diff_ids"][0] = crate::craft::digest(b"something else").into();
    scene.refused_image(image, "not what the image says").await;
    // The registry serves other bytes, of the same length and of others.
    for change in [|blob: &mut Vec<u8>| blob[20] ^= 1, |blob: &mut Vec<u8>| blob.push(0)] {
        let image = Image::gzip(Layer::new().file("b", "tampered"));
        let blob = scene.server.blob(&crate::craft::digest(&image.blobs[0]));
        let reference = image.push(&scene.server, "attack").await;
        let mut bytes = fs::read(&blob).expect("blob");
        let honest = bytes.clone();
        change(&mut bytes);
        fs::write(&blob, bytes).expect("tampered");
        let refused = scene.store.pull(&reference).await.expect_err("tampered");
        assert!(matches!(refused, ImageError::Unsafe { .. }), "{refused}");
        assert_eq!(scene.store.count("downloads"), 0);
        fs::write(&blob, honest).expect("restored");
    }
    // The same for a manifest and a configuration.
    for what in ["manifest", "configuration"] {
        let image = Image::gzip(Layer::new().file("c", what));
        let config = crate::craft::digest(image.config.to_string().as_bytes());
        let reference = image.push(&scene.server, "attack").await;
        let (_, manifest) = reference.split_once('@').expect("digest");
        let blob = scene.server.blob(if what == "manifest" { manifest } else { &config });
        let text = fs::read_to_string(&blob).expect("blob");
        fs::write(
            &blob,
            text.replace("sha256:0", "sha256:1")
                .replace("blue", "grey")
                .replace("\"schemaVersion\":2", "\"schemaVersion\": 2")
                .replacen('}', "} ", 1),
        )
        .expect("tampered");
        let refused = scene.store.pull(&reference).await.expect_err(what);
        assert!(
            matches!(
                refused,
                ImageError::Unsafe { .. } | ImageError::Refused { .. } | ImageError::Unavailable { .. }
            ),
            "{what}: {refused}"
        );
    }
}
