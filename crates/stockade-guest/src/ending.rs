//! Asking everything to end. Once asked, no command is started any more.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::{
    sweep::living,
    sys::{self, Pid},
};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The end of the sandbox's processes, in progress.
pub(crate) struct Ending {
    id: u32,
    until: Option<Instant>,
    look: Instant,
    asked: bool,
    told: bool,
}

impl Ending {
    pub(crate) fn new(id: u32, grace: Duration) -> Self {
        let now = Instant::now();
        Self {
            id,
            // Longer than the clock can count is for ever.
            until: now.checked_add(grace),
            look: now,
            asked: false,
            told: false,
        }
    }

    /// How long until the next look; `None` when it is over.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let look = self.look.saturating_duration_since(now);
        let until = self.until.map(|until| until.saturating_duration_since(now));
        (!self.told).then(|| until.map_or(look, |until| look.min(until)))
    }

    /// Asks everybody at the first look, and from then on sees who is left: what a process starts
    /// to end well must not be asked to end. The request to answer is returned once, when nobody
    /// is left or the time is over. `keepers` are the Guest's own: they end with what they keep.
    /// `all_told` says whether the host knows the end of every command; it is to hear those first.
    pub(crate) fn look(&mut self, keepers: &HashSet<Pid>, all_told: bool) -> Option<u32> {
        let now = Instant::now();
        if self.wait(now).is_none_or(|wait| !wait.is_zero()) {
            return None;
        }
        let mut others = living();
        others.retain(|pid| *pid != 1 && !keepers.contains(pid));
        if !std::mem::replace(&mut self.asked, true) {
            for pid in &others {
                sys::signal(*pid, libc::SIGTERM);
                // A stopped process can only do as it is asked when it goes on.
                sys::signal(*pid, libc::SIGCONT);
            }
        }
        self.look = now + LOOK_EVERY;
        self.told = (others.is_empty() && all_told) || self.until.is_some_and(|until| now >= until);
        self.told.then_some(self.id)
    }
}
