//! `stockade env`, `agent` and `config`: what is configured here. No server is needed.

use std::collections::BTreeMap;

use serde_json::json;
use stockade_domain::{AgentKind, AgentSpec, Environment};
use stockade_policy::Policy;

use crate::{
    cli::{Agent, Config},
    exit::{Complaint, Exit, Outcome},
    settings::Settings,
    terminal::{self, out, style, table},
    wiring, yaml,
};

pub(crate) fn environments(settings: &Settings, json: bool) -> Outcome {
    if json {
        terminal::json(&settings.environments)?;
        return Ok(Exit::Done);
    }
    let rows = settings.environments.iter().map(|e| {
        let mark = if e.name == settings.default_environment {
            "(default)"
        } else {
            ""
        };
        vec![
            e.name.clone(),
            level(e),
            e.domains.len().to_string(),
            e.egress.len().to_string(),
            e.image.clone(),
            mark.to_owned(),
        ]
    });
    table::print(
        &["NAME", "NETWORK", "DOMAINS", "RULES", "IMAGE", ""],
        &rows.collect::<Vec<_>>(),
    );
    Ok(Exit::Done)
}

pub(crate) fn show_environment(settings: &Settings, name: &str) -> Outcome {
    terminal::json(environment(settings, name)?)?;
    Ok(Exit::Done)
}

/// An environment of the configuration.
pub(crate) fn environment<'a>(settings: &'a Settings, name: &str) -> Result<&'a Environment, Complaint> {
    settings.environments.iter().find(|e| e.name == name).ok_or_else(|| {
        let known: Vec<&str> = settings.environments.iter().map(|e| e.name.as_str()).collect();
        Complaint::usage(format!("unknown environment '{name}'")).hint(format!("known: {}", known.join(", ")))
    })
}

fn level(environment: &Environment) -> String {
    format!("{:?}", environment.network).to_lowercase()
}

pub(crate) fn agents(command: Agent, settings: &Settings, json: bool) -> Outcome {
    let agents = wiring::agents(settings)?;
    match command {
        Agent::List if json => {
            let list: Vec<_> = agents.values().map(|a| json!({ "name": a.name, "description": a.description, "ready": missing(a, settings).is_none() })).collect();
            terminal::json(&list)?;
        }
        Agent::List => {
            let rows = agents.values().map(|a| {
                let ready = if missing(a, settings).is_none() {
                    "ready"
                } else {
                    "not installed"
                };
                vec![a.name.clone(), ready.to_owned(), a.description.clone()]
            });
            table::print(&["NAME", "STATE", "WHAT"], &rows.collect::<Vec<_>>());
            terminal::say(&style::dim("`stockade doctor` says how to install what is missing"));
        }
        Agent::Show { name } => {
            let agent = agents.get(&name).ok_or_else(|| unknown_agent(&name, agents.keys()))?;
            terminal::json(agent)?;
        }
        Agent::Check { file } => {
            let spec: AgentSpec = yaml::read(&file)?;
            let environment = settings
                .environments
                .first()
                .ok_or_else(|| Complaint::usage("no environment is configured"))?;
            let policy = Policy::compile(&spec, environment)
                .map_err(|e| Complaint::usage(format!("{}: {e}", file.display())))?;
            out(&format!(
                "{} {}: agent '{}', {} rules, policy {}",
                style::good("ok"),
                file.display(),
                spec.name,
                spec.rules.len(),
                policy.version()
            ));
        }
    }
    Ok(Exit::Done)
}

/// The complaint about an agent nobody knows.
pub(crate) fn unknown_agent<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Complaint {
    let known: Vec<&str> = known.map(String::as_str).collect();
    Complaint::usage(format!("unknown agent '{name}'"))
        .hint(format!("known: {}; or name a YAML file", known.join(", ")))
}

/// What a harness lacks here.
pub(crate) fn missing(agent: &AgentSpec, settings: &Settings) -> Option<stockade_domain::Failure> {
    match &agent.kind {
        AgentKind::Builtin { .. } => None,
        AgentKind::Harness(profile) => wiring::installed(profile, &settings.agents_dir).err(),
    }
}

pub(crate) fn config(command: &Config, settings: &Settings, json: bool) -> Outcome {
    let Config::Check = command;
    let agents = wiring::agents(settings)?;
    let (mut files, mut egress, mut git) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for environment in &settings.environments {
        for agent in agents.values() {
            let policy = Policy::compile(agent, environment).map_err(|e| Complaint::usage(e.to_string()))?;
            files.insert(&environment.name, policy.files().explain());
            egress.insert(&environment.name, policy.egress().explain());
            git.insert(&environment.name, policy.explain_git());
        }
    }
    for (what, name, known) in [
        (
            "default_agent",
            &settings.default_agent,
            agents.contains_key(&settings.default_agent),
        ),
        (
            "default_environment",
            &settings.default_environment,
            settings
                .environments
                .iter()
                .any(|e| e.name == settings.default_environment),
        ),
    ] {
        if !known {
            return Err(Complaint::usage(format!("{what} names '{name}', which does not exist")).into());
        }
    }
    let summary = json!({
        "state_dir": settings.state_dir, "listen": settings.listen, "provider": settings.provider.as_ref().map(|p| p.describe()),
        "model": settings.model, "agents_dir": settings.agents_dir, "agents": agents.keys().collect::<Vec<_>>(),
        "environments": settings.environments.iter().map(|e| &e.name).collect::<Vec<_>>(), "limits": settings.limits,
        "git_hosts": settings.git.hosts,
    });
    if json {
        let mut summary = summary;
        summary["files"] = json!(files);
        summary["egress"] = json!(egress);
        summary["git"] = json!(git);
        terminal::json(&summary)?;
    } else {
        out(&format!("{} configuration", style::good("ok")));
        for (key, value) in summary.as_object().into_iter().flatten() {
            out(&format!(
                "  {key:<14}{}",
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            ));
        }
        for (what, lists) in [("egress", &egress), ("files", &files), ("git", &git)] {
            for (environment, rules) in lists {
                out(&format!("  {what} of environment '{environment}'"));
                rules.iter().for_each(|rule| out(&format!("    {rule}")));
            }
        }
    }
    Ok(Exit::Done)
}
