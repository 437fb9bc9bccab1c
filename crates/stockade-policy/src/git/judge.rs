//! The verdict on a fetch and on a push.

use serde::Deserialize;
use serde_json::Value;
use stockade_domain::{
    Action, ActionKind, PolicyVerdict, RefName, RefRules, RefUpdate, RuleVerdict, RunId, Verdict, git::UpdateKind,
};

use super::facts::History;

/// An environment's rules for git, for one run.
#[derive(Debug, Clone)]
pub struct GitPolicy {
    rules: RefRules,
    run: RunId,
}

/// A reference as the arguments of a push have it.
#[derive(Deserialize)]
struct Row {
    #[serde(flatten)]
    update: RefUpdate,
    #[serde(default)]
    history: Option<History>,
}

impl GitPolicy {
    /// The rules for one run.
    pub fn new(rules: &RefRules, run: RunId) -> Self {
        Self {
            rules: rules.clone(),
            run,
        }
    }

    /// The rules.
    pub fn rules(&self) -> &RefRules {
        &self.rules
    }

    /// Whether any push at all can be allowed, so that asking for one makes sense.
    pub fn may_push(&self) -> bool {
        let open = |verdict: RuleVerdict| verdict != RuleVerdict::Deny;
        !self.rules.push.is_empty() || open(self.rules.elsewhere) || open(self.rules.tags)
    }

    /// What the commands of a push alone say about each reference; the strictest answer of each.
    ///
    /// An update of an existing reference passes here whatever it does to the history: that is
    /// only seen in the pack.
    pub fn commands(&self, updates: &[RefUpdate]) -> Vec<PolicyVerdict> {
        updates.iter().map(|update| self.command(update)).collect()
    }

    /// What the rules say to an action; `None` when it is no fetch, push or pull request.
    pub fn judge(&self, action: &Action) -> Option<PolicyVerdict> {
        match (action.kind, action.operation.as_str()) {
            (ActionKind::Egress, "fetch") => Some(self.fetch()),
            (ActionKind::Export, "push") => Some(self.push(&action.args)),
            (ActionKind::Export, "pull_request") => Some(says(
                self.rules.pull_requests,
                "env.git.pull_requests",
                "it would open a pull request".to_owned(),
            )),
            _ => None,
        }
    }

    fn fetch(&self) -> PolicyVerdict {
        match self.rules.fetch {
            true => allow("env.git.fetch", "the environment allows reading repositories"),
            false => deny(
                "env.git.fetch",
                "this environment does not allow fetching through git".to_owned(),
            ),
        }
    }

    fn push(&self, args: &Value) -> PolicyVerdict {
        if let Some(fault) = args.get("fault") {
            let words = fault.as_str().unwrap_or("the push cannot be read");
            return deny("stockade.git", words.to_owned());
        }
        let rows = args.get("refs").and_then(|rows| Vec::<Row>::deserialize(rows).ok());
        let Some(rows) = rows.filter(|rows| !rows.is_empty()) else {
            return deny(
                "stockade.git",
                "the push does not say which references it moves".to_owned(),
            );
        };
        let updates: Vec<RefUpdate> = rows.iter().map(|row| row.update.clone()).collect();
        let mut found = self.commands(&updates);
        if args.get("inspected").and_then(Value::as_bool) != Some(true) {
            found.push(deny(
                "stockade.git",
                "the push was refused before its commits were read".to_owned(),
            ));
            return all(found);
        }
        found.extend(rows.iter().map(|row| self.history(row)));
        found.extend(self.amounts(args));
        all(found)
    }

    fn command(&self, update: &RefUpdate) -> PolicyVerdict {
        let place = self.place(&update.name);
        let gone = match update.kind() {
            UpdateKind::Delete => says(
                self.rules.delete,
                "env.git.delete",
                format!("{} would be removed", update.name),
            ),
            UpdateKind::Create | UpdateKind::Update => return place,
        };
        all(vec![gone, place])
    }

    fn place(&self, name: &RefName) -> PolicyVerdict {
        if name.is_tag() {
            return says(self.rules.tags, "env.git.tags", format!("{name} is a tag"));
        }
        if self.rules.push.iter().any(|prefix| prefix.covers(name, self.run)) {
            return allow("env.git.push", "the run may push there");
        }
        let own: Vec<String> = self.rules.push.iter().map(|prefix| prefix.of(self.run)).collect();
        let where_to = match own.is_empty() {
            true => "this run has no branch of its own to push to".to_owned(),
            false => format!("this run may push to {} and below", own.join(", ")),
        };
        let words = format!("{name} is not this run's branch; {where_to}");
        // Other references (notes, replacements, a forge's own) mean more than a branch does.
        match name.as_branch() {
            Some(_) => says(self.rules.elsewhere, "env.git.elsewhere", words),
            None => deny("env.git.push", words),
        }
    }

    fn history(&self, row: &Row) -> PolicyVerdict {
        let name = &row.update.name;
        let expected = row.update.kind();
        match (row.history, expected) {
            (Some(History::New), UpdateKind::Create) | (Some(History::Removed), UpdateKind::Delete) => {
                allow("env.git.push", "no history is rewritten")
            }
            (Some(History::FastForward), UpdateKind::Update) => allow("env.git.push", "a fast-forward"),
            (Some(History::Rewritten), UpdateKind::Update) => says(
                self.rules.force,
                "env.git.force",
                format!("{name} would lose commits (not a fast-forward)"),
            ),
            (Some(History::Unknown), UpdateKind::Update) => says(
                self.rules.force,
                "env.git.force",
                format!(
                    "{name} stands at a commit that is not known here, so it could lose commits; push to a new branch"
                ),
            ),
            _ => deny("stockade.git", format!("nobody looked at the history of {name}")),
        }
    }

    fn amounts(&self, args: &Value) -> Vec<PolicyVerdict> {
        let number = |key: &str| args.get(key).and_then(Value::as_u64);
        let refs = args
            .get("refs")
            .and_then(Value::as_array)
            .map_or(u64::MAX, |refs| refs.len() as u64);
        let mut found = Vec::new();
        let mut limit = |is: Option<u64>, most: u32, rule: &str, what: &str| match is {
            Some(is) if is <= u64::from(most) => {}
            Some(is) => found.push(deny(
                rule,
                format!("the push has {is} {what}; the environment allows {most}"),
            )),
            None => found.push(deny(
                "stockade.git",
                format!("the push does not say how many {what} it has"),
            )),
        };
        limit(Some(refs), self.rules.max_refs.get(), "env.git.max_refs", "references");
        limit(
            number("commits"),
            self.rules.max_commits.get(),
            "env.git.max_commits",
            "commits",
        );
        limit(
            number("stray_objects"),
            0,
            "stockade.git.stray",
            "objects that none of its commits needs",
        );
        found
    }
}

fn allow(rule: &str, reason: &str) -> PolicyVerdict {
    PolicyVerdict {
        verdict: Verdict::Allow,
        rule: rule.to_owned(),
        reason: reason.to_owned(),
    }
}

pub(super) fn deny(rule: &str, reason: String) -> PolicyVerdict {
    PolicyVerdict {
        verdict: Verdict::Deny,
        rule: rule.to_owned(),
        reason,
    }
}

fn says(verdict: RuleVerdict, rule: &str, reason: String) -> PolicyVerdict {
    let verdict = match verdict {
        RuleVerdict::Allow => Verdict::Allow,
        RuleVerdict::Ask => Verdict::Hold,
        RuleVerdict::Deny => Verdict::Deny,
    };
    PolicyVerdict {
        verdict,
        rule: rule.to_owned(),
        reason,
    }
}

/// What several answers come to; without any, a refusal.
fn all(found: Vec<PolicyVerdict>) -> PolicyVerdict {
    strictest(found).unwrap_or_else(|| deny("stockade.git", "nothing allows it".to_owned()))
}

/// The first of the strictest.
pub(crate) fn strictest(found: impl IntoIterator<Item = PolicyVerdict>) -> Option<PolicyVerdict> {
    let weight = |answer: &PolicyVerdict| match answer.verdict {
        Verdict::Allow => 0,
        Verdict::Hold => 1,
        Verdict::Deny | Verdict::Stop => 2,
    };
    found
        .into_iter()
        .reduce(|first, next| if weight(&next) > weight(&first) { next } else { first })
}
