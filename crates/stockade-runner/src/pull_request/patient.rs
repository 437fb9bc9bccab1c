//! Asking again, where a forge says that it cannot answer now.
//!
//! GitHub's limits: 429, or 403 with `retry-after`, or with `x-ratelimit-remaining: 0` and the second
//! (of the Unix epoch) in `x-ratelimit-reset` ("Rate limits for the REST API").

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use stockade_domain::Timestamp;
use stockade_ports::{Clock, ForgeError, ForgeHttp};

/// How often a request is sent.
const TRIES: u32 = 3;
/// The longest pause that is waited for; a longer one is the end for now.
const LONGEST: Duration = Duration::from_secs(90);

/// A forge that is asked again. Every request to it can be repeated: a pull request that was opened
/// unheard is found the second time.
pub(crate) struct Patient<'a> {
    forge: &'a dyn ForgeHttp,
    clock: &'a dyn Clock,
    first: Duration,
}

impl<'a> Patient<'a> {
    /// Waits `first` before the second time and longer each time, where the forge does not say how long.
    pub(crate) fn new(forge: &'a dyn ForgeHttp, clock: &'a dyn Clock, first: Duration) -> Self {
        Self { forge, clock, first }
    }

    /// How long to wait before asking again, where that helps.
    fn pause(&self, answer: &Result<Response<Bytes>, ForgeError>, tries: u32) -> Option<Duration> {
        let backoff = self.first.saturating_mul(4_u32.saturating_pow(tries));
        let wait = match answer {
            Err(ForgeError::Unreachable(_)) => backoff,
            Err(_) => return None,
            Ok(answer) => {
                let limited = matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN);
                let told = told(answer.headers(), self.clock.now());
                match (answer.status(), told) {
                    (_, Some(told)) if limited => told,
                    (StatusCode::TOO_MANY_REQUESTS, None) => backoff,
                    (status, _) if status.is_server_error() => backoff,
                    _ => return None,
                }
            }
        };
        (tries + 1 < TRIES && wait <= LONGEST).then_some(wait)
    }
}

/// How long the server says to wait.
fn told(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let number = |name: HeaderName| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    if let Some(seconds) = number(header::RETRY_AFTER) {
        return Some(Duration::from_secs(seconds));
    }
    let used_up = number(HeaderName::from_static("x-ratelimit-remaining")) == Some(0);
    let reset = number(HeaderName::from_static("x-ratelimit-reset")).filter(|_| used_up)?;
    let now = u64::try_from(now.as_second()).ok()?;
    Some(Duration::from_secs(reset.saturating_sub(now) + 1))
}

#[async_trait]
impl ForgeHttp for Patient<'_> {
    fn api(&self) -> &str {
        self.forge.api()
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ForgeError> {
        let mut tries = 0;
        loop {
            let answer = self.forge.send(request.clone()).await;
            let Some(pause) = self.pause(&answer, tries) else {
                return answer;
            };
            tries += 1;
            tokio::time::sleep(pause).await;
        }
    }
}
