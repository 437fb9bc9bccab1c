//! TLS that the Guard opens, where a rule needs to see what is inside.

mod authority;
mod bundle;
mod hello;
mod inspect;
mod outward;
mod rewound;
mod subject;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use stockade_domain::RunId;
use stockade_ports::Trust;

pub(crate) use authority::{Authority, Unsigned};
pub(crate) use hello::{Hello, has_ech};
pub(crate) use inspect::{Inspected, serve};
pub(crate) use outward::{Outward, Trusted, Unreached};

/// The one provider of cryptography.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// An application protocol that is inspected (RFC 7301, RFC 9113 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// `http/1.1`, also meant where a server names none.
    Http1,
    /// `h2`.
    Http2,
}

impl Alpn {
    pub(crate) fn id(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    fn of(chosen: Option<&[u8]>) -> Self {
        match chosen {
            Some(b"h2") => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// The TLS of one run: its authority inside, its connections outwards.
pub(crate) struct Tls {
    pub(crate) authority: Authority,
    pub(crate) outward: Outward,
}

impl Tls {
    pub(crate) fn new(run: RunId, trusted: &Trusted) -> Result<Self, Unsigned> {
        Ok(Self {
            authority: Authority::new(run)?,
            outward: trusted.outward()?,
        })
    }

    /// What the run's programs have to believe.
    pub(crate) fn trust(&self) -> Trust {
        bundle::trust(&self.authority)
    }
}
