//! From a profile to a started process.

use std::collections::BTreeMap;

use bytes::Bytes;
use stockade_domain::{Failure, HarnessProfile};
use stockade_ports::{
    ExecRequest, Process,
    sandbox::{AGENT_HOME, AGENTS_DIR, WORKSPACE},
};

use crate::{live::Stage, mishap};

/// Values of a profile's variables.
struct Variables([(&'static str, String); 5]);

impl Variables {
    fn of(stage: &Stage<'_>) -> Result<Self, Failure> {
        let model = &stage.run.spec.model;
        // The name is put into JSON, TOML and whatever else a profile writes.
        if model.is_empty() || model.contains(|c: char| c.is_control() || "\"'\\`$".contains(c)) {
            let message =
                format!("the model's name {model:?} holds characters that cannot be put into configuration files");
            return Err(Failure::terminal("model_invalid", message).with_hint("use letters, digits and -_./:@"));
        }
        Ok(Self([
            ("${AGENTS_DIR}", AGENTS_DIR.to_owned()),
            ("${HOME}", AGENT_HOME.to_owned()),
            ("${WORKSPACE}", WORKSPACE.to_owned()),
            ("${MODEL}", model.clone()),
            ("${LLM_URL}", stage.config.llm_url.clone()),
        ]))
    }

    fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for (name, value) in &self.0 {
            filled = filled.replace(name, value);
        }
        filled
    }
}

/// Writes the profile's files and starts its command.
pub(super) async fn launch(stage: &Stage<'_>, profile: &HarnessProfile) -> Result<Process, Failure> {
    let variables = Variables::of(stage)?;
    let sandbox = &stage.place.sandbox;
    for file in &profile.files {
        let (path, content) = (variables.fill(&file.path), variables.fill(&file.content));
        sandbox
            .write_file(&path, Bytes::from(content), 0o644)
            .await
            .map_err(mishap::sandbox)?;
    }
    let mut env: BTreeMap<String, String> = profile
        .env
        .iter()
        .map(|(name, value)| (name.clone(), variables.fill(value)))
        .collect();
    env.entry("HOME".to_owned()).or_insert_with(|| AGENT_HOME.to_owned());
    stage.place.trusting.extend(&mut env);
    let argv: Vec<String> = profile.command.iter().map(|word| variables.fill(word)).collect();
    if argv.is_empty() {
        return Err(Failure::terminal("agent_invalid", "the agent's profile has no command"));
    }
    let request = ExecRequest {
        argv,
        env,
        cwd: Some(WORKSPACE.to_owned()),
        stdin: true,
        ..ExecRequest::default()
    };
    sandbox.exec(request).await.map_err(mishap::sandbox)
}
