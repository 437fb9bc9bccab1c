//! How long the gate takes on a real store: `gate_bench ROUNDS` prints one line of JSON.
//!
//! Every admission and every settlement is a transaction that survives a power loss
//! (`synchronous=FULL`), so the floor is what the disk takes for a sync; the bench measures
//! that too (`write_and_sync`, 200 bytes appended to a file and synced) and the figures are
//! to be read beside it.

#[path = "../tests/support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use stockade_bus::InProcessBus;
use stockade_domain::{Action, ActionKind, Amounts, NetworkLevel, Outcome, RunInput, TaskId, TeamId};
use stockade_gate::{Gate, Scope, kind};
use stockade_policy::Policy;
use stockade_ports::{Clock, CreateRun, CreateTask, Store, SystemClock};
use stockade_store::SqliteStore;

/// Actions in flight at once where rates are measured.
const FEW: usize = 8;
const MANY: usize = 64;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(500);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let line = runtime.block_on(measure(rounds));
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn measure(rounds: usize) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.path().join("bench.db")).await.expect("a store"));
    let gate = Gate::new(
        Arc::clone(&store),
        Arc::new(InProcessBus::default()),
        Arc::new(SystemClock),
    );
    let scope = claimed_run(store.as_ref()).await;
    let mut admit = Vec::with_capacity(rounds);
    let mut settle = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let started = Instant::now();
        let admitted = gate
            .pass::<kind::Tool>(&scope, support::bash(&round.to_string()), Amounts::ZERO)
            .await
            .expect("admitted");
        admit.push(millis(started.elapsed()));
        let started = Instant::now();
        admitted
            .settle(Outcome::Done, Amounts::ZERO, Value::Null)
            .await
            .expect("settled");
        settle.push(millis(started.elapsed()));
    }
    let few = rate(&gate, &scope, rounds, FEW).await;
    let many = rate(&gate, &scope, rounds * 4, MANY).await;
    let sync = write_and_sync(dir.path(), rounds);
    json!({
        "samples": { "admit": admit, "settle": settle, "write_and_sync": sync },
        "rates": {
            format!("connections admitted and settled, {FEW} at a time"): few,
            format!("connections admitted and settled, {MANY} at a time"): many,
        },
        "notes": ["SQLite, WAL, synchronous=FULL; changes that come together share a commit"],
    })
}

async fn claimed_run(store: &dyn Store) -> Scope {
    let clock = SystemClock;
    let run = stockade_domain::RunId::from_uuid(clock.uuid());
    let mut spec = support::spec(&[]);
    spec.environment.network = NetworkLevel::Full;
    spec.environment.acknowledge_full_network = true;
    spec.policy_version = Policy::compile(&spec.agent, &spec.environment)
        .expect("a policy")
        .version();
    spec.limits.budget = stockade_domain::BudgetLimits::default();
    let task = CreateTask {
        id: TaskId::from_uuid(clock.uuid()),
        team: TeamId::DEFAULT,
        prompt: "bench".into(),
        repo: None,
        run: Some(CreateRun { id: run, spec }),
        idempotency_key: None,
        now: clock.now(),
    };
    store.create_task(task).await.expect("created");
    let lease = store.claim(clock.now()).await.expect("an answer").expect("a run").lease;
    let (run, _) = store
        .step(run, Some(lease), RunInput::Provisioned, clock.now())
        .await
        .expect("a step");
    Scope::of(&run, lease).expect("a policy")
}

/// Actions admitted and settled per second.
async fn rate(gate: &Gate, scope: &Scope, rounds: usize, at_once: usize) -> f64 {
    let started = Instant::now();
    let workers = (0..at_once).map(|worker| {
        let (gate, scope) = (gate.clone(), scope.clone());
        tokio::spawn(async move {
            for round in 0..rounds / at_once {
                let action = connection(&format!("{worker}-{round}.example.com"));
                let admitted = gate.pass::<kind::Egress>(&scope, action, Amounts::ZERO).await;
                let settled = admitted
                    .expect("admitted")
                    .settle(Outcome::Done, Amounts::ZERO, Value::Null);
                settled.await.expect("settled");
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("a worker");
    }
    (rounds / at_once * at_once) as f64 / started.elapsed().as_secs_f64()
}

fn connection(host: &str) -> Action {
    Action {
        kind: ActionKind::Egress,
        operation: "connect".to_owned(),
        target: format!("{host}:443"),
        args: json!({ "host": host, "port": 443, "protocol": "tls" }),
    }
}

/// The disk's own floor: append a little, sync.
fn write_and_sync(dir: &Path, rounds: usize) -> Vec<f64> {
    let mut file = File::create(dir.join("floor")).expect("a file");
    let once = |_| {
        let started = Instant::now();
        file.write_all(&[b'x'; 200])
            .and_then(|()| file.sync_data())
            .expect("a sync");
        millis(started.elapsed())
    };
    (0..rounds).map(once).collect()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
