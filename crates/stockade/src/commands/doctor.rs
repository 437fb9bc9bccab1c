//! `stockade doctor`: what this host has, what is missing and how to get it.

use std::{process::Stdio, time::Duration};

use serde::Serialize;
use stockade_domain::AgentKind;
use stockade_ports::{Sandbox, SandboxError};

use super::catalog;
use crate::{
    backends,
    exit::{Exit, Outcome},
    settings::Settings,
    terminal::{self, out, style},
    wiring,
};

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    state: State,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// Something does not work without it.
    Missing,
    /// Only a part that not everybody needs does not work without it.
    Optional,
}

impl Finding {
    fn ok(what: &str, detail: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            state: State::Ok,
            detail: detail.into(),
            fix: None,
        }
    }

    fn lacking(what: &str, state: State, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            state,
            detail: detail.into(),
            fix: Some(fix.into()),
        }
    }
}

pub(crate) async fn execute(settings: &Settings, json: bool) -> Outcome {
    let mut findings = vec![git().await];
    findings.extend(sandboxes(settings).await?);
    findings.push(model(settings));
    findings.extend(agents(settings)?);
    let broken = findings.iter().any(|finding| finding.state == State::Missing);
    if json {
        terminal::json(&findings)?;
    } else {
        findings.iter().for_each(show);
        out("");
        out(if broken {
            "Something that every run needs is missing."
        } else {
            "Runs can start here."
        });
    }
    Ok(if broken { Exit::Unavailable } else { Exit::Done })
}

fn show(finding: &Finding) {
    let sign = match finding.state {
        State::Ok => style::good("✓"),
        State::Missing => style::bad("✗"),
        State::Optional => style::wait("○"),
    };
    out(&format!("{sign} {:<18} {}", finding.what, finding.detail));
    if let Some(fix) = &finding.fix {
        out(&format!("  {:<18} {}", "", style::dim(fix)));
    }
}

async fn git() -> Finding {
    let run = tokio::process::Command::new("git")
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    match tokio::time::timeout(Duration::from_secs(5), run).await {
        Ok(Ok(output)) if output.status.success() => Finding::ok(
            "git",
            String::from_utf8_lossy(&output.stdout)
                .trim()
                .trim_start_matches("git version ")
                .to_owned(),
        ),
        _ => Finding::lacking("git", State::Missing, "not found", "apt-get install git"),
    }
}

/// The default backend is needed; the others are there for those who name them.
async fn sandboxes(settings: &Settings) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (place, backend) in backends::all(settings)?.into_iter().enumerate() {
        findings.push(sandbox(&*backend, place == 0).await);
    }
    Ok(findings)
}

async fn sandbox(backend: &dyn Sandbox, needed: bool) -> Finding {
    let what = format!("sandbox {}", backend.name());
    let state = if needed { State::Missing } else { State::Optional };
    match backend.check().await {
        Ok(facts) => {
            let mut detail = vec![facts.mode, format!("limits: {}", facts.enforced_limits.join(", "))];
            if !facts.defences.is_empty() {
                detail.push(facts.defences.join(", "));
            }
            detail.extend(facts.notes);
            Finding::ok(&what, detail.join("; "))
        }
        Err(SandboxError::Unsupported { what: missing, fix, .. }) => Finding::lacking(&what, state, missing, fix),
        Err(error) => {
            let fix = "see docs/security.md, \"What the host must offer\"";
            Finding::lacking(&what, state, error.to_string(), fix)
        }
    }
}

fn model(settings: &Settings) -> Finding {
    match &settings.provider {
        Some(provider) => Finding::ok(
            "model",
            format!("{} ({})", settings.model.as_deref().unwrap_or("-"), provider.describe()),
        ),
        None => Finding::lacking(
            "model",
            State::Optional,
            "no key and no provider",
            "set ANTHROPIC_API_KEY or OPENAI_API_KEY, or pass --provider scripted:FILE",
        ),
    }
}

fn agents(settings: &Settings) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for agent in wiring::agents(settings)?.values() {
        let AgentKind::Harness(_) = &agent.kind else { continue };
        let what = format!("agent {}", agent.name);
        findings.push(match catalog::missing(agent, settings) {
            None => Finding::ok(&what, format!("in {}", settings.agents_dir.display())),
            Some(failure) => Finding::lacking(
                &what,
                State::Optional,
                failure.message,
                failure.hint.unwrap_or_default(),
            ),
        });
    }
    Ok(findings)
}
