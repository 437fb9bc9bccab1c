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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use stockade_ports::ManualClock;

    use super::*;

    type Said = Result<(u16, Vec<(&'static str, String)>), ForgeError>;

    /// Says one after the other, and counts.
    struct Says(Mutex<(Vec<Said>, u32)>);

    #[async_trait]
    impl ForgeHttp for Says {
        fn api(&self) -> &str {
            "https://api.example"
        }

        async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, ForgeError> {
            let mut state = self.0.lock().unwrap();
            state.1 += 1;
            let (status, headers) = state.0.remove(0)?;
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Bytes::new()).unwrap())
        }
    }

    const NOW: i64 = 1_750_000_000;

    /// How often a server that says this was asked, and the last status; 0 for no answer.
    async fn asked(says: Vec<Said>) -> (u32, u16) {
        let forge = Says(Mutex::new((says, 0)));
        let clock = ManualClock::at(NOW * 1000);
        let patient = Patient::new(&forge, &clock, Duration::from_millis(1));
        let answer = patient.send(Request::new(Bytes::new())).await;
        let times = forge.0.lock().unwrap().1;
        (times, answer.map_or(0, |answer| answer.status().as_u16()))
    }

    fn plain(status: u16) -> Said {
        Ok((status, Vec::new()))
    }

    fn with(status: u16, headers: &[(&'static str, i64)]) -> Said {
        let headers = headers.iter().map(|(name, value)| (*name, value.to_string()));
        Ok((status, headers.collect()))
    }

    #[tokio::test]
    async fn a_server_that_may_answer_later_is_asked_again() {
        let gone = || Err(ForgeError::Unreachable("gone".to_owned()));
        assert_eq!(asked(vec![plain(502), plain(201)]).await, (2, 201));
        assert_eq!(asked(vec![gone(), plain(429), plain(201)]).await, (3, 201));
        assert_eq!(
            asked(vec![with(429, &[("retry-after", 0)]), plain(201)]).await,
            (2, 201)
        );
        assert_eq!(
            asked(vec![with(403, &[("retry-after", 0)]), plain(201)]).await,
            (2, 201)
        );
        let used_up = |reset| with(403, &[("x-ratelimit-remaining", 0), ("x-ratelimit-reset", reset)]);
        assert_eq!(asked(vec![used_up(NOW - 5), plain(201)]).await, (2, 201));
        // Not for ever, and not longer than anybody would wait.
        assert_eq!(asked(vec![plain(500), plain(500), plain(500)]).await, (3, 500));
        assert_eq!(asked(vec![gone(), gone(), gone()]).await, (3, 0));
        assert_eq!(asked(vec![with(429, &[("retry-after", 7200)])]).await, (1, 429));
        assert_eq!(asked(vec![used_up(NOW + 3600)]).await, (1, 403));
    }

    #[tokio::test]
    async fn a_no_is_a_no() {
        for status in [201, 301, 401, 403, 404, 422] {
            assert_eq!(asked(vec![plain(status)]).await, (1, status));
        }
        // What is left of a limit that is not used up says nothing about this refusal.
        let left = [("x-ratelimit-remaining", 4999), ("x-ratelimit-reset", NOW)];
        assert_eq!(asked(vec![with(403, &left)]).await, (1, 403));
        assert_eq!(asked(vec![Err(ForgeError::TooLarge(1))]).await, (1, 0));
    }
}
