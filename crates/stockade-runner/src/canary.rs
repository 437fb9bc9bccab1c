//! Servers of this process that no sandbox may ever reach, and that tell when one did.

use std::{
    net::SocketAddr,
    os::{linux::net::SocketAddrExt as _, unix::net as unix},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use stockade_ports::Witness;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::JoinSet,
    time::{Duration, timeout},
};

/// Longest the canary may take to answer its own host.
const CONTROL: Duration = Duration::from_secs(2);

/// Listens on the host's loopback and on an abstract socket. Lives as long as the runner.
pub(crate) struct Canary {
    addresses: Vec<SocketAddr>,
    name: String,
    hits: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Canary {
    /// Starts the servers and connects to each: a canary that hears nobody proves nothing.
    pub(crate) async fn start() -> std::io::Result<Self> {
        let hits = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for place in ["127.0.0.1:0", "[::1]:0"] {
            // A host without IPv6 has no canary there and nothing to reach either.
            let Ok(listener) = TcpListener::bind(place).await else {
                continue;
            };
            addresses.push(listener.local_addr()?);
            let hits = Arc::clone(&hits);
            tasks.spawn(async move {
                while listener.accept().await.is_ok() {
                    hits.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let name = format!("stockade-canary-{}", uuid::Uuid::new_v4().simple());
        let listener = unix::UnixListener::bind_addr(&unix::SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let counted = Arc::clone(&hits);
        tasks.spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let canary = Self {
            addresses,
            name,
            hits,
            _tasks: tasks,
        };
        canary.hears().await?;
        Ok(canary)
    }

    /// Connects from the host to every server and waits until each has told.
    async fn hears(&self) -> std::io::Result<()> {
        for address in &self.addresses {
            TcpStream::connect(address).await?;
        }
        let socket = unix::UnixStream::connect_addr(&unix::SocketAddr::from_abstract_name(&self.name)?)?;
        socket.set_nonblocking(true)?;
        let _socket = UnixStream::from_std(socket)?;
        let expected = self.addresses.len() as u64 + 1;
        let all = async {
            while self.hits() < expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(CONTROL, all)
            .await
            .map_err(|_| std::io::Error::other("the canary hears nobody"))
    }
}

impl Witness for Canary {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    fn abstract_socket(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_canary_counts_who_reaches_it() {
        let canary = Canary::start().await.expect("starts");
        let before = canary.hits();
        for address in canary.addresses() {
            TcpStream::connect(address).await.expect("connects");
        }
        let all = async {
            while canary.hits() < before + canary.addresses().len() as u64 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(CONTROL, all).await.expect("counted");
    }
}
