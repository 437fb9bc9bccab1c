//! Freezing: names, defaults and limits of a request become the spec a run keeps for ever.
//! Everything that can be refused is refused here, before anything is created.

use std::collections::BTreeMap;

use stockade_api::{
    Problem, ProblemCode,
    v1::{CreateRun, NameOr},
};
use stockade_domain::{AgentSpec, Environment, Failure, Limits, LimitsPatch, RepoSpec, RunSpec};
use stockade_policy::{Policy, PolicyError};

use crate::{
    App, Catalog,
    error::{Answer, Refusal, refuse},
    publish,
};

/// The longest any single time limit may be, in seconds: 30 days.
const LONGEST: u64 = 30 * 24 * 3600;
/// The longest name of a model, agent or token, in characters.
pub(crate) const NAME_CHARS: usize = 128;

/// The frozen spec of a run of this prompt and repository.
pub(crate) fn freeze(catalog: &Catalog, prompt: String, repo: Option<RepoSpec>, wanted: CreateRun) -> Answer<RunSpec> {
    let agent = agent(catalog, wanted.agent)?;
    let environment = environment(catalog, wanted.environment.as_deref())?;
    let backend = backend(catalog, wanted.backend)?;
    let limits = limits(catalog, &agent, wanted.limits.as_ref())?;
    let policy = Policy::compile(&agent, &environment).map_err(invalid_policy)?;
    if catalog.provider.is_none() {
        return Err(Problem::new(
            ProblemCode::NoModel,
            "no model provider is configured, so no run can start",
        )
        .with_hint("set a provider and its key in the configuration, or use the 'scripted' provider")
        .into());
    }
    (catalog.agent_check)(&agent).map_err(|failure| unavailable(&agent, failure))?;
    let model = model(catalog, &agent, wanted.model)?;
    let git_host = publish::host_of(catalog, repo.as_ref());
    if let Some(plan) = &wanted.publish {
        publish::check(plan, repo.as_ref(), git_host.as_ref())?;
    }
    let spec = RunSpec {
        prompt,
        repo,
        agent,
        environment,
        model,
        backend,
        snapshot: wanted.snapshot,
        git_host,
        publish: wanted.publish,
        limits,
        policy_version: policy.version(),
    };
    let fits = (catalog.backend_check)(&spec);
    fits.map_err(|failure| of_failure(ProblemCode::BackendUnavailable, failure))?;
    Ok(spec)
}

/// A prompt or message with words in it, not too many.
pub(crate) fn text(app: &App, field: &str, text: &str) -> Answer<()> {
    if text.trim().is_empty() {
        return Err(Problem::new(ProblemCode::EmptyText, format!("{field} is empty"))
            .with("field", field)
            .into());
    }
    let most = app.limits.text_bytes;
    if text.len() > most {
        return Err(Problem::new(
            ProblemCode::TextTooLong,
            format!("{field} has {} bytes; at most {most} are taken", text.len()),
        )
        .with_hint("put long material into the repository and point to it")
        .with("field", field)
        .with("limit", most)
        .into());
    }
    Ok(())
}

/// A repository that is worth asking the probe about, and that the probe finds usable.
pub(crate) async fn repository(app: &App, repo: &RepoSpec) -> Answer<()> {
    let odd = |text: &str| {
        text.is_empty() || text.len() > 4096 || text.starts_with('-') || text.chars().any(char::is_control)
    };
    if odd(&repo.source) || repo.reference.as_deref().is_some_and(odd) {
        return Err(Problem::new(
            ProblemCode::Repository,
            "the repository's source or reference is empty, too long, begins with '-' or has control characters",
        )
        .with_hint("name a path or a URL, and a branch, tag or commit")
        .into());
    }
    app.repo_probe
        .check(repo)
        .await
        .map_err(|failure| of_failure(ProblemCode::Repository, failure))
}

fn of_failure(code: ProblemCode, failure: Failure) -> Refusal {
    let mut problem = Problem::new(code, failure.message).with("cause", failure.code);
    problem.hint = failure.hint;
    problem.into()
}

fn unavailable(agent: &AgentSpec, failure: Failure) -> Refusal {
    let message = format!("agent '{}' cannot run here: {}", agent.name, failure.message);
    of_failure(ProblemCode::AgentUnavailable, Failure { message, ..failure })
}

fn unknown<T>(code: ProblemCode, what: &str, name: &str, known: &BTreeMap<String, T>) -> Refusal {
    unknown_among(code, what, name, &known.keys().cloned().collect::<Vec<_>>())
}

fn unknown_among(code: ProblemCode, what: &str, name: &str, known: &[String]) -> Refusal {
    let name: String = name.chars().take(NAME_CHARS).collect();
    let hint = if known.is_empty() {
        format!("the configuration has no {what}")
    } else {
        format!("known are: {}", known.join(", "))
    };
    Problem::new(code, format!("there is no {what} '{name}'"))
        .with_hint(hint)
        .with("known", known.to_vec())
        .into()
}

/// The agent of that name, one that is spelled out, or the default.
pub(crate) fn agent(catalog: &Catalog, wanted: Option<NameOr<AgentSpec>>) -> Answer<AgentSpec> {
    let name = match wanted {
        Some(NameOr::Inline(spec)) => {
            printable("agent.name", &spec.name)?;
            return Ok(*spec);
        }
        Some(NameOr::Name(name)) => name,
        None => catalog.default_agent.clone(),
    };
    let known = catalog.agents.get(&name).cloned();
    known.ok_or_else(|| unknown(ProblemCode::UnknownAgent, "agent", &name, &catalog.agents))
}

/// The environment of that name, or the default.
pub(crate) fn environment(catalog: &Catalog, wanted: Option<&str>) -> Answer<Environment> {
    let name = wanted.unwrap_or(&catalog.default_environment);
    let known = catalog.environments.get(name).cloned();
    known.ok_or_else(|| {
        unknown(
            ProblemCode::UnknownEnvironment,
            "environment",
            name,
            &catalog.environments,
        )
    })
}

fn backend(catalog: &Catalog, wanted: Option<String>) -> Answer<String> {
    let name = wanted.or_else(|| catalog.backends.first().cloned()).unwrap_or_default();
    if catalog.backends.contains(&name) {
        return Ok(name);
    }
    Err(unknown_among(
        ProblemCode::UnknownBackend,
        "sandbox backend",
        &name,
        &catalog.backends,
    ))
}

fn model(catalog: &Catalog, agent: &AgentSpec, wanted: Option<String>) -> Answer<String> {
    let named = wanted
        .or_else(|| agent.model.clone())
        .or_else(|| catalog.default_model.clone());
    let Some(model) = named else {
        return Err(Problem::new(
            ProblemCode::ModelRequired,
            "neither the request nor the agent nor the configuration names a model",
        )
        .with_hint("name one: \"model\": \"…\", or --model on the command line")
        .into());
    };
    printable("model", &model)?;
    Ok(model)
}

/// A name for people and logs: some printable characters, not too many.
pub(crate) fn printable(field: &str, text: &str) -> Answer<()> {
    let good = !text.trim().is_empty() && text.chars().count() <= NAME_CHARS && !text.chars().any(char::is_control);
    if good {
        return Ok(());
    }
    Err(Problem::new(
        ProblemCode::InvalidBody,
        format!("{field} must have 1 to {NAME_CHARS} printable characters"),
    )
    .with("field", field)
    .into())
}

fn limits(catalog: &Catalog, agent: &AgentSpec, wanted: Option<&LimitsPatch>) -> Answer<Limits> {
    let limits = catalog
        .limits
        .patched(&agent.limits)
        .patched(wanted.unwrap_or(&LimitsPatch::default()));
    let times = [
        ("wall_clock_seconds", limits.wall_clock_seconds),
        ("inactivity_seconds", limits.inactivity_seconds),
        ("approval_timeout_seconds", limits.approval_timeout_seconds),
    ];
    for (field, seconds) in times {
        if !(1..=LONGEST).contains(&seconds) {
            return Err(Problem::new(
                ProblemCode::InvalidLimits,
                format!("{field} is {seconds}; it must be from 1 to {LONGEST}"),
            )
            .with("field", format!("limits.{field}"))
            .into());
        }
    }
    // A patch of 0 or 1 would be raised to 2 silently; say so instead.
    let repeats = wanted
        .and_then(|patch| patch.repeat_limit)
        .or(agent.limits.repeat_limit);
    if repeats.is_some_and(|n| n < 2) {
        return Err(Problem::new(
            ProblemCode::InvalidLimits,
            "repeat_limit must be at least 2: the first use is no repetition",
        )
        .with("field", "limits.repeat_limit")
        .into());
    }
    Ok(limits)
}

/// The refusal of rules or an environment that do not compile.
pub(crate) fn invalid_policy(error: PolicyError) -> Refusal {
    let detail = error.to_string();
    let problem = Problem::new(ProblemCode::InvalidPolicy, detail);
    match error {
        PolicyError::Rule { agent, rule, .. } => problem.with("agent", agent).with("rule", rule),
        PolicyError::Environment { environment, .. } => problem.with("environment", environment),
    }
    .into()
}

/// Refuses options of a run where no run is asked for: they would be forgotten silently.
pub(crate) fn no_run_options(wanted: &CreateRun) -> Answer<()> {
    if *wanted == CreateRun::default() {
        return Ok(());
    }
    Err(refuse(
        ProblemCode::InvalidBody,
        "agent, environment, model, backend, limits, snapshot and publish belong to a run; leave them out where run is false",
    ))
}
