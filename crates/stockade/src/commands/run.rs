//! `stockade run`: a task handed over and watched.

use std::{fs, path::Path};

use stockade_api::{Client, v1};
use stockade_domain::{
    AgentSpec, Failure, PublishPlan, PullRequestPlan, RepoSpec, RunId, RunResult, RunState, SnapshotPlan,
};

use super::{
    signals,
    watch::{self, Approver},
};
use crate::{
    cli::{Publish, RunTask},
    exit::{Complaint, Exit, Outcome},
    git_hosts::GitSettings,
    server::{self, Connection},
    settings::{self, Settings},
    terminal::{self, out, say, style, traffic::Sums},
    wiring, yaml,
};

pub(crate) async fn execute(task: RunTask, settings: Settings, json: bool) -> Outcome {
    let request = request(&task, &settings)?;
    if task.detach {
        let connection = Connection::find_lasting(&settings).await?;
        let run = created(connection.client(), &request).await?;
        if json {
            terminal::json(&run)?
        } else {
            out(&run.id.to_string())
        }
        return Ok(Exit::Done);
    }
    let has_model = settings.provider.is_some();
    let connection = Connection::find_or_drive(settings).await?;
    if connection.is_embedded() && !has_model {
        connection.close().await;
        return Err(settings::no_model().into());
    }
    let outcome = watched(&connection, &request, json).await;
    connection.close().await;
    outcome
}

/// Checks what can be checked before anything exists.
fn request(task: &RunTask, settings: &Settings) -> anyhow::Result<v1::CreateTask> {
    let mut request = v1::CreateTask::new(task.prompt.clone());
    request.repo = task
        .repo
        .as_deref()
        .map(|source| repo(source, task.reference.clone(), &settings.git))
        .transpose()?;
    request.agent = task
        .agent
        .as_deref()
        .map(|agent| agent_of(agent, settings))
        .transpose()?;
    request.environment = task.env.clone();
    request.model = task.model.clone();
    request.backend = task.backend.clone();
    request.snapshot = SnapshotPlan {
        from: task.from_snapshot.clone(),
        keep: task.keep_snapshot,
    };
    request.publish = publish(&task.publish);
    Ok(request)
}

fn publish(wanted: &Publish) -> Option<PublishPlan> {
    let pull_request = wanted.pr.then(|| PullRequestPlan {
        base: wanted.pr_base.clone(),
        title: wanted.pr_title.clone(),
        body: wanted.pr_body.clone(),
        draft: wanted.pr_draft,
    });
    (wanted.push || wanted.pr).then_some(PublishPlan { pull_request })
}

/// A path becomes absolute, because the server may stand elsewhere; a short name becomes an
/// address. What is there as a path is a path.
fn repo(source: &str, reference: Option<String>, hosts: &GitSettings) -> Result<v1::RepoInput, Complaint> {
    let is_url = source.contains("://") || (source.contains(':') && !Path::new(source).exists());
    let source = if is_url {
        source.to_owned()
    } else if let (false, Some(address)) = (Path::new(source).exists(), hosts.resolve(source)) {
        address?
    } else {
        let path = fs::canonicalize(source).map_err(|e| {
            Complaint::usage(format!("cannot use the repository '{source}': {e}"))
                .hint("pass a directory that holds a git repository, or a URL")
        })?;
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Complaint::usage(format!("the path '{source}' is not UTF-8")))?
    };
    Ok(v1::RepoInput::Inline(Box::new(RepoSpec { source, reference })))
}

fn agent_of(agent: &str, settings: &Settings) -> anyhow::Result<v1::NameOr<AgentSpec>> {
    let is_file = agent.contains('/') || agent.ends_with(".yaml") || agent.ends_with(".yml");
    if is_file {
        return Ok(v1::NameOr::Inline(Box::new(yaml::read(Path::new(agent))?)));
    }
    // A server elsewhere may know agents that this configuration does not.
    let known = wiring::agents(settings)?;
    if settings.remote.is_none() && !known.contains_key(agent) {
        return Err(super::catalog::unknown_agent(agent, known.keys()).into());
    }
    Ok(v1::NameOr::from(agent))
}

async fn created(client: &Client, request: &v1::CreateTask) -> anyhow::Result<v1::Run> {
    let key = uuid::Uuid::now_v7().to_string();
    let created = client.create_task(request, Some(&key)).await?;
    created
        .run
        .ok_or_else(|| Complaint::unavailable("the server created a task and no run").into())
}

async fn watched(connection: &Connection, request: &v1::CreateTask, json: bool) -> Outcome {
    let client = connection.client();
    let run = created(client, request).await?.id;
    tokio::select! {
        followed = watch::follow(client, run, Approver::here()) => Sums::of(&followed?).show(),
        () = signals::stop_asked() => return stop(connection, run).await,
    }
    let run = client.run(run).await?;
    // The receipt is made after the last event; leaving before it would leave it to the next start.
    server::receipt(client, run.id).await?;
    if json {
        terminal::json(&run)?
    } else {
        report(&run)
    }
    Ok(exit_of(&run))
}

/// A wish to stop ends a run that lives in this process and only leaves one that does not.
async fn stop(connection: &Connection, run: RunId) -> Outcome {
    if !connection.is_embedded() {
        say(&format!(
            "\n  the run goes on; see it with: stockade runs events {run} --follow"
        ));
        return Ok(Exit::Done);
    }
    say("\n  stopping the run");
    let cancel = v1::CancelRun {
        reason: Some("interrupted at the terminal".to_owned()),
    };
    connection.client().cancel_run(run, cancel.reason).await?;
    let waited = watch::follow(connection.client(), run, Approver::Elsewhere);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), waited).await;
    Ok(exit_of(&connection.client().run(run).await?))
}

/// The end of a run as an exit code.
pub(crate) fn exit_of(run: &v1::Run) -> Exit {
    match (run.state, &run.failure) {
        // The change is there, and did not get as far as was asked.
        (RunState::Completed, _) => match unpublished(run).map(|failure| failure.code.as_str()) {
            None => Exit::Done,
            Some("refused") => Exit::Refused,
            Some(_) => Exit::RunFailed,
        },
        (RunState::Cancelled, _) => Exit::Refused,
        (_, Some(failure)) if matches!(failure.code.as_str(), "loop" | "refused") => Exit::Refused,
        _ => Exit::RunFailed,
    }
}

/// Why a run's change was not published as asked.
pub(crate) fn unpublished(run: &v1::Run) -> Option<&Failure> {
    run.result.as_ref()?.publication.as_ref()?.failure.as_ref()
}

/// Where the change went.
fn published(run: &v1::Run, result: &RunResult) {
    let Some(publication) = &result.publication else {
        if run.spec.publish.is_some() {
            say("  nothing was changed, so there is nothing to publish");
        }
        return;
    };
    match (&publication.pull_request, &publication.branch) {
        (Some(pull), _) => say(&format!("  pull request  {}", style::bold(&style::clean(&pull.url)))),
        (None, Some(branch)) => say(&format!(
            "  pushed     {} of {}",
            style::bold(&style::clean(branch)),
            style::clean(&publication.remote)
        )),
        (None, None) => {}
    }
    if let Some(failure) = &publication.failure {
        let what = match publication.branch {
            Some(_) => "no pull request was opened",
            None => "the change was not pushed",
        };
        say(&format!(
            "  {} {what}: {}",
            style::bad("✗"),
            style::clean(&failure.message)
        ));
        if let Some(hint) = &failure.hint {
            say(&style::dim(&format!("    {}", style::clean(hint))));
        }
    }
}

fn report(run: &v1::Run) {
    let Some(result) = &run.result else { return };
    say("");
    for file in &result.files {
        let count = |sign: &str, n: Option<u64>| n.map(|n| format!("{sign}{n}")).unwrap_or_default();
        say(&format!(
            "  {:<9} {} {} {}",
            file.change,
            style::clean(&file.path),
            style::good(&count("+", file.added)),
            style::bad(&count("-", file.removed))
        ));
    }
    say(&style::dim(&format!(
        "  {} tokens, {} model calls, ${:.4}",
        run.used.tokens,
        run.used.model_requests,
        run.used.cost_micro_usd as f64 / 1e6
    )));
    published(run, result);
    if !result.files.is_empty() {
        say(&format!("  see it     stockade runs diff {}", run.id));
        say(&format!("  take it    stockade runs apply {}", run.id));
    }
    say(&format!("  receipt    stockade receipt show {}", run.id));
    out(&run.id.to_string());
}
