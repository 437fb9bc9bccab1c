//! `stockade demo`: one real run end to end, and a check that everything in it really happened.

mod checks;
mod setup;

use std::path::Path;

use stockade_api::v1;
use stockade_domain::{Environment, NetworkLevel, RepoSpec};

use super::watch::{self, Approver};
use crate::{
    cli::{Demo, Global},
    exit::{Complaint, Exit, Outcome},
    keys,
    server::Connection,
    settings::{self, Provider, Settings},
    terminal::{prompt, say, style},
};

const TEXT: &str = "A real run: an agent in a sandbox without a network card fixes a failing test,
tries a connection it is not allowed, asks you one question, and leaves a receipt.";

pub(crate) async fn execute(options: Demo, global: Global) -> Outcome {
    let approver = if options.yes {
        Approver::Always
    } else if prompt::is_interactive() {
        Approver::Person
    } else {
        return Err(
            Complaint::usage("the demo asks a question and nobody is here to answer")
                .hint("run it in a terminal, or pass --yes")
                .into(),
        );
    };
    let place = setup::Place::make(options.keep)?;
    let outcome = tell(&place, approver, global).await;
    if options.keep {
        say(&format!("\n  kept in {}", place.path().display()));
    }
    outcome
}

async fn tell(place: &setup::Place, approver: Approver, global: Global) -> Outcome {
    say(&format!("\n{}\n{}\n", style::bold("stockade demo"), TEXT));
    let repo = setup::repository(place.path())?;
    let settings = settings(place.path(), global)?;
    match &settings.provider {
        Some(provider @ Provider::Scripted { .. }) => {
            say(&format!(
                "  model: {} {}",
                style::wait("scripted"),
                style::dim(&format!("(no key in the environment; {})", provider.describe()))
            ));
        }
        Some(provider) => say(&format!(
            "  model: {} {}",
            style::good(settings.model.as_deref().unwrap_or("-")),
            style::dim(&provider.describe())
        )),
        None => return Err(settings::no_model().into()),
    }
    let key = keys::public_path(&settings.state_dir);
    let connection = Connection::find_or_drive(settings).await?;
    let outcome = run(&connection, &repo, &key, approver).await;
    connection.close().await;
    outcome
}

/// The demo's own state, with a provider from the environment or the script.
fn settings(place: &Path, global: Global) -> anyhow::Result<Settings> {
    let mut settings = settings::load(&Global {
        state_dir: Some(place.join("state")),
        ..global
    })?;
    settings.remote = None;
    settings.environments = vec![Environment::named("default", NetworkLevel::Trusted)];
    if settings.provider.is_none() {
        settings.provider = Some(Provider::Scripted {
            file: setup::script(place)?,
        });
        settings.model.get_or_insert_with(|| "scripted".to_owned());
    }
    Ok(settings)
}

async fn run(connection: &Connection, repo: &Path, key: &Path, approver: Approver) -> Outcome {
    let client = connection.client();
    let mut request = v1::CreateTask::new(setup::PROMPT.trim());
    request.repo = Some(v1::RepoInput::Inline(Box::new(RepoSpec {
        source: repo.display().to_string(),
        reference: None,
    })));
    request.agent = Some(v1::NameOr::Inline(Box::new(setup::agent()?)));
    let created = client.create_task(&request, None).await?;
    let run = created
        .run
        .ok_or_else(|| Complaint::unavailable("no run was created"))?;
    let events = watch::follow(client, run.id, approver).await?;
    let facts = checks::Facts::gather(client, run.id, events, key).await?;
    facts.show();
    Ok(if facts.all_true() { Exit::Done } else { Exit::RunFailed })
}
