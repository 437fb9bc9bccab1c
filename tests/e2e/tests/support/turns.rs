//! The one heavy test at a time: real agents take half a gigabyte and a core each.

use std::fs::File;

use super::installation::user;

/// Held as long as a heavy test runs; works across processes, because some test runners
/// give each test its own.
pub(crate) struct Heavy(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for the other heavy tests.
pub(crate) async fn heavy() -> Heavy {
    let path = std::env::temp_dir().join(format!("stockade-e2e-heavy-{}.lock", user()));
    let file = File::options().create(true).append(true).open(&path).unwrap();
    tokio::task::spawn_blocking(move || {
        file.lock().unwrap();
        Heavy(file)
    })
    .await
    .unwrap()
}
