//! What is removed, and what is not.

use std::{fs, time::Duration};

use stockade_ports::{Collected, Images};

use crate::{
    craft::{As, Image, Layer, Store, open},
    server::Server,
};

fn image(own: &str) -> Image {
    let shared = Layer::new().file("shared", "by both");
    Image::of(vec![(shared, As::Gzip), (Layer::new().file("own", own), As::Gzip)])
}

#[tokio::test]
async fn what_is_in_use_stays_whoever_uses_it() {
    let (server, store) = (Server::start(), Store::new());
    let (one, two) = (image("1").push(&server, "a").await, image("2").push(&server, "a").await);
    let kept = store.pull(&one).await.expect("pulled");
    drop(store.pull(&two).await.expect("pulled"));
    assert_eq!(store.count("layers/sha256"), 3);
    // Another process would be another store on the same directory.
    let other = open(store.dir.path(), |_| {});
    let collected = other.collect().await.expect("collects");
    assert_eq!((collected.images, collected.layers), (1, 1));
    assert!(collected.bytes > 0);
    assert!(kept.layers.iter().all(|layer| layer.exists()));
    assert_eq!(other.collect().await.expect("collects"), Collected::default());
    drop(kept);
    let collected = other.collect().await.expect("collects");
    assert_eq!((collected.images, collected.layers), (1, 2));
    for dir in ["layers/sha256", "images/sha256", "tmp", "downloads", "locks"] {
        assert_eq!(store.count(dir), 0, "{dir}");
    }
    // And all of it can be had again.
    assert!(store.pull(&one).await.is_ok());
}

#[tokio::test]
async fn what_was_used_lately_stays() {
    let server = Server::start();
    let store = Store::with(|config| config.keep = Duration::from_secs(3600));
    let reference = image("1").push(&server, "a").await;
    drop(store.pull(&reference).await.expect("pulled"));
    assert_eq!(store.store.collect().await.expect("collects"), Collected::default());
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    for entry in fs::read_dir(store.path("images/sha256")).expect("images").flatten() {
        let file = fs::File::options().write(true).open(entry.path()).expect("record");
        file.set_modified(long_ago).expect("time");
    }
    // Being used again makes it young again.
    drop(store.pull(&reference).await.expect("still here"));
    assert_eq!(store.store.collect().await.expect("collects"), Collected::default());
}

#[tokio::test]
async fn leftovers_of_the_dead_are_removed() {
    let (server, store) = (Server::start(), Store::new());
    let reference = image("1").push(&server, "a").await;
    let kept = store.pull(&reference).await.expect("pulled");
    let hex = "ab".repeat(32);
    fs::create_dir_all(store.path(&format!("tmp/{hex}/tree"))).expect("half a layer");
    fs::write(store.path(&format!("tmp/{hex}/tree/file")), "x").expect("file");
    fs::write(store.path(&format!("downloads/{hex}-{hex}")), "half").expect("half a download");
    fs::write(store.path(&format!("tmp/record-{hex}-1-0")), "{").expect("half a record");
    // A layer without a description is half a layer, under the right name.
    fs::create_dir_all(store.path(&format!("layers/sha256/{hex}/tree"))).expect("half a layer");
    store.store.collect().await.expect("collects");
    assert_eq!(
        (
            store.count("tmp"),
            store.count("downloads"),
            store.count("layers/sha256")
        ),
        (0, 0, 2)
    );
    assert!(kept.layers.iter().all(|layer| layer.exists()));
}

#[tokio::test]
async fn a_damaged_store_heals_by_pulling() {
    let (server, store) = (Server::start(), Store::new());
    let reference = image("1").push(&server, "a").await;
    let layers = store.pull(&reference).await.expect("pulled").layers.clone();
    for damage in [layers[0].parent(), layers[1].parent()] {
        fs::remove_dir_all(damage.expect("layer")).expect("removed");
        let again = store.pull(&reference).await.expect("pulled again");
        assert!(again.layers == layers && layers.iter().all(|layer| layer.exists()));
    }
    for entry in fs::read_dir(store.path("images/sha256")).expect("images").flatten() {
        fs::write(entry.path(), "{\"image\":").expect("torn");
    }
    assert_eq!(store.pull(&reference).await.expect("pulled again").layers, layers);
}
