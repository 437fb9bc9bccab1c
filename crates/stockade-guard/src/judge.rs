//! What the rules say to one request of a connection that was let through.

use std::sync::Arc;

use http::{Request, header::CONTENT_LENGTH};
use stockade_domain::{Amounts, Outcome, Verdict};
use stockade_gate::{Admitted, kind};
use stockade_policy::{Fault, Host};
use tokio::sync::oneshot;

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
    let Ok(place) = Arc::clone(&session.waiting).try_acquire_owned() else {
        return Err(session.refuse(ask::faulty(action, Fault::TooManyWaiting)).await);
    };
    // In a task of its own: a client that goes away must not interrupt the transaction that
    // admits its request.
    let (mut tell, told) = oneshot::channel();
    let own = Arc::clone(session);
    session.tasks.spawn(async move {
        let passed = tokio::select! {
            passed = own.gate.pass(&own.scope, action, Amounts::ZERO) => passed,
            () = tell.closed() => return,
            () = own.stop.cancelled() => return,
        };
        drop(place);
        let passed = passed.map_err(|refusal| Denial::from(&refusal));
        if let Err(Ok(admitted)) = tell.send(passed) {
            let error = "the client went away".to_owned();
            settle(admitted, Outcome::Failed { error }, serde_json::json!({})).await;
        }
    });
    match told.await {
        Ok(Ok(admitted)) if admitted.action() == &asked => Ok(Granted::Held(Box::new(admitted))),
        Ok(Ok(admitted)) => {
            let error = "a request cannot be edited; approve or reject it as it is".to_owned();
            let reason = error.clone();
            settle(admitted, Outcome::Failed { error }, serde_json::json!({})).await;
            let rule = verdict.rule;
            Err(Denial { rule, reason })
        }
        Ok(Err(denial)) => Err(denial),
        Err(_) => Err(Denial {
            rule: "stockade.gone".to_owned(),
            reason: "the sandbox ended before a person decided".to_owned(),
        }),
    }
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
