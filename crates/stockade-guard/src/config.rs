//! Settings of the Guard.

use std::{net::SocketAddr, time::Duration};

use rustls::pki_types::CertificateDer;

use crate::dns::TunnelLimits;

/// Settings of the Guard; all limits are per run.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// Name servers to ask; empty means those of the system's `resolv.conf`.
    pub nameservers: Vec<SocketAddr>,
    /// How long a look-up may take, retries included.
    pub dns_timeout: Duration,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long a client may take to say what it speaks, or to send a request head.
    pub handshake_timeout: Duration,
    /// How long the client of a port open to any protocol is waited for before the server is
    /// given the first word.
    pub first_word: Duration,
    /// How long a connection may carry no byte in either direction.
    pub idle_timeout: Duration,
    /// How long closing a session waits for its connections to be settled.
    pub close_timeout: Duration,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections at a time that wait for a person.
    pub max_waiting: usize,
    /// Different names that get an address.
    pub max_names: usize,
    /// DNS questions per second; what is over is dropped.
    pub max_dns_per_second: u32,
    /// How much names below one wildcard may say.
    pub tunnel: TunnelLimits,
    /// How often refusals that were only counted are written down.
    pub report_interval: Duration,
    /// How long the store may not say which hosts are revoked; after that nothing is let out and
    /// what is open is cut.
    pub revocation_patience: Duration,
    /// Largest HTTP request head, in bytes.
    pub max_header_bytes: usize,
    /// Certificate authorities that inspected servers may be vouched for by, beside the web's:
    /// those of a private network.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            nameservers: Vec::new(),
            dns_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            first_word: Duration::from_millis(300),
            idle_timeout: Duration::from_secs(600),
            close_timeout: Duration::from_secs(5),
            max_connections: 256,
            max_waiting: 32,
            max_names: 4096,
            max_dns_per_second: 1000,
            tunnel: TunnelLimits::default(),
            report_interval: Duration::from_secs(10),
            revocation_patience: Duration::from_secs(5),
            max_header_bytes: 64 * 1024,
            extra_roots: Vec::new(),
        }
    }
}
