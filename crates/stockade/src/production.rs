//! What production refuses to boot on. Every reason is found before one is told.

use stockade_ports::{Sandbox, SandboxFacts};

use crate::{
    backends,
    exit::{Complaint, Exit},
    settings::Settings,
};

/// Limits without which one run can take the host down.
const NEEDED_LIMITS: [&str; 3] = ["memory", "pids", "cpu"];

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    what: String,
    fix: String,
}

impl Reason {
    fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            fix: fix.into(),
        }
    }
}

/// Refuses to go on where the settings say production and something is unsafe.
///
/// # Errors
///
/// One complaint with exit code 4 that lists every reason and what to do about it.
pub(crate) async fn insist(settings: &Settings) -> anyhow::Result<()> {
    if !settings.production {
        return Ok(());
    }
    let mut reasons = of_settings(settings);
    for backend in backends::all(settings)? {
        let facts = match backend.capabilities().isolates {
            true => Some(backend.check().await.map_err(|e| e.to_string())),
            false => None,
        };
        reasons.extend(of_backend(&*backend, facts));
    }
    match list(&reasons) {
        None => Ok(()),
        Some(text) => Err(Complaint::new(Exit::Unsafe, text).into()),
    }
}

fn list(reasons: &[Reason]) -> Option<String> {
    if reasons.is_empty() {
        return None;
    }
    let lines = reasons.iter().map(|r| format!("\n  - {}; {}", r.what, r.fix));
    Some(format!("production refuses to start:{}", lines.collect::<String>()))
}

fn of_settings(settings: &Settings) -> Vec<Reason> {
    let images = settings.environments.iter().filter_map(|environment| {
        let (name, image) = (&environment.name, &environment.image);
        if image == "host" {
            let what = format!("environment '{name}' runs on this host's own programs");
            return Some(Reason::new(what, "give it an image with a digest (name@sha256:…)"));
        }
        (!image.contains("@sha256:")).then(|| {
            let what = format!("environment '{name}' names the image '{image}' without a digest");
            Reason::new(what, "a tag can be moved; write name@sha256:…")
        })
    });
    let mut reasons: Vec<_> = images.collect();
    let default = &settings.default_environment;
    if !settings
        .environments
        .iter()
        .any(|environment| environment.name == *default)
    {
        let what = format!("the default environment '{default}' is not configured");
        reasons.push(Reason::new(
            what,
            "describe it under 'environments'; production brings none of its own",
        ));
    }
    reasons
}

fn of_backend(backend: &dyn Sandbox, facts: Option<Result<SandboxFacts, String>>) -> Vec<Reason> {
    let name = backend.name();
    let facts = match facts {
        None => {
            let what = format!("the backend '{name}' does not isolate anything");
            return vec![Reason::new(what, "remove it from sandbox.backends; it is for tests")];
        }
        Some(Err(error)) => {
            let what = format!("the backend '{name}' does not work here: {error}");
            return vec![Reason::new(what, "mend it, or remove it from sandbox.backends")];
        }
        Some(Ok(facts)) => facts,
    };
    let has = |limit: &str| facts.enforced_limits.iter().any(|l| l == limit);
    let missing: Vec<_> = NEEDED_LIMITS.into_iter().filter(|limit| !has(limit)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let what = format!("the backend '{name}' cannot limit {} here", missing.join(", "));
    vec![Reason::new(
        what,
        "start as root or in a delegated cgroup (systemd-run --user --scope -p Delegate=yes stockade …)",
    )]
}
