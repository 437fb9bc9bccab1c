//! Faults: what the Guard saw that no rule may allow.
//!
//! The Guard describes what it saw in the action's `args`; this module is what the policy
//! makes of it. So the gate writes every refusal down and the Guard decides none itself.

use serde_json::Value;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $rule:literal, $reason:literal;)*) => {
        /// Something about a connection that is refused under every policy.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[$doc])* $variant,)*
        }

        impl Fault {
            /// Every fault there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code in an action's `args.fault`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The rule that refuses it.
            pub const fn rule(self) -> &'static str {
                match self { $(Self::$variant => $rule,)* }
            }

            /// Why, in words.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason,)* }
            }
        }
    };
}

faults! {
    /// The destination is the sandbox's own loopback, where nothing listens.
    Loopback = "loopback", "stockade.loopback",
        "nothing listens on this port inside the sandbox, and its loopback leads nowhere else";
    /// The destination is a synthetic address that was never handed out in this session.
    UnknownAddress = "unknown_address", "stockade.unknown_address",
        "this address was not handed out for any name in this session; resolve the name again";
    /// The name leads to the host that runs Stockade.
    OwnAddress = "own_address", "stockade.address",
        "the name leads back to the machine that runs Stockade";
    /// TLS without a server name.
    NoSni = "no_sni", "stockade.no_sni",
        "the TLS handshake names no server; enable SNI in the client";
    /// The first bytes are no well-formed ClientHello.
    MalformedHello = "malformed_hello", "stockade.malformed",
        "the TLS handshake is malformed or too large";
    /// The HTTP request is not well-formed.
    MalformedRequest = "malformed_request", "stockade.malformed",
        "the HTTP request is malformed";
    /// The HTTP request head is over the limit.
    HeaderTooLarge = "header_too_large", "stockade.malformed",
        "the HTTP request head is too large";
    /// Content-Length and Transfer-Encoding together, twice, or not understood (RFC 9112 6.3).
    AmbiguousLength = "ambiguous_length", "stockade.ambiguous_length",
        "the HTTP request states its length in two ways; two servers could read it differently";
    /// No `Host`, or more than one.
    NoHost = "no_host", "stockade.no_host",
        "the HTTP request does not have exactly one Host header";
    /// The request's own target, its `Host` and its connection name different places.
    Disagreement = "disagreement", "stockade.name_mismatch",
        "the request names two different hosts, ports or schemes";
    /// CONNECT through a connection that is one already.
    ConnectMethod = "connect_method", "stockade.connect_method",
        "CONNECT would relay to another destination; connect to the destination itself";
    /// Something other than HTTP/1 is spoken to the proxy.
    ProxyProtocol = "proxy_protocol", "stockade.proxy",
        "the proxy speaks HTTP/1.1 alone: CONNECT, or a request with its whole URL";
    /// SOCKS is spoken to the proxy.
    Socks = "socks", "stockade.socks",
        "SOCKS is not spoken; set the client's proxy to http://proxy.stockade.internal:3128";
    /// A request to the proxy names its path alone.
    ProxyForm = "proxy_form", "stockade.proxy",
        "a request to the proxy names its whole URL, like 'GET http://host/path'";
    /// Bytes behind a CONNECT that was not answered yet.
    EarlyBytes = "early_bytes", "stockade.proxy",
        "bytes came behind CONNECT before it was answered; a client waits for the answer";
    /// No first bytes in time.
    Silent = "silent", "stockade.protocol",
        "the client sent nothing; protocols in which the server speaks first need the port in the environment's domains, like 'host:22'";
    /// Too many connections at a time.
    TooManyConnections = "too_many_connections", "stockade.limit",
        "too many connections of this run at a time";
    /// Too many connections wait for a person.
    TooManyWaiting = "too_many_waiting", "stockade.limit",
        "too many connections of this run wait for a person";
    /// Too many different names.
    TooManyNames = "too_many_names", "stockade.limit",
        "too many different host names in this run";
    /// Names that look like data on its way out.
    DnsTunnel = "dns_tunnel", "stockade.dns_tunnel",
        "the names asked for below this suffix look like data carried in names; name the very hosts under 'domains' or in a rule";
}

impl Fault {
    /// The fault in an action's `args`. An unknown code is a fault all the same: `Err`.
    pub(crate) fn of(args: &Value) -> Option<Result<Self, &Value>> {
        let code = args.get("fault")?;
        let known = Self::ALL.iter().find(|fault| code.as_str() == Some(fault.as_str()));
        Some(known.copied().ok_or(code))
    }
}
