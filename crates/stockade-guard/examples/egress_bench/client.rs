//! The client: the same requests every way.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, RecordType},
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    runtime::Runtime,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{INSPECTED, ORIGIN, PASSED, guard::raise_limit, namespace};

/// Clients at once where connections a second are counted.
const AT_ONCE: usize = 32;
/// How long they are counted.
const COUNTED: Duration = Duration::from_secs(4);
/// Bytes of the one stream.
const STREAM: usize = 256 << 20;
/// Connections of each sandbox in the crowd.
pub(crate) const EACH: usize = 10;

/// How the client gets to the server.
pub(crate) enum Way {
    Direct,
    /// Through a proxy that is asked with CONNECT.
    Proxy(String, SocketAddr),
    /// Through the Guard, which reads the server name.
    Passed,
    /// Through the Guard, which reads the requests.
    Inspected,
}

impl Way {
    fn name(&self) -> String {
        match self {
            Self::Direct => "direct".to_owned(),
            Self::Proxy(name, _) => name.clone(),
            Self::Passed => "Guard, passed through".to_owned(),
            Self::Inspected => "Guard, inspected".to_owned(),
        }
    }
}

/// What the client needs to know.
pub(crate) struct Resolver {
    /// The path of the sandbox's network namespace.
    pub(crate) namespace: String,
    /// Whom it trusts, in PEM.
    pub(crate) roots: Vec<String>,
}

/// What was measured.
#[derive(Default)]
pub(crate) struct Figures {
    samples: Map<String, Value>,
    rates: Map<String, Value>,
    notes: Vec<String>,
}

impl Figures {
    pub(crate) fn crowd(&mut self, memory: &Value) {
        let (before, after) = (&memory["before_kib"], &memory["resident_kib"]);
        self.notes.push(format!(
            "{} sandboxes with {EACH} connections each (as many of 1,000 as the limit on descriptors allows), all open after a request: the \
             Guard's process has {after} KiB resident, {before} KiB before",
            memory["connected"].as_u64().unwrap_or(0) / EACH as u64
        ));
    }

    pub(crate) fn line(&self) -> Value {
        json!({ "samples": self.samples, "rates": self.rates, "notes": self.notes })
    }
}

/// Everything in turns, so that a slow minute of the machine is everybody's.
pub(crate) fn measure(resolver: &Resolver, ways: &[Way], rounds: usize) -> Figures {
    let mut figures = Figures::default();
    let places: Vec<Place> = ways.iter().map(|way| Place::of(way, resolver)).collect();
    const TURNS: usize = 3;
    let mut latency = vec![Vec::new(); places.len()];
    let mut streams = vec![Vec::new(); places.len()];
    let mut rates = vec![0.0; places.len()];
    for _ in 0..TURNS {
        for (n, place) in places.iter().enumerate() {
            latency[n].extend(place.run(requests(place.clone(), rounds)));
            streams[n].push(place.run(stream(place.clone())));
            rates[n] += place.run(connections(place.clone())) / TURNS as f64;
        }
    }
    for (n, way) in ways.iter().enumerate() {
        let name = way.name();
        figures.samples.insert(format!("request, {name}"), json!(latency[n]));
        figures
            .samples
            .insert(format!("256 MiB in one stream, {name}"), json!(streams[n]));
        figures
            .rates
            .insert(format!("new TLS connections, {name}"), json!(rates[n]));
    }
    figures
}

/// A way with everything that is needed to go it.
#[derive(Clone)]
struct Place {
    runtime: Arc<Runtime>,
    connector: TlsConnector,
    name: &'static str,
    address: SocketAddr,
    proxied: bool,
}

impl Place {
    fn of(way: &Way, resolver: &Resolver) -> Self {
        let inside = matches!(way, Way::Passed | Way::Inspected);
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all();
        if inside {
            let path = resolver.namespace.clone();
            builder.on_thread_start(move || namespace::enter(&path));
        }
        let runtime = Arc::new(builder.build().expect("a runtime"));
        let name = if matches!(way, Way::Inspected) {
            INSPECTED
        } else {
            PASSED
        };
        let direct: SocketAddr = ORIGIN.parse().expect("an address");
        let (address, proxied) = match way {
            Way::Direct => (direct, false),
            Way::Proxy(_, address) => (*address, true),
            Way::Passed | Way::Inspected => {
                let dns = SocketAddr::from(([127, 0, 0, 53], 53));
                let found = runtime.block_on(async { tokio::spawn(async move { look_up(dns, name).await }).await });
                (SocketAddr::new(found.expect("an address"), 443), false)
            }
        };
        let connector = connector(&resolver.roots);
        Self {
            runtime,
            connector,
            name,
            address,
            proxied,
        }
    }

    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        // On the runtime's own thread, which is in the namespace.
        self.runtime.block_on(self.runtime.spawn(work)).expect("no panic")
    }

    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        if self.proxied {
            let ask = format!("CONNECT {ORIGIN} HTTP/1.1\r\nHost: {ORIGIN}\r\n\r\n");
            stream.write_all(ask.as_bytes()).await?;
            let head = head(&mut stream).await?;
            if !head.starts_with(b"HTTP/1.1 200") && !head.starts_with(b"HTTP/1.0 200") {
                return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
            }
        }
        let name = ServerName::try_from(self.name).expect("a name");
        self.connector.connect(name, stream).await
    }

    async fn ask(&self, stream: &mut TlsStream<TcpStream>, path: &str, length: usize) -> io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n\r\n", self.name);
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let head = head(stream).await?;
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        let end = head.windows(4).position(|four| four == b"\r\n\r\n").expect("an end") + 4;
        let mut left = length - (head.len() - end);
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let most = left.min(buffer.len());
            match stream.read(&mut buffer[..most]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read,
            }
        }
        Ok(())
    }
}

async fn head<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// Milliseconds of each request on a connection that is kept.
async fn requests(place: Place, rounds: usize) -> Vec<f64> {
    let mut stream = place.connect().await.expect("a connection");
    let mut samples = Vec::with_capacity(rounds);
    for round in 0..rounds + 50 {
        let begun = Instant::now();
        place.ask(&mut stream, "/16", 16).await.expect("an answer");
        if round >= 50 {
            samples.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    samples
}

/// Milliseconds for many bytes.
async fn stream(place: Place) -> f64 {
    let mut stream = place.connect().await.expect("a connection");
    let begun = Instant::now();
    place
        .ask(&mut stream, &format!("/{STREAM}"), STREAM)
        .await
        .expect("all of it");
    begun.elapsed().as_secs_f64() * 1e3
}

/// New connections a second, each with a full handshake and one request.
async fn connections(place: Place) -> f64 {
    let begun = Instant::now();
    let clients = (0..AT_ONCE).map(|_| {
        let place = place.clone();
        tokio::spawn(async move {
            let mut done = 0_u32;
            while begun.elapsed() < COUNTED {
                let mut stream = place.connect().await.expect("a connection");
                place.ask(&mut stream, "/16", 16).await.expect("an answer");
                done += 1;
            }
            done
        })
    });
    let mut total = 0;
    for client in clients.collect::<Vec<_>>() {
        total += client.await.expect("no panic");
    }
    f64::from(total) / begun.elapsed().as_secs_f64()
}

/// What a name server gives for a name.
pub(crate) async fn look_up(server: SocketAddr, name: &str) -> IpAddr {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(
        Name::from_ascii(format!("{name}.")).expect("a name"),
        RecordType::A,
    ));
    let socket = UdpSocket::bind("0.0.0.0:0").await.expect("a socket");
    socket
        .send_to(&query.to_vec().expect("a message"), server)
        .await
        .expect("sent");
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).await.expect("an answer");
    let answer = Message::from_vec(&buffer[..length]).expect("a message");
    let found = answer.answers.iter().find_map(|record| match &record.data {
        RData::A(a) => Some(IpAddr::from(a.0)),
        _ => None,
    });
    found.expect("an address")
}

/// Opens the connections of the crowd and keeps them, each after its handshake and one request.
pub(crate) fn crowd(places: &Value, root: &str) -> Vec<TlsStream<TcpStream>> {
    raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let runtime = Arc::new(runtime);
    let connector = connector(&[root.to_owned()]);
    let mut open = Vec::new();
    for place in places.as_array().expect("addresses") {
        let address = place.as_str().and_then(|place| place.parse().ok()).expect("an address");
        let place = Place {
            runtime: Arc::clone(&runtime),
            connector: connector.clone(),
            name: PASSED,
            address,
            proxied: false,
        };
        for _ in 0..EACH {
            let mut stream = runtime.block_on(place.connect()).expect("a connection");
            runtime.block_on(place.ask(&mut stream, "/16", 16)).expect("an answer");
            open.push(stream);
        }
    }
    // The connections are sockets of this runtime.
    std::mem::forget(runtime);
    open
}

fn connector(roots: &[String]) -> TlsConnector {
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store
            .add(CertificateDer::from_pem_slice(root.as_bytes()).expect("a certificate"))
            .expect("a root");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}
