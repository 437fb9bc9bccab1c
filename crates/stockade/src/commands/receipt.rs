//! `stockade receipt`: what a run did, signed.

use std::{fs, path::Path};

use anyhow::Context as _;
use stockade_domain::{
    Event, Outcome as ActionOutcome, RunId, Traffic, Verdict,
    event::chain_head,
    receipt::{self, Predicate, Statement},
};

use crate::{
    cli::Receipt,
    exit::{Complaint, Exit, Outcome},
    keys,
    server::{self, Connection},
    settings::Settings,
    terminal::{self, out, style, table},
};

pub(crate) async fn execute(command: Receipt, settings: Settings, json: bool) -> Outcome {
    match command {
        Receipt::Show { run, out } => show(&run, out.as_deref(), settings, json).await,
        Receipt::Verify { file, key, events } => verify(&file, key.as_deref(), events.as_deref(), &settings, json),
    }
}

async fn show(run: &str, file: Option<&Path>, settings: Settings, json: bool) -> Outcome {
    let run: RunId = run.parse().map_err(|e| Complaint::usage(format!("{e}")))?;
    let key_path = keys::public_path(&settings.state_dir);
    let connection = Connection::find(settings).await?;
    let bytes = server::receipt(connection.client(), run).await?;
    if let Some(file) = file {
        fs::write(file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
        terminal::say(&format!(
            "wrote {}; check it with: stockade receipt verify {}",
            file.display(),
            file.display()
        ));
        return Ok(Exit::Done);
    }
    if json {
        terminal::out_bytes(&bytes)?;
        return Ok(Exit::Done);
    }
    let statement = receipt::verify(&bytes, &keys::verifying_key(&key_path)?).map_err(invalid)?;
    print(&statement);
    Ok(Exit::Done)
}

fn invalid(error: receipt::InvalidReceipt) -> Complaint {
    Complaint::new(Exit::RunFailed, error.to_string()).hint("do not trust this receipt")
}

fn verify(file: &Path, key: Option<&Path>, events: Option<&Path>, settings: &Settings, json: bool) -> Outcome {
    let bytes = fs::read(file).map_err(|e| Complaint::usage(format!("cannot read {}: {e}", file.display())))?;
    let default = keys::public_path(&settings.state_dir);
    let key = keys::verifying_key(key.unwrap_or(&default))?;
    let statement = receipt::verify(&bytes, &key).map_err(invalid)?;
    if let Some(events) = events {
        check_events(&statement, events)?;
    }
    let predicate = &statement.predicate;
    if json {
        terminal::json(&serde_json::json!({
            "valid": true, "run": predicate.run.id, "state": predicate.run.state(), "key": receipt::key_id(&key),
            "events": predicate.events, "events_checked": events.is_some(),
        }))?;
    } else {
        let chain = if events.is_some() {
            "event chain checked"
        } else {
            "event chain not given"
        };
        out(&format!(
            "{} receipt of {} ({}), {} events, {chain}",
            style::good("valid"),
            predicate.run.id,
            predicate.run.state().as_str(),
            predicate.events.count
        ));
    }
    Ok(Exit::Done)
}

fn check_events(statement: &Statement, file: &Path) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(file).map_err(|e| Complaint::usage(format!("cannot read {}: {e}", file.display())))?;
    let events: Vec<Event> = serde_json::from_str(&text).map_err(|e| {
        Complaint::usage(format!(
            "{}:{}:{}: not a list of events: {e}",
            file.display(),
            e.line(),
            e.column()
        ))
    })?;
    let chain = statement.predicate.events;
    let head =
        chain_head(&events).map_err(|e| Complaint::new(Exit::RunFailed, format!("the events are not whole: {e}")))?;
    if head != chain.head || events.len() as u64 != chain.count {
        return Err(Complaint::new(
            Exit::RunFailed,
            format!(
                "these are not the events of the receipt: {} events with head {head}, expected {} with head {}",
                events.len(),
                chain.count,
                chain.head
            ),
        )
        .into());
    }
    Ok(())
}

fn outcome(outcome: Option<&ActionOutcome>) -> String {
    match outcome {
        None => "-".to_owned(),
        Some(ActionOutcome::Done) => "done".to_owned(),
        Some(ActionOutcome::Failed { error }) => format!("failed: {error}"),
        Some(ActionOutcome::Unknown) => "unknown".to_owned(),
    }
}

/// What was reached and refused, with what went there.
fn destinations(predicate: &Predicate) {
    let rows: Vec<Vec<String>> = predicate
        .destinations
        .iter()
        .map(|d| {
            let bytes = |count: u64| match d.verdict {
                Verdict::Allow => style::rough(count),
                _ => "-".to_owned(),
            };
            vec![
                style::line(&d.target, 60),
                format!("{:?}", d.verdict).to_lowercase(),
                d.count.to_string(),
                bytes(d.traffic.bytes_up),
                bytes(d.traffic.bytes_down),
                bytes(d.traffic.blind_bytes),
                d.rule.clone(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        out("");
        table::print(
            &["DESTINATION", "VERDICT", "TIMES", "UP", "DOWN", "UNREAD", "RULE"],
            &rows,
        );
    }
    let (mut all, mut attempts, mut reached) = (Traffic::default(), 0, 0);
    for destination in &predicate.destinations {
        all.add(destination.traffic);
        match destination.verdict {
            Verdict::Allow => reached += 1,
            _ => attempts += destination.count,
        }
    }
    out(&format!(
        "\n{reached} destinations reached over {} connections, {} up, {} down, {} of it unread; {} refused in {attempts} attempts; {} files changed",
        all.connections,
        style::rough(all.bytes_up),
        style::rough(all.bytes_down),
        style::rough(all.blind_bytes),
        predicate.destinations.len() - reached,
        predicate.files.len()
    ));
    for revoked in &predicate.revocations {
        let text = |key: &str| style::line(revoked[key].as_str().unwrap_or_default(), 60);
        out(&format!(
            "{} was revoked by {} {}",
            text("hosts"),
            text("by"),
            text("reason")
        ));
    }
    for limit in predicate.run.result.iter().flat_map(|result| &result.limits_hit) {
        out(&format!("limit met: {}", style::line(limit, 80)));
    }
}

/// A receipt for reading.
pub(crate) fn print(statement: &Statement) {
    let predicate = &statement.predicate;
    let run = &predicate.run;
    let field = |name: &str, value: String| out(&format!("{name:<14}{}", style::clean(&value)));
    field("run", run.id.to_string());
    field("state", run.state().as_str().to_owned());
    field("task", style::line(&run.spec.prompt, 90));
    field(
        "agent",
        format!("{} ({})", run.spec.agent.name, predicate.digests.agent),
    );
    field("model", run.spec.model.clone());
    field(
        "environment",
        format!("{} ({})", run.spec.environment.name, predicate.digests.environment),
    );
    field("policy", predicate.digests.policy.to_string());
    field(
        "spent",
        format!(
            "{} tokens, {} model calls, ${:.4}",
            predicate.spent.tokens,
            predicate.spent.model_requests,
            predicate.spent.cost_micro_usd as f64 / 1e6
        ),
    );
    field(
        "events",
        format!("{}, head {}", predicate.events.count, predicate.events.head),
    );
    let actions: Vec<Vec<String>> = predicate
        .actions
        .iter()
        .filter(|action| action.action.kind != stockade_domain::ActionKind::Model)
        .map(|action| {
            let outcome = outcome(action.outcome.as_ref());
            let verdict = format!("{:?}", action.verdict).to_lowercase();
            vec![
                action.action.kind.as_str().to_owned(),
                verdict,
                style::line(&outcome, 32),
                style::line(&action.action.target, 60),
                action.rule.clone(),
            ]
        })
        .collect();
    out("");
    table::print(&["ACTION", "VERDICT", "OUTCOME", "TARGET", "RULE"], &actions);
    destinations(predicate);
    for exception in &predicate.address_exceptions {
        out(&format!(
            "special addresses {} were open to {} connections: {}",
            style::clean(&exception.cidr),
            exception.connections,
            style::line(&exception.reason, 60)
        ));
    }
    for approval in &predicate.approvals {
        let by = approval.decided_by.as_deref().unwrap_or("nobody");
        out(&format!(
            "approval {}: {} by {} ({})",
            approval.id,
            approval.state.as_str(),
            style::clean(by),
            style::line(&approval.action.target, 60)
        ));
    }
}
