//! A store in memory, for tests.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use stockade_domain::{
    ActionRecord, Approval, ApprovalDecision, ApprovalId, ApprovalState, Event, NewEvent, Revocation, RevocationId,
    Run, RunId, RunInput, RunState, SecretName, Step, Task, TaskId, TeamId, Timestamp, TokenId,
    admission::{AdmitDecision, AdmitRequest, Turn},
};

use super::tables::{Tables, missing};
use crate::{
    Claim, CreateRun, CreateTask, Created, Lease, Message, SecretRecord, Settle, Store, StoreError, TokenRecord,
    ledger::{self, CreateKey},
};

/// A store that forgets everything with the process. It passes the suite every store
/// passes, and it can be told not to answer.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
    unavailable: AtomicBool,
    lost_steps: AtomicU32,
}

impl MemoryStore {
    /// Makes every method fail as [`StoreError::Unavailable`], or answer again.
    pub fn unavailable(&self, unavailable: bool) {
        self.unavailable.store(unavailable, Ordering::SeqCst);
    }

    /// Writes the next so many steps, but loses their answers: the caller hears
    /// [`StoreError::Unavailable`], as when a connection breaks during a commit.
    pub fn lose_steps(&self, steps: u32) {
        self.lost_steps.store(steps, Ordering::SeqCst);
    }

    /// Begins a transaction: whoever holds the tables is alone with them.
    async fn begin(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        // Other tasks get their turn between two transactions, as with a real store.
        tokio::task::yield_now().await;
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the test switched it off".to_owned()));
        }
        Ok(self.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn newest<T>(mut oldest_first: Vec<T>, limit: u32) -> Vec<T> {
    oldest_first.reverse();
    oldest_first.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    oldest_first
}

fn taken(what: &str, id: impl ToString) -> StoreError {
    StoreError::Corrupt(format!("{what} {} exists already", id.to_string()))
}

impl Tables {
    fn replay(
        &self,
        team: TeamId,
        key: Option<&str>,
        request: stockade_domain::Digest,
    ) -> Result<Option<Created>, StoreError> {
        let Some((key, found)) = key.and_then(|key| Some((key, self.keys.get(&(team, key.to_owned()))?))) else {
            return Ok(None);
        };
        found.check(key, request)?;
        Ok(Some(Created {
            task: self.task(team, found.task)?.clone(),
            run: found.run.map(|run| self.run(run)).transpose()?,
            replayed: true,
        }))
    }

    fn create(
        &mut self,
        task: Task,
        run: Option<CreateRun>,
        key: Option<String>,
        request: stockade_domain::Digest,
        now: Timestamp,
    ) -> Result<Created, StoreError> {
        if let Some(run) = &run
            && self.runs.contains_key(&run.id)
        {
            return Err(taken("run", run.id));
        }
        let change = run.map(|run| ledger::create_run(&task, run, now));
        let run = change.as_ref().map(|change| change.held.run.clone());
        if let Some(key) = key {
            let (task, run) = (task.id, run.as_ref().map(|run| run.id));
            self.keys
                .insert((self.tasks[&task].team, key), CreateKey { request, task, run });
        }
        if let Some(change) = change {
            self.write(change);
        }
        Ok(Created {
            task,
            run,
            replayed: false,
        })
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create_task(&self, request: CreateTask) -> Result<Created, StoreError> {
        let mut tables = self.begin().await?;
        let digest = ledger::task_key(&request);
        if let Some(created) = tables.replay(request.team, request.idempotency_key.as_deref(), digest)? {
            return Ok(created);
        }
        if tables.tasks.contains_key(&request.id) {
            return Err(taken("task", request.id));
        }
        if let Some(run) = &request.run
            && tables.runs.contains_key(&run.id)
        {
            return Err(taken("run", run.id));
        }
        let task = Task {
            id: request.id,
            team: request.team,
            prompt: request.prompt,
            repo: request.repo,
            created_at: request.now,
        };
        tables.tasks.insert(task.id, task.clone());
        tables.create(task, request.run, request.idempotency_key, digest, request.now)
    }

    async fn create_run(
        &self,
        team: TeamId,
        task: TaskId,
        run: CreateRun,
        key: Option<String>,
        now: Timestamp,
    ) -> Result<Created, StoreError> {
        let mut tables = self.begin().await?;
        let digest = ledger::run_key(task, &run);
        if let Some(created) = tables.replay(team, key.as_deref(), digest)? {
            return Ok(created);
        }
        let task = tables.task(team, task)?.clone();
        tables.create(task, Some(run), key, digest, now)
    }

    async fn task(&self, team: TeamId, id: TaskId) -> Result<Task, StoreError> {
        Ok(self.begin().await?.task(team, id)?.clone())
    }

    async fn tasks(&self, team: TeamId, before: Option<TaskId>, limit: u32) -> Result<Vec<Task>, StoreError> {
        let tables = self.begin().await?;
        let place = |task: &Task| (task.created_at, task.id);
        let before = before.map(|id| tables.task(team, id).map(place)).transpose()?;
        let of_team = tables.tasks.values().filter(|task| task.team == team);
        let older = of_team.filter(|task| before.is_none_or(|before| place(task) < before));
        let mut list: Vec<_> = older.cloned().collect();
        list.sort_by_key(place);
        Ok(newest(list, limit))
    }

    async fn run(&self, team: Option<TeamId>, id: RunId) -> Result<Run, StoreError> {
        Ok(self.begin().await?.held(team, id)?.run.clone())
    }

    async fn runs(
        &self,
        team: Option<TeamId>,
        states: &[RunState],
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError> {
        let tables = self.begin().await?;
        let place = |run: &Run| (run.created_at, run.id);
        let before = before
            .map(|id| tables.held(team, id).map(|held| place(&held.run)))
            .transpose()?;
        let wanted = |run: &&Run| {
            team.is_none_or(|team| run.team == team)
                && (states.is_empty() || states.contains(&run.state()))
                && before.is_none_or(|before| place(run) < before)
        };
        let mut list: Vec<_> = tables
            .runs
            .values()
            .map(|held| &held.run)
            .filter(wanted)
            .cloned()
            .collect();
        list.sort_by_key(place);
        Ok(newest(list, limit))
    }

    async fn claim(&self, now: Timestamp) -> Result<Option<Claim>, StoreError> {
        let mut tables = self.begin().await?;
        let free = tables
            .runs
            .values()
            .filter(|held| held.claimable_at.is_some_and(|at| at <= now));
        let Some(oldest) = free.min_by_key(|held| (held.run.created_at, held.run.id)).cloned() else {
            return Ok(None);
        };
        let (change, step) = ledger::claim(oldest, now)?;
        let (run, fence) = (change.held.run.clone(), change.held.fence);
        tables.write(change);
        let lease = Lease { fence };
        Ok(Some(Claim { run, lease, step }))
    }

    async fn step(
        &self,
        run: RunId,
        lease: Option<Lease>,
        input: RunInput,
        now: Timestamp,
    ) -> Result<(Run, Step), StoreError> {
        let mut tables = self.begin().await?;
        let (held, work) = (tables.held(None, run)?.clone(), tables.open_work(run));
        let (change, step) = ledger::step(held, work, lease, input, now)?;
        let run = change.held.run.clone();
        tables.write(change);
        let lose = |steps: u32| steps.checked_sub(1);
        match self.lost_steps.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose) {
            Ok(_) => Err(StoreError::Unavailable("the test lost the answer".to_owned())),
            Err(_) => Ok((run, step)),
        }
    }

    async fn append(
        &self,
        run: RunId,
        lease: Lease,
        events: Vec<NewEvent>,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        let mut tables = self.begin().await?;
        let change = ledger::append(tables.held(None, run)?.clone(), lease, events, now)?;
        let events = change.events.clone();
        tables.write(change);
        Ok(events)
    }

    async fn events(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let tables = self.begin().await?;
        let events = tables.events.get(&run).into_iter().flatten();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(events.filter(|event| event.seq > after).take(limit).cloned().collect())
    }

    async fn begin_turn(&self, run: RunId, lease: Lease, now: Timestamp) -> Result<Turn, StoreError> {
        let mut tables = self.begin().await?;
        let (change, turn) = ledger::begin_turn(tables.held(None, run)?.clone(), lease, now)?;
        tables.write(change);
        Ok(turn)
    }

    async fn admit(&self, request: AdmitRequest) -> Result<AdmitDecision, StoreError> {
        let mut tables = self.begin().await?;
        let (held, asked) = (tables.held(None, request.run)?.clone(), tables.asked(&request));
        let (change, decision) = ledger::admit(held, asked, &request)?;
        tables.write(change);
        Ok(decision)
    }

    async fn settle(&self, settle: Settle) -> Result<ActionRecord, StoreError> {
        let mut tables = self.begin().await?;
        let row = tables.actions.get(&settle.id).cloned();
        let row = row.ok_or_else(|| missing("action", settle.id))?;
        let held = tables.held(None, row.record.run)?.clone();
        let (change, record) = ledger::settle(held, row, settle)?;
        tables.write(change);
        Ok(record)
    }

    async fn actions(&self, run: RunId) -> Result<Vec<ActionRecord>, StoreError> {
        Ok(self.begin().await?.rows(run).map(|row| row.record.clone()).collect())
    }

    async fn approval(&self, team: Option<TeamId>, id: ApprovalId) -> Result<Approval, StoreError> {
        Ok(self.begin().await?.approval(team, id)?.clone())
    }

    async fn approvals(
        &self,
        team: Option<TeamId>,
        run: Option<RunId>,
        state: Option<ApprovalState>,
        limit: u32,
    ) -> Result<Vec<Approval>, StoreError> {
        let tables = self.begin().await?;
        let wanted = |a: &Approval| {
            run.is_none_or(|run| a.run == run)
                && state.is_none_or(|state| a.state == state)
                && tables.held(team, a.run).is_ok()
        };
        Ok(newest(tables.approvals(wanted), limit))
    }

    async fn decide(
        &self,
        team: TeamId,
        id: ApprovalId,
        decision: ApprovalDecision,
        now: Timestamp,
    ) -> Result<Approval, StoreError> {
        let mut tables = self.begin().await?;
        let approval = tables.approval(Some(team), id)?;
        let held = tables.held(None, approval.run)?.clone();
        let (change, decided) = ledger::decide(held, approval, decision, now)?;
        tables.write(change);
        Ok(decided)
    }

    async fn expire(&self, now: Timestamp) -> Result<Vec<Approval>, StoreError> {
        let mut tables = self.begin().await?;
        let mut expired = Vec::new();
        for approval in tables.approvals(|a| a.state == ApprovalState::Pending && a.expires_at <= now) {
            let held = tables.held(None, approval.run)?.clone();
            if let Some((change, approval)) = ledger::expire(held, &approval, now) {
                tables.write(change);
                expired.push(approval);
            }
        }
        Ok(expired)
    }

    async fn push_message(
        &self,
        team: TeamId,
        run: RunId,
        by: String,
        text: String,
        steer: bool,
        now: Timestamp,
    ) -> Result<Message, StoreError> {
        let mut tables = self.begin().await?;
        let held = tables.held(Some(team), run)?.clone();
        let last = tables
            .messages
            .get(&run)
            .and_then(|list| list.last())
            .map_or(0, |m| m.seq);
        let (change, message) = ledger::say(held, last, by, text, steer, now)?;
        tables.write(change);
        Ok(message)
    }

    async fn messages(&self, run: RunId, after: u64) -> Result<Vec<Message>, StoreError> {
        let tables = self.begin().await?;
        let messages = tables.messages.get(&run).into_iter().flatten();
        Ok(messages.filter(|message| message.seq > after).cloned().collect())
    }

    async fn put_artifact(&self, run: RunId, name: &str, content: Bytes) -> Result<(), StoreError> {
        let mut tables = self.begin().await?;
        tables.held(None, run)?;
        tables.artifacts.entry((run, name.to_owned())).or_insert(content);
        Ok(())
    }

    async fn artifact(&self, run: RunId, name: &str) -> Result<Bytes, StoreError> {
        let tables = self.begin().await?;
        let content = tables.artifacts.get(&(run, name.to_owned())).cloned();
        content.ok_or_else(|| missing("artifact", format!("{name} of {run}")))
    }

    async fn put_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        let mut tables = self.begin().await?;
        let same = |other: &TokenRecord| other.id == token.id || other.secret_sha256 == token.secret_sha256;
        if tables.tokens.values().any(same) {
            return Err(taken("token", token.id));
        }
        tables.tokens.insert(token.id, token);
        Ok(())
    }

    async fn tokens(&self, team: TeamId) -> Result<Vec<TokenRecord>, StoreError> {
        let tables = self.begin().await?;
        let mut list: Vec<_> = tables.tokens.values().filter(|t| t.team == team).cloned().collect();
        list.sort_by_key(|token| (token.created_at, token.id));
        Ok(newest(list, u32::MAX))
    }

    async fn token_by_digest(&self, secret_sha256: &str) -> Result<TokenRecord, StoreError> {
        let tables = self.begin().await?;
        let token = tables
            .tokens
            .values()
            .find(|token| token.secret_sha256 == secret_sha256);
        // The digest of a secret is not repeated in an error.
        token.cloned().ok_or_else(|| missing("token", "with this secret"))
    }

    async fn revoke_token(&self, team: TeamId, id: TokenId, now: Timestamp) -> Result<TokenRecord, StoreError> {
        let mut tables = self.begin().await?;
        let token = tables.tokens.get_mut(&id).filter(|token| token.team == team);
        let token = token.ok_or_else(|| missing("token", id))?;
        token.revoked_at.get_or_insert(now);
        Ok(token.clone())
    }

    async fn put_secret(
        &self,
        team: TeamId,
        name: &SecretName,
        sealed: Bytes,
        now: Timestamp,
    ) -> Result<SecretRecord, StoreError> {
        let mut tables = self.begin().await?;
        let place = (team, name.clone());
        let (created_at, version) = match tables.secrets.get(&place) {
            Some(earlier) => (earlier.created_at, earlier.version + 1),
            None => (now, 1),
        };
        let record = SecretRecord {
            team,
            name: name.clone(),
            created_at,
            updated_at: now,
            version,
            sealed,
        };
        tables.secrets.insert(place, record.clone());
        Ok(record)
    }

    async fn secrets(&self, team: TeamId) -> Result<Vec<SecretRecord>, StoreError> {
        let tables = self.begin().await?;
        Ok(tables.secrets.values().filter(|s| s.team == team).cloned().collect())
    }

    async fn secret(&self, team: TeamId, name: &SecretName) -> Result<SecretRecord, StoreError> {
        let tables = self.begin().await?;
        let record = tables.secrets.get(&(team, name.clone())).cloned();
        record.ok_or_else(|| missing("secret", name))
    }

    async fn remove_secret(&self, team: TeamId, name: &SecretName) -> Result<SecretRecord, StoreError> {
        let mut tables = self.begin().await?;
        let record = tables.secrets.remove(&(team, name.clone()));
        record.ok_or_else(|| missing("secret", name))
    }

    async fn put_revocation(&self, revocation: Revocation) -> Result<(), StoreError> {
        let mut tables = self.begin().await?;
        if tables.revocations.contains_key(&revocation.id) {
            return Err(taken("revocation", revocation.id));
        }
        tables.revocations.insert(revocation.id, revocation);
        Ok(())
    }

    async fn revocations(
        &self,
        team: Option<TeamId>,
        environment: Option<&str>,
        in_force: bool,
    ) -> Result<Vec<Revocation>, StoreError> {
        Ok(self.begin().await?.revocations(team, environment, in_force))
    }

    async fn lift_revocation(
        &self,
        team: TeamId,
        id: RevocationId,
        by: String,
        now: Timestamp,
    ) -> Result<Revocation, StoreError> {
        let mut tables = self.begin().await?;
        let found = tables.revocations.get_mut(&id).filter(|found| found.team == team);
        let revocation = found.ok_or_else(|| missing("revocation", id))?;
        revocation.lift(by, now);
        Ok(revocation.clone())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.begin().await.map(drop)
    }
}
