//! What one request and its answer count towards the limits of the run and of the rules that let
//! it out.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Request, Response};
use stockade_domain::Action;
use stockade_policy::{Bounds, Host};
use stockade_ports::InternalBody;

use super::{
    exchange::{Answer, Exchange},
    problem::Own,
};
use crate::{
    ask,
    inspection::RequestLine,
    judge::line,
    session::{Denial, Session},
    traffic::{CountedBody, Reserved, Spent, Tab, Way, reserve, settle},
};

/// A request that has begun.
pub(super) struct Toll {
    session: Arc<Session>,
    /// As the record of a refusal names it.
    action: Action,
    /// The rules it counts towards. Where requests are not judged one by one, its connection's
    /// bytes count towards the connection's rule instead.
    pub(super) tabs: Vec<Arc<Tab>>,
    run: Option<Arc<Tab>>,
    /// The largest content a rule allows, with the refusal of a larger one.
    most: Option<(u64, Denial)>,
    ended: Arc<OnceLock<Denial>>,
}

impl Toll {
    /// Counts a request that begins, with its head.
    pub(super) async fn begin<B>(
        exchange: &Exchange,
        request: &Request<B>,
        host: &Host,
        connection: &Action,
    ) -> Result<Self, Denial> {
        let session = &exchange.session;
        let line = line(&exchange.pin, host, request);
        let judged = exchange.pin.secure || ask::is_inspected(connection);
        let bounds = match judged {
            true => session.traffic.bounds(session.policy(), &line.action()),
            false => Vec::new(),
        };
        let tabs: Vec<_> = session
            .traffic
            .rules(&bounds)
            .iter()
            .map(|ledger| exchange.tab(ledger))
            .collect();
        let run = session.traffic.run().map(|ledger| exchange.tab(ledger));
        // The run's bytes are counted on the wire.
        let begun = run.iter().chain(&tabs).try_for_each(|tab| tab.request());
        let begun = begun.and_then(|()| spend(&tabs, Way::Up, head(&line, request.headers())));
        if let Err(spent) = begun {
            return Err(session.limited(line.refused(), &spent).await);
        }
        Ok(Self {
            session: Arc::clone(session),
            action: line.refused(),
            tabs,
            run,
            most: bounds.iter().filter_map(largest).min_by_key(|(bytes, _)| *bytes),
            ended: Arc::default(),
        })
    }

    /// The request, its content counted.
    pub(super) fn request(&self, request: Request<InternalBody>) -> Request<InternalBody> {
        if self.tabs.is_empty() && self.most.is_none() {
            return request;
        }
        request.map(|body| {
            let body = CountedBody::new(body, self.tabs.clone(), Way::Up, self.tell());
            InternalBody::new(match self.most.clone() {
                Some((bytes, denial)) => body.at_most(bytes, denial),
                None => body,
            })
        })
    }

    /// The answer, head and content counted, unless the Guard gives it itself.
    pub(super) fn answer(self, answer: Answer) -> Answer {
        if self.tabs.is_empty() || answer.extensions().get::<Own>().is_some() {
            return answer;
        }
        let bytes = answer_head(&answer);
        // What came came: the limit ends what follows.
        let _ = spend(&self.tabs, Way::Down, bytes);
        answer.map(|body| InternalBody::new(CountedBody::new(body, self.tabs.clone(), Way::Down, self.tell())))
    }

    /// All it counts towards.
    pub(super) fn all(&self) -> Vec<Arc<Tab>> {
        self.tabs.iter().chain(&self.run).map(Arc::clone).collect()
    }

    /// Why its content was ended, if it was.
    pub(super) fn ended(&self) -> Option<Denial> {
        self.ended.get().cloned()
    }

    /// Writes down that a body was ended.
    fn tell(&self) -> Box<dyn FnOnce(&Denial) + Send> {
        let (session, action, ended) = (Arc::clone(&self.session), self.action.clone(), Arc::clone(&self.ended));
        Box::new(move |denial| {
            let denial = denial.clone();
            let _ = ended.set(denial.clone());
            session.traffic.met.notify_one();
            let own = Arc::clone(&session);
            session.tasks.spawn(async move {
                own.refuse_because(action, &denial.rule, &denial.reason).await;
            });
        })
    }
}

/// Uses so many bytes of every ledger, or what is left.
fn spend(tabs: &[Arc<Tab>], way: Way, mut bytes: usize) -> Result<(), Spent> {
    while bytes > 0 {
        match reserve(tabs, way, bytes) {
            Reserved::Bytes(some) => {
                settle(tabs, way, some, some);
                bytes -= some;
            }
            Reserved::Held => std::hint::spin_loop(),
            Reserved::Spent(spent) => return Err(spent),
        }
    }
    Ok(())
}

fn largest(bounds: &Bounds) -> Option<(u64, Denial)> {
    let most = bounds.max_request_bytes?;
    let denial = Denial {
        rule: format!("{}.max_request_bytes", bounds.rule),
        reason: format!("the request is larger than rule {} allows: {most} bytes", bounds.rule),
    };
    Some((most, denial))
}

/// Bytes of a request's head as HTTP/1 spells it (RFC 9112 2.1).
fn head(line: &RequestLine<'_>, headers: &HeaderMap) -> usize {
    let query = line.query.map_or(0, |query| query.len() + 1);
    line.method.len() + line.path.len() + query + " ".len() + " HTTP/1.1\r\n".len() + fields(headers)
}

/// The same for an answer.
fn answer_head<B>(answer: &Response<B>) -> usize {
    "HTTP/1.1 200 OK\r\n".len() + fields(answer.headers())
}

fn fields(headers: &HeaderMap) -> usize {
    let each = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    each.sum::<usize>() + "\r\n".len()
}
