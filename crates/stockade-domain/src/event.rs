//! Events: the truth about a run, in a dense sequence, chained by hashes.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Digest, RunId, Timestamp, digest_of};

macro_rules! event_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What kind of thing happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum EventType {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl EventType {
            /// Every type there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The type as the wire spells it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

event_types! {
    /// The run waits for a worker.
    RunQueued = "run.queued",
    /// A worker prepares its sandbox.
    RunProvisioning = "run.provisioning",
    /// The agent works.
    RunRunning = "run.running",
    /// A person must decide.
    RunWaiting = "run.waiting",
    /// Ended well.
    RunCompleted = "run.completed",
    /// Ended badly.
    RunFailed = "run.failed",
    /// Ended by a person.
    RunCancelled = "run.cancelled",
    /// How far something slow has come: bringing an image, restoring a snapshot.
    SandboxProgress = "sandbox.progress",
    /// The sandbox and its boundary are in place and measured up.
    SandboxReady = "sandbox.ready",
    /// The sandbox ran into one of its limits; the first time for each.
    SandboxLimit = "sandbox.limit",
    /// The sandbox's writable layer was kept.
    SandboxSnapshot = "sandbox.snapshot",
    /// The sandbox is gone.
    SandboxEnded = "sandbox.ended",
    /// The repository is in the sandbox.
    RepoReady = "repo.ready",
    /// The agent answers.
    AgentReady = "agent.ready",
    /// A turn began.
    TurnStarted = "turn.started",
    /// A turn ended.
    TurnEnded = "turn.ended",
    /// Somebody spoke to the agent.
    MessageUser = "message.user",
    /// The agent spoke.
    MessageAgent = "message.agent",
    /// A piece of what the agent is saying.
    MessageDelta = "message.delta",
    /// A piece of what the agent is thinking.
    ThoughtDelta = "thought.delta",
    /// The agent uses a tool.
    ToolCall = "tool.call",
    /// What the tool answered.
    ToolResult = "tool.result",
    /// The gate let an action happen.
    ActionAdmitted = "action.admitted",
    /// The gate holds an action for a person.
    ActionHeld = "action.held",
    /// The gate refused an action.
    ActionDenied = "action.denied",
    /// The gate stopped a repeated action and asks a person.
    ActionStopped = "action.stopped",
    /// An admitted action ended.
    ActionSettled = "action.settled",
    /// A person is asked.
    ApprovalRequested = "approval.requested",
    /// A person answered.
    ApprovalDecided = "approval.decided",
    /// Nobody answered in time.
    ApprovalExpired = "approval.expired",
    /// The gate let a connection or a name look-up happen (the admission of an egress action).
    EgressAllowed = "egress.allowed",
    /// The gate refused a connection or a name look-up.
    EgressDenied = "egress.denied",
    /// The run's traffic ran into one of its limits; the first time for each.
    EgressLimit = "egress.limit",
    /// An operator took hosts away from the run's environment; its connections there are closed.
    EgressRevoked = "egress.revoked",
    /// A revocation was lifted.
    EgressRestored = "egress.restored",
    /// A model call ended (the settlement of a model action).
    ModelCall = "model.call",
    /// A limit was reached.
    BudgetExhausted = "budget.exhausted",
    /// What the run changed was exported.
    ExportDiff = "export.diff",
    /// The change was committed on a branch.
    ExportBranch = "export.branch",
    /// A pull request was opened.
    ExportPullRequest = "export.pull_request",
    /// Retention removed events a reader asked for; never stored.
    StreamGap = "stream.gap",
    /// A reader was too slow; never stored.
    StreamLagged = "stream.lagged",
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event before the store gives it its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// What kind of thing happened.
    pub kind: EventType,
    /// The details.
    pub data: Value,
}

impl NewEvent {
    /// Makes an event.
    pub fn new(kind: EventType, data: Value) -> Self {
        Self { kind, data }
    }
}

/// Something that happened in a run. `seq` is 1, 2, 3 … without holes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `<run>:<seq>`; also the SSE id.
    pub id: String,
    /// Place in the run.
    pub seq: u64,
    /// The run.
    pub run: RunId,
    /// When.
    pub time: Timestamp,
    /// What kind of thing.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// W3C trace id, where one is known.
    pub trace: Option<String>,
    /// The details.
    pub data: Value,
}

impl Event {
    /// Gives a new event its place.
    pub fn place(new: NewEvent, run: RunId, seq: u64, time: Timestamp, trace: Option<String>) -> Self {
        Self {
            id: format!("{run}:{seq}"),
            seq,
            run,
            time,
            kind: new.kind,
            trace,
            data: new.data,
        }
    }

    /// The head of the chain after this event: a digest over the head before it and the event itself.
    pub fn chain(&self, previous: Digest) -> Digest {
        digest_of(&json!({ "previous": previous, "event": self }))
    }
}

/// Why a list of events is not the run's history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {found} stands where event {expected} belongs")]
pub struct BrokenSequence {
    /// The place.
    pub expected: u64,
    /// What stands there.
    pub found: u64,
}

/// Recomputes the chain's head over events 1, 2, 3 ….
///
/// # Errors
///
/// [`BrokenSequence`] when an event is missing, doubled or out of place.
pub fn chain_head<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Digest, BrokenSequence> {
    let mut head = Digest::ZERO;
    for (expected, event) in (1..).zip(events) {
        if event.seq != expected {
            return Err(BrokenSequence {
                expected,
                found: event.seq,
            });
        }
        head = event.chain(head);
    }
    Ok(head)
}
