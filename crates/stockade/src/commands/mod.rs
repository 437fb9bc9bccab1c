//! What each command does.

mod approvals;
mod catalog;
mod demo;
mod doctor;
mod explain;
mod import;
mod receipt;
mod redteam;
mod revoke;
mod run;
mod runs;
mod secrets;
mod signals;
mod tokens;
mod up;
mod watch;

use stockade_domain::RunId;

use crate::{
    cli::{Cli, Command, Env},
    exit::{Complaint, Outcome},
    settings::{self, Settings},
};

/// Carries out a command.
pub(crate) async fn execute(cli: Cli) -> Outcome {
    let json = cli.global.json;
    if let Command::Demo(options) = cli.command {
        // The demo brings its own state, so it neither needs nor touches an installation.
        return Box::pin(demo::execute(options, cli.global)).await;
    }
    let settings = settings::load(&cli.global)?;
    match cli.command {
        Command::Up(options) => up::execute(options, settings).await,
        Command::Run(task) => Box::pin(run::execute(task, settings, json)).await,
        Command::Runs(command) => Box::pin(runs::execute(command, settings, json)).await,
        Command::Send(message) => runs::send(message, settings, json).await,
        Command::Approvals(command) => approvals::execute(command, settings, json).await,
        Command::Receipt(command) => receipt::execute(command, settings, json).await,
        Command::Env(command) => environments(command, settings, json).await,
        Command::Agent(command) => catalog::agents(command, &settings, json),
        Command::Secret(command) => secrets::execute(command, settings, json).await,
        Command::Token(command) => tokens::execute(command, settings, json).await,
        Command::Config(command) => catalog::config(&command, &settings, json),
        Command::Doctor => doctor::execute(&settings, json).await,
        Command::Redteam(options) => Box::pin(redteam::execute(options, settings, json)).await,
        Command::Demo(_) | Command::SandboxLaunch => {
            Err(Complaint::usage("this command is started by stockade itself").into())
        }
    }
}

/// Commands about environments: of the configuration, or of runs.
async fn environments(command: Env, settings: Settings, json: bool) -> Outcome {
    let work = match command {
        Env::Revoke { name, hosts, reason } => revoke::Work::Revoke { name, hosts, reason },
        Env::Revocations { name, all } => revoke::Work::List { name, all },
        Env::Lift { name, id } => revoke::Work::Lift { name, id },
        Env::List => return catalog::environments(&settings, json),
        Env::Show { name } => return catalog::show_environment(&settings, &name),
        Env::Explain {
            name,
            url,
            method,
            agent,
        } => return explain::execute(&settings, &name, &url, method.as_deref(), agent.as_deref(), json),
        Env::Import(options) => return import::execute(&options, json),
    };
    revoke::execute(work, settings, json).await
}

/// Reads a run's id as a person types it.
fn run_id(text: &str) -> Result<RunId, Complaint> {
    text.parse()
        .map_err(|e| Complaint::usage(format!("{e}")).hint("`stockade runs list` shows the ids"))
}
