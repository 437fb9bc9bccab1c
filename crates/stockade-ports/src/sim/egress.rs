//! A session that refuses everything, for sandboxes that are tried without a Guard.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

use crate::{Boundary, EgressSession, Tally};

/// Accepts and hangs up; answers every question with REFUSED (RFC 1035, 4.1.1). It is told what
/// to expect: without the kernel's word on original destinations it counts attempts alone.
pub struct ClosedDoor {
    tally: Arc<Mutex<Tally>>,
    tasks: JoinSet<()>,
}

impl ClosedDoor {
    /// Serves a boundary until it is dropped. `original` says where a connection wanted to go.
    ///
    /// # Panics
    ///
    /// When the sockets cannot be used: this is for tests.
    #[must_use]
    pub fn serve(boundary: Boundary, original: fn(&tokio::net::TcpStream) -> Option<SocketAddr>) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut tasks = JoinSet::new();
        for fd in [Some(boundary.tcp4), boundary.tcp6].into_iter().flatten() {
            tasks.spawn(hang_up(fd, Arc::clone(&tally), original));
        }
        for fd in [Some(boundary.dns4), boundary.dns6].into_iter().flatten() {
            tasks.spawn(refuse(fd, Arc::clone(&tally)));
        }
        Self { tally, tasks }
    }
}

async fn hang_up(fd: OwnedFd, tally: Arc<Mutex<Tally>>, original: fn(&tokio::net::TcpStream) -> Option<SocketAddr>) {
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true).expect("a listener");
    let listener = TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        let to = original(&stream).or_else(|| stream.local_addr().ok());
        let to = to.map_or_else(|| "unknown".to_owned(), |addr| canonical(addr.ip()));
        note(&tally, to);
    }
}

fn canonical(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

async fn refuse(fd: OwnedFd, tally: Arc<Mutex<Tally>>) {
    let socket = std::net::UdpSocket::from(fd);
    socket.set_nonblocking(true).expect("a socket");
    let socket = UdpSocket::from_std(socket).expect("a socket");
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if length < 12 {
            continue;
        }
        note(&tally, question(&buffer[12..length]));
        // QR, and RCODE 5.
        buffer[2] |= 0x80;
        buffer[3] = (buffer[3] & 0xf0) | 5;
        let _ = socket.send_to(&buffer[..length], from).await;
    }
}

/// The name asked for, labels joined with dots.
fn question(mut rest: &[u8]) -> String {
    let mut labels = Vec::new();
    while let Some((length, tail)) = rest.split_first() {
        let length = usize::from(*length);
        if length == 0 || length > tail.len() {
            break;
        }
        labels.push(String::from_utf8_lossy(&tail[..length]).to_lowercase());
        rest = &tail[length..];
    }
    labels.join(".")
}

fn note(tally: &Mutex<Tally>, to: String) {
    tally.lock().unwrap_or_else(PoisonError::into_inner).denied.push(to);
}

#[async_trait]
impl EgressSession for ClosedDoor {
    fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self) {}

    async fn lost(&self) -> String {
        std::future::pending().await
    }

    async fn close(&self) {}
}

impl Drop for ClosedDoor {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}
