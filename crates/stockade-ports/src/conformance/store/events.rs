//! Events: dense, chained, and as they were.

use std::sync::Arc;

use serde_json::json;
use stockade_domain::{EventType, NewEvent, Verdict, admission::AdmitRequest};

use super::scene::{Scene, command, note, ok};
use crate::{Store, sim::samples};

/// Fifty writers at once leave a sequence without holes and a chain that holds.
pub async fn events_are_dense_under_concurrency(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let writers: Vec<_> = (0..50)
        .map(|n| {
            let (store, now) = (Arc::clone(store), scene.now);
            let events = vec![note(&format!("{n} a")), note(&format!("{n} b"))];
            tokio::spawn(async move { store.append(run, lease, events, now).await })
        })
        .collect();
    let mut told = Vec::new();
    for writer in writers {
        let events = ok(writer.await.expect("a writer ends"));
        assert_eq!(
            events[0].seq + 1,
            events[1].seq,
            "what is appended together stands together"
        );
        told.extend(events);
    }
    let history = scene.history(run).await;
    assert_eq!(history.len(), 3 + 100);
    for event in told {
        let place = usize::try_from(event.seq).expect("a small number") - 1;
        assert_eq!(history[place], event, "what the writer was told is what is stored");
    }
}

/// Details, times and traces come back unchanged: otherwise the chain would break.
pub async fn events_come_back_as_they_were(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let odd = json!({
        "z": 1, "a": [null, true, -7, u64::MAX, i64::MIN, 0.1, 1e300, 2.0, 5e-324, 123_456_789.123_456_79],
        "text": "\u{0}\u{7f} \"quoted\" \\ \u{2028} ü 🦀", "deep": [[[[{ "": {} }]]]],
    });
    let new = vec![NewEvent::new(EventType::ToolResult, odd.clone())];
    let told = ok(store.append(run, lease, new, scene.now).await);
    let stored = ok(store.events(run, told[0].seq - 1, 10).await);
    assert_eq!(stored, told);
    assert_eq!((&stored[0].data, stored[0].time), (&odd, scene.now));
    let traced = AdmitRequest {
        trace: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        ..scene.request(run, lease, command("ls"), Verdict::Allow)
    };
    scene.admit(&traced).await;
    let history = scene.history(run).await;
    assert_eq!(history.last().and_then(|event| event.trace.clone()), traced.trace);
}

/// Events are read in order after a place, so many at most.
pub async fn events_are_read_from_a_place(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let new = (0..10).map(|n| note(&n.to_string())).collect();
    ok(store.append(run, lease, new, scene.now).await);
    let seqs = async |after, limit| {
        let events = ok(store.events(run, after, limit).await);
        events.iter().map(|event| event.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 3).await, [1, 2, 3]);
    assert_eq!(seqs(3, 3).await, [4, 5, 6]);
    assert_eq!(seqs(11, 100).await, [12, 13]);
    assert_eq!(seqs(13, 100).await, [0u64; 0]);
    assert_eq!(seqs(u64::MAX, 100).await, [0u64; 0]);
    assert_eq!(seqs(0, 0).await, [0u64; 0]);
}
