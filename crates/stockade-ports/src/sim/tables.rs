//! The tables of the memory store.

use std::collections::BTreeMap;

use bytes::Bytes;
use stockade_domain::{
    ActionId, Approval, ApprovalId, ApprovalState, Event, Revocation, RevocationId, Run, RunId, SecretName, Task,
    TaskId, TeamId, TokenId, admission::AdmitRequest,
};

use crate::{
    Message, SecretRecord, StoreError, TokenRecord,
    ledger::{ActionRow, Asked, Change, CreateKey, Held, OpenWork},
};

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) runs: BTreeMap<RunId, Held>,
    pub(super) events: BTreeMap<RunId, Vec<Event>>,
    pub(super) actions: BTreeMap<ActionId, ActionRow>,
    /// The actions of a run in the order they were first asked.
    pub(super) asked: BTreeMap<RunId, Vec<ActionId>>,
    pub(super) approvals: BTreeMap<ApprovalId, Approval>,
    pub(super) messages: BTreeMap<RunId, Vec<Message>>,
    pub(super) artifacts: BTreeMap<(RunId, String), Bytes>,
    pub(super) tokens: BTreeMap<TokenId, TokenRecord>,
    pub(super) revocations: BTreeMap<RevocationId, Revocation>,
    pub(super) secrets: BTreeMap<(TeamId, SecretName), SecretRecord>,
    pub(super) keys: BTreeMap<(TeamId, String), CreateKey>,
}

pub(super) fn missing(what: &'static str, id: impl ToString) -> StoreError {
    let id = id.to_string();
    StoreError::NotFound { what, id }
}

impl Tables {
    pub(super) fn task(&self, team: TeamId, id: TaskId) -> Result<&Task, StoreError> {
        let task = self.tasks.get(&id).filter(|task| task.team == team);
        task.ok_or_else(|| missing("task", id))
    }

    pub(super) fn held(&self, team: Option<TeamId>, id: RunId) -> Result<&Held, StoreError> {
        let held = self.runs.get(&id);
        let held = held.filter(|held| team.is_none_or(|team| held.run.team == team));
        held.ok_or_else(|| missing("run", id))
    }

    pub(super) fn run(&self, id: RunId) -> Result<Run, StoreError> {
        Ok(self.held(None, id)?.run.clone())
    }

    pub(super) fn approval(&self, team: Option<TeamId>, id: ApprovalId) -> Result<&Approval, StoreError> {
        let approval = self.approvals.get(&id);
        let approval = approval.filter(|approval| self.held(team, approval.run).is_ok());
        approval.ok_or_else(|| missing("approval", id))
    }

    /// Approvals, oldest first.
    pub(super) fn approvals(&self, which: impl Fn(&Approval) -> bool) -> Vec<Approval> {
        let mut list: Vec<_> = self.approvals.values().filter(|a| which(a)).cloned().collect();
        list.sort_by_key(|approval| (approval.requested_at, approval.id));
        list
    }

    /// Revocations, newest first.
    pub(super) fn revocations(
        &self,
        team: Option<TeamId>,
        environment: Option<&str>,
        in_force: bool,
    ) -> Vec<Revocation> {
        let wanted = |r: &&Revocation| {
            team.is_none_or(|team| r.team == team)
                && environment.is_none_or(|name| r.environment == name)
                && (!in_force || r.holds())
        };
        let mut list: Vec<_> = self.revocations.values().filter(wanted).cloned().collect();
        list.sort_by_key(|r| std::cmp::Reverse((r.created_at, r.id)));
        list
    }

    pub(super) fn rows(&self, run: RunId) -> impl Iterator<Item = &ActionRow> {
        let ids = self.asked.get(&run).into_iter().flatten();
        ids.filter_map(|id| self.actions.get(id))
    }

    pub(super) fn open_work(&self, run: RunId) -> OpenWork {
        OpenWork {
            in_flight: self.rows(run).filter(|row| row.record.in_flight()).cloned().collect(),
            pending: self.approvals(|a| a.run == run && a.state == ApprovalState::Pending),
        }
    }

    pub(super) fn asked(&self, request: &AdmitRequest) -> Asked {
        let digest = request.action.digest();
        let history = self
            .rows(request.run)
            .filter(|row| row.counts() && row.record.id != request.id);
        Asked {
            earlier: self.actions.get(&request.id).cloned(),
            named: self.approvals.get(&request.approval_id).cloned(),
            history: history.map(|row| row.past).collect(),
            approvals: self.approvals(|a| {
                a.run == request.run && a.digest == digest && a.used_at.is_none() && a.state != ApprovalState::Cancelled
            }),
        }
    }

    /// Writes a change. Nothing here can fail, so it is written wholly.
    pub(super) fn write(&mut self, change: Change) {
        let run = change.run();
        self.events.entry(run).or_default().extend(change.events);
        for row in change.actions {
            let id = row.record.id;
            if self.actions.insert(id, row).is_none() {
                self.asked.entry(run).or_default().push(id);
            }
        }
        for approval in change.approvals {
            self.approvals.insert(approval.id, approval);
        }
        self.messages.entry(run).or_default().extend(change.message);
        self.runs.insert(run, change.held);
    }
}
