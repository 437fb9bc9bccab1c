//! Servers of the host that no sandbox may reach, and that count who did.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixListener as StdUnixListener},
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use stockade_ports::{Clock as _, SystemClock, Witness};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket, UnixListener},
    task::JoinSet,
};

use crate::{RedTeamError, prepare};

/// The one name the red team's environment opens: what is allowed has to work, or a denial is luck.
pub const TWIN_HOST: &str = "allowed.redteam.test";
/// Where it is: a loopback address nothing else of the red team's uses.
pub(crate) const TWIN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 1);
/// Below this name the canary's name server knows every name; nobody inside may ask it.
pub(crate) const LEAK_ZONE: &str = "leak.redteam.test";

/// Who came, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hits {
    pub(crate) tcp: u64,
    pub(crate) udp: u64,
    pub(crate) unix: u64,
    pub(crate) names: u64,
}

#[derive(Default)]
struct Counters {
    tcp: AtomicU64,
    udp: AtomicU64,
    unix: AtomicU64,
    twin: AtomicU64,
    asked: Mutex<Vec<String>>,
}

/// Servers on the host's loopback, in its abstract namespace and on paths, and a name server.
pub struct Canaries {
    token: String,
    tcp: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
    twin: SocketAddr,
    nameserver: SocketAddr,
    abstract_name: String,
    counters: Arc<Counters>,
    tasks: Mutex<JoinSet<()>>,
}

impl Canaries {
    /// Starts them. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`RedTeamError::Prepare`] when there is no loopback to listen on.
    pub async fn start() -> Result<Arc<Self>, RedTeamError> {
        let token = format!("canary-{}", SystemClock.uuid().simple());
        let counters = Arc::new(Counters::default());
        let mut tasks = JoinSet::new();
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for place in ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"] {
            // A host without IPv6 has no canary there and nothing to reach either.
            let Ok(listener) = TcpListener::bind(place).await else {
                continue;
            };
            tcp.push(listener.local_addr().map_err(prepare("a canary"))?);
            tasks.spawn(greet(listener, token.clone(), Arc::clone(&counters), |c| &c.tcp));
        }
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(place).await else {
                continue;
            };
            udp.push(socket.local_addr().map_err(prepare("a canary"))?);
            tasks.spawn(echo(socket, Arc::clone(&counters)));
        }
        let what = "the allowed server";
        let listener = TcpListener::bind((TWIN_ADDRESS, 0)).await.map_err(prepare(what))?;
        let twin = listener.local_addr().map_err(prepare(what))?;
        tasks.spawn(greet(listener, token.clone(), Arc::clone(&counters), |c| &c.twin));
        let what = "the name server";
        let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(prepare(what))?;
        let nameserver = socket.local_addr().map_err(prepare(what))?;
        tasks.spawn(answer(socket, Arc::clone(&counters)));
        let abstract_name = format!("stockade-redteam-{token}");
        let address = UnixAddr::from_abstract_name(&abstract_name).map_err(prepare("an abstract socket"))?;
        let listener = StdUnixListener::bind_addr(&address).map_err(prepare("an abstract socket"))?;
        tasks.spawn(greet_unix(listener, token.clone(), Arc::clone(&counters)));
        Ok(Arc::new(Self {
            token,
            tcp,
            udp,
            twin,
            nameserver,
            abstract_name,
            counters,
            tasks: Mutex::new(tasks),
        }))
    }

    /// The name server the installation's Guard is to ask while it is attacked.
    #[must_use]
    pub fn nameserver(&self) -> SocketAddr {
        self.nameserver
    }

    /// Port of [`TWIN_HOST`].
    #[must_use]
    pub fn twin_port(&self) -> u16 {
        self.twin.port()
    }

    /// What every server says and every planted file holds.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn tcp(&self) -> impl Iterator<Item = String> {
        self.tcp.iter().map(ToString::to_string)
    }

    pub(crate) fn udp(&self) -> impl Iterator<Item = String> {
        self.udp.iter().map(ToString::to_string)
    }

    pub(crate) fn abstract_name(&self) -> &str {
        &self.abstract_name
    }

    /// Also listens on a path.
    pub(crate) fn listen_at(&self, path: &Path) -> Result<(), RedTeamError> {
        let listener = StdUnixListener::bind(path).map_err(prepare(format!("a socket at {}", path.display())))?;
        let task = greet_unix(listener, self.token.clone(), Arc::clone(&self.counters));
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
        Ok(())
    }

    /// Who came to those that must not be reached.
    pub(crate) fn seen(&self) -> Hits {
        let leaked = |name: &&String| name.ends_with(LEAK_ZONE);
        let asked = self.counters.asked.lock().unwrap_or_else(PoisonError::into_inner);
        Hits {
            tcp: self.counters.tcp.load(Ordering::SeqCst),
            udp: self.counters.udp.load(Ordering::SeqCst),
            unix: self.counters.unix.load(Ordering::SeqCst),
            names: asked.iter().filter(leaked).count() as u64,
        }
    }

    /// Who came to the allowed one.
    pub(crate) fn twin_hits(&self) -> u64 {
        self.counters.twin.load(Ordering::SeqCst)
    }
}

impl Witness for Canaries {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.clone()
    }

    fn abstract_socket(&self) -> Option<String> {
        Some(self.abstract_name.clone())
    }

    fn hits(&self) -> u64 {
        let seen = self.seen();
        seen.tcp + seen.unix
    }
}

async fn greet(listener: TcpListener, token: String, counters: Arc<Counters>, which: fn(&Counters) -> &AtomicU64) {
    while let Ok((mut stream, _)) = listener.accept().await {
        which(&counters).fetch_add(1, Ordering::SeqCst);
        let token = token.clone();
        tokio::spawn(async move {
            let body = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{token}\n",
                token.len() + 1
            );
            let mut request = [0; 1024];
            // Whoever speaks first is answered first; whoever says nothing is answered soon.
            let patience = std::time::Duration::from_millis(200);
            let _ = tokio::time::timeout(patience, stream.read(&mut request)).await;
            let _ = stream.write_all(body.as_bytes()).await;
        });
    }
}

async fn greet_unix(listener: StdUnixListener, token: String, counters: Arc<Counters>) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    let Ok(listener) = UnixListener::from_std(listener) else {
        return;
    };
    while let Ok((mut stream, _)) = listener.accept().await {
        counters.unix.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(token.as_bytes()).await;
    }
}

async fn echo(socket: UdpSocket, counters: Arc<Counters>) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        counters.udp.fetch_add(1, Ordering::SeqCst);
        let _ = socket.send_to(&buffer[..length], from).await;
    }
}

/// A name server (RFC 1035) that knows two names and remembers every question.
async fn answer(socket: UdpSocket, counters: Arc<Counters>) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Some((name, kind, end)) = question(&buffer[..length]) else {
            continue;
        };
        counters
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.clone());
        let _ = socket.send_to(&reply(&buffer[..end], &name, kind), from).await;
    }
}

/// The name asked for, the record type, and where the question ends.
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    packet.get(at + 3)?;
    Some((labels.join("."), kind, at + 4))
}

fn reply(asked: &[u8], name: &str, kind: u16) -> Vec<u8> {
    let known: Option<IpAddr> = if name == TWIN_HOST {
        Some(TWIN_ADDRESS.into())
    } else if name.ends_with(LEAK_ZONE) {
        Some(Ipv4Addr::LOCALHOST.into())
    } else {
        None
    };
    let mut packet = asked.to_vec();
    // An answer, recursion available, the code; one question, answers, nothing else.
    packet[2] |= 0x84;
    packet[3] = 0x80 | if known.is_some() { 0 } else { 3 };
    let record = match known {
        Some(IpAddr::V4(address)) if kind == 1 => Some(address),
        _ => None,
    };
    packet[4..12].copy_from_slice(&[0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0]);
    if let Some(address) = record {
        // The name by reference, type A, class IN, no time to live, four bytes.
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        packet.extend(address.octets());
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(name: &str) -> Vec<u8> {
        let mut packet = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.bytes());
        }
        packet.extend([0, 0, 1, 0, 1]);
        packet
    }

    #[test]
    fn the_name_server_knows_the_allowed_name_and_no_other() {
        let packet = asks("Allowed.Redteam.test");
        let (name, kind, end) = question(&packet).unwrap();
        assert_eq!((name.as_str(), kind, end), (TWIN_HOST, 1, packet.len()));
        let known = reply(&packet, &name, kind);
        assert_eq!((known[3] & 15, known[7]), (0, 1));
        assert_eq!(known[known.len() - 4..], TWIN_ADDRESS.octets());
        let packet = asks("pypi.org");
        let unknown = reply(&packet, "pypi.org", 1);
        assert_eq!((unknown[3] & 15, unknown[7]), (3, 0));
        assert!(question(&packet[..20]).is_none(), "half a question is none");
    }
}
