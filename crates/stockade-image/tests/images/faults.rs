//! Registries that break off, are slow, or are not there; pulls that are killed.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stockade_ports::{ImageError, Images};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    craft::{Image, Layer, Store, open},
    server::Server,
};

/// Noise that no compression makes smaller.
fn noise(seed: u64) -> String {
    let mut state = seed | 1;
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        format!("{state:016x}")
    };
    (0..300_000).map(|_| next(&mut state)).collect()
}

/// What a line does to the registry's answers.
#[derive(Clone, Copy)]
enum Line {
    /// Ends each connection after so many bytes of answers.
    Cuts(usize),
    /// Passes so many bytes and then nothing, without an end.
    Hangs(usize),
    /// Passes everything, so many bytes at a time, with pauses.
    Drips(usize),
}

/// A line to a registry; counts the bytes it passed on.
async fn line(to: u16, how: Line) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("address").port();
    let passed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&passed);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(pass(near, to, how, Arc::clone(&count)));
        }
    });
    (port, passed)
}

async fn pass(near: TcpStream, to: u16, how: Line, passed: Arc<AtomicU64>) {
    let far = TcpStream::connect(("127.0.0.1", to)).await.expect("registry");
    let (mut from_far, mut to_far) = far.into_split();
    let (mut from_near, mut to_near) = near.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_near, &mut to_far).await });
    let mut buffer = vec![0; 16 * 1024];
    let mut total = 0;
    while let Ok(n) = from_far.read(&mut buffer).await {
        let n = match how {
            Line::Cuts(after) => n.min(after - total),
            _ => n,
        };
        if n == 0 || to_near.write_all(&buffer[..n]).await.is_err() {
            return;
        }
        total += n;
        passed.fetch_add(n as u64, Ordering::Relaxed);
        match how {
            Line::Cuts(after) if total >= after => return,
            Line::Hangs(after) if total >= after => std::future::pending().await,
            Line::Drips(pause) => tokio::time::sleep(Duration::from_millis(pause as u64)).await,
            _ => {}
        }
    }
}

fn through(reference: &str, port: u16) -> String {
    let (_, rest) = reference.split_once('/').expect("a name");
    format!("127.0.0.1:{port}/{rest}")
}

#[tokio::test]
async fn a_broken_line_is_taken_up_where_it_broke() {
    let (server, store) = (Server::start(), Store::new());
    let reference = Image::gzip(Layer::new().file("noise", &noise(1)))
        .push(&server, "big")
        .await;
    let (port, passed) = line(server.port, Line::Cuts(600_000)).await;
    let image = store
        .pull(&through(&reference, port))
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        std::fs::read_to_string(image.layers[0].join("noise")).expect("noise"),
        noise(1)
    );
    // It broke several times and little came twice.
    let size = 300_000 * 16 / 2;
    let passed = passed.load(Ordering::Relaxed);
    assert!(passed > size && passed < size + size / 4, "{passed} bytes for {size}");
}

#[tokio::test]
async fn a_line_that_is_always_dead_is_given_up() {
    let (server, store) = (Server::start(), Store::new());
    let reference = Image::gzip(Layer::new().file("noise", &noise(2)))
        .push(&server, "big")
        .await;
    let (port, _) = line(server.port, Line::Cuts(1)).await;
    let begun = Instant::now();
    let error = store.pull(&through(&reference, port)).await.expect_err("dead");
    assert!(matches!(error, ImageError::Unavailable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    drop(server);
    let error = store.pull(&reference).await.expect_err("nobody listens");
    assert!(matches!(error, ImageError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_silent_registry_is_given_up() {
    let server = Server::start();
    let reference = Image::gzip(Layer::new().file("noise", &noise(3)))
        .push(&server, "big")
        .await;
    let store = Store::with(|config| config.silence = Duration::from_millis(200));
    let (port, _) = line(server.port, Line::Hangs(0)).await;
    let begun = Instant::now();
    let error = store.pull(&through(&reference, port)).await.expect_err("silent");
    assert!(matches!(error, ImageError::Unavailable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    // One that says something now and then, for ever, ends with the deadline.
    let store = Store::with(|config| config.deadline = Duration::from_millis(500));
    let (port, _) = line(server.port, Line::Drips(50)).await;
    let error = store.pull(&through(&reference, port)).await.expect_err("slow");
    assert!(error.to_string().contains("was not here within"), "{error}");
    // What came in time is not lost.
    assert_eq!(store.count("downloads"), 1);
    // With time enough, whatever else this machine does.
    let patient = open(store.dir.path(), |_| {});
    assert!(patient.prepare(&reference, &()).await.is_ok());
}

#[tokio::test]
async fn who_gives_up_waiting_stops_the_pull_and_nobody_elses() {
    let (server, store) = (Server::start(), Store::new());
    let reference = Image::gzip(Layer::new().file("noise", &noise(4)))
        .push(&server, "big")
        .await;
    let (port, passed) = line(server.port, Line::Drips(20)).await;
    let slow = through(&reference, port);
    let waiting = |store: &Store| {
        let (store, slow) = (Arc::clone(&store.store), slow.clone());
        tokio::spawn(async move { store.prepare(&slow, &()).await.map(drop) })
    };
    let (one, two) = (waiting(&store), waiting(&store));
    tokio::time::sleep(Duration::from_millis(300)).await;
    one.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let so_far = passed.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(passed.load(Ordering::Relaxed) > so_far, "the other one still waits");
    two.abort();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let so_far = passed.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        passed.load(Ordering::Relaxed) < so_far + 100_000,
        "nobody waits any more"
    );
    assert!(store.pull(&reference).await.is_ok(), "nothing is locked");
}

/// Set for the process that is killed: the store's directory and the reference.
const VICTIM: &str = "STOCKADE_TEST_IMAGE_VICTIM";

#[tokio::test]
#[allow(
    clippy::disallowed_methods,
    reason = "the test starts itself again and tells its child by a variable"
)]
async fn a_pull_that_is_killed_leaves_nothing_broken() {
    if let Ok(order) = std::env::var(VICTIM) {
        let (dir, reference) = order.split_once('|').expect("order");
        let _image = open(dir.as_ref(), |_| {}).prepare(reference, &()).await;
        return;
    }
    let (server, store) = (Server::start(), Store::new());
    let layer = (0..2000).fold(Layer::new().file("noise", &noise(5)), |l, i| {
        l.file(&format!("d/{i}"), "x")
    });
    let reference = Image::gzip(layer).push(&server, "big").await;
    let me = std::env::current_exe().expect("own path");
    for after in [5, 30, 60, 90, 120, 160, 200, 250, 300, 400] {
        let mut child = Command::new(&me)
            .args(["--exact", "faults::a_pull_that_is_killed_leaves_nothing_broken"])
            .env(VICTIM, format!("{}|{reference}", store.dir.path().display()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("starts");
        tokio::time::sleep(Duration::from_millis(after)).await;
        child.kill().expect("killed");
        child.wait().expect("dead");
        // Whatever is under its name is whole.
        for entry in std::fs::read_dir(store.path("layers/sha256"))
            .into_iter()
            .flatten()
            .flatten()
        {
            assert!(entry.path().join("info.json").exists(), "after {after} ms");
            assert!(entry.path().join("tree/d/1999").exists(), "after {after} ms");
        }
    }
    let image = store.pull(&reference).await.expect("the next one succeeds");
    assert_eq!(
        std::fs::read_to_string(image.layers[0].join("noise")).expect("noise"),
        noise(5)
    );
    drop(image);
    store.store.collect().await.expect("collects");
    for dir in ["layers/sha256", "tmp", "downloads", "locks"] {
        assert_eq!(store.count(dir), 0, "{dir}");
    }
}
