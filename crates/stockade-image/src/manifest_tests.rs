//! Manifests nobody should take.

use serde_json::{Value, json};

use super::*;

fn digest(fill: char) -> String {
    format!("sha256:{}", fill.to_string().repeat(64))
}

fn layer(media_type: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest('b'), "size": size})
}

fn manifest(layers: Vec<Value>) -> Value {
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest('a'), "size": 10});
    json!({"schemaVersion": 2, "config": config, "layers": layers})
}

fn understood(document: &Value) -> Result<Found, Fault> {
    read(document.to_string().as_bytes(), &ImageLimits::default())
}

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn configuration(os: &str, architecture: &str, ids: &[String]) -> Vec<u8> {
    let env = ["A=1", "B=x=y", "nonsense", "=z"];
    let rootfs = json!({"type": "layers", "diff_ids": ids});
    let value = json!({"os": os, "architecture": architecture, "rootfs": rootfs, "config": {"Env": env}});
    value.to_string().into_bytes()
}

#[test]
fn all_known_layers_are_read() {
    for (media_type, compression) in [
        ("application/vnd.oci.image.layer.v1.tar", Compression::None),
        (GZIP, Compression::Gzip),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
    ] {
        let Ok(Found::Image(manifest)) = understood(&manifest(vec![layer(media_type, 1)])) else {
            panic!("{media_type}");
        };
        let plan = manifest.with_configuration(&configuration("linux", architecture(), &[digest('c')]));
        let plan = plan.expect("fits");
        assert_eq!(plan.layers[0].compression, compression);
        assert_eq!(plan.layers[0].diff_id.to_string(), digest('c'));
        let pairs = [("A", "1"), ("B", "x=y")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(plan.env, pairs);
    }
}

#[test]
fn a_document_of_two_meanings_is_refused() {
    let mut both = manifest(vec![layer(GZIP, 1)]);
    assert!(understood(&both).is_ok());
    both["manifests"] = json!([]);
    assert!(matches!(understood(&both), Err(Fault::Unsafe(_))));
    let mut liar = manifest(vec![layer(GZIP, 1)]);
    liar["mediaType"] = json!(OCI_INDEX);
    assert!(matches!(understood(&liar), Err(Fault::Unsafe(_))));
}

#[test]
fn more_than_the_limits_is_refused() {
    let limits = ImageLimits::default();
    let many = vec![layer(GZIP, 1); limits.layers + 1];
    assert!(understood(&manifest(many[1..].to_vec())).is_ok());
    for (what, layers) in [
        ("layers", many),
        ("none", Vec::new()),
        ("bytes", vec![layer(GZIP, limits.download_bytes), layer(GZIP, 1)]),
        ("overflow", vec![layer(GZIP, u64::MAX), layer(GZIP, 2)]),
        ("type", vec![layer("application/vnd.wasm.content.layer.v1+wasm", 1)]),
    ] {
        assert!(matches!(understood(&manifest(layers)), Err(Fault::Unsafe(_))), "{what}");
    }
}

#[test]
fn digests_that_are_paths_are_refused() {
    let mut evil = manifest(vec![layer(GZIP, 1)]);
    evil["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd");
    assert!(matches!(understood(&evil), Err(Fault::Unsafe(_))));
    let Ok(Found::Image(fine)) = understood(&manifest(vec![layer(GZIP, 1)])) else {
        panic!("understood");
    };
    let evil = configuration("linux", architecture(), &["sha256:..".to_owned()]);
    assert!(matches!(fine.with_configuration(&evil), Err(Fault::Unsafe(_))));
}

#[test]
fn an_index_is_searched_for_this_platform() {
    let entry = |os: &str, arch: &str, fill| {
        let platform = json!({"os": os, "architecture": arch});
        json!({"mediaType": OCI_MANIFEST, "digest": digest(fill), "size": 1, "platform": platform})
    };
    let others = [entry("windows", architecture(), '1'), entry("linux", "s390x", '2')];
    let mut all = others.to_vec();
    all.push(entry("linux", architecture(), '3'));
    let index = |entries: &[Value]| json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    assert_eq!(
        understood(&index(&all)),
        Ok(Found::Index(digest('3').parse().expect("digest")))
    );
    let Err(Fault::Refused(why)) = understood(&index(&others)) else {
        panic!("not for us");
    };
    assert!(why.contains("linux/s390x"), "{why}");
}

#[test]
fn an_image_for_another_machine_is_refused() {
    for (os, arch) in [("linux", "s390x"), ("windows", architecture())] {
        let Ok(Found::Image(manifest)) = understood(&manifest(vec![layer(GZIP, 1)])) else {
            panic!("understood");
        };
        let plan = manifest.with_configuration(&configuration(os, arch, &[digest('c')]));
        assert!(matches!(plan, Err(Fault::Refused(_))), "{os}/{arch}");
    }
}
