//! Trying again what may pass by itself.

use std::time::Duration;

use stockade_domain::failure::backoff_ms;
use stockade_ports::StoreError;
use tokio::time::sleep;

/// Asks a store until it answers, at most so many times.
pub(crate) async fn ask<T, F>(attempts: u32, question: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut attempt = 1;
    loop {
        match question().await {
            Err(StoreError::Unavailable(_)) if attempt < attempts => pause(attempt).await,
            answer => return answer,
        }
        attempt += 1;
    }
}

/// The pause after an attempt, counted from 1.
pub(crate) async fn pause(attempt: u32) {
    sleep(Duration::from_millis(backoff_ms(attempt))).await;
}
