//! Access policies of Open Envelope teams (`openenvelope/schema`, `team-v1.json`, `accessPolicy`).

use serde_json::Value;
use stockade_domain::{EgressRule, RuleVerdict};

use super::{
    Imported, checked, closed, opened,
    reader::{ImportError, Place},
};
use crate::egress::HostPattern;

const TOP: &[&str] = &[
    "$schema",
    "name",
    "slug",
    "version",
    "description",
    "visibility",
    "agents",
    "category",
    "tags",
    "pricing",
    "forkable",
    "forkedFrom",
    "timeout",
    "readme",
    "icon",
    "inputs",
    "outputs",
    "requiredSecrets",
    "requiredVariables",
    "changelog",
    "gates",
    "schedule",
    "pipeline",
    "metadata",
];
const AGENT: &[&str] = &[
    "key",
    "name",
    "title",
    "role",
    "adapterType",
    "reportsToKey",
    "capabilities",
    "prompt",
    "systemPrompt",
    "model",
    "modelConfig",
    "allowedHosts",
    "accessPolicy",
    "metadata",
];
const POLICY: &[&str] = &["accessPolicyVersion", "defaultAction", "rules"];
const RULE: &[&str] = &["host", "methods", "pathPrefix", "action", "reason"];

/// Reads a team's file and makes the environment of one agent: the one of that key, or the only
/// one; an access policy by itself is read as well.
///
/// # Errors
///
/// [`ImportError`] with the path of what cannot be read.
pub fn open_envelope(document: &Value, agent: Option<&str>) -> Result<Imported, ImportError> {
    let root = Place::root(document);
    if root.object()?.contains_key("accessPolicyVersion") {
        return policy(&root, "imported");
    }
    root.only(TOP)?;
    let agents = root.required("agents")?.list()?;
    let mut keys = Vec::new();
    for place in &agents {
        place.only(AGENT)?;
        keys.push(place.required("key")?.text()?);
    }
    let chosen = match (agent, agents.as_slice()) {
        (Some(key), agents) => agents
            .iter()
            .zip(&keys)
            .find(|(_, own)| **own == key)
            .map(|(place, _)| place),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some(place) = chosen else {
        let what = agent.map_or("name an agent with --agent".to_owned(), |key| {
            format!("no agent '{key}'")
        });
        return Err(root.wrong(&format!("{what}; the team has: {}", keys.join(", "))));
    };
    let key = place.required("key")?.text()?;
    match (place.field("accessPolicy")?, place.field("allowedHosts")?) {
        (Some(access), None) => policy(&access, key),
        (None, Some(_)) => hosts(place, key),
        (Some(_), Some(both)) => Err(both.wrong("an agent has allowedHosts or accessPolicy, not both")),
        (None, None) => Err(place.wrong("the agent has neither accessPolicy nor allowedHosts")),
    }
}

fn hosts(agent: &Place<'_>, key: &str) -> Result<Imported, ImportError> {
    let mut environment = closed(key);
    let hosts = agent.hosts_of("allowedHosts")?;
    if !hosts.is_empty() {
        environment.egress.push(EgressRule {
            name: Some("allowed-hosts".to_owned()),
            hosts,
            ..EgressRule::hosts(RuleVerdict::Allow, &[])
        });
    }
    checked(Imported {
        environment,
        notes: Vec::new(),
    })
}

fn policy(access: &Place<'_>, key: &str) -> Result<Imported, ImportError> {
    access.only(POLICY)?;
    let version = access.required("accessPolicyVersion")?;
    if version.text()? != "1" {
        return Err(version.wrong("expected \"1\""));
    }
    let mut environment = closed(key);
    let mut notes = Vec::new();
    let rules: Vec<EgressRule> = access
        .list_of("rules")?
        .iter()
        .map(|place| rule(place, &mut notes))
        .collect::<Result<_, _>>()?;
    if rules.iter().any(|rule| rule.verdict == RuleVerdict::Ask) {
        notes.insert(
            0,
            "'require_approval' means deny there; here it holds the request until a person decides".to_owned(),
        );
    }
    let default = access.field("defaultAction")?;
    let open = match default.as_ref().map(Place::text).transpose()? {
        Some("deny") => false,
        Some("allow") => true,
        None => {
            notes.push("defaultAction is missing; what no rule names is denied".to_owned());
            false
        }
        Some(_) => return Err(access.required("defaultAction")?.wrong("expected 'allow' or 'deny'")),
    };
    if open {
        opened(
            &mut environment,
            &mut notes,
            "defaultAction 'allow' lets everything through",
        );
        if rules
            .iter()
            .any(|rule| rule.verdict != RuleVerdict::Deny && rule.looks_at_requests())
        {
            notes.push("a host that a rule with methods or paths lets out reaches only those here".to_owned());
        }
    }
    environment.egress = in_order(rules, open, &mut notes);
    checked(Imported { environment, notes })
}

fn rule(place: &Place<'_>, notes: &mut Vec<String>) -> Result<EgressRule, ImportError> {
    place.only(RULE)?;
    let action = place.required("action")?;
    let verdict = match action.text()? {
        "allow" => RuleVerdict::Allow,
        "deny" => RuleVerdict::Deny,
        "require_approval" => RuleVerdict::Ask,
        _ => return Err(action.wrong("expected 'allow', 'deny' or 'require_approval'")),
    };
    let host = place.required("host")?;
    let pattern = HostPattern::parse(host.text()?).map_err(|why| host.wrong(&why))?;
    let mut methods = Vec::new();
    for method in place.list_of("methods")? {
        methods.push(method.text()?.to_ascii_uppercase());
    }
    // A star among the methods is every method, as no list is.
    if methods.iter().any(|method| method == "*") {
        methods.clear();
    }
    let mut paths = Vec::new();
    if let Some(prefix) = place.field("pathPrefix")? {
        let text = prefix.text()?;
        crate::target::PathPrefix::parse(text).map_err(|why| prefix.wrong(&why))?;
        if text != "/" {
            paths.push(text.to_owned());
            if !text.ends_with('/') {
                notes.push(format!(
                    "{}: '{text}' covers whole segments here: '{text}' and '{text}/…', not '{text}x'",
                    prefix.shown()
                ));
            }
        }
    }
    Ok(EgressRule {
        methods,
        paths,
        hosts: vec![pattern.to_string()],
        reason: place.text_of("reason")?.unwrap_or_default().to_owned(),
        ..EgressRule::hosts(verdict, &[])
    })
}

/// There the first rule that matches decides; here those that deny are asked first. A denial
/// after which nothing is let out that it covers has nothing to do here and would only close
/// what was let out before it, so it is left out; another stays, and says so where it now
/// closes more.
fn in_order(rules: Vec<EgressRule>, open: bool, notes: &mut Vec<String>) -> Vec<EgressRule> {
    let mut kept = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        if rule.verdict != RuleVerdict::Deny {
            kept.push(rule.clone());
            continue;
        }
        let meets =
            |other: &&EgressRule| other.verdict != RuleVerdict::Deny && may_meet(&other.hosts[0], &rule.hosts[0]);
        let needed = open || rules[at + 1..].iter().any(|later| meets(&later));
        if !needed {
            notes.push(format!(
                "rules[{at}] (deny {}) is left out: nothing after it lets anything out there",
                rule.hosts[0]
            ));
            continue;
        }
        if rules[..at].iter().any(|earlier| meets(&earlier)) {
            notes.push(format!(
                "rules[{at}] (deny {}) now also closes what rules before it let out: a denial always wins here",
                rule.hosts[0]
            ));
        }
        kept.push(rule.clone());
    }
    kept
}

/// Whether two host patterns can mean the same host.
fn may_meet(one: &str, other: &str) -> bool {
    let below = |pattern: &str, host: &str| pattern.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix));
    one == other || one == "*" || other == "*" || below(one, other) || below(other, one)
}
