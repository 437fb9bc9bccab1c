//! Why a request target is refused.

use super::PathError;
use crate::{fault::Fault, host::HostError};

/// Why a request target is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No scheme in a URL.
    #[error("write the whole URL, like 'https://api.example.com/path'")]
    NotAbsolute,
    /// A scheme that carries no HTTP requests.
    #[error("'{0}' is no scheme of HTTP requests; use 'https' or 'http'")]
    Scheme(String),
    /// An HTTP/2 request without `:scheme`.
    #[error("the request names no scheme")]
    NoScheme,
    /// The request says it travels otherwise than it does.
    #[error("the request names another scheme than its connection has")]
    OtherScheme,
    /// A name before an `@`.
    #[error("a user name before '@' does not belong into a host; leave it out")]
    UserInfo,
    /// A part behind `#`.
    #[error("what stands behind '#' is never sent; leave it out")]
    Fragment,
    /// The text is none of the four forms, or not one this method has.
    #[error("'{0}' is no request target of this method")]
    Form(String),
    /// No host.
    #[error("the request names no host")]
    NoHost,
    /// More than one `Host` header.
    #[error("the request has more than one Host header")]
    ManyHosts,
    /// The target of CONNECT without a port.
    #[error("CONNECT names a host and a port")]
    NoPort,
    /// A port that is none.
    #[error("'{0}' is no port from 1 to 65535")]
    Port(String),
    /// A host and port that cannot be told apart.
    #[error("'{0}' is no host and port; an IPv6 address stands in brackets")]
    Authority(String),
    /// Two names in one request.
    #[error("the request is for {target} and its Host header for {header}")]
    Disagree {
        /// The target's own host and port.
        target: String,
        /// The header's.
        header: String,
    },
    /// The host is none.
    #[error("no valid host: {0}")]
    Host(#[from] HostError),
    /// The path or query is none.
    #[error("no valid path: {0}")]
    Path(#[from] PathError),
}

impl TargetError {
    /// Whether the names in the request are what is wrong, and not its form.
    pub const fn is_about_names(&self) -> bool {
        matches!(
            self,
            Self::UserInfo | Self::Port(_) | Self::Authority(_) | Self::Host(_) | Self::Disagree { .. }
        )
    }

    /// The fault that refuses such a request under every policy.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::NoHost | Self::ManyHosts => Fault::NoHost,
            Self::Disagree { .. } | Self::OtherScheme => Fault::Disagreement,
            _ => Fault::MalformedRequest,
        }
    }
}
