//! The run state machine: one pure function from a state and an input to the next state,
//! the events to append and the commands to carry out.
//!
//! `queued → provisioning → running ⇄ waiting → completed | failed | cancelled`
//!
//! Two things happen when the process of a run dies. A run that waited for a person keeps
//! waiting, without a sandbox; once decided it starts over in a fresh one, and the decision
//! is used when the agent asks for the same action again. A run that was working fails as
//! `interrupted`: what its last actions did is unknown, so it is not repeated silently.
//!
//! An engine destroys the sandbox before it feeds an input that ends or requeues the run,
//! so that every connection is settled while events may still be appended. The command
//! [`Command::Cleanup`] repeats that, idempotently, for the engine that could not.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{ApprovalId, EventType, Failure, NewEvent, RunResult, failure::backoff_ms};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waits for a worker.
    Queued,
    /// A worker prepares its sandbox.
    Provisioning,
    /// The agent works.
    Running,
    /// A person must decide.
    Waiting,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended by a person.
    Cancelled,
}

impl RunState {
    /// The state as the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Provisioning => "provisioning",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the run has ended for good.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// A person's wish to end the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// The state of a run, all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Where it stands.
    pub state: RunState,
    /// How often a worker has taken it, counted from 1; 0 before the first time.
    pub attempt: u32,
    /// How often provisioning is tried.
    pub max_attempts: u32,
    /// Open approvals.
    pub open: Vec<ApprovalId>,
    /// Whether a worker holds it.
    pub attached: bool,
    /// Set while a worker is asked to stop it.
    pub cancelling: Option<Cancellation>,
}

/// What can happen to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunInput {
    /// A worker takes it.
    Claim,
    /// The sandbox, its boundary and the repository are in place.
    Provisioned,
    /// An action is held for a person.
    ApprovalOpened(ApprovalId),
    /// A person answered, or the time to answer is over.
    ApprovalClosed(ApprovalId),
    /// The agent is done.
    AgentFinished,
    /// What it did has left the sandbox.
    Exported(RunResult),
    /// Something broke, or a limit was reached.
    Fail(Failure),
    /// A person wants it to end.
    Cancel(Cancellation),
    /// The worker has stopped it as asked.
    Stopped,
    /// The worker is gone.
    WorkerLost,
}

impl RunInput {
    const fn name(&self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Provisioned => "provisioned",
            Self::ApprovalOpened(_) => "approval opened",
            Self::ApprovalClosed(_) => "approval closed",
            Self::AgentFinished => "agent finished",
            Self::Exported(_) => "exported",
            Self::Fail(_) => "fail",
            Self::Cancel(_) => "cancel",
            Self::Stopped => "stopped",
            Self::WorkerLost => "worker lost",
        }
    }
}

/// What an engine does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Prepare the sandbox, its boundary and the repository.
    Provision,
    /// Start the agent and see it through.
    Drive,
    /// Tell the agent to stop.
    Stop,
    /// Bring the change out of the sandbox.
    Export,
    /// Destroy the sandbox.
    Cleanup,
    /// Make the receipt.
    Seal,
    /// Offer the run to workers again after so many milliseconds.
    Requeue {
        /// The pause.
        after_ms: u64,
    },
}

/// The answer of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The next state.
    pub machine: Machine,
    /// Events to append, in this order.
    pub events: Vec<NewEvent>,
    /// What the engine does next.
    pub commands: Vec<Command>,
    /// Whether open approvals are cancelled.
    pub cancel_approvals: bool,
    /// Whether actions in flight are settled as unknown.
    pub lose_actions: bool,
    /// The result to keep.
    pub result: Option<RunResult>,
    /// The failure to keep.
    pub failure: Option<Failure>,
}

/// An input that has no meaning in a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {} cannot take '{input}'", state.as_str())]
pub struct IllegalInput {
    /// Where the run stands.
    pub state: RunState,
    /// What was tried.
    pub input: &'static str,
}

impl Machine {
    /// A run that nobody has taken yet.
    pub fn new(max_attempts: u32) -> Self {
        Self {
            state: RunState::Queued,
            attempt: 0,
            max_attempts: max_attempts.max(1),
            open: Vec::new(),
            attached: false,
            cancelling: None,
        }
    }

    /// Whether a worker may take it.
    pub fn is_claimable(&self) -> bool {
        match self.state {
            RunState::Queued => true,
            RunState::Waiting => !self.attached && self.open.is_empty(),
            _ => false,
        }
    }

    /// Whether its actions may be admitted.
    pub fn may_act(&self) -> bool {
        self.attached && self.cancelling.is_none() && matches!(self.state, RunState::Running | RunState::Waiting)
    }

    /// Whether its sandbox is being prepared. Nothing of the agent's runs yet; what is done is done by
    /// the host, such as reading the repository, and no person can be asked.
    pub fn is_preparing(&self) -> bool {
        self.attached && self.cancelling.is_none() && self.state == RunState::Provisioning
    }
}

/// Advances a run.
///
/// # Errors
///
/// [`IllegalInput`] when the input has no meaning here; in particular every input to a
/// terminal run, so a terminal run never changes and never comes back.
pub fn step(machine: &Machine, input: RunInput) -> Result<Step, IllegalInput> {
    let illegal = IllegalInput {
        state: machine.state,
        input: input.name(),
    };
    if machine.state.is_terminal() {
        return Err(illegal);
    }
    match input {
        RunInput::Claim if machine.is_claimable() => Ok(claim(machine)),
        RunInput::Provisioned if machine.state == RunState::Provisioning => Ok(provisioned(machine)),
        RunInput::ApprovalOpened(id) if machine.may_act() => Ok(approval_opened(machine, id)),
        RunInput::ApprovalClosed(id) if machine.open.contains(&id) => Ok(approval_closed(machine, id)),
        RunInput::AgentFinished if machine.may_act() => Ok(agent_finished(machine)),
        // Also while a question about publishing it is open: the change is out, and the time is over.
        RunInput::Exported(result)
            if machine.attached && matches!(machine.state, RunState::Running | RunState::Waiting) =>
        {
            Ok(completed(machine, result))
        }
        RunInput::Fail(failure) => Ok(failed(machine, failure)),
        RunInput::Cancel(cancellation) => Ok(cancel(machine, cancellation)),
        RunInput::Stopped => match &machine.cancelling {
            Some(cancellation) => Ok(cancelled(machine, &cancellation.clone())),
            None => Err(illegal),
        },
        RunInput::WorkerLost => Ok(worker_lost(machine)),
        _ => Err(illegal),
    }
}

fn quiet(machine: Machine) -> Step {
    Step {
        machine,
        events: Vec::new(),
        commands: Vec::new(),
        cancel_approvals: false,
        lose_actions: false,
        result: None,
        failure: None,
    }
}

fn claim(machine: &Machine) -> Step {
    let attempt = machine.attempt + 1;
    let next = Machine {
        state: RunState::Provisioning,
        attempt,
        attached: true,
        ..machine.clone()
    };
    Step {
        events: vec![NewEvent::new(EventType::RunProvisioning, json!({ "attempt": attempt }))],
        commands: vec![Command::Provision],
        ..quiet(next)
    }
}

fn provisioned(machine: &Machine) -> Step {
    let next = Machine {
        state: RunState::Running,
        ..machine.clone()
    };
    Step {
        events: vec![NewEvent::new(
            EventType::RunRunning,
            json!({ "attempt": machine.attempt }),
        )],
        commands: vec![Command::Drive],
        ..quiet(next)
    }
}

fn approval_opened(machine: &Machine, id: ApprovalId) -> Step {
    let mut next = Machine {
        state: RunState::Waiting,
        ..machine.clone()
    };
    if !next.open.contains(&id) {
        next.open.push(id);
    }
    let mut step = quiet(next);
    if machine.state != RunState::Waiting {
        step.events
            .push(NewEvent::new(EventType::RunWaiting, json!({ "approval": id })));
    }
    step
}

fn approval_closed(machine: &Machine, id: ApprovalId) -> Step {
    let mut next = machine.clone();
    next.open.retain(|open| *open != id);
    let resumes = next.attached && next.open.is_empty() && next.state == RunState::Waiting;
    if resumes {
        next.state = RunState::Running;
    }
    let claimable = next.is_claimable();
    let mut step = quiet(next);
    if resumes {
        step.events.push(NewEvent::new(
            EventType::RunRunning,
            json!({ "attempt": machine.attempt }),
        ));
    } else if claimable {
        step.commands.push(Command::Requeue { after_ms: 0 });
    }
    step
}

fn agent_finished(machine: &Machine) -> Step {
    // An agent that ends while a question is open no longer needs the answer.
    let next = Machine {
        state: RunState::Running,
        open: Vec::new(),
        ..machine.clone()
    };
    Step {
        commands: vec![Command::Export],
        cancel_approvals: true,
        ..quiet(next)
    }
}

fn ended(machine: &Machine, state: RunState, event: NewEvent) -> Step {
    let commands = if machine.attached {
        vec![Command::Cleanup, Command::Seal]
    } else {
        vec![Command::Seal]
    };
    let next = Machine {
        state,
        open: Vec::new(),
        attached: false,
        cancelling: None,
        ..machine.clone()
    };
    Step {
        events: vec![event],
        commands,
        cancel_approvals: true,
        lose_actions: true,
        ..quiet(next)
    }
}

fn completed(machine: &Machine, result: RunResult) -> Step {
    let mut data = json!({ "summary": result.summary, "files_changed": result.files.len(), "branch": result.branch });
    if let Some(publication) = &result.publication {
        data["publication"] = json!(publication);
    }
    let event = NewEvent::new(EventType::RunCompleted, data);
    Step {
        result: Some(result),
        ..ended(machine, RunState::Completed, event)
    }
}

fn failed(machine: &Machine, failure: Failure) -> Step {
    let can_retry = machine.state == RunState::Provisioning
        && failure.may_retry()
        && machine.attempt < machine.max_attempts
        && machine.cancelling.is_none();
    if can_retry {
        let after_ms = backoff_ms(machine.attempt);
        let next = Machine {
            state: RunState::Queued,
            attached: false,
            ..machine.clone()
        };
        let data = json!({ "attempt": machine.attempt, "retry_after_ms": after_ms, "failure": failure });
        return Step {
            events: vec![NewEvent::new(EventType::RunQueued, data)],
            commands: vec![Command::Cleanup, Command::Requeue { after_ms }],
            lose_actions: true,
            ..quiet(next)
        };
    }
    let event = NewEvent::new(EventType::RunFailed, json!({ "failure": failure }));
    Step {
        failure: Some(failure),
        ..ended(machine, RunState::Failed, event)
    }
}

fn cancel(machine: &Machine, cancellation: Cancellation) -> Step {
    if !machine.attached {
        return cancelled(machine, &cancellation);
    }
    if machine.cancelling.is_some() {
        return quiet(machine.clone());
    }
    let next = Machine {
        cancelling: Some(cancellation),
        ..machine.clone()
    };
    Step {
        commands: vec![Command::Stop],
        ..quiet(next)
    }
}

fn cancelled(machine: &Machine, cancellation: &Cancellation) -> Step {
    let data = json!({ "by": cancellation.by, "reason": cancellation.reason });
    ended(
        machine,
        RunState::Cancelled,
        NewEvent::new(EventType::RunCancelled, data),
    )
}

fn worker_lost(machine: &Machine) -> Step {
    if !machine.attached {
        return quiet(machine.clone());
    }
    let gone = NewEvent::new(
        EventType::SandboxEnded,
        json!({ "reason": "the process that held the run ended", "attempt": machine.attempt }),
    );
    let mut step = match (&machine.cancelling, machine.state) {
        (Some(cancellation), _) => cancelled(machine, &cancellation.clone()),
        (None, RunState::Waiting) => Step {
            lose_actions: true,
            ..quiet(Machine {
                attached: false,
                ..machine.clone()
            })
        },
        // Nothing of the agent's has run yet, so trying again repeats nothing.
        (None, RunState::Provisioning) => failed(
            machine,
            Failure::transient("interrupted", "the process that prepared the run ended"),
        ),
        (None, _) => failed(
            machine,
            Failure::unknown(
                "interrupted",
                "the process that held the run ended while the agent was working",
            )
            .with_hint("look at the actions marked unknown, then start a new run of the task"),
        ),
    };
    // There is no sandbox left to clean up here; the reaper has taken it.
    step.commands.retain(|command| *command != Command::Cleanup);
    step.events.insert(0, gone);
    step
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
