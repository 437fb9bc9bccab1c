//! How long a verdict takes with many rules: `policy_bench ROUNDS` prints one line of JSON.
//!
//! An environment of 10,000 egress rules (exact hosts, suffixes, methods, paths, denials) and
//! 10,000 listed domains is asked about hosts all over its list and about hosts that are on
//! none; each sample is the mean of a batch, so that the clock's own cost does not show. A list
//! of ten rules is measured beside it: what the length costs is the difference.

use std::{hint::black_box, io::Write as _, time::Instant};

use serde_json::{Value, json};
use stockade_domain::{Action, ActionKind, AgentKind, AgentSpec, EgressRule, Environment, NetworkLevel, RuleVerdict};
use stockade_policy::{Place, Policy};

/// Rules and domains of the long list.
const MANY: usize = 10_000;
/// Verdicts in one sample.
const BATCH: usize = 32;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(500);
    let _ = writeln!(std::io::stdout(), "{}", measure(rounds));
}

fn measure(rounds: usize) -> Value {
    let (many, few) = (policy(MANY), policy(10));
    let mut samples = serde_json::Map::new();
    for (name, policy, size) in [("10,000 rules", &many, MANY), ("10 rules", &few, 10)] {
        let connects = asked(size, connect);
        let requests = asked(size, request);
        samples.insert(format!("connect, {name}"), json!(timed(policy, &connects, rounds)));
        samples.insert(format!("request, {name}"), json!(timed(policy, &requests, rounds)));
    }
    let explained = (0..rounds.min(100)).map(|round| {
        let place = Place::parse(&format!("https://api{}.example.com/v1/x", round * 3), Some("POST")).expect("a URL");
        let started = Instant::now();
        black_box(many.explain(&place));
        started.elapsed().as_secs_f64() * 1000.0
    });
    samples.insert("explain, 10,000 rules".to_owned(), json!(explained.collect::<Vec<_>>()));
    json!({
        "samples": samples,
        "notes": [format!("each sample of a verdict is the mean of {BATCH}; the goal is 0.020 ms at the median with 10,000 rules")],
    })
}

/// Rules of every shape, in turns.
fn policy(size: usize) -> Policy {
    let rule = |at: usize| {
        let host = match at % 5 {
            0 => format!("*.zone{at}.example.net"),
            1 => format!("bad{at}.example.org"),
            _ => format!("api{at}.example.com"),
        };
        let verdict = match at % 5 {
            1 => RuleVerdict::Deny,
            4 => RuleVerdict::Ask,
            _ => RuleVerdict::Allow,
        };
        let mut rule = EgressRule::hosts(verdict, &[&host]);
        if at % 5 == 3 {
            rule.methods = vec!["GET".to_owned(), "POST".to_owned()];
            rule.paths = vec!["/v1".to_owned(), "/v2/public".to_owned()];
        }
        rule
    };
    let environment = Environment {
        egress: (0..size).map(rule).collect(),
        domains: (0..size).map(|at| format!("listed{at}.example.com")).collect(),
        ..Environment::named("bench", NetworkLevel::Custom)
    };
    let agent = AgentSpec {
        name: "bench".to_owned(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules: Vec::new(),
        limits: Default::default(),
    };
    Policy::compile(&agent, &environment).expect("a policy")
}

/// Actions about hosts all over the list and beside it.
fn asked(size: usize, ask: fn(&str) -> Action) -> Vec<Action> {
    let step = (size / 64).max(1);
    let hosts = (0..size).step_by(step).flat_map(|at| {
        [
            format!("api{at}.example.com"),
            format!("a.b.zone{at}.example.net"),
            format!("bad{at}.example.org"),
            format!("listed{at}.example.com"),
            format!("nobody{at}.example.com"),
        ]
    });
    hosts.map(|host| ask(&host)).collect()
}

fn connect(host: &str) -> Action {
    action(
        "connect",
        json!({ "host": host, "port": 443, "protocol": "tls", "inspected": true }),
    )
}

fn request(host: &str) -> Action {
    let args = json!({ "host": host, "port": 443, "protocol": "https", "method": "GET", "path": "/v1/items/7?full=1" });
    action("request", args)
}

fn action(operation: &str, args: Value) -> Action {
    Action {
        kind: ActionKind::Egress,
        operation: operation.to_owned(),
        target: String::new(),
        args,
    }
}

/// Milliseconds of one verdict, sample by sample.
fn timed(policy: &Policy, actions: &[Action], rounds: usize) -> Vec<f64> {
    let mut actions = actions.iter().cycle();
    let once = |_| {
        let batch: Vec<&Action> = actions.by_ref().take(BATCH).collect();
        let started = Instant::now();
        for action in &batch {
            black_box(policy.evaluate(black_box(action)));
        }
        started.elapsed().as_secs_f64() * 1000.0 / batch.len() as f64
    };
    (0..rounds).map(once).collect()
}
