//! A run's policy: its agent's rules over its environment's.

use serde_json::{Value, json};
use stockade_domain::{
    Action, ActionKind, AgentSpec, Digest, Environment, PolicyVerdict, Rule, RuleMatch, RuleVerdict, Verdict, digest_of,
};

use crate::pattern;

/// Why rules do not compile. Nothing runs under rules that do not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A rule is wrong.
    #[error("rule '{rule}' of agent '{agent}': {cause}")]
    Rule {
        /// The agent.
        agent: String,
        /// The rule's id.
        rule: String,
        /// What is wrong and what to do.
        cause: String,
    },
    /// The environment is wrong.
    #[error("environment '{environment}': {cause}")]
    Environment {
        /// Its name.
        environment: String,
        /// What is wrong and what to do.
        cause: String,
    },
}

/// What a run may do.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Vec<Rule>,
    version: Digest,
}

impl Policy {
    /// Compiles the policy of a run.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the rule or environment that is wrong.
    pub fn compile(agent: &AgentSpec, environment: &Environment) -> Result<Self, PolicyError> {
        for rule in &agent.rules {
            check(agent, rule)?;
        }
        let version = digest_of(&json!({ "rules": agent.rules, "environment": environment }));
        Ok(Self {
            rules: agent.rules.clone(),
            version,
        })
    }

    /// Digest of everything that decides; approvals are bound to it.
    pub fn version(&self) -> Digest {
        self.version
    }

    /// What the policy says to an action.
    pub fn evaluate(&self, action: &Action) -> PolicyVerdict {
        match self.rules.iter().find(|rule| applies(&rule.when, action)) {
            Some(rule) => PolicyVerdict {
                verdict: match rule.verdict {
                    RuleVerdict::Allow => Verdict::Allow,
                    RuleVerdict::Ask => Verdict::Hold,
                    RuleVerdict::Deny => Verdict::Deny,
                },
                rule: rule.id.clone(),
                reason: rule.reason.clone(),
            },
            None => default_verdict(action.kind),
        }
    }
}

fn default_verdict(kind: ActionKind) -> PolicyVerdict {
    let (verdict, reason) = match kind {
        ActionKind::Tool => (Verdict::Allow, "tools run inside the sandbox"),
        ActionKind::Model => (Verdict::Allow, "model calls go through the gateway"),
        ActionKind::Export => (Verdict::Allow, "the change is what the run is for"),
        ActionKind::Permission => (Verdict::Hold, "the agent asks and no rule answers"),
        ActionKind::Egress => (Verdict::Deny, "no rule allows this destination"),
        ActionKind::Credential => (Verdict::Deny, "no rule lets the agent use this secret"),
    };
    PolicyVerdict {
        verdict,
        rule: format!("default.{}", kind.as_str()),
        reason: reason.to_owned(),
    }
}

fn check(agent: &AgentSpec, rule: &Rule) -> Result<(), PolicyError> {
    let wrong = |cause: &str| {
        Err(PolicyError::Rule {
            agent: agent.name.clone(),
            rule: rule.id.clone(),
            cause: cause.to_owned(),
        })
    };
    if rule.id.is_empty() || rule.id.starts_with("stockade.") || rule.id.starts_with("default.") {
        return wrong("a rule needs an id of its own, not starting with 'stockade.' or 'default.'");
    }
    if rule.when == RuleMatch::default() {
        return wrong("it matches everything; name a kind, tool, path, command or host ('*' is allowed)");
    }
    Ok(())
}

fn applies(when: &RuleMatch, action: &Action) -> bool {
    let text = |key: &str| action.args.get(key).and_then(Value::as_str);
    let fits = |pattern: &Option<String>, text: Option<&str>| match (pattern, text) {
        (None, _) => true,
        (Some(pattern), Some(text)) => pattern::matches(pattern, text),
        (Some(_), None) => false,
    };
    when.kind.is_none_or(|kind| kind == action.kind)
        && fits(&when.tool, Some(&action.operation))
        && fits(&when.path, text("path"))
        && fits(&when.command, text("command"))
        && fits(&when.host, text("host"))
}
