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
use stockade_policy::{Fault, Host, Protocol, hosts_of};
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
    session::{Denial, Session, settle},
    traffic::{Cut, Entry, Reserved, Severed, Spent, Tab, Tap, Tolled, Way, charged, reserve, settle as settle_bytes},
};

/// An admitted, dialled connection. It is settled exactly once, by [`Opened::close`].
pub(crate) struct Opened {
    stream: Option<TcpStream>,
    pub(crate) tap: Arc<Tap>,
    admitted: Admitted<kind::Egress>,
    details: Map<String, Value>,
    since: Instant,
    session: Arc<Session>,
    /// What it counts towards, beside its own bytes: the rules of its requests.
    tabs: Vec<Arc<Tab>>,
    /// Its place among the connections that may be cut.
    _entry: Entry,
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
    /// An admitted connection that has no socket yet.
    pub(crate) fn of(
        session: &Arc<Session>,
        admitted: Admitted<kind::Egress>,
        tabs: Vec<Arc<Tab>>,
        since: Instant,
    ) -> Self {
        let cut: Arc<Cut> = Arc::default();
        Self {
            stream: None,
            _entry: session.live.enter(hosts_of(admitted.action()), Arc::clone(&cut)),
            tap: Tap::new(cut, tabs),
            admitted,
            details: Map::new(),
            since,
            session: Arc::clone(session),
            tabs: Vec::new(),
        }
    }

    /// The connection itself, once.
    pub(crate) fn take_stream(&mut self) -> Option<Tolled<TcpStream>> {
        let stream = self.stream.take()?;
        Some(Tolled::wire(stream, Arc::clone(&self.tap)))
    }

    /// Resolves when the server has said something, or has closed.
    pub(crate) async fn readable(&self) {
        if let Some(stream) = &self.stream {
            let _ = stream.readable().await;
        }
    }

    /// Counts the connection towards a rule that lets one of its requests out, once.
    pub(crate) fn carries(&mut self, tab: &Arc<Tab>) -> Result<(), Spent> {
        if self.tabs.iter().any(|own| Arc::ptr_eq(own, tab)) {
            return Ok(());
        }
        let counted = |own: &Arc<Tab>| Arc::ptr_eq(own.ledger(), tab.ledger());
        if !self.tap.tabs().iter().any(counted) {
            tab.connection()?;
        }
        self.tabs.push(Arc::clone(tab));
        Ok(())
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
        let Some(severed) = self.tap.cut.why().cloned() else {
            return self.settled(ended, Outcome::Done).await;
        };
        let Some(denial) = severed.denial else {
            return self.settled(severed.ended, Outcome::Done).await;
        };
        let session = Arc::clone(&self.session);
        let action = self.action().clone();
        let error = denial.reason.clone();
        self.settled(severed.ended, Outcome::Failed { error }).await;
        session.refuse_because(action, &denial.rule, &denial.reason).await;
    }

    /// Settles a connection that was refused after all.
    pub(crate) async fn abort(self, error: String) {
        match self.tap.cut.why() {
            Some(_) => self.close("refused").await,
            None => self.settled("refused", Outcome::Failed { error }).await,
        }
    }

    async fn settled_as_failed(self, error: String) {
        match self.tap.cut.why() {
            Some(_) => self.close("failed").await,
            None => self.settled("failed", Outcome::Failed { error }).await,
        }
    }

    async fn settled(self, ended: &str, outcome: Outcome) {
        let mut end = evidence(&self.admitted, self.since, ended);
        let (up, down) = self.tap.meter.bytes();
        let blind = match blind(self.action()) {
            true => (up, down),
            false => self.tap.blind_bytes(),
        };
        end.insert("bytes_up".to_owned(), json!(up));
        end.insert("bytes_down".to_owned(), json!(down));
        end.insert("blind_up".to_owned(), json!(blind.0));
        end.insert("blind_down".to_owned(), json!(blind.1));
        end.extend(self.details);
        let tabs = self.tap.tabs().iter().chain(&self.tabs);
        let charged = charged(tabs.map(Arc::as_ref));
        if !charged.is_empty() {
            end.insert("charged".to_owned(), Value::Object(charged));
        }
        settle(self.admitted, outcome, Value::Object(end)).await;
        self.session.traffic.met.notify_one();
    }
}

/// What every settlement of a connection says.
fn evidence(admitted: &Admitted<kind::Egress>, since: Instant, ended: &str) -> Map<String, Value> {
    let (args, (rule, reason)) = (&admitted.action().args, admitted.why());
    let said = json!({
        "host": args["host"], "port": args["port"], "protocol": args["protocol"], "verdict": "allow", "rule": rule,
        "reason": reason, "inspected": ask::is_inspected(admitted.action()), "blind": blind(admitted.action()),
        "bytes_up": 0, "bytes_down": 0, "duration_ms": milliseconds(since.elapsed()), "ended": ended,
    });
    match said {
        Value::Object(said) => said,
        _ => Map::new(),
    }
}

/// Whether the Guard carries bytes it does not see into: everything but HTTP that it reads.
fn blind(action: &Action) -> bool {
    let http = [Protocol::Http.as_str(), Protocol::Https.as_str()];
    let reads = action.args["protocol"]
        .as_str()
        .is_some_and(|protocol| http.contains(&protocol));
    !reads && !ask::is_inspected(action)
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
    session: &'a Arc<Session>,
    host: Host,
    port: u16,
}

type Answer = oneshot::Sender<Result<Opened, Shut>>;

impl Door<'_> {
    async fn open(self, action: Action, answer: &mut Answer) -> Result<Opened, Shut> {
        let verdict = self.session.evaluate(&action).verdict;
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
        if let Host::Name(name) = &self.host
            && let Some(refused) = self.session.tunnelled(name, &action)
        {
            return Err(Shut::Refused(self.session.refuse(refused).await));
        }
        let mut tabs = None;
        let early = match verdict {
            Verdict::Allow => {
                tabs = Some(self.charged(&action).await?);
                Some(self.find().await)
            }
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
            return Err(fail(admitted, since, error).await);
        }
        let tabs = match tabs {
            Some(tabs) => tabs,
            None => match self.charged(&action).await {
                Ok(tabs) => tabs,
                Err(shut) => return Err(shut.failing(admitted, since).await),
            },
        };
        let found = match early {
            Some(found) => found,
            None => self.find().await,
        };
        match found {
            Found::Addresses { open, refused } => {
                let opened = Opened::of(self.session, admitted, tabs, since);
                self.dialled(opened, action, open, refused, answer).await
            }
            Found::Failed(error) => Err(fail(admitted, since, error).await),
            Found::Refused(evidence) => {
                let denial = self.refuse_address(action, evidence).await;
                fail(admitted, since, denial.reason.clone()).await;
                Err(Shut::Refused(denial))
            }
        }
    }

    /// Dials, unless something is cut or ends meanwhile.
    async fn dialled(
        &self,
        mut opened: Opened,
        action: Action,
        open: Vec<(IpAddr, Option<String>)>,
        refused: Vec<IpAddr>,
        answer: &mut Answer,
    ) -> Result<Opened, Shut> {
        let cut = Arc::clone(&opened.tap.cut);
        // What was revoked before the connection could be cut.
        if let Some(denial) = self.session.revocations.denial(&hosts_of(&action)) {
            cut.cut(Severed::revoked(denial));
        }
        if !refused.is_empty() {
            opened.note("refused_addresses", json!(refused));
        }
        let dialled = tokio::select! {
            biased;
            () = cut.happened() => Err("it was cut".to_owned()),
            dialled = self.dial(open, &mut opened.details) => dialled,
            () = answer.closed() => Err("the client went away".to_owned()),
            () = self.session.stop.cancelled() => Err("the sandbox ended".to_owned()),
        };
        match dialled {
            Ok(stream) => {
                opened.stream = Some(stream);
                Ok(opened)
            }
            Err(error) => {
                let shut = match cut.why().and_then(|severed| severed.denial.clone()) {
                    Some(denial) => Shut::Refused(denial),
                    None => Shut::Failed(error.clone()),
                };
                opened.settled_as_failed(error).await;
                Err(shut)
            }
        }
    }

    /// Counts a connection, and the look-up it needs, towards the limits.
    async fn charged(&self, action: &Action) -> Result<Vec<Arc<Tab>>, Shut> {
        let traffic = &self.session.traffic;
        if !traffic.is_limited() {
            return Ok(Vec::new());
        }
        // Where requests are judged one by one, each counts towards its own rule.
        let bounds = match ask::is_inspected(action) {
            true => Vec::new(),
            false => traffic.bounds(self.session.policy(), action),
        };
        let rules = traffic.rules(&bounds);
        let tabs: Vec<_> = traffic.run().into_iter().chain(&rules).map(Tab::new).collect();
        let begun = tabs.iter().try_for_each(|tab| tab.connection());
        let begun = begun.and_then(|()| match &self.host {
            Host::Name(name) => looked_up(&tabs, name.as_str().len()),
            Host::Address(_) => Ok(()),
        });
        match begun {
            Ok(()) => Ok(tabs),
            Err(spent) => Err(Shut::Refused(self.session.limited(action.clone(), &spent).await)),
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

async fn fail(admitted: Admitted<kind::Egress>, since: Instant, error: String) -> Shut {
    let details = Value::Object(evidence(&admitted, since, "failed"));
    settle(admitted, Outcome::Failed { error: error.clone() }, details).await;
    Shut::Failed(error)
}

impl Shut {
    /// The same, after the admission was settled as failed because of it.
    async fn failing(self, admitted: Admitted<kind::Egress>, since: Instant) -> Self {
        let error = match &self {
            Self::Refused(denial) => denial.reason.clone(),
            Self::Failed(error) => error.clone(),
        };
        fail(admitted, since, error).await;
        self
    }
}

/// Counts the Guard's own questions about a name as bytes out: one for each kind of address, a
/// header, the name and its kind (RFC 1035 4.1).
fn looked_up(tabs: &[Arc<Tab>], name: usize) -> Result<(), Spent> {
    let bytes = 2 * (12 + name + 2 + 4);
    loop {
        match reserve(tabs, Way::Up, bytes) {
            Reserved::Bytes(most) => {
                settle_bytes(tabs, Way::Up, most, most);
                return Ok(());
            }
            Reserved::Held => std::hint::spin_loop(),
            Reserved::Spent(spent) => return Err(spent),
        }
    }
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
