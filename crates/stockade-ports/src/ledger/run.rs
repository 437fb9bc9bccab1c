//! Runs: creating, claiming, stepping, appending, and speaking to them.

use serde_json::json;
use stockade_domain::{
    Approval, Budget, Digest, EventType, Machine, NewEvent, Run, RunInput, Step, Task, Timestamp,
    admission::{self, Turn},
    machine::{self, IllegalInput},
};

use super::{ActionRow, Change, Held};
use crate::{CreateRun, Lease, Message, StoreError};

/// What a step may have to close: loaded in the same transaction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OpenWork {
    /// The run's actions in flight, in the order they were asked.
    pub in_flight: Vec<ActionRow>,
    /// The run's pending approvals, oldest first.
    pub pending: Vec<Approval>,
}

/// Creates a run of a task.
pub fn create_run(task: &Task, request: CreateRun, now: Timestamp) -> Change {
    let limits = request.spec.limits;
    let agent = request.spec.agent.name.clone();
    let run = Run {
        id: request.id,
        task: task.id,
        team: task.team,
        machine: Machine::new(limits.max_attempts),
        budget: Budget::new(limits.budget),
        spec: request.spec,
        result: None,
        failure: None,
        created_at: now,
        started_at: None,
        ended_at: None,
        last_seq: 0,
        chain_head: Digest::ZERO,
    };
    let mut change = Change::of(Held {
        run,
        fence: 0,
        claimable_at: Some(now),
    });
    let data = json!({ "task": task.id, "agent": agent });
    change.event(NewEvent::new(EventType::RunQueued, data), now, None);
    change
}

/// Takes a run for a worker: a new fence, and the machine's `Claim`.
///
/// # Errors
///
/// [`StoreError::Illegal`] when the run cannot be taken.
pub fn claim(held: Held, now: Timestamp) -> Result<(Change, Step), StoreError> {
    let step = machine::step(&held.run.machine, RunInput::Claim)?;
    let mut change = Change::of(held);
    change.held.fence += 1;
    change.held.run.started_at.get_or_insert(now);
    change.step(&step, OpenWork::default(), now, None);
    Ok((change, step))
}

/// Steps a run.
///
/// A claim and the opening and closing of approvals are steps of their own methods and are
/// refused here; without a lease only what comes from outside a worker is taken.
///
/// # Errors
///
/// [`StoreError::Illegal`], and [`StoreError::Fenced`] for a stale or a missing lease.
pub fn step(
    held: Held,
    work: OpenWork,
    lease: Option<Lease>,
    input: RunInput,
    now: Timestamp,
) -> Result<(Change, Step), StoreError> {
    held.living(name(&input))?;
    match &input {
        RunInput::Claim | RunInput::ApprovalOpened(_) | RunInput::ApprovalClosed(_) => {
            let state = held.run.state();
            let input = name(&input);
            return Err(IllegalInput { state, input }.into());
        }
        RunInput::Cancel(_) | RunInput::WorkerLost => {
            if let Some(lease) = lease {
                held.holds(lease)?;
            }
        }
        _ => held.holds(lease.ok_or(StoreError::Fenced { run: held.run.id })?)?,
    }
    let step = machine::step(&held.run.machine, input)?;
    let mut change = Change::of(held);
    change.step(&step, work, now, None);
    Ok((change, step))
}

const fn name(input: &RunInput) -> &'static str {
    match input {
        RunInput::Claim => "claim outside of a claim",
        RunInput::ApprovalOpened(_) => "approval opened without an action",
        RunInput::ApprovalClosed(_) => "approval closed without a decision",
        RunInput::Cancel(_) => "cancel",
        RunInput::WorkerLost => "worker lost",
        _ => "a worker's report",
    }
}

/// Appends events of the worker that holds the run.
///
/// # Errors
///
/// [`StoreError::Illegal`] when the run has ended, [`StoreError::Fenced`] for a stale lease.
pub fn append(held: Held, lease: Lease, events: Vec<NewEvent>, now: Timestamp) -> Result<Change, StoreError> {
    held.living("new events")?;
    held.holds(lease)?;
    let mut change = Change::of(held);
    for event in events {
        change.event(event, now, None);
    }
    Ok(change)
}

/// Begins a turn of the agent, or says which limit is reached.
///
/// # Errors
///
/// [`StoreError::Illegal`] when the run may not act, [`StoreError::Fenced`] for a stale lease.
pub fn begin_turn(held: Held, lease: Lease, now: Timestamp) -> Result<(Change, Turn), StoreError> {
    held.living("a turn")?;
    held.holds(lease)?;
    let (state, input) = (held.run.state(), "a turn");
    if !held.run.machine.may_act() {
        return Err(IllegalInput { state, input }.into());
    }
    let turn = admission::begin_turn(held.run.budget);
    let mut change = Change::of(held);
    change.held.run.budget = turn.budget;
    change.event(turn.event.clone(), now, None);
    Ok((change, turn))
}

/// Leaves a message; `last` is the place of the run's last one, 0 when there is none.
///
/// # Errors
///
/// [`StoreError::Illegal`] when the run has ended.
pub fn say(
    held: Held,
    last: u64,
    by: String,
    text: String,
    steer: bool,
    now: Timestamp,
) -> Result<(Change, Message), StoreError> {
    held.living("a message")?;
    let seq = last + 1;
    let message = Message { seq, by, text, steer };
    let mut change = Change::of(held);
    let data = json!({ "message": seq, "by": message.by, "text": message.text, "steer": steer });
    change.event(NewEvent::new(EventType::MessageUser, data), now, None);
    change.message = Some(message.clone());
    Ok((change, message))
}
