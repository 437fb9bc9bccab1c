//! The door: from an action to an open connection, or a reason why not.
//!
//! A name the policy refuses is never looked up. A name it allows is looked up once, every
//! address is judged, and only judged addresses are dialled, after the gate has admitted the
//! action. A name a person must decide about is looked up after the decision: a look-up
//! already tells the world something.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use stockade_domain::{Action, Amounts, Outcome, Verdict};
use stockade_gate::{Admitted, Refusal, kind};
use stockade_policy::{Fault, Host};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    time::{error::Elapsed, timeout},
};

use crate::{
    ask,
    broker::Withheld,
    lend,
    lookup::{Found, judge},
    meter::Meter,
    session::{Denial, Session, settle},
};

/// An admitted, dialled connection. It is settled exactly once, by [`Opened::close`].
pub(crate) struct Opened {
    stream: Option<TcpStream>,
    pub(crate) meter: Arc<Meter>,
    admitted: Admitted<kind::Egress>,
    details: Map<String, Value>,
    since: Instant,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Shut {
    /// Refused, and written down.
    Refused(Denial),
    /// Admitted, tried, failed and settled so.
    Failed(String),
}

impl Opened {
    /// The connection itself, once.
    pub(crate) fn take_stream(&mut self) -> Option<TcpStream> {
        self.stream.take()
    }

    /// Puts the connection back for whoever serves it.
    pub(crate) fn keep(&mut self, stream: TcpStream) {
        self.stream = Some(stream);
    }

    /// What was admitted.
    pub(crate) fn action(&self) -> &Action {
        self.admitted.action()
    }

    /// Adds to what is settled.
    pub(crate) fn note(&mut self, key: &str, value: Value) {
        self.details.insert(key.to_owned(), value);
    }

    /// Settles the connection with what it carried.
    pub(crate) async fn close(self, ended: &str) {
        let details = self.details_at_end(ended);
        settle(self.admitted, Outcome::Done, details).await;
    }

    /// Settles a connection that was refused after all.
    pub(crate) async fn abort(self, error: String) {
        let details = self.details_at_end("refused");
        settle(self.admitted, Outcome::Failed { error }, details).await;
    }

    fn details_at_end(&self, ended: &str) -> Value {
        let (up, down) = self.meter.bytes();
        let mut details = self.details.clone();
        details.insert("bytes_up".to_owned(), json!(up));
        details.insert("bytes_down".to_owned(), json!(down));
        details.insert("duration_ms".to_owned(), json!(milliseconds(self.since.elapsed())));
        details.insert("ended".to_owned(), json!(ended));
        Value::Object(details)
    }
}

/// Opens a connection for an action, waiting for a person where one must decide.
///
/// It runs in a task of its own: a client that goes away must not interrupt the transaction
/// that admits its connection. Dropping this future gives up; what was admitted by then is
/// settled.
pub(crate) async fn open(session: &Arc<Session>, host: Host, port: u16, action: Action) -> Result<Opened, Shut> {
    let (mut answer, outcome) = oneshot::channel();
    let own = Arc::clone(session);
    session.tasks.spawn(async move {
        let opened = Door {
            session: &own,
            host,
            port,
        }
        .open(action, &mut answer)
        .await;
        if let Err(Ok(opened)) = answer.send(opened) {
            opened.abort("the client went away".to_owned()).await;
        }
    });
    match outcome.await {
        Ok(outcome) => outcome,
        Err(_) => Err(Shut::Failed("the connection was given up".to_owned())),
    }
}

struct Door<'a> {
    session: &'a Session,
    host: Host,
    port: u16,
}

type Answer = oneshot::Sender<Result<Opened, Shut>>;

impl Door<'_> {
    async fn open(self, action: Action, answer: &mut Answer) -> Result<Opened, Shut> {
        let verdict = self.session.policy().evaluate(&action).verdict;
        if verdict == Verdict::Deny {
            return Err(Shut::Refused(self.session.refuse(action).await));
        }
        if let Some(Withheld { rule, reason }) = lend::withheld_name(self.session, &self.host) {
            let refused = self.session.refuse_because(action, &rule, &reason);
            return Err(Shut::Refused(refused.await));
        }
        if self.session.trial.is_on() {
            return Err(Shut::Refused(self.session.trial.would_allow(&action)));
        }
        let early = match verdict {
            Verdict::Allow => Some(self.find().await),
            _ => None,
        };
        if let Some(Found::Refused(evidence)) = early {
            return Err(Shut::Refused(self.refuse_address(action, evidence).await));
        }
        if self.session.stop.is_cancelled() {
            return Err(Shut::Failed("the sandbox ended".to_owned()));
        }
        let since = Instant::now();
        let admitted = match verdict {
            Verdict::Allow => self.pass(action.clone()).await,
            _ => self.pass_held(action.clone(), answer).await,
        };
        let admitted = admitted.map_err(Shut::Refused)?;
        if admitted.action() != &action {
            let error = "a connection cannot be edited; approve or reject it as it is".to_owned();
            return Err(fail(admitted, error).await);
        }
        let found = match early {
            Some(found) => found,
            None => self.find().await,
        };
        match found {
            Found::Addresses { open, refused } => {
                let mut details = Map::new();
                if !refused.is_empty() {
                    details.insert("refused_addresses".to_owned(), json!(refused));
                }
                let dialled = tokio::select! {
                    dialled = self.dial(open, &mut details) => dialled,
                    () = answer.closed() => Err("the client went away".to_owned()),
                    () = self.session.stop.cancelled() => Err("the sandbox ended".to_owned()),
                };
                match dialled {
                    Ok(stream) => Ok(Opened {
                        stream: Some(stream),
                        meter: Arc::new(Meter::new()),
                        admitted,
                        details,
                        since,
                    }),
                    Err(error) => Err(fail(admitted, error).await),
                }
            }
            Found::Failed(error) => Err(fail(admitted, error).await),
            Found::Refused(evidence) => {
                let denial = self.refuse_address(action, evidence).await;
                fail(admitted, denial.reason.clone()).await;
                Err(Shut::Refused(denial))
            }
        }
    }

    async fn find(&self) -> Found {
        let rules = self.session.policy().egress();
        match &self.host {
            Host::Name(name) => tokio::select! {
                found = self.session.lookup.find(name, rules) => found,
                () = self.session.stop.cancelled() => Found::Failed("the sandbox ended".to_owned()),
            },
            Host::Address(address) => judge(std::iter::once(*address), rules),
        }
    }

    async fn refuse_address(&self, action: Action, evidence: Vec<(&'static str, Value)>) -> Denial {
        let action = evidence
            .into_iter()
            .fold(action, |action, (key, value)| ask::with(action, key, value));
        self.session.refuse(action).await
    }

    async fn pass(&self, action: Action) -> Result<Admitted<kind::Egress>, Denial> {
        let passed = self.session.gate.pass(&self.session.scope, action, Amounts::ZERO).await;
        passed.map_err(|refusal| denial(&refusal))
    }

    /// Waits for a person, as long as the client does: a client that went away must not use
    /// up the answer its next attempt is waiting for. Should it go in the very moment its
    /// connection is admitted, that action stays in flight and recovery marks it unknown.
    async fn pass_held(&self, action: Action, answer: &mut Answer) -> Result<Admitted<kind::Egress>, Denial> {
        let Ok(_place) = self.session.waiting.try_acquire() else {
            let action = ask::faulty(action, Fault::TooManyWaiting);
            return Err(self.session.refuse(action).await);
        };
        tokio::select! {
            passed = self.pass(action) => passed,
            () = answer.closed() => Err(gone()),
            () = self.session.stop.cancelled() => Err(gone()),
        }
    }

    /// Tries the addresses in turn; they were judged, and nothing else is dialled.
    async fn dial(
        &self,
        open: Vec<(IpAddr, Option<String>)>,
        details: &mut Map<String, Value>,
    ) -> Result<TcpStream, String> {
        let mut last = String::new();
        for (address, exception) in open {
            let place = SocketAddr::new(address, self.port);
            let attempt = timeout(self.session.config.connect_timeout, self.session.dial.dial(place));
            match flattened(attempt.await) {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    details.insert("address".to_owned(), json!(place.to_string()));
                    if let Some(exception) = exception {
                        details.insert("address_exception".to_owned(), json!(exception));
                    }
                    return Ok(stream);
                }
                Err(error) => last = format!("{place}: {error}"),
            }
        }
        Err(last)
    }
}

fn flattened(connected: Result<std::io::Result<TcpStream>, Elapsed>) -> Result<TcpStream, String> {
    match connected {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

async fn fail(admitted: Admitted<kind::Egress>, error: String) -> Shut {
    settle(admitted, Outcome::Failed { error: error.clone() }, json!({})).await;
    Shut::Failed(error)
}

fn denial(refusal: &Refusal) -> Denial {
    if let Refusal::Unrecorded(error) = refusal {
        tracing::warn!(%error, "a connection was refused because its admission could not be written down");
    }
    Denial::from(refusal)
}

fn gone() -> Denial {
    Denial {
        rule: "stockade.gone".to_owned(),
        reason: "the client went away before a person decided".to_owned(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
