use stockade_domain::{AgentKind, AgentSpec};
use stockade_policy::Policy;

#[test]
fn every_profile_parses_compiles_and_is_complete() {
    let profiles = stockade_runner::profiles();
    let names: Vec<&str> = profiles.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["builtin", "claude", "codex", "opencode"]);
    for (name, yaml) in profiles {
        let spec: AgentSpec = serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(spec.name, name);
        let environment = stockade_domain::Environment::named("x", stockade_domain::NetworkLevel::None);
        Policy::compile(&spec, &environment).unwrap();
        let AgentKind::Harness(profile) = spec.kind else {
            continue;
        };
        assert!(!profile.command.is_empty() && !profile.requires.is_empty(), "{name}");
        assert!(profile.install.contains("${AGENTS_DIR}"), "{name}");
        let texts = profile.env.values().chain(profile.files.iter().map(|f| &f.content));
        let all: String = texts.cloned().collect();
        assert!(all.contains("${LLM_URL}") && all.contains("${MODEL}"), "{name}");
    }
}
