//! Small, valid values to test with.

use stockade_domain::{
    AgentKind, AgentSpec, BudgetLimits, Digest, Environment, Limits, LimitsPatch, NetworkLevel, RunSpec, SnapshotPlan,
};

/// Limits without any cap on the budget and with times that no test waits for.
pub fn limits() -> Limits {
    Limits {
        budget: BudgetLimits::default(),
        ..Limits::default()
    }
}

/// A run of the built-in loop without a repository.
pub fn spec(limits: Limits) -> RunSpec {
    RunSpec {
        prompt: "make the tests pass".to_owned(),
        repo: None,
        agent: AgentSpec {
            name: "sample".to_owned(),
            description: String::new(),
            kind: AgentKind::Builtin { tools: Vec::new() },
            model: None,
            instructions: None,
            rules: Vec::new(),
            limits: LimitsPatch::default(),
        },
        environment: Environment::named("sample", NetworkLevel::None),
        model: "scripted".to_owned(),
        backend: "native".to_owned(),
        snapshot: SnapshotPlan::default(),
        git_host: None,
        publish: None,
        limits,
        policy_version: policy_version(),
    }
}

/// The version of the policy in [`spec`].
pub fn policy_version() -> Digest {
    Digest::of_bytes(b"sample policy")
}
