//! The store port: the truth. Every method is one transaction.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stockade_domain::{
    ActionId, ActionRecord, Amounts, Approval, ApprovalDecision, ApprovalId, ApprovalState, Event, NewEvent, Outcome,
    RepoSpec, Revocation, RevocationId, Run, RunId, RunInput, RunSpec, RunState, SecretName, Task, TaskId, TeamId,
    Timestamp, TokenId,
    admission::{AdmitDecision, AdmitRequest, Turn},
    approval::DecisionError,
    machine::{IllegalInput, Step},
};

use crate::SecretRecord;

/// A worker's hold on a run. A newer claim makes an older fence worthless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Grows with every claim of the run.
    pub fence: u64,
}

/// A run just claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The run, already `provisioning`.
    pub run: Run,
    /// The hold on it.
    pub lease: Lease,
    /// What to do first.
    pub step: Step,
}

/// A task to create.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTask {
    /// Names it.
    pub id: TaskId,
    /// The tenant.
    pub team: TeamId,
    /// The request in words.
    pub prompt: String,
    /// The repository.
    pub repo: Option<RepoSpec>,
    /// The first run, if one starts at once.
    pub run: Option<CreateRun>,
    /// The client's `Idempotency-Key`: the same key gives the same task, once.
    pub idempotency_key: Option<String>,
    /// Now.
    pub now: Timestamp,
}

/// A run to create.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateRun {
    /// Names it.
    pub id: RunId,
    /// Everything it is frozen with.
    pub spec: RunSpec,
}

/// What was created, now or by an earlier request with the same key.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The task.
    pub task: Task,
    /// Its run, if one was created with it.
    pub run: Option<Run>,
    /// Whether an earlier request had already created it.
    pub replayed: bool,
}

/// The end of an admitted action.
#[derive(Debug, Clone, PartialEq)]
pub struct Settle {
    /// The action.
    pub id: ActionId,
    /// Its run.
    pub run: RunId,
    /// How it ended.
    pub outcome: Outcome,
    /// What it cost.
    pub spent: Amounts,
    /// Details for the event: bytes, usage, exit code …
    pub details: Value,
    /// Now.
    pub now: Timestamp,
}

/// Something a person says to a run while it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Place in the run's messages: 1, 2, 3 …
    pub seq: u64,
    /// Who.
    pub by: String,
    /// The words.
    pub text: String,
    /// Whether it interrupts the current turn instead of waiting for its end.
    pub steer: bool,
}

/// An API token as stored: never the secret, only its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Public id.
    pub id: TokenId,
    /// The tenant.
    pub team: TeamId,
    /// Whom it stands for, as decisions and receipts name them.
    pub name: String,
    /// SHA-256 of the secret, hex.
    pub secret_sha256: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Why a store did not do what was asked. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such thing, or not this team's.
    #[error("no such {what}: {id}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Another worker has taken the run.
    #[error("the hold on {run} is gone: another worker has taken it")]
    Fenced {
        /// The run.
        run: RunId,
    },
    /// The run cannot take this input.
    #[error(transparent)]
    Illegal(#[from] IllegalInput),
    /// The approval cannot be decided so.
    #[error(transparent)]
    Decision(#[from] DecisionError),
    /// The same key came with another request.
    #[error("idempotency key '{key}' was used before with a different request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The store does not answer. Whoever asked must treat this as a no.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The store holds something it should not.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}

/// Keeps everything. The events table is the truth; a bus is only a hint.
///
/// Every method is atomic: when it returns `Ok`, everything it says is durable (also
/// through a power loss); when it returns `Err` or is cancelled before its commit, nothing
/// happened. Events of a run have a dense sequence from 1 and a hash chain, both made in
/// the same transaction. Methods with a [`Lease`] refuse a stale fence.
#[async_trait]
pub trait Store: Send + Sync {
    /// Creates a task and, where asked, its first run with a `run.queued` event.
    async fn create_task(&self, request: CreateTask) -> Result<Created, StoreError>;

    /// Creates another run of a task.
    async fn create_run(
        &self,
        team: TeamId,
        task: TaskId,
        run: CreateRun,
        key: Option<String>,
        now: Timestamp,
    ) -> Result<Created, StoreError>;

    /// One task of a team.
    async fn task(&self, team: TeamId, id: TaskId) -> Result<Task, StoreError>;

    /// Tasks of a team, newest first, older than `before`.
    async fn tasks(&self, team: TeamId, before: Option<TaskId>, limit: u32) -> Result<Vec<Task>, StoreError>;

    /// One run of a team; `None` as team is the installation itself.
    async fn run(&self, team: Option<TeamId>, id: RunId) -> Result<Run, StoreError>;

    /// Runs of a team, newest first, older than `before`, in one of `states` (empty: any).
    async fn runs(
        &self,
        team: Option<TeamId>,
        states: &[RunState],
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError>;

    /// Takes the oldest claimable run whose pause is over, and steps it with `Claim`.
    async fn claim(&self, now: Timestamp) -> Result<Option<Claim>, StoreError>;

    /// Steps a run. With a lease the fence is checked; without one the input comes from
    /// outside the worker (a person, or the recovery at boot). `Requeue` pauses are kept.
    async fn step(
        &self,
        run: RunId,
        lease: Option<Lease>,
        input: RunInput,
        now: Timestamp,
    ) -> Result<(Run, Step), StoreError>;

    /// Appends events to a run that is not terminal.
    async fn append(
        &self,
        run: RunId,
        lease: Lease,
        events: Vec<NewEvent>,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError>;

    /// Events of a run after a place, oldest first.
    async fn events(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<Event>, StoreError>;

    /// Begins a turn with [`stockade_domain::admission::begin_turn`]: counts it against the
    /// budget and appends `turn.started`, or appends `budget.exhausted` and says so.
    async fn begin_turn(&self, run: RunId, lease: Lease, now: Timestamp) -> Result<Turn, StoreError>;

    /// Decides about an action with [`stockade_domain::admission::decide`] and writes the
    /// decision: event, budget, approval, action and step in one transaction.
    async fn admit(&self, request: AdmitRequest) -> Result<AdmitDecision, StoreError>;

    /// Settles an admitted action with [`stockade_domain::admission::settle`].
    /// Settling twice, or after the run ended, is refused as `Illegal`/`NotFound`.
    async fn settle(&self, settle: Settle) -> Result<ActionRecord, StoreError>;

    /// Actions of a run in the order they were asked.
    async fn actions(&self, run: RunId) -> Result<Vec<ActionRecord>, StoreError>;

    /// One approval of a team; `None` as team is the installation itself.
    async fn approval(&self, team: Option<TeamId>, id: ApprovalId) -> Result<Approval, StoreError>;

    /// Approvals of a team, newest first; of one run or in one state where asked.
    async fn approvals(
        &self,
        team: Option<TeamId>,
        run: Option<RunId>,
        state: Option<ApprovalState>,
        limit: u32,
    ) -> Result<Vec<Approval>, StoreError>;

    /// Answers an approval, appends `approval.decided` and steps the run.
    async fn decide(
        &self,
        team: TeamId,
        id: ApprovalId,
        decision: ApprovalDecision,
        now: Timestamp,
    ) -> Result<Approval, StoreError>;

    /// Expires due approvals, appends `approval.expired` and steps their runs.
    async fn expire(&self, now: Timestamp) -> Result<Vec<Approval>, StoreError>;

    /// Leaves a message for a run that is not terminal and appends `message.user`.
    async fn push_message(
        &self,
        team: TeamId,
        run: RunId,
        by: String,
        text: String,
        steer: bool,
        now: Timestamp,
    ) -> Result<Message, StoreError>;

    /// Messages of a run after a place, oldest first.
    async fn messages(&self, run: RunId, after: u64) -> Result<Vec<Message>, StoreError>;

    /// Keeps a named artifact of a run (`patch`, `receipt`), replacing none: the first one stays.
    async fn put_artifact(&self, run: RunId, name: &str, content: Bytes) -> Result<(), StoreError>;

    /// A named artifact of a run.
    async fn artifact(&self, run: RunId, name: &str) -> Result<Bytes, StoreError>;

    /// Keeps a token.
    async fn put_token(&self, token: TokenRecord) -> Result<(), StoreError>;

    /// Tokens of a team, newest first.
    async fn tokens(&self, team: TeamId) -> Result<Vec<TokenRecord>, StoreError>;

    /// The token with this secret's digest, also an expired or revoked one.
    async fn token_by_digest(&self, secret_sha256: &str) -> Result<TokenRecord, StoreError>;

    /// Revokes a token.
    async fn revoke_token(&self, team: TeamId, id: TokenId, now: Timestamp) -> Result<TokenRecord, StoreError>;

    /// Keeps a sealed secret under a name of a team: the first has version 1, one that replaces another keeps its
    /// `created_at` and has the next version.
    async fn put_secret(
        &self,
        team: TeamId,
        name: &SecretName,
        sealed: Bytes,
        now: Timestamp,
    ) -> Result<SecretRecord, StoreError>;

    /// Secrets of a team, by name.
    async fn secrets(&self, team: TeamId) -> Result<Vec<SecretRecord>, StoreError>;

    /// One secret of a team.
    async fn secret(&self, team: TeamId, name: &SecretName) -> Result<SecretRecord, StoreError>;

    /// Removes a secret and gives what it was.
    async fn remove_secret(&self, team: TeamId, name: &SecretName) -> Result<SecretRecord, StoreError>;

    /// Keeps a revocation.
    async fn put_revocation(&self, revocation: Revocation) -> Result<(), StoreError>;

    /// Revocations of a team and environment where named (`None`: of all), newest first; `in_force`
    /// leaves out those that were lifted.
    async fn revocations(
        &self,
        team: Option<TeamId>,
        environment: Option<&str>,
        in_force: bool,
    ) -> Result<Vec<Revocation>, StoreError>;

    /// Lifts a revocation of a team with [`Revocation::lift`] and gives it as it is then.
    async fn lift_revocation(
        &self,
        team: TeamId,
        id: RevocationId,
        by: String,
        now: Timestamp,
    ) -> Result<Revocation, StoreError>;

    /// Answers at all; for readiness.
    async fn ping(&self) -> Result<(), StoreError>;
}
