//! What the Guard forwards, other people's servers read as what the Guard judged: nginx and haproxy on loopback stand
//! behind it and tell what reached them. Without root, one that is not installed says nothing.

mod requests;
mod servers;
mod sloppy;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use stockade_domain::PolicyVerdict;
use stockade_guard::{Inspector, RequestLine};
use stockade_policy::{Host, Policy, RequestPath};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use self::servers::{Arrived, Judge};
use crate::rig::{Plan, Rig};

/// Requests made up beside the table.
const GENERATED: usize = 2000;
/// Where the made-up requests begin.
const SEED: u64 = 0x5eed;
/// Connections at a time.
const AT_ONCE: usize = 16;
/// How long a client waits for more of an answer.
const PATIENCE: Duration = Duration::from_millis(700);

/// `host method path?query` of each request that was judged, with the length it states.
type Line = (String, String, String);

#[derive(Default)]
struct Recorder(Mutex<Vec<(Line, Option<u64>)>>);

impl Inspector for Recorder {
    fn any(&self, _: &Policy) -> bool {
        false
    }

    fn needs(&self, _: &Policy, _: &Host, _: u16) -> Option<String> {
        Some("judges".to_owned())
    }

    fn judge(&self, _: &Policy, request: &RequestLine<'_>) -> Option<PolicyVerdict> {
        let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
        let line = (
            request.host.to_string(),
            request.method.to_owned(),
            format!("{}{query}", request.path),
        );
        self.0.lock().unwrap().push((line, request.bytes));
        None
    }
}

/// Arrivals that nobody judged as what they are; judged ones may be missing, where a judge refused them.
fn strangers<'a>(judged: &[(Line, Option<u64>)], arrived: &'a [Arrived]) -> Vec<&'a Arrived> {
    let mut left: HashMap<&Line, Vec<Option<u64>>> = HashMap::new();
    for (line, bytes) in judged {
        left.entry(line).or_default().push(*bytes);
    }
    let mut is_known = |arrival: &Arrived| {
        let stated = left.get_mut(&arrival.line)?;
        let exact = stated.iter().position(|bytes| *bytes == Some(arrival.body));
        let place = exact.or_else(|| stated.iter().position(Option::is_none))?;
        Some(stated.swap_remove(place))
    };
    arrived.iter().filter(|arrival| is_known(arrival).is_none()).collect()
}

/// Every fourth case goes through the proxy.
fn is_proxied(at: usize) -> bool {
    at % 4 == 3
}

/// Says the bytes on a connection and waits until the other side is done; what it said.
async fn say(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = stream.write_all(bytes).await;
    while matches!(timeout(PATIENCE, stream.read_buf(&mut heard)).await, Ok(Ok(1..))) {}
    heard
}

async fn rig(judges: &[Judge], recorder: &Arc<Recorder>) -> Rig {
    let names: Vec<String> = judges.iter().map(Judge::host).collect();
    let mut plan = Plan::custom(&names.iter().map(String::as_str).collect::<Vec<_>>());
    plan.inspector = Some(Arc::clone(recorder) as _);
    let rig = plan.start().await;
    for (at, judge) in judges.iter().enumerate() {
        rig.host(&judge.host(), &format!("93.184.216.{}", 34 + at), 80, judge.address);
    }
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_arrives_was_judged_as_what_it_is() {
    let judges = servers::start().await;
    if judges.is_empty() {
        return;
    }
    let recorder = Arc::new(Recorder::default());
    let rig = rig(&judges, &recorder).await;
    let cases = requests::all(SEED, GENERATED);
    let jobs = cases
        .iter()
        .enumerate()
        .flat_map(|(at, case)| judges.iter().map(move |judge| (at, case, judge)));
    let answers = futures::stream::iter(jobs).map(|(at, case, judge)| {
        let (rig, host) = (&rig, judge.host());
        async move {
            let stream = match is_proxied(at) {
                true => rig.connect_to("proxy.stockade.internal", 3128).await,
                false => rig.connect_to(&host, 80).await,
            };
            say(stream, &case.bytes(at, &host, is_proxied(at))).await
        }
    });
    let answers: Vec<Vec<u8>> = answers.buffer_unordered(AT_ONCE).collect().await;
    let judged = recorder.0.lock().unwrap().clone();
    let refused = answers
        .iter()
        .filter(|answer| String::from_utf8_lossy(answer).contains("stockade."))
        .count();
    let mut bodies: HashMap<String, Vec<(u64, String)>> = HashMap::new();
    for judge in &judges {
        let arrived = judge.arrived();
        let strangers = strangers(&judged, &arrived);
        if let Some(stranger) = strangers.first() {
            let said = stranger
                .case
                .parse()
                .ok()
                .and_then(|at: usize| Some(cases.get(at)?.bytes(at, &judge.host(), is_proxied(at))));
            let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
            panic!(
                "{}: {} strangers, like {stranger:?} of {said:?}",
                judge.name,
                strangers.len()
            );
        }
        let count = arrived.iter().filter(|arrival| !arrival.is_last()).count();
        assert!(count * 4 > GENERATED, "a good share has to arrive: {count}");
        for arrival in arrived.into_iter().filter(|arrival| !arrival.case.is_empty()) {
            let key = format!("{} {} {}", arrival.case, arrival.line.1, arrival.line.2);
            bodies
                .entry(key)
                .or_default()
                .push((arrival.body, judge.name.to_owned()));
        }
        judge.check_paths();
    }
    for (case, bodies) in bodies {
        assert!(
            bodies.iter().all(|(body, _)| *body == bodies[0].0),
            "{case}: {bodies:?}"
        );
    }
    assert!(refused * 10 > answers.len() && refused < answers.len(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sloppy_relay_would_be_seen() {
    let judges = servers::start().await;
    for judge in &judges {
        let relay = sloppy::start(judge.address).await;
        let cases = requests::all(SEED, 200);
        let jobs = futures::stream::iter(cases.iter().enumerate()).map(|(at, case)| {
            let (address, host) = (relay.address, judge.host());
            async move {
                let stream = TcpStream::connect(address).await.unwrap();
                say(stream, &case.bytes(at, &host, false)).await
            }
        });
        jobs.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        let judged = relay.judged();
        let arrived: Vec<Arrived> = judge
            .arrived()
            .into_iter()
            .filter(|arrival| !arrival.is_last())
            .collect();
        let strangers = strangers(&judged, &arrived);
        assert!(
            !strangers.is_empty() && strangers.len() < arrived.len(),
            "{}",
            judge.name
        );
    }
}

/// What nginx makes of a path, where the Guard has no doubt about it.
fn decoded(path: &str) -> Option<String> {
    let path = RequestPath::parse(path).ok().filter(|path| path.doubt().is_none())?;
    let (bytes, mut plain, mut at) = (path.as_str().as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| u8::from_str_radix(path.as_str().get(at + 1..at + 3)?, 16).ok());
        plain.push(escaped.flatten().unwrap_or(bytes[at]));
        at += if escaped.flatten().is_some() { 3 } else { 1 };
    }
    String::from_utf8(plain).ok()
}

fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
