//! The agents that come with Stockade, as data.

/// Names and YAML texts (`AgentSpec`) of the agents that come with Stockade.
pub fn profiles() -> Vec<(&'static str, &'static str)> {
    vec![
        ("builtin", include_str!("../agents/builtin.yaml")),
        ("claude", include_str!("../agents/claude.yaml")),
        ("codex", include_str!("../agents/codex.yaml")),
        ("opencode", include_str!("../agents/opencode.yaml")),
    ]
}
