//! The Internet of the tests: a name server and servers behind public addresses.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME},
    },
};
use stockade_guard::Dial;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// A name server that remembers every question.
#[derive(Clone)]
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<Zone>>,
}

#[derive(Default)]
struct Zone {
    addresses: HashMap<String, Vec<IpAddr>>,
    aliases: HashMap<String, String>,
    asked: Vec<String>,
}

impl NameServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: socket.local_addr().unwrap(),
            state: Arc::default(),
        };
        let own = server.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if let Some(answer) = own.answer(&buffer[..length]) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        server
    }

    pub(crate) fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.state.lock().unwrap().addresses.insert(name.to_owned(), addresses);
    }

    pub(crate) fn alias(&self, name: &str, to: &str) {
        self.state
            .lock()
            .unwrap()
            .aliases
            .insert(name.to_owned(), to.to_owned());
    }

    /// Names asked for so far, each once.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.state.lock().unwrap().asked.clone();
        asked.sort();
        asked.dedup();
        asked
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let request = Message::from_vec(question).unwrap();
        let query = request.queries[0].clone();
        let mut name = query.name().to_ascii().trim_end_matches('.').to_lowercase();
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_available = true;
        response.queries = vec![query.clone()];
        let mut state = self.state.lock().unwrap();
        state.asked.push(name.clone());
        if name.starts_with("silence.") {
            return None;
        }
        let mut owner = query.name().clone();
        if let Some(to) = state.aliases.get(&name) {
            let target = Name::from_ascii(format!("{to}.")).unwrap();
            response
                .answers
                .push(Record::from_rdata(owner, 0, RData::CNAME(CNAME(target.clone()))));
            owner = target;
            name.clone_from(to);
        }
        match state.addresses.get(&name) {
            None => response.metadata.response_code = ResponseCode::NXDomain,
            Some(addresses) => {
                for address in addresses {
                    let data = match (address, query.query_type()) {
                        (IpAddr::V4(v4), RecordType::A) => RData::A(A(*v4)),
                        (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(*v6)),
                        _ => continue,
                    };
                    // TTL 0: every look-up asks again.
                    response.answers.push(Record::from_rdata(owner.clone(), 0, data));
                }
            }
        }
        Some(response.to_vec().unwrap())
    }
}

/// Leads public addresses to servers on this host, and remembers what was dialled.
#[derive(Default)]
pub(crate) struct Internet {
    servers: Mutex<HashMap<SocketAddr, SocketAddr>>,
    dialled: Mutex<Vec<String>>,
}

impl Internet {
    pub(crate) fn place(&self, public: &str, server: SocketAddr) {
        self.servers.lock().unwrap().insert(public.parse().unwrap(), server);
    }

    pub(crate) fn dialled(&self) -> Vec<String> {
        self.dialled.lock().unwrap().clone()
    }
}

#[async_trait]
impl Dial for Internet {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.dialled.lock().unwrap().push(address.to_string());
        let server = self.servers.lock().unwrap().get(&address).copied();
        match server {
            Some(server) => TcpStream::connect(server).await,
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// A server that says who it is first, then echoes.
pub(crate) async fn banner_server() -> SocketAddr {
    serve(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await?;
        echo(stream).await
    })
    .await
}

/// A server that echoes.
pub(crate) async fn echo_server() -> SocketAddr {
    serve(echo).await
}

/// An HTTP server that answers with the request head it got, as it came over the wire, and
/// after that the body.
pub(crate) async fn http_server() -> SocketAddr {
    serve(|mut stream| async move {
        let mut buffer = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                    break buffer.drain(..end + 4).collect::<Vec<u8>>();
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            };
            let text = String::from_utf8_lossy(&head).into_owned();
            let length = text
                .lines()
                .find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length: ")?
                        .parse::<usize>()
                        .ok()
                })
                .unwrap_or(0);
            while buffer.len() < length {
                stream.read_buf(&mut buffer).await?;
            }
            let body: Vec<u8> = buffer.drain(..length).collect();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len() + body.len());
            stream.write_all(&[answer.as_bytes(), &head, &body].concat()).await?;
        }
    })
    .await
}

pub(crate) async fn serve<F, R>(handle: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    address
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await.map(|_| ())
}
