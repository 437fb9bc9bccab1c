//! Limits of the edge itself.

use std::time::Duration;

/// What one client may cost the gateway.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// The largest body, in bytes; 1 MiB.
    pub body_bytes: usize,
    /// The longest prompt or message, in bytes of UTF-8; 64 KiB.
    pub text_bytes: usize,
    /// How long a client may take over a request's head, also the first one; 10 s.
    pub head_timeout: Duration,
    /// How long a client may take over a request's body; 30 s.
    pub body_timeout: Duration,
    /// Connections open at once; more wait in the kernel's queue; 1024.
    pub connections: usize,
    /// Silence on an event stream after which it says that it lives and checks its token again; 15 s.
    pub keepalive: Duration,
    /// How often an event stream looks into the store without a hint; 1 s.
    pub poll: Duration,
    /// How long connections in use may go on after a shutdown began; 5 s.
    pub grace: Duration,
    /// Host names the gateway answers for besides those of the loopback.
    pub allowed_hosts: Vec<String>,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            text_bytes: 64 << 10,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            connections: 1024,
            keepalive: Duration::from_secs(15),
            poll: Duration::from_secs(1),
            grace: Duration::from_secs(5),
            allowed_hosts: Vec::new(),
        }
    }
}
