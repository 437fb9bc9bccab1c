//! One limit: reserved before, settled after, never exceeded.

use std::{
    collections::VecDeque,
    num::NonZeroU64,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Counts towards a limit. What is reserved counts like what was used until it is settled, so the
/// sum of what is used never exceeds the limit, however many count at the same time.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    limit: Option<u64>,
    /// Used and reserved.
    taken: AtomicU64,
    used: AtomicU64,
}

/// What a reservation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// So much, at least 1.
    Some(u64),
    /// None now; somebody else holds what is left and may give it back.
    Held,
    /// None any more.
    Spent,
}

impl Counter {
    pub(crate) fn new(limit: Option<NonZeroU64>) -> Self {
        Self {
            limit: limit.map(NonZeroU64::get),
            ..Self::default()
        }
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    /// Whether everything is used.
    pub(crate) fn is_spent(&self) -> bool {
        self.limit.is_some_and(|limit| self.used() >= limit)
    }

    /// Reserves up to `want`.
    pub(crate) fn reserve(&self, want: u64) -> Room {
        let Some(limit) = self.limit else {
            return Room::Some(want);
        };
        let taken = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
            (taken < limit).then(|| taken + want.min(limit - taken))
        });
        match taken {
            Ok(taken) => Room::Some(want.min(limit - taken)),
            Err(_) if self.is_spent() => Room::Spent,
            Err(_) => Room::Held,
        }
    }

    /// Settles a reservation: `used` of it was used, the rest is given back.
    pub(crate) fn settle(&self, reserved: u64, used: u64) {
        if self.limit.is_some() {
            self.used.fetch_add(used, Ordering::SeqCst);
            self.taken.fetch_sub(reserved - used, Ordering::SeqCst);
        }
    }

    /// Reserves and uses one; false where there is none left.
    pub(crate) fn one(&self) -> bool {
        let room = self.reserve(1);
        if room == Room::Some(1) {
            self.settle(1, 1);
        }
        room == Room::Some(1)
    }

    /// Counts what was used before this process; it may be more than the limit.
    pub(crate) fn restore(&self, used: u64) {
        if self.limit.is_some() {
            self.taken.fetch_add(used, Ordering::SeqCst);
            self.used.fetch_add(used, Ordering::SeqCst);
        }
    }
}

/// So many within any minute. Counted by whole seconds, so that a place may come free a second
/// late and never early.
#[derive(Debug)]
pub(crate) struct Window {
    limit: u64,
    start: Instant,
    /// Seconds since the start, and how many began in each.
    seconds: Mutex<VecDeque<(u64, u64)>>,
}

const MINUTE: u64 = 60;

impl Window {
    pub(crate) fn new(limit: NonZeroU64) -> Self {
        Self {
            limit: limit.get(),
            start: Instant::now(),
            seconds: Mutex::default(),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts one, if there is a place.
    pub(crate) fn one(&self) -> bool {
        self.one_at(self.start.elapsed())
    }

    fn one_at(&self, now: Duration) -> bool {
        let now = now.as_secs();
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        while seconds.front().is_some_and(|(second, _)| second + MINUTE < now) {
            seconds.pop_front();
        }
        let begun: u64 = seconds.iter().map(|(_, count)| count).sum();
        if begun >= self.limit {
            return false;
        }
        match seconds.back_mut() {
            Some((second, count)) if *second == now => *count += 1,
            _ => seconds.push_back((now, 1)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn under_any_concurrency_exactly_the_limit_is_used() {
        let counter = Counter::new(NonZeroU64::new(1_000_003));
        let used: u64 = std::thread::scope(|scope| {
            let work = |step: u64| {
                let counter = &counter;
                scope.spawn(move || {
                    let mut used = 0;
                    loop {
                        match counter.reserve(step) {
                            Room::Some(got) => {
                                // Every third time only a part is used.
                                let part = if used % 3 == 0 { got } else { got.div_ceil(2) };
                                counter.settle(got, part);
                                used += part;
                            }
                            Room::Held => std::thread::yield_now(),
                            Room::Spent => return used,
                        }
                    }
                })
            };
            let threads: Vec<_> = (1..=8).map(|n| work(n * 97)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((used, counter.used()), (1_000_003, 1_000_003));
    }

    #[test]
    fn what_is_held_is_not_spent() {
        let counter = Counter::new(NonZeroU64::new(10));
        assert_eq!(counter.reserve(20), Room::Some(10));
        assert_eq!(counter.reserve(1), Room::Held);
        counter.settle(10, 4);
        assert_eq!(counter.reserve(20), Room::Some(6));
        counter.settle(6, 6);
        assert_eq!(counter.reserve(1), Room::Spent);
        assert!(!counter.one());
        let free = Counter::new(None);
        assert_eq!(free.reserve(u64::MAX), Room::Some(u64::MAX));
        assert!(free.one() && !free.is_spent());
    }

    #[test]
    fn what_was_used_before_counts() {
        let counter = Counter::new(NonZeroU64::new(10));
        counter.restore(12);
        assert_eq!(counter.reserve(1), Room::Spent);
    }

    proptest! {
        /// Whatever is asked when, no minute has more than the limit.
        #[test]
        fn no_minute_has_more(limit in 1u64..6, gaps in prop::collection::vec(0u64..40_000, 1..60)) {
            let window = Window::new(NonZeroU64::new(limit).unwrap());
            let (mut now, mut begun) = (Duration::ZERO, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                if window.one_at(now) {
                    begun.push(now);
                }
                let within = begun.iter().filter(|at| now - **at <= Duration::from_secs(MINUTE)).count();
                prop_assert!(within as u64 <= limit);
            }
            // Control: a place comes free again.
            prop_assert!(window.one_at(now + Duration::from_secs(MINUTE + 2)));
        }
    }
}
