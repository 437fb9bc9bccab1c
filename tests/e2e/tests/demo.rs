//! `stockade demo`: it keeps its promises, and says so when it does not.

use std::fs;

use serde_json::json;

use crate::support::{installation::Installation, program::Ran};

/// What the demo promises, in its own words.
const PROMISES: [&str; 7] = [
    "the agent finished",
    "it ran in a sandbox without a network card",
    "the test failed first and passes now",
    "a connection was refused",
    "a person was asked and decided",
    "the change is a patch",
    "the receipt verifies and covers every event",
];

/// Fails the test unless the demo kept every promise.
#[track_caller]
pub(crate) fn assert_kept(ran: &Ran) {
    let (_, told) = ran
        .stderr
        .split_once("what really happened")
        .unwrap_or_else(|| panic!("{}", ran.stderr));
    for promise in PROMISES {
        assert!(
            told.contains(&format!("✓ {promise}")),
            "not kept: {promise}\n{}",
            ran.stderr
        );
    }
    assert!(!told.contains("✗ "), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_keeps_its_seven_promises() {
    let installation = Installation::bare();
    let ran = installation.run(&["demo", "--yes"]).await.expect(0);
    assert_kept(&ran);
    assert!(ran.stderr.contains("telemetry.example.net"), "{}", ran.stderr);
    let left: Vec<_> = fs::read_dir(installation.state()).unwrap().collect();
    assert!(left.is_empty(), "the demo touched the installation: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_whose_agent_fixes_nothing_fails() {
    let mut installation = Installation::bare();
    installation.script(json!([
        { "say": "Looking.", "call": [{ "tool": "bash", "input": { "command": "sh test.sh" } }] },
        { "say": "I could not do it." },
    ]));
    let script = format!("scripted:{}", installation.path("script.yaml").display());
    let ran = installation
        .run(&["demo", "--yes", "--provider", &script])
        .await
        .expect(1);
    for broken in [
        "the test failed first and passes now",
        "a connection was refused",
        "the change is a patch",
    ] {
        assert!(ran.stderr.contains(&format!("✗ {broken}")), "{}", ran.stderr);
    }
    for kept in ["the agent finished", "the receipt verifies and covers every event"] {
        assert!(ran.stderr.contains(&format!("✓ {kept}")), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn a_demo_that_nobody_watches_asks_for_a_decision_before_it_starts() {
    let installation = Installation::bare();
    installation.run(&["demo"]).await.expect(2).says("--yes");
}
