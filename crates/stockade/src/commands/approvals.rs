//! `stockade approvals`: questions that wait for a person.

use std::fs;

use stockade_api::v1::DecideApproval;
use stockade_domain::{Approval, ApprovalId, ApprovalState};

use super::watch;
use crate::{
    cli::Approvals,
    exit::{Complaint, Exit, Outcome},
    server::Connection,
    settings::Settings,
    terminal::{self, say, style, table},
};

pub(crate) async fn execute(command: Approvals, settings: Settings, json: bool) -> Outcome {
    let decision = decision(&command)?;
    let connection = Connection::find(settings).await?;
    let client = connection.client();
    match (command, decision) {
        (Approvals::List { all }, _) => {
            let state = (!all).then_some(ApprovalState::Pending);
            let page = client.approvals(None, state, None).await?;
            if json {
                terminal::json(&page.items)?
            } else {
                list(&page.items)
            }
        }
        (Approvals::Show { id }, _) => {
            let approval = client.approval(approval_id(&id)?).await?;
            if json {
                terminal::json(&approval)?
            } else {
                detail(&approval)?
            }
        }
        (Approvals::Approve { id, .. } | Approvals::Reject { id, .. }, Some(decision)) => {
            let approval = client.decide(approval_id(&id)?, &decision).await?;
            if json {
                terminal::json(&approval)?;
            } else {
                say(&format!(
                    "{} {} {}",
                    approval.state.as_str(),
                    approval.id,
                    style::line(&approval.action.target, 60)
                ));
            }
        }
        (Approvals::Approve { .. } | Approvals::Reject { .. }, None) => {
            return Err(Complaint::usage("nothing was decided").into());
        }
    }
    connection.close().await;
    Ok(Exit::Done)
}

fn decision(command: &Approvals) -> Result<Option<DecideApproval>, Complaint> {
    match command {
        Approvals::List { .. } | Approvals::Show { .. } => Ok(None),
        Approvals::Reject { reason, .. } => Ok(Some(DecideApproval {
            reason: reason.clone(),
            ..DecideApproval::reject()
        })),
        Approvals::Approve { reason, edit, .. } => {
            let edited_args = match edit {
                None => None,
                Some(file) => {
                    let shown = file.display();
                    let text =
                        fs::read_to_string(file).map_err(|e| Complaint::usage(format!("cannot read {shown}: {e}")))?;
                    let value = serde_json::from_str(&text)
                        .map_err(|e| Complaint::usage(format!("{shown}:{}:{}: not JSON: {e}", e.line(), e.column())))?;
                    Some(value)
                }
            };
            Ok(Some(DecideApproval {
                reason: reason.clone(),
                edited_args,
                ..DecideApproval::approve()
            }))
        }
    }
}

fn approval_id(text: &str) -> Result<ApprovalId, Complaint> {
    text.parse()
        .map_err(|e| Complaint::usage(format!("{e}")).hint("`stockade approvals list` shows the ids"))
}

fn list(approvals: &[Approval]) {
    if approvals.is_empty() {
        say("nothing waits for a decision");
        return;
    }
    let rows = approvals.iter().map(|a| {
        let what = format!("{}: {}", a.action.operation, a.action.target);
        vec![
            a.id.to_string(),
            a.state.as_str().to_owned(),
            style::line(&what, 60),
            style::line(&a.reason, 40),
            a.expires_at.to_string(),
        ]
    });
    table::print(&["ID", "STATE", "WHAT", "WHY", "EXPIRES"], &rows.collect::<Vec<_>>());
}

fn detail(approval: &Approval) -> anyhow::Result<()> {
    watch::show(approval);
    say(&format!("    run {}  state {}", approval.run, approval.state.as_str()));
    say("    arguments:");
    say(&style::clean(&serde_json::to_string_pretty(&approval.action.args)?));
    Ok(())
}
