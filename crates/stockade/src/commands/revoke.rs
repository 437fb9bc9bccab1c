//! `stockade env revoke`, `revocations` and `lift`: hosts taken away from running runs, and given back.

use stockade_api::v1::{CreateRevocation, Revocation};
use stockade_domain::RevocationId;
use stockade_policy::Revoked;

use crate::{
    exit::{Complaint, Exit, Outcome},
    server::Connection,
    settings::Settings,
    terminal::{self, say, style, table},
};

/// What is asked.
pub(crate) enum Work {
    Revoke {
        name: String,
        hosts: String,
        reason: String,
    },
    List {
        name: String,
        all: bool,
    },
    Lift {
        name: String,
        id: String,
    },
}

pub(crate) async fn execute(work: Work, settings: Settings, json: bool) -> Outcome {
    let connection = Connection::find(settings).await?;
    let done = carry_out(work, &connection, json).await;
    connection.close().await;
    done
}

async fn carry_out(work: Work, connection: &Connection, json: bool) -> Outcome {
    let client = connection.client();
    match work {
        Work::Revoke { name, hosts, reason } => {
            Revoked::parse(&hosts).map_err(|error| {
                Complaint::usage(format!("hosts '{}': {error}", hosts.escape_default()))
                    .hint("name a host, '*.suffix' for every name below one, an address, or '*' for every host")
            })?;
            let revocation = client.revoke(&name, &CreateRevocation { hosts, reason }).await?;
            match json {
                true => terminal::json(&revocation)?,
                false => say(&format!(
                    "{} is revoked for every run in environment '{}' ({})",
                    revocation.hosts, revocation.environment, revocation.id
                )),
            }
        }
        Work::List { name, all } => {
            let page = client.revocations(&name, all).await?;
            if json {
                terminal::json(&page.items)?;
            } else {
                let rows: Vec<_> = page.items.iter().map(row).collect();
                table::print(&["ID", "HOSTS", "REVOKED", "BY", "LIFTED", "REASON"], &rows);
            }
        }
        Work::Lift { name, id } => {
            let id: RevocationId = id.parse().map_err(|error| {
                Complaint::usage(format!("{error}")).hint("`stockade env revocations NAME` shows the ids")
            })?;
            let lifted = client.lift_revocation(&name, id).await?;
            match json {
                true => terminal::json(&lifted)?,
                false => say(&format!("{} is no longer revoked by {}", lifted.hosts, lifted.id)),
            }
        }
    }
    Ok(Exit::Done)
}

fn row(revocation: &Revocation) -> Vec<String> {
    let lifted = match (&revocation.lifted_by, revocation.lifted_at) {
        (Some(by), Some(at)) => format!("{at} by {}", style::line(by, 20)),
        _ => "-".to_owned(),
    };
    vec![
        revocation.id.to_string(),
        revocation.hosts.clone(),
        revocation.created_at.to_string(),
        style::line(&revocation.by, 20),
        lifted,
        style::line(&revocation.reason, 40),
    ]
}
