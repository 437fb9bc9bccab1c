//! `stockade runs` and `send`: looking at runs, talking to them, taking what they made.

use std::{io::Write as _, path::Path, process::Stdio};

use anyhow::Context as _;
use futures::StreamExt as _;
use stockade_api::{Client, ListRuns, v1};
use stockade_domain::{Event, Publication, RunId, RunState};

use super::{
    run_id,
    watch::{self, Approver},
};
use crate::{
    cli::{Runs, Send},
    exit::{Complaint, Exit, Outcome},
    server::Connection,
    settings::Settings,
    terminal::{self, live::Live, out, prompt, say, style, table},
};

pub(crate) async fn execute(command: Runs, settings: Settings, json: bool) -> Outcome {
    let connection = Connection::find(settings).await?;
    let outcome = on_server(command, connection.client(), json).await;
    connection.close().await;
    outcome
}

async fn on_server(command: Runs, client: &Client, json: bool) -> Outcome {
    match command {
        Runs::List { limit } => {
            let page = client
                .runs(&ListRuns {
                    limit: Some(limit),
                    ..ListRuns::default()
                })
                .await?;
            if json {
                terminal::json(&page.items)?
            } else {
                list(&page.items)
            }
        }
        Runs::Show { run } => {
            let run = client.run(run_id(&run)?).await?;
            if json { terminal::json(&run)? } else { detail(&run) }
        }
        Runs::Cancel { run, reason } => {
            let run = client.cancel_run(run_id(&run)?, reason).await?;
            say(&format!(
                "{} is {}",
                run.id,
                if run.state.is_terminal() {
                    run.state.as_str()
                } else {
                    "stopping"
                }
            ));
        }
        Runs::Events { run, follow, after } => events(client, run_id(&run)?, after, follow, json).await?,
        Runs::Diff { run } => terminal::out_bytes(&client.diff(run_id(&run)?).await?)?,
        Runs::Apply { run, repo, branch, yes } => {
            return apply(client, run_id(&run)?, repo.as_deref(), branch, yes).await;
        }
    }
    Ok(Exit::Done)
}

pub(crate) async fn send(message: Send, settings: Settings, json: bool) -> Outcome {
    let run = run_id(&message.run)?;
    let connection = Connection::find(settings).await?;
    let sent = connection
        .client()
        .send_message(
            run,
            &v1::SendMessage {
                text: message.text,
                steer: message.steer,
            },
        )
        .await?;
    if json {
        terminal::json(&sent)?
    } else {
        say(&format!("message {} is waiting for the agent", sent.seq))
    }
    connection.close().await;
    Ok(Exit::Done)
}

fn list(runs: &[v1::RunSummary]) {
    if runs.is_empty() {
        say("no runs yet; start one with: stockade run \"PROMPT\" --repo PATH");
        return;
    }
    let rows = runs.iter().map(|run| {
        let files = run.files_changed.map_or("-".to_owned(), |n| n.to_string());
        vec![
            run.id.to_string(),
            run.state.as_str().to_owned(),
            run.agent.clone(),
            files,
            run.created_at.to_string(),
            style::line(&run.title, 50),
        ]
    });
    table::print(
        &["RUN", "STATE", "AGENT", "FILES", "CREATED", "TASK"],
        &rows.collect::<Vec<_>>(),
    );
}

fn detail(run: &v1::Run) {
    let field = |name: &str, value: &str| out(&format!("{name:<13}{}", style::clean(value)));
    field("run", &run.id.to_string());
    field("state", run.state.as_str());
    field("task", &style::line(&run.spec.prompt, 90));
    field("agent", &run.spec.agent.name);
    field("model", &run.spec.model);
    field("environment", &run.spec.environment.name);
    field("attempt", &run.attempt.to_string());
    field(
        "spent",
        &format!(
            "{} tokens, {} model calls, {} turns, ${:.4}",
            run.used.tokens,
            run.used.model_requests,
            run.used.turns,
            run.used.cost_micro_usd as f64 / 1e6
        ),
    );
    for approval in &run.open_approvals {
        field(
            "waits for",
            &format!("{approval}  (stockade approvals show {approval})"),
        );
    }
    if let Some(failure) = &run.failure {
        field(
            "failure",
            &format!("{} ({:?}): {}", failure.code, failure.class, failure.message),
        );
        field("hint", failure.hint.as_deref().unwrap_or("-"));
    }
    if let Some(result) = &run.result {
        field("summary", &style::line(&result.summary, 200));
        field("branch", result.branch.as_deref().unwrap_or("-"));
        if let Some(publication) = &result.publication {
            published(publication, field);
        }
        if !result.limits_hit.is_empty() {
            field("limits hit", &result.limits_hit.join(", "));
        }
        for file in &result.files {
            field(
                "file",
                &format!(
                    "{} {} +{} -{}",
                    file.change,
                    file.path,
                    file.added.unwrap_or(0),
                    file.removed.unwrap_or(0)
                ),
            );
        }
    }
}

fn published(publication: &Publication, field: impl Fn(&str, &str)) {
    if let Some(branch) = &publication.branch {
        field("pushed to", &format!("{branch} of {}", publication.remote));
    }
    if let Some(pull) = &publication.pull_request {
        let updated = if pull.existed { " (was open already)" } else { "" };
        field("pull request", &format!("#{} {}{updated}", pull.number, pull.url));
    }
    if let Some(failure) = &publication.failure {
        field("unpublished", &format!("{}: {}", failure.code, failure.message));
        field("hint", failure.hint.as_deref().unwrap_or("-"));
    }
}

async fn events(client: &Client, run: RunId, after: u64, follow: bool, json: bool) -> anyhow::Result<()> {
    if follow && !json {
        watch::follow(client, run, Approver::here()).await?;
        return Ok(());
    }
    if follow {
        let mut stream = client.events(run, after);
        while let Some(event) = stream.next().await {
            out(&serde_json::to_string(&event?)?);
        }
        return Ok(());
    }
    let mut all: Vec<Event> = Vec::new();
    let mut place = after;
    loop {
        let page = client.events_page(run, place, None).await?;
        let Some(last) = page.items.last() else { break };
        place = last.seq;
        all.extend(page.items);
    }
    if json {
        return terminal::json(&all);
    }
    let mut live = Live::default();
    all.iter().for_each(|event| live.show(event));
    Ok(())
}

/// Brings a change into a working tree: shown first, never silently, all or nothing.
async fn apply(client: &Client, id: RunId, repo: Option<&Path>, branch: bool, yes: bool) -> Outcome {
    let run = client.run(id).await?;
    if run.state != RunState::Completed {
        return Err(Complaint::usage(format!(
            "{id} is {}; only a completed run has a change to apply",
            run.state.as_str()
        ))
        .into());
    }
    let source = run.spec.repo.as_ref().map(|repo| Path::new(&repo.source));
    let tree = repo.or(source.filter(|path| path.is_dir())).ok_or_else(|| {
        Complaint::usage("the run's repository is not a directory here").hint("name the working tree with --repo PATH")
    })?;
    let result = run.result.as_ref().filter(|result| !result.files.is_empty());
    let Some(result) = result else {
        say("the run changed nothing");
        return Ok(Exit::Done);
    };
    for file in &result.files {
        say(&format!(
            "  {:<9} {} +{} -{}",
            file.change,
            style::clean(&file.path),
            file.added.unwrap_or(0),
            file.removed.unwrap_or(0)
        ));
    }
    let question = match (&result.branch, branch) {
        (Some(name), true) => format!("make branch {name} in {}?", tree.display()),
        _ => format!("change {} file(s) in {}?", result.files.len(), tree.display()),
    };
    if !yes {
        if !prompt::is_interactive() {
            return Err(Complaint::usage("nobody is here to say yes").hint("pass --yes").into());
        }
        if !prompt::confirm(&question).await {
            say("nothing was changed");
            return Ok(Exit::Refused);
        }
    }
    match (&result.branch, branch) {
        (Some(name), true) => make_branch(client, id, name, tree).await,
        _ => change_files(client, id, tree).await,
    }
}

async fn change_files(client: &Client, id: RunId, tree: &Path) -> Outcome {
    let patch = client.diff(id).await?;
    // Checked whole before anything is touched, so a conflict leaves the tree as it was.
    git(tree, &["apply", "--check", "--whitespace=nowarn"], &patch)
        .context("the change does not fit the working tree; commit or stash what is in the way, or use --branch")?;
    git(tree, &["apply", "--whitespace=nowarn"], &patch)?;
    say(&format!("{} changed {}", style::good("✓"), tree.display()));
    Ok(Exit::Done)
}

async fn make_branch(client: &Client, id: RunId, name: &str, tree: &Path) -> Outcome {
    let bundle = client.artifact(id, "bundle").await?;
    let file = std::env::temp_dir().join(format!("stockade-{id}.bundle"));
    crate::keys::write_private(&file, &bundle)?;
    let fetched = git(
        tree,
        &[
            "fetch",
            "--no-tags",
            &file.to_string_lossy(),
            &format!("refs/heads/{name}:refs/heads/{name}"),
        ],
        b"",
    );
    let _ = std::fs::remove_file(&file);
    fetched.context("cannot make the branch")?;
    say(&format!("{} branch {name} in {}", style::good("✓"), tree.display()));
    Ok(Exit::Done)
}

fn git(tree: &Path, args: &[&str], input: &[u8]) -> anyhow::Result<()> {
    let mut child = std::process::Command::new("git")
        .arg("-C")
        .arg(tree)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Complaint::unavailable(format!("cannot start git: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A git that refuses early closes the pipe; its own words say why.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Complaint::new(
        Exit::RunFailed,
        style::clean(String::from_utf8_lossy(&output.stderr).trim()),
    )
    .into())
}
