//! `stockade env explain`: which rule answers a URL, and why the others do not. No server is needed.

use std::path::Path;

use stockade_domain::{AgentSpec, ExplainedStep, Explanation, Verdict};
use stockade_policy::{Place, Policy};

use super::catalog;
use crate::{
    exit::{Complaint, Exit, Outcome},
    settings::Settings,
    terminal::{self, out, style},
    wiring, yaml,
};

/// Rules about other hosts that are named one by one.
const NAMED: usize = 8;

pub(crate) fn execute(
    settings: &Settings,
    name: &str,
    url: &str,
    method: Option<&str>,
    agent: Option<&str>,
    json: bool,
) -> Outcome {
    let environment = catalog::environment(settings, name)?;
    let agent = agent_of(settings, agent)?;
    let place = Place::parse(url, method).map_err(|error| Complaint::usage(error.to_string()))?;
    let policy = Policy::compile(&agent, environment).map_err(|error| Complaint::usage(error.to_string()))?;
    let told = policy.explain(&place);
    if json {
        terminal::json(&told)?;
    } else {
        print(&told);
    }
    Ok(Exit::Done)
}

fn agent_of(settings: &Settings, wanted: Option<&str>) -> anyhow::Result<AgentSpec> {
    let mut agents = wiring::agents(settings)?;
    let name = wanted.unwrap_or(&settings.default_agent);
    if let Some(agent) = agents.remove(name) {
        return Ok(agent);
    }
    if Path::new(name).is_file() {
        return Ok(yaml::read(Path::new(name))?);
    }
    Err(catalog::unknown_agent(name, agents.keys()).into())
}

fn print(told: &Explanation) {
    let word = match told.verdict {
        Verdict::Allow => style::good("allowed"),
        Verdict::Hold => style::wait("held until a person decides"),
        Verdict::Deny | Verdict::Stop => style::bad("denied"),
    };
    let method = told
        .method
        .as_deref()
        .map(|method| format!("{method} "))
        .unwrap_or_default();
    out(&format!("{method}{}: {word}", told.url));
    let field = |name: &str, value: &str| out(&format!("  {name:<13}{}", style::clean(value)));
    field("rule", &told.rule);
    field("why", &told.reason);
    field("environment", &format!("{} (agent {})", told.environment, told.agent));
    if told.inspected {
        field(
            "inspected",
            "yes: a rule looks at requests there, or git is spoken, so its connections are read",
        );
    }
    if let Ok(limits) = serde_json::to_string(&told.limits)
        && !told.limits.is_unlimited()
    {
        field("limits", &limits);
    }
    out("");
    let (near, far): (Vec<&ExplainedStep>, Vec<&ExplainedStep>) = told.steps.iter().partition(|step| step.names_host);
    for step in near {
        let mark = if step.decided { "=>" } else { "  " };
        out(&format!(
            "{mark} {}: {}",
            style::clean(&step.rule),
            style::clean(&step.text)
        ));
        out(&style::dim(&format!("     {}", style::clean(&step.why))));
    }
    if !far.is_empty() {
        let named: Vec<&str> = far.iter().take(NAMED).map(|step| step.rule.as_str()).collect();
        let more = if far.len() > NAMED { ", …" } else { "" };
        out(&format!(
            "   {} before it about other hosts: {}{more}",
            far.len(),
            named.join(", ")
        ));
    }
}
