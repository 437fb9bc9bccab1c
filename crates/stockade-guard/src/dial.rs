//! Dialling addresses that were judged.

use std::{io, net::SocketAddr};

use async_trait::async_trait;
use tokio::net::TcpStream;

/// Opens connections. The system does; tests do in its place.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Connects to exactly this address.
    ///
    /// # Errors
    ///
    /// The system's.
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// Dials from this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDial;

#[async_trait]
impl Dial for SystemDial {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}
