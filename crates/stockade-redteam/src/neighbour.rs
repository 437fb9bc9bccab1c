//! What a neighbour notices: how long its small commands take before something goes on beside it,
//! and while it does.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{inside::Inside, judge::Sighting};

/// Commands measured beforehand.
const BEFORE: usize = 9;
/// Most commands measured meanwhile.
const DURING: usize = 200;
/// Before something is measured it is given this long to begin.
const BEGIN: Duration = Duration::from_millis(30);
/// A neighbour notices nothing as long as its commands take on average at most this many times what
/// the median one took before, and this much more on top. Wide on purpose: a backend whose commands take two
/// milliseconds may be compared on a host that is busy with other things; a neighbour that is
/// starved waits for hundreds of milliseconds.
const TIMES: u32 = 4;
const SLACK: Duration = Duration::from_millis(25);

/// How a neighbour fared.
pub(crate) struct Pace {
    before: Duration,
    during: Duration,
    answers: usize,
    /// Every command of its did what it should.
    well: bool,
}

impl Pace {
    /// Whether it noticed nothing worth mentioning.
    pub(crate) fn holds(&self) -> bool {
        self.well && self.during <= self.before * TIMES + SLACK
    }

    pub(crate) fn words(&self) -> String {
        let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        let well = if self.well { "" } else { ", and some did not work" };
        format!(
            "a command takes {} before, {} on average meanwhile ({} commands{well})",
            millis(self.before),
            millis(self.during),
            self.answers
        )
    }

    pub(crate) fn sighting(&self) -> Sighting {
        let expected = format!(
            "commands take at most {TIMES} times as long and {} ms",
            SLACK.as_millis()
        );
        Sighting::new("the neighbour meanwhile", expected, self.words(), self.holds())
    }
}

/// One small command; how long it took and whether it worked.
async fn answer(neighbour: &Inside) -> (Duration, bool) {
    let begun = Instant::now();
    let well = neighbour.is_healthy().await;
    (begun.elapsed(), well)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The average, because a neighbour that is starved gets few answers: of three commands, one of which
/// waited for half a second, the median says nothing.
fn mean(times: &[Duration]) -> Duration {
    let count = u32::try_from(times.len().max(1)).unwrap_or(u32::MAX);
    times.iter().sum::<Duration>() / count
}

/// Does something and measures a neighbour before and meanwhile.
pub(crate) async fn beside<T>(neighbour: &Inside, doing: impl Future<Output = T>) -> (T, Pace) {
    let mut before = Vec::new();
    let mut well = true;
    for _ in 0..BEFORE {
        let (took, works) = answer(neighbour).await;
        before.push(took);
        well &= works;
    }
    let over = AtomicBool::new(false);
    let doing = async {
        let done = doing.await;
        over.store(true, Ordering::Relaxed);
        done
    };
    let measuring = async {
        // Whoever measures is a process of the host's like any other: what holds it up counts.
        let begun = Instant::now();
        tokio::time::sleep(BEGIN).await;
        let (_, mut well) = answer(neighbour).await;
        let mut during = vec![begun.elapsed().saturating_sub(BEGIN)];
        while !over.load(Ordering::Relaxed) && during.len() < DURING {
            let (took, works) = answer(neighbour).await;
            during.push(took);
            well &= works;
        }
        (during, well)
    };
    let (done, (during, meanwhile)) = tokio::join!(doing, measuring);
    let pace = Pace {
        before: median(&mut before),
        during: mean(&during),
        answers: during.len(),
        well: well && meanwhile,
    };
    (done, pace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(before: u64, during: u64, well: bool) -> Pace {
        Pace {
            before: Duration::from_millis(before),
            during: Duration::from_millis(during),
            answers: 3,
            well,
        }
    }

    #[test]
    fn noise_is_allowed_and_starving_is_not() {
        assert!(pace(3, 12, true).holds() && pace(3, 37, true).holds());
        assert!(pace(20, 100, true).holds());
        assert!(!pace(3, 40, true).holds());
        assert!(!pace(3, 3, false).holds(), "a command that failed was noticed");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let mut times = [9, 1, 5].map(Duration::from_millis);
        assert_eq!(median(&mut times), Duration::from_millis(5));
        assert_eq!(median(&mut []), Duration::ZERO);
    }

    #[test]
    fn one_long_wait_among_three_shows_in_the_average() {
        let times = [480, 4, 4].map(Duration::from_millis);
        assert!(mean(&times) > Duration::from_millis(150));
        assert_eq!(mean(&[]), Duration::ZERO);
    }
}
