//! The runs in hand: each has one task, and never two.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stockade_domain::RunId;
use tokio::{sync::Notify, task::JoinHandle};

/// What a task is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// It carries the run; takes one of the engine's places.
    Carry,
    /// It makes the receipt of a run that ended without being in hand.
    Seal,
}

#[derive(Debug)]
struct Hand {
    number: u64,
    work: Work,
    wake: Arc<Notify>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Table {
    hands: BTreeMap<RunId, Hand>,
    last: u64,
    closed: bool,
}

/// The table of tasks.
#[derive(Debug, Default)]
pub(crate) struct Hands {
    table: Mutex<Table>,
}

impl Hands {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many runs are carried.
    pub(crate) fn carried(&self) -> usize {
        self.table()
            .hands
            .values()
            .filter(|hand| hand.work == Work::Carry)
            .count()
    }

    /// Starts the task of a run. A task of the same run that is just ending ends first.
    ///
    /// After [`Self::close`] nothing is started.
    pub(crate) fn start<F>(self: &Arc<Self>, run: RunId, work: Work, task: impl FnOnce(Arc<Notify>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut table = self.table();
        if table.closed || (work == Work::Seal && table.hands.contains_key(&run)) {
            return;
        }
        table.last += 1;
        let number = table.last;
        let before = table.hands.remove(&run).map(|hand| hand.task);
        let wake = Arc::new(Notify::new());
        let body = task(Arc::clone(&wake));
        let hands = Arc::clone(self);
        // The table is locked until the hand is in it, so the task cannot remove it too early.
        let task = tokio::spawn(async move {
            let _leaving = Leaving { hands, run, number };
            if let Some(before) = before {
                // However it ended, it no longer touches the run.
                let _ = before.await;
            }
            body.await;
        });
        let hand = Hand {
            number,
            work,
            wake,
            task,
        };
        table.hands.insert(run, hand);
    }

    /// Asks the task of a run to look at the store; says whether there is one.
    pub(crate) fn wake(&self, run: RunId) -> bool {
        match self.table().hands.get(&run) {
            Some(hand) => {
                hand.wake.notify_one();
                true
            }
            None => false,
        }
    }

    /// Asks all tasks to look at the store.
    pub(crate) fn wake_all(&self) {
        for hand in self.table().hands.values() {
            hand.wake.notify_one();
        }
    }

    /// Lets no new task start, and gives away those there are, to be waited for.
    pub(crate) fn close(&self) -> Vec<JoinHandle<()>> {
        let mut table = self.table();
        table.closed = true;
        let hands = std::mem::take(&mut table.hands);
        hands.into_values().map(|hand| hand.task).collect()
    }
}

/// Takes a task off the table when it ends, also when it panics or is aborted.
struct Leaving {
    hands: Arc<Hands>,
    run: RunId,
    number: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut table = self.hands.table();
        if table
            .hands
            .get(&self.run)
            .is_some_and(|hand| hand.number == self.number)
        {
            table.hands.remove(&self.run);
        }
    }
}
