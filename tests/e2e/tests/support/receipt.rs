//! A run's receipt, checked by the program and then read.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use stockade_api::domain::RunId;

use super::installation::Installation;

/// What the receipt says, after `receipt verify` agreed with it and with the run's events.
pub(crate) async fn verified(installation: &Installation, run: RunId) -> Value {
    let run = run.to_string();
    let (file, events) = (installation.path("receipt.json"), installation.path("events.json"));
    let (file_text, events_text) = (file.to_str().unwrap(), events.to_str().unwrap());
    installation
        .run(&["receipt", "show", &run, "--out", file_text])
        .await
        .expect(0);
    let told = installation.run(&["runs", "events", &run, "--json"]).await.expect(0);
    fs::write(&events, &told.stdout).unwrap();
    let valid = installation
        .run(&["receipt", "verify", file_text, "--events", events_text, "--json"])
        .await
        .expect(0);
    assert_eq!(valid.json()["valid"], true);
    assert_eq!(valid.json()["events_checked"], true);
    let envelope: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    statement["predicate"].clone()
}
