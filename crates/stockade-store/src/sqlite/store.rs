//! The port: every method one transaction.

use async_trait::async_trait;
use bytes::Bytes;
use stockade_domain::{
    ActionRecord, Approval, ApprovalDecision, ApprovalId, ApprovalState, Event, NewEvent, Run, RunId, RunInput,
    RunState, SecretName, Step, Task, TaskId, TeamId, Timestamp, TokenId,
    admission::{AdmitDecision, AdmitRequest, Turn},
};
use stockade_ports::{
    Claim, CreateRun, CreateTask, Created, Lease, Message, SecretRecord, Settle, Store, StoreError, TokenRecord,
    ledger::{self, OpenWork},
};

use super::{
    SqliteStore, actions, approvals, artifacts, change,
    error::{missing, store_error},
    events, keys, messages, runs, secrets, tasks, tokens,
};

impl SqliteStore {
    /// Expires one approval, read again under the write lock: it may have been decided since.
    async fn expire_one(&self, due: ApprovalId, now: Timestamp) -> Result<Option<Approval>, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let approval = approvals::get(db, None, due).await?;
                let held = runs::held(db, None, approval.run).await?;
                let Some((written, expired)) = ledger::expire(held, &approval, now) else {
                    return Ok(None);
                };
                change::write(db, &written).await?;
                Ok(Some(expired))
            })
        })
        .await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create_task(&self, request: CreateTask) -> Result<Created, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let digest = ledger::task_key(&request);
                let key = request.idempotency_key;
                if let Some(created) = keys::replay(db, request.team, key.as_deref(), digest).await? {
                    return Ok(created);
                }
                let task = Task {
                    id: request.id,
                    team: request.team,
                    prompt: request.prompt,
                    repo: request.repo,
                    created_at: request.now,
                };
                tasks::insert(db, &task).await?;
                let created = keys::create(db, task, request.run, key, digest, request.now).await?;
                Ok(created)
            })
        })
        .await
    }

    async fn create_run(
        &self,
        team: TeamId,
        task: TaskId,
        run: CreateRun,
        key: Option<String>,
        now: Timestamp,
    ) -> Result<Created, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let digest = ledger::run_key(task, &run);
                if let Some(created) = keys::replay(db, team, key.as_deref(), digest).await? {
                    return Ok(created);
                }
                let task = tasks::get(db, team, task).await?;
                let created = keys::create(db, task, Some(run), key, digest, now).await?;
                Ok(created)
            })
        })
        .await
    }

    async fn task(&self, team: TeamId, id: TaskId) -> Result<Task, StoreError> {
        tasks::get(&mut *self.reader().await?, team, id).await
    }

    async fn tasks(&self, team: TeamId, before: Option<TaskId>, limit: u32) -> Result<Vec<Task>, StoreError> {
        tasks::list(&mut *self.reader().await?, team, before, limit).await
    }

    async fn run(&self, team: Option<TeamId>, id: RunId) -> Result<Run, StoreError> {
        Ok(runs::held(&mut *self.reader().await?, team, id).await?.run)
    }

    async fn runs(
        &self,
        team: Option<TeamId>,
        states: &[RunState],
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError> {
        runs::list(&mut *self.reader().await?, team, states, before, limit).await
    }

    async fn claim(&self, now: Timestamp) -> Result<Option<Claim>, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let Some(oldest) = runs::oldest_claimable(db, now).await? else {
                    return Ok(None);
                };
                let (written, step) = ledger::claim(oldest, now)?;
                change::write(db, &written).await?;
                let lease = Lease {
                    fence: written.held.fence,
                };
                let run = written.held.run;
                Ok(Some(Claim { run, lease, step }))
            })
        })
        .await
    }

    async fn step(
        &self,
        run: RunId,
        lease: Option<Lease>,
        input: RunInput,
        now: Timestamp,
    ) -> Result<(Run, Step), StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let held = runs::held(db, None, run).await?;
                let work = OpenWork {
                    in_flight: actions::in_flight(db, run).await?,
                    pending: approvals::pending(db, run).await?,
                };
                let (written, step) = ledger::step(held, work, lease, input, now)?;
                change::write(db, &written).await?;
                Ok((written.held.run, step))
            })
        })
        .await
    }

    async fn append(
        &self,
        run: RunId,
        lease: Lease,
        events: Vec<NewEvent>,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let held = runs::held(db, None, run).await?;
                let written = ledger::append(held, lease, events, now)?;
                change::write(db, &written).await?;
                Ok(written.events)
            })
        })
        .await
    }

    async fn events(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        events::list(&mut *self.reader().await?, run, after, limit).await
    }

    async fn begin_turn(&self, run: RunId, lease: Lease, now: Timestamp) -> Result<Turn, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let held = runs::held(db, None, run).await?;
                let (written, turn) = ledger::begin_turn(held, lease, now)?;
                change::write(db, &written).await?;
                Ok(turn)
            })
        })
        .await
    }

    async fn admit(&self, request: AdmitRequest) -> Result<AdmitDecision, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let held = runs::held(db, None, request.run).await?;
                let asked = actions::asked(db, &request).await?;
                let (written, decision) = ledger::admit(held, asked, &request)?;
                change::write(db, &written).await?;
                Ok(decision)
            })
        })
        .await
    }

    async fn settle(&self, settle: Settle) -> Result<ActionRecord, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let row = actions::find(db, settle.id).await?;
                let row = row.ok_or_else(|| missing("action", settle.id))?;
                let held = runs::held(db, None, row.record.run).await?;
                let (written, record) = ledger::settle(held, row, settle)?;
                change::write(db, &written).await?;
                Ok(record)
            })
        })
        .await
    }

    async fn actions(&self, run: RunId) -> Result<Vec<ActionRecord>, StoreError> {
        actions::list(&mut *self.reader().await?, run).await
    }

    async fn approval(&self, team: Option<TeamId>, id: ApprovalId) -> Result<Approval, StoreError> {
        approvals::get(&mut *self.reader().await?, team, id).await
    }

    async fn approvals(
        &self,
        team: Option<TeamId>,
        run: Option<RunId>,
        state: Option<ApprovalState>,
        limit: u32,
    ) -> Result<Vec<Approval>, StoreError> {
        approvals::list(&mut *self.reader().await?, team, run, state, limit).await
    }

    async fn decide(
        &self,
        team: TeamId,
        id: ApprovalId,
        decision: ApprovalDecision,
        now: Timestamp,
    ) -> Result<Approval, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let approval = approvals::get(db, Some(team), id).await?;
                let held = runs::held(db, None, approval.run).await?;
                let (written, decided) = ledger::decide(held, &approval, decision, now)?;
                change::write(db, &written).await?;
                Ok(decided)
            })
        })
        .await
    }

    async fn expire(&self, now: Timestamp) -> Result<Vec<Approval>, StoreError> {
        // Looked for without the write lock: most of the time there is nothing to do.
        let due = approvals::due(&mut *self.reader().await?, now).await?;
        let mut expired = Vec::new();
        for approval in due {
            expired.extend(self.expire_one(approval.id, now).await?);
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
        self.change(move |db| {
            Box::pin(async move {
                let held = runs::held(db, Some(team), run).await?;
                let last = messages::last(db, run).await?;
                let (written, message) = ledger::say(held, last, by, text, steer, now)?;
                change::write(db, &written).await?;
                Ok(message)
            })
        })
        .await
    }

    async fn messages(&self, run: RunId, after: u64) -> Result<Vec<Message>, StoreError> {
        messages::list(&mut *self.reader().await?, run, after).await
    }

    async fn put_artifact(&self, run: RunId, name: &str, content: Bytes) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.change(move |db| {
            Box::pin(async move {
                if !runs::exists(db, run).await? {
                    return Err(missing("run", run));
                }
                artifacts::put(db, run, &name, &content).await?;
                Ok(())
            })
        })
        .await
    }

    async fn artifact(&self, run: RunId, name: &str) -> Result<Bytes, StoreError> {
        artifacts::get(&mut *self.reader().await?, run, name).await
    }

    async fn put_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                tokens::insert(db, &token).await?;
                Ok(())
            })
        })
        .await
    }

    async fn tokens(&self, team: TeamId) -> Result<Vec<TokenRecord>, StoreError> {
        tokens::list(&mut *self.reader().await?, team).await
    }

    async fn token_by_digest(&self, secret_sha256: &str) -> Result<TokenRecord, StoreError> {
        tokens::by_digest(&mut *self.reader().await?, secret_sha256).await
    }

    async fn revoke_token(&self, team: TeamId, id: TokenId, now: Timestamp) -> Result<TokenRecord, StoreError> {
        self.change(move |db| {
            Box::pin(async move {
                let mut token = tokens::get(db, team, id).await?;
                token.revoked_at.get_or_insert(now);
                tokens::update(db, &token).await?;
                Ok(token)
            })
        })
        .await
    }

    async fn put_secret(
        &self,
        team: TeamId,
        name: &SecretName,
        sealed: Bytes,
        now: Timestamp,
    ) -> Result<SecretRecord, StoreError> {
        let name = name.clone();
        self.change(move |db| {
            Box::pin(async move {
                let record = secrets::put(db, team, &name, sealed, now).await?;
                Ok(record)
            })
        })
        .await
    }

    async fn secrets(&self, team: TeamId) -> Result<Vec<SecretRecord>, StoreError> {
        secrets::list(&mut *self.reader().await?, team).await
    }

    async fn secret(&self, team: TeamId, name: &SecretName) -> Result<SecretRecord, StoreError> {
        secrets::get(&mut *self.reader().await?, team, name).await
    }

    async fn remove_secret(&self, team: TeamId, name: &SecretName) -> Result<SecretRecord, StoreError> {
        let name = name.clone();
        self.change(move |db| {
            Box::pin(async move {
                let record = secrets::remove(db, team, &name).await?;
                Ok(record)
            })
        })
        .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let answer = sqlx::query("SELECT 1").fetch_one(&mut *self.reader().await?).await;
        answer.map(drop).map_err(store_error)
    }
}
