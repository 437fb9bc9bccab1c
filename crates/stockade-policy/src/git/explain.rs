//! Rules for git in words.

use stockade_domain::RuleVerdict;

use crate::{files::line, policy::Policy};

impl Policy {
    /// The environment's rules for git in words, one line each.
    pub fn explain_git(&self) -> Vec<String> {
        let rules = self.git.rules();
        let said = |yes: bool| if yes { RuleVerdict::Allow } else { RuleVerdict::Deny };
        let mut lines = vec![line(said(rules.fetch), "fetching")];
        lines.extend(rules.push.iter().map(|prefix| {
            let what = format!("pushing to {prefix} and below, without losing commits");
            line(RuleVerdict::Allow, &what)
        }));
        for (says, what) in [
            (rules.elsewhere, "pushing to other branches"),
            (rules.tags, "pushing tags"),
            (rules.delete, "removing references"),
            (rules.force, "updates that lose commits"),
            (rules.pull_requests, "opening pull requests"),
        ] {
            lines.push(line(says, what));
        }
        for (most, what) in [
            (u64::from(rules.max_refs.get()), "references"),
            (u64::from(rules.max_commits.get()), "commits"),
            (rules.max_pack_bytes.get(), "bytes"),
        ] {
            lines.push(format!("at most {most} {what} in a push"));
        }
        if !rules.hosts.is_empty() {
            lines.push(format!("read at {}", rules.hosts.join(", ")));
        }
        lines
    }
}
