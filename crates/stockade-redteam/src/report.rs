//! What the red team found; also the machine-readable output, documented in `docs/redteam.md`.

use serde::Serialize;

use crate::judge::{Attempt, Excuse, Sighting, Verdict};

/// What an attack is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The host's files, and those that are not the agent's.
    Filesystem,
    /// Other processes, rights.
    Process,
    /// Servers, and what connections mean.
    Network,
    /// Names.
    Dns,
    /// Encrypted connections.
    Tls,
    /// Secrets of the operator's.
    Credentials,
    /// Ways out of containers that have worked before.
    Escape,
    /// More than its share.
    Resources,
    /// What stays when the sandbox is gone.
    Leftovers,
}

impl Group {
    /// All groups in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Filesystem,
        Self::Process,
        Self::Network,
        Self::Dns,
        Self::Tls,
        Self::Credentials,
        Self::Escape,
        Self::Resources,
        Self::Leftovers,
    ];

    /// The group's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Process => "process",
            Self::Network => "network",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Escape => "escape",
            Self::Resources => "resources",
            Self::Leftovers => "leftovers",
        }
    }
}

/// One attack and how it went.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// Its id.
    pub id: String,
    /// Its group.
    pub group: Group,
    /// What was tried.
    pub tried: String,
    /// What must happen.
    pub expected: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed or is void; empty for a pass.
    pub reasons: Vec<String>,
    /// The listed reason for a void case.
    pub excuse: Option<Excuse>,
    /// Attempts that have no working control of their own on this host.
    pub uncontrolled: Vec<String>,
    /// What the attacker told from inside.
    pub inside: Vec<Attempt>,
    /// What it told where nothing stops it.
    pub control: Vec<Attempt>,
    /// What the host saw of the attack.
    pub host: Vec<Sighting>,
    /// What the host saw of the control.
    pub control_host: Vec<Sighting>,
    /// How long it took.
    pub millis: u64,
}

impl CaseReport {
    /// Passed, or void for a listed reason.
    #[must_use]
    pub fn is_green(&self) -> bool {
        match self.verdict {
            Verdict::Passed => true,
            Verdict::Failed => false,
            Verdict::Void => self.excuse.is_some(),
        }
    }
}

/// One thing measured before the agent was let in.
#[derive(Debug, Clone, Serialize)]
pub struct Proved {
    /// Its name.
    pub name: String,
    /// What was seen.
    pub seen: String,
}

/// The kernel surface of one sandbox.
#[derive(Debug, Clone, Serialize)]
pub struct Score {
    /// Whose.
    pub name: String,
    /// Calls tried; zero when it could not be measured.
    pub tried: usize,
    /// Calls answered with anything but a refusal.
    pub answered: usize,
    /// Their names.
    pub answers: Vec<String>,
    /// Why it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// One backend.
#[derive(Debug, Clone, Serialize)]
pub struct BackendReport {
    /// Its name.
    pub backend: String,
    /// `root` or `rootless`.
    pub mode: String,
    /// Limits it says it enforces here.
    pub enforced_limits: Vec<String>,
    /// What was measured before the first attack.
    pub proved: Vec<Proved>,
    /// The attacks.
    pub cases: Vec<CaseReport>,
    /// Attacks left out because there was no sandbox left to attack.
    pub left_out: usize,
    /// Its kernel surface.
    pub score: Score,
    /// How long all of it took.
    pub millis: u64,
}

impl BackendReport {
    /// Every case was carried out and is green, and the surface was measured.
    #[must_use]
    pub fn is_green(&self) -> bool {
        let complete = self.left_out == 0 && !self.cases.is_empty() && self.score.missing.is_none();
        complete && self.cases.iter().all(CaseReport::is_green)
    }
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this format.
    pub schema: u32,
    /// Whether everything is green.
    pub green: bool,
    /// The backends.
    pub backends: Vec<BackendReport>,
    /// Backends that could not be attacked, each with the reason.
    pub missing: Vec<(String, String)>,
    /// Kernel surface of this host without any sandbox, and of other sandboxes on it.
    pub surface: Vec<Score>,
}

impl Report {
    /// Puts the parts together.
    #[must_use]
    pub fn new(backends: Vec<BackendReport>, missing: Vec<(String, String)>, surface: Vec<Score>) -> Self {
        let green = !backends.is_empty() && missing.is_empty() && backends.iter().all(BackendReport::is_green);
        Self {
            schema: 1,
            green,
            backends,
            missing,
            surface,
        }
    }
}
