//! What was acknowledged survives `kill -9` of the process that wrote it.
//!
//! The test starts itself again as the writer: the child appends events and says which
//! ones the store has acknowledged, until it is killed in the middle of it.

#![allow(clippy::disallowed_methods)] // the child is told its part in its environment

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;
use stockade_domain::{EventType, NewEvent, RunId, TaskId, TeamId, event::chain_head};
use stockade_ports::{Clock, CreateRun, CreateTask, Lease, Store, SystemClock, sim::samples};
use stockade_store::SqliteStore;

const DATABASE: &str = "STOCKADE_TEST_DURABILITY_DATABASE";
const RUN: &str = "STOCKADE_TEST_DURABILITY_RUN";

/// The writer. Does nothing unless the test below has started it.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_writes_until_it_is_killed() {
    let (Ok(database), Ok(run)) = (std::env::var(DATABASE), std::env::var(RUN)) else {
        return;
    };
    let run: RunId = run.parse().unwrap();
    let store = SqliteStore::open(database).await.unwrap();
    let writers: Vec<_> = (0..4).map(|n| tokio::spawn(write(store.clone(), run, n))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn write(store: SqliteStore, run: RunId, writer: u32) {
    let lease = Lease { fence: 1 };
    for n in 0..100_000 {
        let data = json!({ "writer": writer, "n": n, "padding": "x".repeat(n % 3000) });
        let events = vec![
            NewEvent::new(EventType::MessageAgent, data.clone()),
            NewEvent::new(EventType::MessageAgent, data),
        ];
        let told = store.append(run, lease, events, SystemClock.now()).await.unwrap();
        // Straight to the pipe: the parent must see exactly what was acknowledged.
        writeln!(std::io::stdout().lock(), "ack {} {}", told[0].seq, told[1].seq).unwrap();
    }
}

async fn claimed(path: &Path) -> RunId {
    let store = SqliteStore::open(path).await.unwrap();
    let run = RunId::from_uuid(SystemClock.uuid());
    let create = CreateTask {
        id: TaskId::from_uuid(SystemClock.uuid()),
        team: TeamId::DEFAULT,
        prompt: "write".to_owned(),
        repo: None,
        run: Some(CreateRun {
            id: run,
            spec: samples::spec(samples::limits()),
        }),
        idempotency_key: None,
        now: SystemClock.now(),
    };
    store.create_task(create).await.unwrap();
    assert_eq!(store.claim(SystemClock.now()).await.unwrap().unwrap().lease.fence, 1);
    store.close().await;
    run
}

/// Runs the writer, kills it after so many acknowledgements, and returns all that it made.
fn kill_after(acknowledged: usize, path: &Path, run: RunId) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_writes_until_it_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DATABASE, path)
        .env(RUN, run.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seqs = Vec::new();
    let mut take = |line: String| {
        // The test harness may have begun the line; a line cut by the kill was not acknowledged in full.
        if let Some((_, places)) = line.split_once("ack ") {
            let places: Vec<u64> = places.split(' ').filter_map(|seq| seq.parse().ok()).collect();
            if places.len() == 2 {
                seqs.extend(places);
            }
        }
        seqs.len()
    };
    while take(lines.next().expect("the child writes").unwrap()) < acknowledged {}
    std::thread::sleep(Duration::from_millis(7));
    child.kill().unwrap();
    for line in lines.map_while(Result::ok) {
        take(line);
    }
    assert!(!child.wait().unwrap().success(), "it was killed in the middle of it");
    seqs
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("stockade.db");
    let run = claimed(&path).await;
    let mut acknowledged = Vec::new();
    for round in 1..=3 {
        acknowledged.extend(kill_after(40 * round, &path, run));
        let store = SqliteStore::open(&path).await.unwrap();
        let events = store.events(run, 0, u32::MAX).await.unwrap();
        let stored = store.run(None, run).await.unwrap();
        assert_eq!(chain_head(&events).expect("a dense sequence"), stored.chain_head);
        assert_eq!(events.len() as u64, stored.last_seq);
        assert!(
            acknowledged.iter().all(|seq| *seq <= stored.last_seq),
            "an acknowledged event is gone"
        );
        // The two events before are the queue's and the claim's; the others came in pairs.
        assert_eq!(events.len() % 2, 0, "a transaction was cut in two");
        for pair in events[2..].chunks(2) {
            assert_eq!(pair[0].data, pair[1].data);
        }
        store.close().await;
    }
    let mut once = acknowledged.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), acknowledged.len(), "no place was given twice");
    assert!(once.len() > 200);
}
