//! An agent's rules, compiled: checked once, with host patterns in canonical form.

use serde_json::Value;
use stockade_domain::{Action, ActionKind, AgentSpec, PolicyVerdict, Rule, RuleMatch, RuleVerdict, Verdict};

use crate::{egress::Question, host::Host, pattern, policy::PolicyError};

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
        let applies = |rule: &&Rule| applies(&rule.when, action, host.as_deref());
        self.rules.iter().find(applies).map(said)
    }

    /// Whether a rule looks at requests.
    pub(crate) fn look_at_requests(&self) -> bool {
        self.rules.iter().any(|rule| looks_at_requests(&rule.when))
    }

    /// What the rules say to one of the hosts an egress action is about.
    pub(crate) fn narrow(&self, operation: &str, host: &str, question: &Question<'_>) -> Narrowed {
        let mut waiting: Option<&Rule> = None;
        for rule in &self.rules {
            match fits(&rule.when, operation, host, question) {
                Fit::No => {}
                Fit::Yes if rule.verdict != RuleVerdict::Deny && waiting.is_some() => break,
                Fit::Yes => return Narrowed::Said(said(rule)),
                // While a name is looked up nothing is refused that may be allowed later.
                Fit::Perhaps if question.port.is_none() && rule.verdict == RuleVerdict::Deny => {}
                Fit::Perhaps if question.port.is_none() => return Narrowed::Silent,
                Fit::Perhaps => {
                    waiting = waiting.or(Some(rule));
                    if rule.verdict != RuleVerdict::Deny {
                        break;
                    }
                }
            }
        }
        waiting.map_or(Narrowed::Silent, |rule| Narrowed::Request(rule.id.clone()))
    }
}

/// What an agent's rules say to an egress action.
#[derive(Debug)]
pub(crate) enum Narrowed {
    /// Nothing; the environment's answer stands.
    Silent,
    /// This.
    Said(PolicyVerdict),
    /// Only a request can tell, as this rule looks at it.
    Request(String),
}

enum Fit {
    Yes,
    Perhaps,
    No,
}

fn said(rule: &Rule) -> PolicyVerdict {
    PolicyVerdict {
        verdict: match rule.verdict {
            RuleVerdict::Allow => Verdict::Allow,
            RuleVerdict::Ask => Verdict::Hold,
            RuleVerdict::Deny => Verdict::Deny,
        },
        rule: rule.id.clone(),
        reason: rule.reason.clone(),
    }
}

/// Whether only a request shows if a rule applies. One about a path without a host or kind is about
/// files and tools.
fn looks_at_requests(when: &RuleMatch) -> bool {
    let about_egress = when.kind.map_or(when.host.is_some(), |kind| kind == ActionKind::Egress);
    about_egress && (when.path.is_some() || when.method.is_some())
}

/// Whether a rule is about an egress action, as far as that is known.
fn fits(when: &RuleMatch, operation: &str, host: &str, question: &Question<'_>) -> Fit {
    let other_kind = when.kind.is_some_and(|kind| kind != ActionKind::Egress);
    let other_host = when
        .host
        .as_deref()
        .is_some_and(|pattern| !pattern::matches(pattern, host));
    let port_differs = question.port.is_some() && when.port.is_some() && when.port != question.port;
    if other_kind || other_host || port_differs || when.command.is_some() {
        return Fit::No;
    }
    let looks_at_requests = looks_at_requests(when);
    if !looks_at_requests && (when.path.is_some() || when.method.is_some()) {
        return Fit::No;
    }
    let step = if looks_at_requests { "request" } else { operation };
    if when
        .tool
        .as_deref()
        .is_some_and(|pattern| !pattern::matches(pattern, step))
    {
        return Fit::No;
    }
    match (&question.request, looks_at_requests) {
        (None, true) => Fit::Perhaps,
        (None, false) if question.port.is_none() && when.port.is_some() => Fit::Perhaps,
        (_, false) => Fit::Yes,
        (Some(request), true) => {
            let method = when
                .method
                .as_deref()
                .is_none_or(|own| own.eq_ignore_ascii_case(request.method));
            let path = when
                .path
                .as_deref()
                .is_none_or(|pattern| pattern::matches(pattern, request.path.as_str()));
            if method && path { Fit::Yes } else { Fit::No }
        }
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
    if rule.when.port == Some(0) {
        return Err("a port is a number from 1 to 65535".to_owned());
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
        && when
            .port
            .is_none_or(|port| action.args.get("port").and_then(Value::as_u64) == Some(u64::from(port)))
        && fits(&when.method, text("method"))
}
