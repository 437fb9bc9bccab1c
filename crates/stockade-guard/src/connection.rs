//! A connection from inside the sandbox, from its first byte to its settlement.

use std::{net::SocketAddr, sync::Arc};

use ::http::StatusCode;
use bytes::BytesMut;
use serde_json::json;
use stockade_domain::Action;
use stockade_policy::{
    Fault, Host, Protocol,
    egress::{INTERNAL_PORT, PROXY_HOST, PROXY_PORT},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
};

use crate::{
    ask, dns,
    door::{Opened, Shut, open},
    http,
    pins::Pins,
    proxy,
    session::{Denial, Session},
    sniff::{Opening, Patience, sniff},
    tls::{self, Hello, Inspected},
    traffic::Tap,
};

/// Buffer of each direction of a spliced connection, in bytes.
const SPLICE: usize = 16 * 1024;
/// A fatal TLS alert "access_denied" (RFC 8446 6), so that a client can say why.
pub(crate) const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// Where a connection wants to go.
pub(crate) enum Place {
    /// A name the Guard answers itself.
    Internal(&'static str),
    /// The proxy for clients that insist on one.
    Proxy,
    /// A name this session has handed out an address for, or a bare address.
    Host(Host),
    /// Nowhere.
    Nowhere(Host, Fault),
}

/// Serves one connection until it is closed and settled.
pub(crate) async fn serve(session: Arc<Session>, stream: TcpStream) {
    let Ok(destination) = session.origin.destination(&stream) else {
        return reset(stream);
    };
    let _ = stream.set_nodelay(true);
    if destination.port() == dns::PORT {
        return dns::serve_stream(session, stream).await;
    }
    let port = destination.port();
    match Place::at(&session, destination) {
        Place::Proxy if port == PROXY_PORT => {
            if let Some(asked) = proxy::serve(&session, stream).await {
                connected(session, asked).await;
            }
        }
        Place::Proxy => refuse(&session, stream, proxy::action(port)).await,
        Place::Internal(name) if port == INTERNAL_PORT => http::serve_internal(session, stream, name).await,
        Place::Internal(name) => match Host::parse(name) {
            Ok(host) => refuse(&session, stream, ask::connect(&host, port, Protocol::Tcp)).await,
            Err(_) => reset(stream),
        },
        Place::Nowhere(host, fault) => {
            let action = ask::faulty(ask::connect(&host, port, Protocol::Tcp), fault);
            refuse(&session, stream, action).await;
        }
        Place::Host(host) => {
            Conversation::new(session, host, port).begin(stream).await;
        }
    }
}

/// Refuses a connection because there are too many.
pub(crate) async fn turn_away(session: &Session, stream: TcpStream) {
    if let Ok(destination) = session.origin.destination(&stream) {
        let host = match Place::at(session, destination) {
            Place::Internal(name) => Host::parse(name).unwrap_or(destination.ip().into()),
            Place::Proxy => Host::parse(PROXY_HOST).unwrap_or(destination.ip().into()),
            Place::Host(host) | Place::Nowhere(host, _) => host,
        };
        let action = ask::connect(&host, destination.port(), Protocol::Tcp);
        session.refuse(ask::faulty(action, Fault::TooManyConnections)).await;
    }
    reset(stream);
}

/// Goes on after a CONNECT: as if the connection had been to that host and port.
async fn connected(session: Arc<Session>, asked: proxy::Asked) {
    let (host, port) = (asked.host.clone(), asked.port);
    let action = ask::connect(&host, port, Protocol::Tcp);
    match Place::of(&session, host, port) {
        Place::Internal(name) if port == INTERNAL_PORT => {
            if let Some(stream) = asked.granted().await {
                http::serve_internal(session, stream, name).await;
            }
        }
        Place::Internal(_) | Place::Proxy => asked.refused(&session, action).await,
        Place::Nowhere(_, fault) => asked.refused(&session, ask::faulty(action, fault)).await,
        Place::Host(host) => {
            let conversation = Conversation::new(session, host, port);
            if let Some(action) = conversation.closed_whatever_is_spoken() {
                return asked.refused(&conversation.session, action).await;
            }
            if let Some(stream) = asked.granted().await {
                conversation.begin(stream).await;
            }
        }
    }
}

impl Place {
    /// Where a connection to an address leads.
    fn at(session: &Session, destination: SocketAddr) -> Self {
        let address = destination.ip().to_canonical();
        let host = Host::from(address);
        if address.is_loopback() {
            return Self::Nowhere(host, Fault::Loopback);
        }
        if !Pins::is_synthetic(address) {
            return Self::Host(host);
        }
        let name = match address {
            std::net::IpAddr::V4(address) => session.pins.name(address),
            std::net::IpAddr::V6(_) => None,
        };
        match name {
            None => Self::Nowhere(host, Fault::UnknownAddress),
            Some(name) => Self::of(session, Host::Name(name), destination.port()),
        }
    }

    /// Where a host leads that was named.
    pub(crate) fn of(session: &Session, host: Host, port: u16) -> Self {
        let name = match host {
            Host::Name(name) => name,
            Host::Address(address) => return Self::at(session, SocketAddr::new(address, port)),
        };
        match session.internal_name(name.as_str()) {
            Some(internal) => Self::Internal(internal),
            None if name.as_str() == PROXY_HOST => Self::Proxy,
            None => Self::Host(Host::Name(name)),
        }
    }
}

/// A connection to a host that may be allowed.
pub(crate) struct Conversation {
    session: Arc<Session>,
    host: Host,
    port: u16,
}

impl Conversation {
    pub(crate) fn new(session: Arc<Session>, host: Host, port: u16) -> Self {
        Self { session, host, port }
    }

    async fn begin(&self, mut stream: TcpStream) {
        if let Some(action) = self.closed_whatever_is_spoken() {
            let denial = self.session.refuse(action).await;
            return self.turn_back(stream, &denial).await;
        }
        let opaque = self
            .host
            .name()
            .is_some_and(|name| self.session.policy().egress().is_opaque(name, self.port));
        let config = &self.session.config;
        let first = if opaque {
            config.first_word
        } else {
            config.handshake_timeout
        };
        let mut buffer = BytesMut::with_capacity(4096);
        let patience = Patience {
            first,
            rest: config.handshake_timeout,
            line: config.max_header_bytes,
        };
        let opening = tokio::select! {
            opening = sniff(&mut stream, &mut buffer, patience) => opening,
            () = self.session.stop.cancelled() => return reset(stream),
        };
        match opening {
            Opening::Closed => {}
            Opening::Http => self.http(stream, buffer).await,
            Opening::Tls(hello) => self.tls_begun(stream, buffer, hello).await,
            Opening::Other => self.unread(stream, buffer).await,
            Opening::Silent if opaque => self.server_first(stream, buffer).await,
            Opening::Silent => {
                let action = ask::faulty(self.connect(Protocol::Tcp), Fault::Silent);
                refuse(&self.session, stream, action).await;
            }
            Opening::Faulty(fault) => {
                let action = ask::faulty(self.connect(Protocol::Tcp), fault);
                refuse(&self.session, stream, action).await;
            }
        }
    }

    /// The refused action, where no first byte could make a difference.
    pub(crate) fn closed_whatever_is_spoken(&self) -> Option<Action> {
        let refused = |protocol| self.session.is_denied(&self.connect(protocol));
        if !Protocol::SPOKEN.into_iter().all(refused) {
            return None;
        }
        // Nothing was spoken yet, so say so, unless that would give another reason.
        let (best, plain) = (self.connect(Protocol::Tls), self.connect(Protocol::Tcp));
        let same = self.session.evaluate(&plain).rule == self.session.evaluate(&best).rule;
        Some(if same { plain } else { best })
    }

    /// Tells a client that was refused before its first byte why, in its own protocol if that
    /// is HTTP or TLS.
    async fn turn_back(&self, mut stream: TcpStream, denial: &Denial) {
        let mut buffer = BytesMut::with_capacity(1024);
        let patience = Patience {
            first: self.session.config.first_word,
            rest: self.session.config.first_word,
            line: self.session.config.max_header_bytes,
        };
        match sniff(&mut stream, &mut buffer, patience).await {
            Opening::Http => {
                let answer = http::problem_bytes(StatusCode::FORBIDDEN, &denial.rule, &denial.reason);
                goodbye(stream, &answer).await;
            }
            Opening::Tls(_) => goodbye(stream, &ACCESS_DENIED).await,
            _ => reset(stream),
        }
    }

    /// The action of a connection, which says so where its requests will be read.
    fn connect(&self, protocol: Protocol) -> Action {
        let action = ask::connect(&self.host, self.port, protocol);
        let readable = matches!(protocol, Protocol::Tls | Protocol::Http);
        if readable && self.session.needs_inspection(&self.host, self.port).is_some() {
            return ask::inspected(action);
        }
        action
    }

    /// The action of a TLS connection; a server name that says more than the host is evidence.
    fn tls(&self, hello: &Hello) -> Action {
        let action = self.connect(Protocol::Tls);
        match (&hello.sni, &self.host) {
            (Some(sni), host) if Host::parse(sni).as_ref() == Ok(host) => action,
            (Some(sni), _) => ask::with(action, "sni", json!(sni)),
            // Nobody names an address in SNI (RFC 6066 3).
            (None, Host::Address(_)) => action,
            (None, Host::Name(_)) => ask::faulty(action, Fault::NoSni),
        }
    }

    async fn http(&self, stream: TcpStream, buffer: BytesMut) {
        let session = Arc::clone(&self.session);
        http::serve_plain(session, stream, buffer, self.host.clone(), self.port).await;
    }

    /// A connection that begins with a ClientHello: opened where a rule needs that.
    async fn tls_begun(&self, stream: TcpStream, buffer: BytesMut, hello: Hello) {
        let action = self.tls(&hello);
        match self.to_inspect(hello) {
            None => self.tunnel(stream, buffer, action).await,
            Some(asked) => match self.opened(&stream, ask::inspected(action)).await {
                Some(Ok(opened)) => Box::pin(tls::serve(asked, stream, buffer, opened)).await,
                Some(Err(Shut::Refused(_))) => goodbye(stream, &ACCESS_DENIED).await,
                Some(Err(Shut::Failed(_))) | None => reset(stream),
            },
        }
    }

    /// What inspection needs to know, where a rule needs it for the name the client asks for.
    fn to_inspect(&self, hello: Hello) -> Option<Inspected> {
        let named = hello.sni.as_deref().and_then(|sni| Host::parse(sni).ok());
        let name = named.unwrap_or_else(|| self.host.clone());
        let rule = self.session.needs_inspection(&name, self.port);
        // Were they to differ, the policy refuses the connection.
        let rule = rule.or_else(|| self.session.needs_inspection(&self.host, self.port))?;
        Some(Inspected {
            session: Arc::clone(&self.session),
            host: self.host.clone(),
            port: self.port,
            name,
            rule,
            hello,
        })
    }

    /// A connection of bytes the Guard cannot read: not where a rule needs it to, unless what it
    /// begins like has rules of its own.
    async fn unread(&self, stream: TcpStream, buffer: BytesMut) {
        let protocol = Protocol::of_first_bytes(&buffer);
        let action = self.connect(protocol);
        let needed = self.session.needs_inspection(&self.host, self.port);
        match needed.filter(|_| protocol == Protocol::Tcp) {
            None => self.tunnel(stream, buffer, action).await,
            Some(rule) => {
                refuse_unreadable(&self.session, &rule, action).await;
                reset(stream);
            }
        }
    }

    /// Opens the other side and lets bytes through.
    async fn tunnel(&self, stream: TcpStream, buffer: BytesMut, action: Action) {
        let tls = action.args["protocol"] == json!(Protocol::Tls.as_str());
        match self.opened(&stream, action).await {
            Some(Ok(opened)) => splice(&self.session, stream, buffer, opened).await,
            Some(Err(Shut::Refused(_))) if tls => goodbye(stream, &ACCESS_DENIED).await,
            Some(Err(_)) | None => reset(stream),
        }
    }

    /// Opens the other side and lets whoever speaks first decide what is spoken.
    ///
    /// Only a server that really speaks first makes the connection one of plain bytes; a
    /// client that merely waited is judged by what it says then.
    async fn server_first(&self, mut stream: TcpStream, mut buffer: BytesMut) {
        let Some(Ok(opened)) = self.opened(&stream, self.connect(Protocol::Tcp)).await else {
            return reset(stream);
        };
        let config = &self.session.config;
        let patience = Patience {
            first: config.idle_timeout,
            rest: config.handshake_timeout,
            line: config.max_header_bytes,
        };
        let opening = tokio::select! {
            biased;
            () = self.session.stop.cancelled() => Opening::Closed,
            opening = sniff(&mut stream, &mut buffer, patience) => opening,
            () = opened.readable() => Opening::Other,
            () = opened.tap.cut.happened() => Opening::Closed,
        };
        let needed = self.session.needs_inspection(&self.host, self.port);
        let action = match opening {
            Opening::Other if needed.is_some() => {
                let rule = needed.unwrap_or_default();
                let denial = refuse_unreadable(&self.session, &rule, self.connect(Protocol::Tcp)).await;
                opened.abort(denial.reason).await;
                return reset(stream);
            }
            Opening::Other => return splice(&self.session, stream, buffer, opened).await,
            Opening::Http => {
                opened
                    .close("the client spoke HTTP, which is judged request by request")
                    .await;
                return self.http(stream, buffer).await;
            }
            Opening::Silent | Opening::Closed => {
                opened.close("closed").await;
                return reset(stream);
            }
            Opening::Tls(hello) => {
                let action = self.tls(&hello);
                match self.to_inspect(hello) {
                    None => action,
                    Some(asked) if !self.session.is_denied(&ask::inspected(action.clone())) => {
                        return Box::pin(tls::serve(asked, stream, buffer, opened)).await;
                    }
                    Some(_) => ask::inspected(action),
                }
            }
            Opening::Faulty(fault) => ask::faulty(self.connect(Protocol::Tcp), fault),
        };
        if self.session.is_denied(&action) {
            let denial = self.session.refuse(action).await;
            opened.abort(denial.reason).await;
            return reset(stream);
        }
        splice(&self.session, stream, buffer, opened).await;
    }

    /// Opens the other side; `None` when the client went away or the session ended meanwhile.
    async fn opened(&self, stream: &TcpStream, action: Action) -> Option<Result<Opened, Shut>> {
        tokio::select! {
            opened = open(&self.session, self.host.clone(), self.port, action) => Some(opened),
            () = hung_up(stream) => None,
            () = self.session.stop.cancelled() => None,
        }
    }
}

/// Refuses bytes that cannot be read though a rule needs that.
async fn refuse_unreadable(session: &Session, rule: &str, action: Action) -> Denial {
    let reason = format!("rule '{rule}' needs requests to be read, and this is neither HTTP nor TLS");
    session.refuse_because(action, "stockade.inspection", &reason).await
}

/// Lets the bytes of a tunnel through and settles it.
async fn splice(session: &Session, mut stream: TcpStream, buffer: BytesMut, mut opened: Opened) {
    let Some(mut outer) = opened.take_stream() else {
        return reset(stream);
    };
    let tap = Arc::clone(&opened.tap);
    let ended = match outer.write_all(&buffer).await {
        Ok(()) => carry(session, &mut stream, &mut outer, &tap).await,
        Err(_) => "broken",
    };
    drop(outer);
    opened.close(ended).await;
    if ended != "closed" {
        reset(stream);
    }
}

/// Lets bytes through until both sides are done, nothing moves, it is cut, or the session ends;
/// says which.
pub(crate) async fn carry<A, B>(session: &Session, inner: &mut A, outer: &mut B, tap: &Tap) -> &'static str
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        carried = copy_bidirectional_with_sizes(inner, outer, SPLICE, SPLICE) => match carried {
            Ok(_) => "closed",
            Err(_) => "broken",
        },
        () = tap.meter.idle(session.config.idle_timeout) => "idle",
        () = tap.cut.happened() => "cut",
        () = session.stop.cancelled() => "sandbox ended",
    }
}

/// Resolves when the client has closed, as far as that shows: its next byte, if there is
/// one, hides what comes after it.
async fn hung_up(stream: &TcpStream) {
    let mut byte = [0];
    match stream.peek(&mut byte).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

async fn refuse(session: &Session, stream: TcpStream, action: Action) {
    session.refuse(action).await;
    reset(stream);
}

/// Ends a connection with last words.
pub(crate) async fn goodbye(mut stream: TcpStream, words: &[u8]) {
    let _ = stream.write_all(words).await;
    let _ = stream.shutdown().await;
}

/// Ends a connection with a reset instead of an orderly close.
pub(crate) fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}
