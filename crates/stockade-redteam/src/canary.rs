//! Servers of the host that no sandbox may reach, and that count who did.

use std::{
    net::{Ipv4Addr, SocketAddr},
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

use stockade_ports::{Clock as _, Secrets, SystemClock, Witness};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket, UnixListener},
    task::JoinSet,
};

use crate::{
    RedTeamError, prepare,
    world::{Known, World, Zone},
};

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
}

/// Servers on the host's loopback, in its abstract namespace and on paths, and a name server.
pub struct Canaries {
    token: String,
    tcp: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
    twin: SocketAddr,
    nameserver: SocketAddr,
    world: Arc<World>,
    road: SocketAddr,
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
        let zone = Arc::new(Zone::default());
        zone.set(TWIN_HOST, Known::At(vec![TWIN_ADDRESS.into()]));
        let nameserver = zone.serve(&mut tasks).await?;
        let world = World::start(Arc::clone(&zone), &mut tasks).await?;
        let road = world.road(&mut tasks).await?;
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
            world,
            road,
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

    /// Where a connection of the Guard's to an address is to be led: to the server that plays it. Whatever nobody
    /// plays ends in a sink, so that nothing leaves this host.
    #[must_use]
    pub fn place(&self, address: SocketAddr) -> SocketAddr {
        if address == self.twin || self.tcp.contains(&address) {
            return address;
        }
        self.world.place(address)
    }

    /// A way past every Guard: it takes `HOST PORT` and a line break, looks the host up, dials what it finds and
    /// carries bytes. Controls go over it.
    #[must_use]
    pub fn road(&self) -> SocketAddr {
        self.road
    }

    /// The secret that the Guard is to put into requests while it is attacked.
    #[must_use]
    pub fn secrets(&self) -> Arc<dyn Secrets> {
        self.world.secrets()
    }

    /// The authority of the servers in DER, for the Guard to believe.
    #[must_use]
    pub fn authority(&self) -> Vec<u8> {
        self.world.authority().to_vec()
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
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
        Hits {
            tcp: self.counters.tcp.load(Ordering::SeqCst),
            udp: self.counters.udp.load(Ordering::SeqCst),
            unix: self.counters.unix.load(Ordering::SeqCst),
            names: self.world.zone.asked(LEAK_ZONE),
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
