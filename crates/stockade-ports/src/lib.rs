//! The contracts between the core and the world.
//!
//! Roles (gate, guard, runner, gateway) know these traits and never an adapter; adapters
//! (store, bus, sandbox, engine, model) implement them and never know a role. The binary
//! introduces them to each other.
//!
//! | Port | Asked by | Answered by |
//! |---|---|---|
//! | [`Store`] | gate, engine, gateway | SQLite |
//! | [`Bus`] | gate, gateway | in-process |
//! | [`Engine`] | gateway | embedded |
//! | [`Activities`] | engine | runner |
//! | [`Sandbox`] | runner | native Linux, OCI runtimes, Docker Engine |
//! | [`Images`] | runner | the image store |
//! | [`Egress`] | runner | guard |
//! | [`PushInspector`] | guard | runner |
//! | [`GitHosts`], [`ForgeHttp`] | runner | the binary |
//! | [`Internal`] | guard | gateway |
//! | [`ModelProvider`] | gate | upstream HTTP, scripted, replay |
//! | [`Secrets`] | gateway, guard | the vault, over the store |
//! | [`Clock`] | everybody | the system, or a simulation |
//!
//! [`ledger`] works out what a store writes, so that all stores write alike; [`sim`] holds
//! simulated implementations for tests.
//!
//! Every trait with more than one implementation has one conformance suite in
//! [`conformance`], and every implementation passes it.

#![forbid(unsafe_code)]

pub mod bus;
pub mod clock;
pub mod conformance;
pub mod egress;
pub mod engine;
pub mod forge;
pub mod git;
pub mod git_hosts;
pub mod image;
pub mod ledger;
pub mod model;
pub mod sandbox;
pub mod secrets;
pub mod sim;
pub mod store;

pub use bus::{Bus, Topic};
pub use clock::{Clock, ManualClock, SystemClock};
pub use egress::{
    Egress, EgressError, EgressSession, Internal, InternalBody, InternalRequest, InternalResponse, RunIdentity, Tally,
    Trust,
};
pub use engine::{Activities, Engine, EngineError};
pub use forge::{ForgeError, ForgeHttp};
pub use git::{GitPlace, Inspected, PackBytes, PushInspector, PushToInspect, Quarantine};
pub use git_hosts::{GitHosts, GitLogin, HostVisit};
pub use image::{Collected, ImageError, Images, PullProgress};
pub use model::{ModelError, ModelProvider, ModelRequest, ModelResponse, wire_error};
pub use sandbox::{
    Boundary, Capabilities, ExecRequest, Exit, FreshSandbox, ImageTree, LimitHit, Measurement, Output, ProbePlan,
    Process, Reaped, RootFs, Sandbox, SandboxError, SandboxEvidence, SandboxFacts, SandboxHandle, SandboxSpec,
    Snapshot, Witness, prove,
};
pub use secrets::{MAX_SECRET_BYTES, OpenSecret, SecretError, SecretInfo, SecretRecord, SecretValue, Secrets};
pub use store::{Claim, CreateRun, CreateTask, Created, Lease, Message, Settle, Store, StoreError, TokenRecord};
