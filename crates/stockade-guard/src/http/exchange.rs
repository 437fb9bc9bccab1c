//! One request after the other, or beside the other: whom it names, what the rules say to it,
//! the connection outwards it goes over, and what comes back.
//!
//! The first request of a plain connection opens the one outwards, through the gate; later
//! ones go over the same connection after they were judged, and a new one is asked for when
//! the server has closed it.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use stockade_domain::Action;
use stockade_policy::{Host, Protocol, host_and_port};
use stockade_ports::InternalBody;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::{
    filter::Valve,
    outer::{Outer, Sender},
    problem::problem,
    request::{Pin, Stray, check, outward, strip_hop_by_hop},
    through_git::is_git,
    upgrade::{self, Upgraded},
};
use crate::{
    ask,
    broker::Leaving,
    door::{Shut, open},
    git::refusal,
    judge::{Granted, judge},
    lend,
    meter::{Meter, Metered},
    session::{Denial, Session},
    tls::{Alpn, Unreached},
};

pub(super) type Answer = Response<InternalBody>;

/// What a request came to, or the status and reason why to nothing.
pub(super) type Exchanged = Result<Answer, (StatusCode, Denial)>;

/// One client connection and, once a request was let out, one connection outwards.
pub(crate) struct Exchange {
    pub(super) session: Arc<Session>,
    /// What was connected to; where it is a bare address, the names come from the client.
    host: Host,
    /// Whom every request must name.
    pub(super) pin: Pin,
    /// What connections outwards are let through with.
    action: Action,
    /// What the connection outwards speaks; a new one has to speak the same.
    alpn: Alpn,
    /// Silence between the client and the Guard.
    pub(super) idle: Arc<Meter>,
    pub(super) valve: Arc<Valve>,
    outer: Mutex<Option<Outer>>,
    upgraded: Mutex<Option<Upgraded>>,
    /// Requests that were handed over and must be answered though the client went away.
    pub(super) deliveries: TaskTracker,
}

impl Exchange {
    /// For plain HTTP.
    pub(super) fn plain(session: Arc<Session>, host: Host, port: u16) -> Arc<Self> {
        let action = read_where_needed(&session, &host, port, ask::connect(&host, port, Protocol::Http));
        let pin = Pin::plain(host.clone(), port);
        Self::new(session, host, pin, action, Alpn::Http1, Arc::new(Meter::new()), None)
    }

    /// For HTTP inside TLS, whose connection outwards is open already.
    pub(crate) fn secure(
        session: Arc<Session>,
        host: Host,
        pin: Pin,
        action: Action,
        alpn: Alpn,
        idle: Arc<Meter>,
        outer: Outer,
    ) -> Arc<Self> {
        Self::new(session, host, pin, action, alpn, idle, Some(outer))
    }

    fn new(
        session: Arc<Session>,
        host: Host,
        pin: Pin,
        action: Action,
        alpn: Alpn,
        idle: Arc<Meter>,
        outer: Option<Outer>,
    ) -> Arc<Self> {
        Arc::new(Self {
            session,
            host,
            pin,
            action,
            alpn,
            idle,
            valve: Arc::default(),
            outer: Mutex::new(outer),
            upgraded: Mutex::new(None),
            deliveries: TaskTracker::new(),
        })
    }

    pub(super) fn action(&self) -> Action {
        self.action.clone()
    }

    /// The other side of a connection that is no HTTP any more.
    pub(super) async fn take_upgraded(&self) -> Option<Upgraded> {
        self.upgraded.lock().await.take()
    }

    /// Settles what was open.
    pub(super) async fn close(&self, ended: &str) {
        self.deliveries.close();
        tokio::select! {
            () = self.deliveries.wait() => {}
            () = self.session.stop.cancelled() => {}
        }
        if let Some(outer) = self.outer.lock().await.take() {
            outer.close(ended).await;
        }
    }

    /// Answers one request.
    pub(super) async fn call(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        match check(&request, &self.pin) {
            Ok(()) => self.judged(request, &self.pin.host, self.action()).await,
            Err(Stray::Fault(fault)) => {
                let denial = self.session.refuse(ask::faulty(self.action(), fault)).await;
                self.problem(StatusCode::BAD_REQUEST, &denial)
            }
            Err(Stray::Authority(authority)) => {
                let action = ask::with(self.action(), "authority", json!(&authority));
                // Behind a bare address stands any name that the policy lets out, as long as no
                // server name was given; behind a name only itself.
                let bare = matches!(self.host, Host::Address(_)) && !self.pin.secure;
                let named = host_and_port(&authority).ok().filter(|_| bare);
                if let Some((name, _)) = named {
                    let action = read_where_needed(&self.session, &name, self.pin.port, action.clone());
                    if !self.session.is_denied(&action) {
                        return self.judged(request, &name, action).await;
                    }
                }
                let denial = self.session.refuse(action).await;
                self.problem(StatusCode::FORBIDDEN, &denial)
            }
        }
    }

    /// A request that names whom it should: `host`.
    async fn judged(self: &Arc<Self>, request: Request<Incoming>, host: &Host, action: Action) -> Answer {
        let granted = if self.pin.secure || ask::is_inspected(&action) {
            judge(&self.session, &self.pin, host, &request).await
        } else {
            // No rule looks at requests there: what was said to the connection holds for them.
            Ok(Granted::Under)
        };
        let granted = match granted {
            Ok(granted) => granted,
            Err(denial) if is_git(&request) => return refusal(request.uri(), &denial.reason),
            Err(denial) => return self.problem(StatusCode::FORBIDDEN, &denial),
        };
        let answer = self.forward(request, action).await;
        if let Granted::Held(admitted) = granted {
            let details = json!({ "status": answer.status().as_u16() });
            crate::session::settle(*admitted, stockade_domain::Outcome::Done, details).await;
        }
        answer
    }

    async fn forward(self: &Arc<Self>, request: Request<Incoming>, action: Action) -> Answer {
        let upgrade = upgrade::is_asked_for(&request);
        let mut request = request.map(|body| InternalBody::new(body.map_err(Into::into)));
        outward(&mut request, &self.pin, self.alpn, upgrade);
        let request = match self.through_git(request, &action).await {
            Ok(answer) => return answer,
            Err(request) => request,
        };
        let answer = self.exchanged(request, action, upgrade).await;
        answer.unwrap_or_else(|(status, denial)| self.problem(status, &denial))
    }

    /// Sends a request that was judged, with what credentials it gets, and takes back what the
    /// answer tells of them.
    pub(super) async fn exchanged(&self, request: Request<InternalBody>, action: Action, upgrade: bool) -> Exchanged {
        let brokered = self.brokered(request).await;
        let request = brokered.map_err(|denial| (StatusCode::FORBIDDEN, denial))?;
        let mut response = self.send(request, action).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            lend::taken_back_from_headers(&self.session, response.headers_mut());
            return self.switch(response, upgrade).await;
        }
        strip_hop_by_hop(response.headers_mut());
        let response = response.map(|body| InternalBody::new(body.map_err(Into::into)));
        let response = lend::taken_back(&self.session, response).map_err(|denial| (StatusCode::BAD_GATEWAY, denial))?;
        Ok(match &self.session.broker {
            Some(broker) => broker.response(&self.leaving(), response).await,
            None => response,
        })
    }

    /// Lets the broker have the head. What was judged must stay as it was.
    async fn brokered(&self, request: Request<InternalBody>) -> Result<Request<InternalBody>, Denial> {
        if self.session.broker.is_none() && self.session.credentials.is_none() {
            return Ok(request);
        }
        let judged = |request: &Request<InternalBody>| {
            let uri = request.uri();
            let named = (uri.scheme().cloned(), uri.authority().cloned(), uri.path().to_owned());
            let host = request.headers().get(http::header::HOST).cloned();
            (request.method().clone(), named, host)
        };
        let before = judged(&request);
        let (mut head, body) = request.into_parts();
        let mut brokered = lend::lend(&self.session, &self.leaving(), &mut head).await;
        if let (Ok(()), Some(broker)) = (&brokered, &self.session.broker) {
            brokered = broker.request(&self.leaving(), &mut head).await;
        }
        let request = Request::from_parts(head, lend::watched(&self.session, body));
        let wrong = match brokered {
            Ok(()) if judged(&request) == before => return Ok(request),
            Ok(()) => Denial {
                rule: "stockade.broker".to_owned(),
                reason: "a credential would have changed whom the request is for".to_owned(),
            },
            Err(withheld) => Denial {
                rule: withheld.rule,
                reason: withheld.reason,
            },
        };
        Err(self
            .session
            .refuse_because(self.action(), &wrong.rule, &wrong.reason)
            .await)
    }

    fn leaving(&self) -> Leaving<'_> {
        Leaving {
            run: self.session.identity(),
            host: &self.pin.host,
            port: self.pin.port,
            secure: self.pin.secure,
        }
    }

    /// Sends a request; streams of HTTP/2 go beside each other.
    async fn send(
        &self,
        request: Request<InternalBody>,
        action: Action,
    ) -> Result<Response<Incoming>, (StatusCode, Denial)> {
        let mut place = self.outer.lock().await;
        self.ready(&mut place, action).await?;
        let Some(outer) = place.as_mut() else {
            return Err(unreachable("the connection is gone"));
        };
        outer.count();
        let sent = match &mut outer.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => {
                let mut sender = sender.clone();
                drop(place);
                let sent = sender.send_request(request).await;
                return sent.map_err(|error| unreachable(&error.to_string()));
            }
        };
        match sent {
            Ok(response) => Ok(response),
            Err(error) => {
                if let Some(broken) = place.take() {
                    broken.close("broken").await;
                }
                Err(unreachable(&error.to_string()))
            }
        }
    }

    /// Makes sure there is a connection outwards that takes a request.
    async fn ready(&self, place: &mut Option<Outer>, action: Action) -> Result<(), (StatusCode, Denial)> {
        if let Some(outer) = place.as_mut() {
            // Of a bare address only requests with the same name share a connection.
            let same = outer.action() == &action;
            if same && outer.is_ready().await {
                return Ok(());
            }
            if let Some(used) = place.take() {
                used.close("closed").await;
            }
        }
        let busy = self.idle.busy();
        let opened = open(&self.session, self.host.clone(), self.pin.port, action).await;
        drop(busy);
        let mut opened = opened.map_err(|shut| match shut {
            Shut::Refused(denial) => (StatusCode::FORBIDDEN, denial),
            Shut::Failed(error) => unreachable(&error),
        })?;
        let Some(stream) = opened.take_stream() else {
            return Err(unreachable("the connection is gone"));
        };
        let stream = Metered::new(stream, Arc::clone(&opened.meter));
        let stream = match self.secured(stream).await {
            Ok(stream) => stream,
            Err((rule, reason)) => {
                if let Some(rule) = rule {
                    self.session.refuse_because(self.action(), rule, &reason).await;
                }
                opened.abort(reason.clone()).await;
                return Err(unreachable(&reason));
            }
        };
        let outer = Outer::speak(stream, opened, self.alpn, &self.session.config).await;
        *place = Some(outer.map_err(|error| unreachable(&error))?);
        Ok(())
    }

    /// Wraps a connection outwards in TLS where the client's is.
    async fn secured(
        &self,
        stream: Metered<tokio::net::TcpStream>,
    ) -> Result<Box<dyn super::outer::Stream>, (Option<&'static str>, String)> {
        if !self.pin.secure {
            return Ok(Box::new(stream));
        }
        let Some(tls) = &self.session.tls else {
            return Err((None, "there is nothing to speak TLS with".to_owned()));
        };
        let http2 = self.alpn == Alpn::Http2;
        let patience = self.session.config.handshake_timeout;
        match tls.outward.connect(&self.pin.host, http2, stream, patience).await {
            Ok((stream, alpn)) if alpn == self.alpn => Ok(Box::new(stream)),
            Ok(_) => Err((None, "the server speaks another version of HTTP than before".to_owned())),
            Err(Unreached::Certificate(reason)) => Err((Some("stockade.upstream_certificate"), reason)),
            Err(Unreached::Handshake(reason)) => Err((None, reason)),
        }
    }

    /// Hands both sides over to each other, if a WebSocket was asked for and is answered.
    async fn switch(&self, mut response: Response<Incoming>, asked: bool) -> Exchanged {
        if !asked || !upgrade::is_answered(response.headers()) {
            return Err(unreachable("the server switched to a protocol nobody asked for"));
        }
        let other = match hyper::upgrade::on(&mut response).await {
            Ok(other) => other,
            Err(error) => return Err(unreachable(&error.to_string())),
        };
        if let Some(outer) = self.outer.lock().await.as_mut() {
            outer.note("websocket", json!(true));
        }
        *self.upgraded.lock().await = Some(other);
        self.valve.open();
        strip_hop_by_hop(response.headers_mut());
        upgrade::mark(response.headers_mut());
        Ok(response.map(|body| InternalBody::new(body.map_err(Into::into))))
    }

    /// A refusal in the client's own protocol; over HTTP/2 the other streams go on.
    fn problem(&self, status: StatusCode, denial: &Denial) -> Answer {
        problem(status, &denial.rule, &denial.reason, self.alpn == Alpn::Http1)
    }
}

fn unreachable(why: &str) -> (StatusCode, Denial) {
    let denial = Denial {
        rule: "stockade.unreachable".to_owned(),
        reason: why.to_owned(),
    };
    (StatusCode::BAD_GATEWAY, denial)
}

/// The action of a connection in the clear, which says so where its requests are judged.
fn read_where_needed(session: &Session, host: &Host, port: u16, action: Action) -> Action {
    match session.needs_inspection(host, port) {
        Some(_) => ask::inspected(action),
        None => action,
    }
}
