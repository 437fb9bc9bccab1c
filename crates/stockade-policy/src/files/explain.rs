//! File rules in words.

use stockade_domain::RuleVerdict;

use super::FilePolicy;

/// A verdict and what it is about.
pub(crate) fn line(says: RuleVerdict, what: &str) -> String {
    let word = match says {
        RuleVerdict::Allow => "allow",
        RuleVerdict::Ask => "ask",
        RuleVerdict::Deny => "deny",
    };
    format!("{word:<6} {what}")
}

impl FilePolicy {
    /// The rules in words, one line each, in the order they are asked.
    pub fn explain(&self) -> Vec<String> {
        let rules = &self.rules;
        let mut lines: Vec<String> = self.deny.iter().map(|p| line(RuleVerdict::Deny, p.text())).collect();
        lines.extend(self.allow.iter().map(|p| {
            let what = format!("{}, and nothing that is not allowed", p.text());
            line(RuleVerdict::Allow, &what)
        }));
        let listed = format!("the curated list of {} sensitive paths", self.sensitive.len());
        lines.push(line(rules.sensitive, &listed));
        lines.extend(self.ask.iter().map(|p| {
            let what = format!("{} (when exported)", p.text());
            line(RuleVerdict::Ask, &what)
        }));
        for (says, what) in [
            (rules.outside_links, "links that lead out of the workspace"),
            (rules.submodules, "submodules"),
            (rules.executables, "files that become executable"),
        ] {
            lines.push(line(says, &format!("{what} (when exported)")));
        }
        for (limit, what) in [
            (rules.max_file_bytes, "bytes in a file"),
            (rules.max_files, "files"),
            (rules.max_total_bytes, "bytes altogether"),
        ] {
            lines.extend(limit.map(|limit| format!("at most {limit} {what}")));
        }
        lines
    }
}
