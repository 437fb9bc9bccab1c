//! Carrying one run: activity, step, activity, step, until the machine has no more to do.

use std::sync::Arc;

use stockade_domain::{Command, Failure, Run, RunInput, RunState, Timestamp};
use stockade_ports::{Claim, Lease, StoreError};
use tokio::sync::{Notify, watch};

use crate::{
    activity::{Ended, Look, Performer, Phase, Task},
    engine::Shared,
    patience,
};

/// One run in hand.
pub(crate) struct Carrier {
    shared: Arc<Shared>,
    run: Run,
    lease: Lease,
    wake: Arc<Notify>,
    closing: watch::Receiver<bool>,
}

/// What follows a step.
enum Next {
    Activity(Phase),
    /// The store says otherwise; look again before the same activity.
    LookAgain,
    Over,
}

impl Carrier {
    pub(crate) fn new(shared: Arc<Shared>, claim: Claim, wake: Arc<Notify>, closing: watch::Receiver<bool>) -> Self {
        Self {
            shared,
            run: claim.run,
            lease: claim.lease,
            wake,
            closing,
        }
    }

    pub(crate) async fn carry(self) {
        let mut phase = Phase::Provision;
        // Set when a step was refused: the activity before it is not done again.
        let mut done = false;
        loop {
            let ended = match self.look().await {
                Look::Go if done => return self.give_up("the store refused a step for no reason it gives").await,
                Look::Go if *self.closing.borrow() => Ended::Closing,
                Look::Go => self.perform(phase).await,
                why => Ended::Stopped(why),
            };
            let Some(input) = self.input(phase, ended).await else {
                return;
            };
            match self.feed(input).await {
                Next::Activity(next) => (phase, done) = (next, false),
                Next::LookAgain => done = true,
                Next::Over => return,
            }
        }
    }

    async fn perform(&self, phase: Phase) -> Ended {
        let config = &self.shared.config;
        let performer = Performer {
            activities: &self.shared.activities,
            wake: &self.wake,
            closing: self.closing.clone(),
            tick: config.tick,
            grace: config.grace,
        };
        performer
            .perform(phase, &self.run, self.lease, || Box::pin(self.look()))
            .await
    }

    /// Asks the store whether to go on. No answer is no reason to stop: whatever the agent
    /// wants to do meanwhile fails closed at the gate.
    async fn look(&self) -> Look {
        let now = self.shared.clock.now();
        let stored = self.shared.store.run(None, self.run.id).await;
        match stored {
            Ok(run) if !run.machine.attached || run.machine.attempt != self.run.machine.attempt => Look::Gone,
            Ok(run) if run.machine.cancelling.is_some() => Look::Cancelled,
            Err(StoreError::NotFound { .. }) => Look::Gone,
            _ if self.deadline().is_some_and(|deadline| now >= deadline) => Look::OutOfTime,
            Ok(_) => Look::Go,
            Err(error) => {
                tracing::debug!(run = %self.run.id, %error, "the store was asked in vain");
                Look::Go
            }
        }
    }

    /// When the run is ended by force. Counted from its first claim, so time spent waiting
    /// for a person and earlier attempts count too.
    fn deadline(&self) -> Option<Timestamp> {
        let seconds = i64::try_from(self.run.spec.limits.wall_clock_seconds).ok()?;
        let started = self.run.started_at?.as_millisecond();
        Timestamp::from_millisecond(started.checked_add(seconds.checked_mul(1000)?)?).ok()
    }

    /// What to feed the machine after an activity. The sandbox is destroyed before every
    /// input that ends or requeues the run, so that its connections are settled first.
    async fn input(&self, phase: Phase, ended: Ended) -> Option<RunInput> {
        match ended {
            Ended::Done(input) => {
                if phase == Phase::Export {
                    self.cleanup().await;
                }
                return Some(input);
            }
            _ => self.cleanup().await,
        }
        match ended {
            Ended::Done(input) => Some(input),
            Ended::Failed(failure) => Some(match self.look().await {
                Look::Cancelled => RunInput::Stopped,
                _ => RunInput::Fail(failure),
            }),
            Ended::Stopped(Look::OutOfTime) => Some(RunInput::Fail(self.out_of_time())),
            Ended::Stopped(Look::Gone) => {
                tracing::warn!(run = %self.run.id, "the run ended or was taken while it was in hand");
                self.shared.seal_if_missing(self.run.id).await.ok();
                None
            }
            Ended::Stopped(_) => Some(RunInput::Stopped),
            Ended::Closing => Some(RunInput::WorkerLost),
        }
    }

    fn out_of_time(&self) -> Failure {
        let seconds = self.run.spec.limits.wall_clock_seconds;
        let message =
            format!("the run reached its wall clock limit of {seconds} s, time spent waiting for a person included");
        Failure::terminal("wall_clock", message)
            .with_hint("raise wall_clock_seconds in the agent's limits, or ask for less")
    }

    async fn cleanup(&self) {
        let (activities, run) = (Arc::clone(&self.shared.activities), self.run.id);
        let mut cleaning = Task::start(async move { activities.cleanup(run).await });
        if let Err(failure) = cleaning.ended().await {
            tracing::error!(%run, %failure, "cleaning up broke off; the reaper at the next start makes up for it");
        }
    }

    /// Steps the run and does what follows from it.
    async fn feed(&self, input: RunInput) -> Next {
        let (store, clock) = (&self.shared.store, &self.shared.clock);
        let step = || store.step(self.run.id, Some(self.lease), input.clone(), clock.now());
        let stepped = patience::ask(self.shared.config.attempts, step).await;
        match stepped {
            Ok((_, step)) => {
                self.shared.hint(self.run.id).await;
                self.follow(&step.commands).await
            }
            Err(StoreError::Illegal(why)) => self.disagreed(&input, why.state),
            Err(StoreError::Fenced { .. }) => Next::LookAgain,
            Err(error) => {
                self.give_up(&error.to_string()).await;
                Next::Over
            }
        }
    }

    async fn follow(&self, commands: &[Command]) -> Next {
        let mut next = Next::Over;
        for command in commands {
            match command {
                Command::Provision => next = Next::Activity(Phase::Provision),
                Command::Drive => next = Next::Activity(Phase::Drive),
                Command::Export => next = Next::Activity(Phase::Export),
                Command::Seal => {
                    self.shared.seal(self.run.id).await;
                    self.shared.hint(self.run.id).await;
                }
                Command::Requeue { .. } => self.shared.hint_queue().await,
                // The sandbox was destroyed before the step; a stop comes through the store.
                Command::Cleanup | Command::Stop => {}
            }
        }
        next
    }

    /// The machine did not take an input: either it was taken and the answer was lost, or
    /// somebody else moved the run meanwhile.
    fn disagreed(&self, input: &RunInput, state: RunState) -> Next {
        match (input, state) {
            (RunInput::Provisioned, RunState::Running | RunState::Waiting) => Next::Activity(Phase::Drive),
            _ => Next::LookAgain,
        }
    }

    async fn give_up(&self, why: &str) {
        self.cleanup().await;
        tracing::error!(run = %self.run.id, why, "the run is left to the recovery at the next start");
    }
}
