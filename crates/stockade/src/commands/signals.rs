//! The wish to stop, however it arrives.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first SIGINT (Ctrl-C), SIGTERM or SIGHUP.
pub(crate) async fn stop_asked() {
    let wait = async |kind| match signal(kind) {
        Ok(mut asked) => {
            asked.recv().await;
        }
        // A signal that cannot be listened to still has its default effect.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}
