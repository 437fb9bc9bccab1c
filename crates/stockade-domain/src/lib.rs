//! The pure core of Stockade: what a run is, what it may do, and what it did.
//!
//! Nothing in this crate reads a clock, a file, the environment or the network, and
//! nothing in it is asynchronous. Everything that decides something lives here so that
//! every store, engine and role decides alike:
//!
//! * [`step`](machine::step): the run state machine, one pure function.
//! * [`decide`](admission::decide): whether an [`Action`] is admitted, held, denied or
//!   stopped; a store calls it inside the one transaction that writes the answer.
//! * [`Budget`], [`repeat`], [`Failure`]: caps, loop detection and failure classes.
//! * [`Event`] with its hash chain, and the signed [`receipt`] made from them.

#![forbid(unsafe_code)]

pub mod action;
pub mod admission;
pub mod agent;
pub mod approval;
pub mod budget;
pub mod canonical;
pub mod credential;
pub mod egress;
pub mod environment;
pub mod event;
pub mod failure;
pub mod file_rules;
pub mod git;
pub mod id;
pub mod machine;
pub mod receipt;
pub mod repeat;
pub mod revocation;
pub mod run;
pub mod task;
pub mod traffic;

pub use action::{Action, ActionKind, ActionRecord, Outcome, PolicyVerdict, Verdict};
pub use agent::{AgentKind, AgentSpec, HarnessProfile, LimitsPatch, ProfileFile, Rule, RuleMatch, RuleVerdict, Wire};
pub use approval::{Approval, ApprovalDecision, ApprovalState, Decision};
pub use budget::{Amounts, Budget, BudgetExhausted, BudgetLimits};
pub use canonical::{Digest, canonical_json, digest_of};
pub use credential::{CredentialBinding, CredentialError, CredentialKind, InvalidSecretName, SecretName};
pub use egress::{EgressProtocol, EgressRule, ExplainedStep, Explanation, TrafficLimits};
pub use environment::{AddressException, Environment, NetworkLevel, SandboxLimits};
pub use event::{Event, EventType, NewEvent};
pub use failure::{Failure, FailureClass};
pub use file_rules::{FileRules, PathPattern, PatternError};
pub use git::{
    GitHost, HostCredential, ObjectId, OpenPullRequest, Publication, PublishPlan, PullRequestDraft, PullRequestPlan,
    RefName, RefPrefix, RefRules, RefUpdate, RepoSlug,
};
pub use id::{ActionId, ApprovalId, RevocationId, RunId, TaskId, TeamId, TokenId};
pub use machine::{Command, Machine, RunInput, RunState, Step};
pub use revocation::Revocation;
pub use run::{Limits, RepoSpec, Run, RunResult, RunSpec, SnapshotPlan};
pub use task::Task;
pub use traffic::Traffic;

/// A point in time, UTC. Serialized as RFC 3339.
pub type Timestamp = jiff::Timestamp;
