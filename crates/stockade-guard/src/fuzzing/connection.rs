//! Connections in memory: a client of any bytes, the Guard's exchange, a server that records.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http2 as server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use stockade_policy::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{
    strict,
    world::{self, HOST, World},
};
use crate::{
    ask,
    door::Opened,
    http::{Exchange, Outer, Pin, serve_http1, serve_http2},
    meter::Meter,
    tls::Alpn,
};

/// Bytes on their way in memory.
const PIPE: usize = 64 * 1024;
/// Turns that everybody gets before the client hangs up.
const TURNS: u32 = 48;
/// Longest that one input may take.
const LONGEST: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

pub(super) fn http1(bytes: &[u8], piece: usize) {
    world::with(|runtime, world| {
        let arrived: Arc<Mutex<Vec<u8>>> = Arc::default();
        let record = Arc::clone(&arrived);
        runtime.block_on(within(async {
            let (near, far) = duplex(PIPE);
            let server = tokio::spawn(record_http1(far, record));
            let exchange = exchange(world, near, Alpn::Http1).await;
            let (inside, client) = duplex(PIPE);
            let client = tokio::spawn(talk(client, bytes.to_vec(), piece));
            serve_http1(exchange, inside, BytesMut::new()).await;
            client.await.expect("a client that ends");
            server.await.expect("a server that ends");
        }));
        let judged = world.judged.take();
        let arrived = arrived.lock().expect("no panic before");
        let (requests, _) = strict::requests(&arrived).expect("the Guard writes nothing that is not strict");
        let mut expected = judged.iter();
        for request in requests {
            assert_eq!(request.hosts.len(), 1, "{request:?}");
            let host = stockade_policy::host_and_port(&request.hosts[0]).expect("a host").0;
            assert_eq!(host.to_string(), HOST);
            let line = format!("{} {}", request.method, request.target);
            assert!(
                expected.any(|judged| *judged == line),
                "{line} arrived; judged were {judged:?}"
            );
        }
    });
}

pub(super) fn http2(frames: &[u8], piece: usize) {
    world::with(|runtime, world| {
        let arrived: Arc<Mutex<Vec<String>>> = Arc::default();
        let record = Arc::clone(&arrived);
        let mut bytes = PREFACE.to_vec();
        // An empty SETTINGS frame (RFC 9113 3.4).
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(frames);
        runtime.block_on(within(async {
            let (near, far) = duplex(PIPE);
            let server = tokio::spawn(record_http2(far, record));
            let exchange = exchange(world, near, Alpn::Http2).await;
            let (inside, client) = duplex(PIPE);
            let client = tokio::spawn(talk(client, bytes, piece));
            serve_http2(exchange, inside).await;
            client.await.expect("a client that ends");
            server.await.expect("a server that ends");
        }));
        let mut judged = world.judged.take();
        for line in arrived.lock().expect("no panic before").iter() {
            let place = judged.iter().position(|judged| judged == line);
            let place = place.unwrap_or_else(|| panic!("{line} arrived; judged were {judged:?}"));
            judged.swap_remove(place);
        }
    });
}

async fn within(run: impl Future<Output = ()>) {
    tokio::time::timeout(LONGEST, run).await.expect("an end in time");
}

async fn exchange(world: &World, stream: DuplexStream, alpn: Alpn) -> Arc<Exchange> {
    let opened = Opened::of(&world.session, world.admitted().await, Vec::new(), Instant::now());
    let action = opened.action().clone();
    let outer = Outer::speak(Box::new(stream), opened, alpn, &world.session.config).await;
    let host = Host::parse(HOST).expect("a host");
    let pin = Pin::secure(host.clone(), 443);
    let session = Arc::clone(&world.session);
    let outer = outer.expect("a connection in memory");
    Exchange::secure(
        session,
        host,
        pin,
        ask::inspected(action),
        alpn,
        Arc::new(Meter::new()),
        outer,
    )
}

/// Says the bytes in pieces, waits for a while, hangs up; what is answered is thrown away.
async fn talk(client: DuplexStream, bytes: Vec<u8>, piece: usize) {
    let (mut read, mut write) = tokio::io::split(client);
    let answers = tokio::spawn(async move {
        let mut space = [0; 4096];
        while matches!(read.read(&mut space).await, Ok(1..)) {}
    });
    for piece in bytes.chunks(piece) {
        if write.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    let _ = write.shutdown().await;
    drop(write);
    let _ = answers.await;
}

/// Records every byte and answers each request that is whole.
async fn record_http1(mut stream: DuplexStream, record: Arc<Mutex<Vec<u8>>>) {
    let mut space = [0; 4096];
    let mut answered = 0;
    while let Ok(length @ 1..) = stream.read(&mut space).await {
        let whole = {
            let mut record = record.lock().expect("no panic before");
            record.extend_from_slice(&space[..length]);
            strict::requests(&record).map_or(0, |(requests, _)| requests.len())
        };
        while answered < whole {
            answered += 1;
            if stream.write_all(OK).await.is_err() {
                return;
            }
        }
    }
}

async fn record_http2(stream: DuplexStream, record: Arc<Mutex<Vec<String>>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let record = Arc::clone(&record);
        async move {
            let uri = request.uri();
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(uri.scheme_str(), Some("https"));
            assert_eq!(uri.authority().map(|authority| authority.as_str()), Some(HOST));
            assert!(!request.headers().contains_key("host"));
            let target = uri.path_and_query().map_or("", |target| target.as_str());
            let line = format!("{} {target}", request.method());
            record.lock().expect("no panic before").push(line);
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let connection = server::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}
