//! Events of a run, as pages and as a stream.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use stockade_api::{
    Problem, ProblemCode,
    v1::{EVENT_STREAM, Page},
};
use stockade_domain::{Event, Run, RunId};

use crate::{
    App,
    auth::Caller,
    body::{Id, Query},
    error::{Answer, Refusal},
    stream,
};

/// How many events a page has when nothing is said, and at most.
const EVENTS: (u32, u32) = (100, 1000);

pub(crate) async fn events(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<RunId>,
    headers: HeaderMap,
    query: Query,
) -> Answer<Response> {
    let run = app.store.run(Some(caller.team), id).await?;
    if !wants_stream(&headers) {
        let query = query.only(&["after", "limit"])?;
        let limit = query.limit(EVENTS.0, EVENTS.1)?;
        let after = within(&run, query.get("after")?.unwrap_or(0))?;
        return page(&app, &run, after, limit).await;
    }
    let query = query.only(&["after"])?;
    let asked = match last_event_id(&run, &headers)? {
        Some(seq) => Some(seq),
        None => query.get("after")?,
    };
    let after = within(&run, asked.unwrap_or(0))?;
    if run.state().is_terminal() && after == run.last_seq {
        // Tells an EventSource, which would come back for ever, that there is nothing more.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(stream::respond(app, caller, id, after))
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case(EVENT_STREAM))
}

async fn page(app: &App, run: &Run, after: u64, limit: u32) -> Answer<Response> {
    let items: Vec<Event> = app.store.events(run.id, after, limit).await?;
    let full = items.len() >= limit as usize;
    let next = items.last().filter(|_| full).map(|event| event.seq.to_string());
    Ok(axum::Json(Page { items, next }).into_response())
}

/// The place that a `Last-Event-ID` (`<run>:<seq>`) names in this run.
fn last_event_id(run: &Run, headers: &HeaderMap) -> Answer<Option<u64>> {
    let mut values = headers.get_all("last-event-id").iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let text = value.to_str().unwrap_or("");
    let parts = text.split_once(':').filter(|_| second.is_none());
    let Some((Ok(of), Some(seq))) = parts.map(|(of, seq)| (of.parse::<RunId>(), place(seq))) else {
        return Err(not_a_place("Last-Event-ID is not '<run>:<number>'".to_owned()));
    };
    if of != run.id {
        return Err(not_a_place(format!("Last-Event-ID names {of}, this is {}", run.id)));
    }
    Ok(Some(seq))
}

/// A number in its one spelling.
fn place(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|seq| seq.to_string() == text)
}

/// A reader that claims to have seen events this run does not have yet is mistaken; going on
/// from there would hide those to come.
fn within(run: &Run, after: u64) -> Answer<u64> {
    if after <= run.last_seq {
        return Ok(after);
    }
    Err(not_a_place(format!(
        "the run has {} events, none at {after}",
        run.last_seq
    )))
}

fn not_a_place(detail: String) -> Refusal {
    Problem::new(ProblemCode::InvalidEventId, detail)
        .with_hint("begin again without Last-Event-ID and after, or with the id of an event of this run")
        .into()
}
