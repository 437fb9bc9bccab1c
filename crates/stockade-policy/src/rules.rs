//! An agent's rules, compiled: checked once, with host patterns in canonical form.

use serde_json::Value;
use stockade_domain::{Action, AgentSpec, PolicyVerdict, Rule, RuleMatch, RuleVerdict, Verdict};

use crate::{host::Host, pattern, policy::PolicyError};

/// Rule ids that Stockade keeps for itself.
const RESERVED: [&str; 3] = ["stockade.", "default.", "env."];

/// The rules of an agent in order.
#[derive(Debug, Clone)]
pub(crate) struct AgentRules {
    rules: Vec<Rule>,
}

impl AgentRules {
    pub(crate) fn compile(agent: &AgentSpec) -> Result<Self, PolicyError> {
        let rules = agent
            .rules
            .iter()
            .map(|rule| checked(rule).map_err(|cause| wrong(agent, rule, cause)))
            .collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// What the first matching rule says, if one matches.
    pub(crate) fn verdict(&self, action: &Action) -> Option<PolicyVerdict> {
        let host = action.args.get("host").and_then(Value::as_str).map(canonical);
        self.verdict_for(action, host.as_deref())
    }

    /// The same for one of the hosts an action is about.
    pub(crate) fn verdict_for(&self, action: &Action, host: Option<&str>) -> Option<PolicyVerdict> {
        let rule = self.rules.iter().find(|rule| applies(&rule.when, action, host))?;
        Some(PolicyVerdict {
            verdict: match rule.verdict {
                RuleVerdict::Allow => Verdict::Allow,
                RuleVerdict::Ask => Verdict::Hold,
                RuleVerdict::Deny => Verdict::Deny,
            },
            rule: rule.id.clone(),
            reason: rule.reason.clone(),
        })
    }
}

fn wrong(agent: &AgentSpec, rule: &Rule, cause: String) -> PolicyError {
    PolicyError::Rule {
        agent: agent.name.clone(),
        rule: rule.id.clone(),
        cause,
    }
}

fn checked(rule: &Rule) -> Result<Rule, String> {
    if rule.id.is_empty() || RESERVED.iter().any(|prefix| rule.id.starts_with(prefix)) {
        return Err("a rule needs an id of its own, not starting with 'stockade.', 'default.' or 'env.'".to_owned());
    }
    if rule.when == RuleMatch::default() {
        return Err("it matches everything; name a kind, tool, path, command or host ('*' is allowed)".to_owned());
    }
    let host = rule.when.host.as_deref().map(host_pattern).transpose()?;
    Ok(Rule {
        when: RuleMatch {
            host,
            ..rule.when.clone()
        },
        ..rule.clone()
    })
}

/// A host pattern in the form hosts are compared in, so that no spelling slips past it.
fn host_pattern(text: &str) -> Result<String, String> {
    let wrong = |cause: &str| format!("host '{}': {cause}", text.escape_default());
    if !text.contains('*') {
        return Host::parse(text)
            .map(|host| host.to_string())
            .map_err(|error| wrong(&error.to_string()));
    }
    if let Some(suffix) = text.strip_prefix("*.").filter(|suffix| !suffix.contains('*')) {
        return Host::parse(suffix)
            .map(|host| format!("*.{host}"))
            .map_err(|error| wrong(&error.to_string()));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '*' | ':');
    if text.is_empty() || !text.chars().all(plain) {
        return Err(wrong("with '*' inside, use letters, digits, '-' and '.' only"));
    }
    Ok(text.to_ascii_lowercase().trim_end_matches('.').to_owned())
}

/// The host an action names, canonical where it is one.
fn canonical(text: &str) -> String {
    Host::parse(text).map_or_else(|_| text.trim().to_lowercase(), |host| host.to_string())
}

fn applies(when: &RuleMatch, action: &Action, host: Option<&str>) -> bool {
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
        && fits(&when.host, host)
}
