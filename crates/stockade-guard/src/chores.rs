//! What a session does besides serving connections: it learns of revocations, tells of limits that
//! were met, and writes down in time what was only counted.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use stockade_domain::{EventType, NewEvent, Revocation, Run};
use stockade_ports::EgressError;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{session::Session, traffic::Severed};

/// Records of refusals that are written at a time.
const REPORTED: usize = 16;
/// Events read at a time.
const PAGE: u32 = 1000;

/// Attends to a session until it ends.
pub(crate) async fn attend(session: Arc<Session>) {
    let mut changes = session.revocations.changes();
    let every = session.config.report_interval.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let closed = revoke(&session);
        told(&session, closed).await;
        tell(&session).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = session.traffic.met.notified() => {}
            _ = ticks.tick() => session.report(REPORTED).await,
            () = session.stop.cancelled() => return,
        }
    }
}

/// Takes over what is revoked, and cuts what is open and may not be any more; counts how many that were.
fn revoke(session: &Session) -> u64 {
    // First what is new is refused, then what is open is cut: nothing slips in between.
    session.revocations.refresh();
    session
        .live
        .cut(|hosts| session.revocations.denial(hosts).map(Severed::revoked))
}

/// Writes down what operators took away and gave back.
async fn told(session: &Session, closed: u64) {
    if session.trial.is_on() {
        return;
    }
    let news = session.revocations.news();
    let data = |r: &Revocation| json!({ "revocation": r.id, "hosts": r.hosts, "environment": r.environment, "reason": r.reason, "by": r.by });
    let revoked = news.revoked.iter().map(|r| {
        let mut data = data(r);
        data["closed"] = json!(closed);
        NewEvent::new(EventType::EgressRevoked, data)
    });
    let lifted = news
        .lifted
        .iter()
        .map(|r| NewEvent::new(EventType::EgressRestored, data(r)));
    let events: Vec<_> = revoked.chain(lifted).collect();
    record(session, events).await;
}

/// Writes down limits that were met, each once.
pub(crate) async fn tell(session: &Session) {
    let met = session.traffic.newly_met().into_iter();
    record(
        session,
        met.map(|spent| NewEvent::new(EventType::EgressLimit, spent.told()))
            .collect(),
    )
    .await;
}

async fn record(session: &Session, events: Vec<NewEvent>) {
    if events.is_empty() {
        return;
    }
    if let Err(error) = session.gate.record(&session.scope, events).await {
        tracing::warn!(run = %session.scope.run(), %error, "what happened to the run's traffic is not among its events");
    }
}

/// Counts what earlier sandboxes of the run have used: limits are those of the whole run.
pub(crate) async fn restore(session: &Session, run: &Run) -> Result<(), EgressError> {
    if !session.traffic.is_limited() || run.machine.attempt <= 1 {
        return Ok(());
    }
    let mut events = Vec::new();
    loop {
        let after = events.last().map_or(0, |event: &stockade_domain::Event| event.seq);
        let page = session.gate.store().events(run.id, after, PAGE).await;
        let page =
            page.map_err(|error| EgressError::Boundary(format!("what the run has used is not known: {error}")))?;
        let last = page.is_empty();
        let egress = page.into_iter();
        events.extend(egress);
        if last {
            break;
        }
    }
    session.traffic.restore(session.policy(), &events);
    Ok(())
}
