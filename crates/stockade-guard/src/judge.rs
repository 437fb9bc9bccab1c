//! What the rules say to one request of a connection that was let through.

use std::sync::Arc;

use http::{Request, header::CONTENT_LENGTH};
use stockade_domain::{Outcome, Verdict};
use stockade_gate::{Admitted, kind};
use stockade_policy::{Fault, Host};

use crate::{
    ask,
    http::Pin,
    inspection::RequestLine,
    session::{Denial, Session, settle},
};

/// That a request may go.
pub(crate) enum Granted {
    /// Under the admission of its connection.
    Under,
    /// As an action of its own that a person let through; settled when it is answered.
    Held(Box<Admitted<kind::Egress>>),
}

/// Judges a request for `host`; one that is held waits for its person.
pub(crate) async fn judge<B>(
    session: &Arc<Session>,
    pin: &Pin,
    host: &Host,
    request: &Request<B>,
) -> Result<Granted, Denial> {
    let line = line(pin, host, request);
    if let Some(revoked) = session.revocations.denial(std::slice::from_ref(host)) {
        let refused = session.refuse_because(line.refused(), &revoked.rule, &revoked.reason);
        return Err(refused.await);
    }
    let Some(verdict) = session.inspector.judge(session.policy(), &line) else {
        return Ok(Granted::Under);
    };
    if verdict.verdict == Verdict::Allow {
        return Ok(Granted::Under);
    }
    if verdict.verdict == Verdict::Deny {
        let refused = session.refuse_because(line.refused(), &verdict.rule, &verdict.reason);
        return Err(refused.await);
    }
    let action = line.action();
    let asked = action.clone();
    let Ok(_place) = session.waiting.try_acquire() else {
        return Err(session.refuse(ask::faulty(action, Fault::TooManyWaiting)).await);
    };
    let admitted = session.passage().pass::<kind::Egress>(action).await?;
    if admitted.action() == &asked {
        return Ok(Granted::Held(Box::new(admitted)));
    }
    let reason = "a request cannot be edited; approve or reject it as it is".to_owned();
    let error = reason.clone();
    settle(admitted, Outcome::Failed { error }, serde_json::json!({})).await;
    let rule = verdict.rule;
    Err(Denial { rule, reason })
}

/// A request as rules see it.
pub(crate) fn line<'a, B>(pin: &Pin, host: &'a Host, request: &'a Request<B>) -> RequestLine<'a> {
    RequestLine {
        host,
        port: pin.port,
        secure: pin.secure,
        method: request.method().as_str(),
        path: request.uri().path(),
        query: request.uri().query(),
        bytes: stated_length(request),
    }
}

fn stated_length<B>(request: &Request<B>) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
