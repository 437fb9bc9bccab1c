//! What is loaded, and what is written.

use serde_json::json;
use stockade_domain::{
    ActionKind, ActionRecord, Amounts, Approval, Command, Event, EventType, NewEvent, Outcome, Run, RunId, Step,
    Timestamp,
    admission::{self, PastAction},
    machine::IllegalInput,
};

use super::OpenWork;
use crate::{Lease, Message, StoreError};

/// A run as a store keeps it: the run, and what only the store needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The run.
    pub run: Run,
    /// Grows with every claim.
    pub fence: u64,
    /// From when a worker may take it; `None` while nobody may.
    pub claimable_at: Option<Timestamp>,
}

impl Held {
    /// Refuses everything to a run that has ended.
    pub(super) fn living(&self, input: &'static str) -> Result<(), StoreError> {
        let state = self.run.state();
        if state.is_terminal() {
            return Err(IllegalInput { state, input }.into());
        }
        Ok(())
    }

    /// Refuses a worker that no longer holds the run: a newer one has it, or nobody.
    pub(super) fn holds(&self, lease: Lease) -> Result<(), StoreError> {
        if self.fence == lease.fence && self.run.machine.attached {
            return Ok(());
        }
        Err(StoreError::Fenced { run: self.run.id })
    }
}

/// An action as a store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionRow {
    /// The record.
    pub record: ActionRecord,
    /// What loop detection remembers of it.
    pub past: PastAction,
}

impl ActionRow {
    /// Whether loop detection looks at it later; a store keeps this as a column.
    pub fn counts(&self) -> bool {
        admission::counts_as_history(&self.record)
    }
}

/// What one transaction writes, all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The run, to insert or replace by id.
    pub held: Held,
    /// Events to insert; their places follow the last one stored.
    pub events: Vec<Event>,
    /// Actions to insert or replace by id. A replaced one keeps its place in the run.
    pub actions: Vec<ActionRow>,
    /// Approvals to insert or replace by id.
    pub approvals: Vec<Approval>,
    /// A message to insert.
    pub message: Option<Message>,
}

impl Change {
    pub(super) fn of(held: Held) -> Self {
        Self {
            held,
            events: Vec::new(),
            actions: Vec::new(),
            approvals: Vec::new(),
            message: None,
        }
    }

    /// The run this changes.
    pub fn run(&self) -> RunId {
        self.held.run.id
    }

    /// Gives an event its place and chains it.
    pub(super) fn event(&mut self, new: NewEvent, now: Timestamp, trace: Option<&str>) {
        let run = &mut self.held.run;
        run.last_seq += 1;
        let event = Event::place(new, run.id, run.last_seq, now, trace.map(str::to_owned));
        run.chain_head = event.chain(run.chain_head);
        self.events.push(event);
    }

    /// Applies a step of the machine. What it closes is told before its own events, so that
    /// a terminal event is the last one of its run.
    pub(super) fn step(&mut self, step: &Step, work: OpenWork, now: Timestamp, trace: Option<&str>) {
        let ends = step.machine.state.is_terminal();
        if step.lose_actions {
            for row in work.in_flight {
                self.lose(row, now);
            }
        }
        if step.cancel_approvals {
            let reason = if ends { "run ended" } else { "the agent has finished" };
            for approval in work.pending {
                self.cancel(&approval, reason, now);
            }
        }
        let was_claimable = self.held.run.machine.is_claimable();
        let run = &mut self.held.run;
        run.machine = step.machine.clone();
        if let Some(result) = &step.result {
            run.result = Some(result.clone());
        }
        if let Some(failure) = &step.failure {
            run.failure = Some(failure.clone());
        }
        if ends {
            run.ended_at = Some(now);
        }
        for event in &step.events {
            self.event(event.clone(), now, trace);
        }
        self.offer(step, was_claimable, now);
    }

    fn offer(&mut self, step: &Step, was_claimable: bool, now: Timestamp) {
        let pause = step.commands.iter().find_map(|command| match command {
            Command::Requeue { after_ms } => Some(*after_ms),
            _ => None,
        });
        self.held.claimable_at = match (step.machine.is_claimable(), pause) {
            (false, _) => None,
            (true, Some(pause)) => Some(later(now, pause)),
            (true, None) if was_claimable => self.held.claimable_at,
            (true, None) => Some(now),
        };
    }

    /// Nobody will ever know how this action ended.
    fn lose(&mut self, row: ActionRow, now: Timestamp) {
        // A model call was very likely made and billed, so its reservation counts as spent.
        let spent = match row.record.action.kind {
            ActionKind::Model => row.record.reserved,
            _ => Amounts::ZERO,
        };
        let details = json!({ "reason": "the sandbox ended before the action was settled" });
        let (record, budget, event) =
            admission::settle(&row.record, self.held.run.budget, Outcome::Unknown, spent, details, now);
        self.held.run.budget = budget;
        self.actions.push(ActionRow { record, ..row });
        self.event(event, now, None);
    }

    fn cancel(&mut self, approval: &Approval, reason: &str, now: Timestamp) {
        if let Some(cancelled) = approval.cancel(now) {
            self.expired(&cancelled, reason, now);
            self.approvals.push(cancelled);
        }
    }

    /// Tells that an approval closed without an answer.
    pub(super) fn expired(&mut self, approval: &Approval, reason: &str, now: Timestamp) {
        let data = json!({ "approval": approval.id, "action": approval.action_id, "reason": reason });
        self.event(NewEvent::new(EventType::ApprovalExpired, data), now, None);
    }
}

/// So many milliseconds later; a time past the end of time never comes.
fn later(now: Timestamp, millis: u64) -> Timestamp {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(now.as_millisecond().saturating_add(millis)).unwrap_or(Timestamp::MAX)
}
