//! `stockade env import`: somebody else's access list as a piece of this configuration.

use serde_json::{Map, Value, json};
use stockade_domain::{Environment, NetworkLevel};
use stockade_policy::import::{self, Imported};

use crate::{
    cli::Import,
    exit::{Complaint, Exit, Outcome},
    terminal::{self, out, say, style},
    yaml,
};

pub(crate) fn execute(options: &Import, json: bool) -> Outcome {
    let (path, read) = match (&options.open_envelope, &options.smokescreen) {
        (Some(path), _) => (
            path,
            import::open_envelope(&yaml::read(path)?, options.agent.as_deref()),
        ),
        (None, Some(path)) => (path, import::smokescreen(&yaml::read(path)?, options.role.as_deref())),
        (None, None) => return Err(Complaint::usage("name a file with --open-envelope or --smokescreen").into()),
    };
    let mut imported = read.map_err(|error| Complaint::usage(format!("{}: {error}", path.display())))?;
    if let Some(name) = &options.name {
        imported.environment.name.clone_from(name);
    }
    let environment = told(&imported.environment)?;
    if json {
        terminal::json(&json!({ "environment": environment, "notes": imported.notes }))?;
    } else {
        out(yaml::write(&json!({ "environments": [environment] })).trim_end());
        notes(&imported);
    }
    Ok(Exit::Done)
}

fn notes(imported: &Imported) {
    for note in &imported.notes {
        say(&format!("note: {}", style::clean(note)));
    }
    say("put it under 'environments' of the configuration, then: stockade config check");
}

/// The environment without what it would have anyway.
fn told(environment: &Environment) -> anyhow::Result<Value> {
    let plain = serde_json::to_value(Environment::named(&environment.name, NetworkLevel::default()))?;
    let Value::Object(whole) = serde_json::to_value(environment)? else {
        anyhow::bail!("an environment is not written as fields");
    };
    let said = |(key, value): &(String, Value)| key == "name" || key == "network" || plain.get(key) != Some(value);
    Ok(Value::Object(whole.into_iter().filter(said).collect::<Map<_, _>>()))
}
