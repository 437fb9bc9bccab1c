//! The tasks of one connection, which end with it.

use hyper::rt::Executor;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Where the tasks of one connection are started.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

/// Ends the tasks when it goes.
#[derive(Debug)]
pub(super) struct Ending {
    tasks: Tasks,
    _guard: DropGuard,
}

impl Tasks {
    pub(super) fn new() -> (Self, Ending) {
        let stop = CancellationToken::new();
        let tasks = Self {
            stop: stop.clone(),
            tracker: TaskTracker::new(),
        };
        let ending = Ending {
            tasks: tasks.clone(),
            _guard: stop.drop_guard(),
        };
        (tasks, ending)
    }
}

impl Ending {
    /// Ends the tasks and waits until none of them touches anything any more.
    pub(super) async fn end(self) {
        self.tasks.stop.cancel();
        self.tasks.tracker.close();
        self.tasks.tracker.wait().await;
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled_owned(task).await;
        });
    }
}
