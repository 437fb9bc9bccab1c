//! File rules: what Stockade's own tools may write and what may be exported.
//!
//! A write is judged by its path and size before it happens, so that an agent learns early.
//! What a program inside writes by itself nobody judges: it ends with the sandbox. The
//! boundary is the export, where every file of the change is judged as the host computed it.
//!
//! | `args` of a write | Meaning |
//! |---|---|
//! | `path` | where to |
//! | `content`, `new_string`, `bytes` | what is written, or how much; the largest counts |
//! | `written` | `files` and `bytes` the run will have written with this write, where a limit is passed |
//!
//! What an export has in `args` is in [`to_args`].

mod explain;
mod export;
mod pattern;
mod place;
mod sensitive;

use serde_json::Value;
use stockade_domain::{Action, ActionKind, FileRules, PathPattern, PolicyVerdict, RuleVerdict, Verdict};

pub(crate) use explain::line;
#[cfg(test)]
pub(crate) use export::from_args as read_args;
pub use export::{ExportedFile, ExportedKind, LONGEST_TARGET, from_args, to_args};
pub use place::{Place, WORKSPACE};
pub use sensitive::SENSITIVE_VERSION;

use pattern::{Case, Names, Pattern};
use place::leads_out;
use sensitive::SENSITIVE;

/// Operations of Stockade's tools that write a file.
const WRITES: [&str; 3] = ["write_file", "edit_file", "fs/write_text_file"];
/// Questions of a harness that are about changing a file (kinds of the Agent Client Protocol).
const CHANGES: [&str; 3] = ["edit", "delete", "move"];
/// Most characters of paths in one reason.
const REASON: usize = 16 << 10;

/// An environment's file rules, compiled.
#[derive(Debug, Clone)]
pub struct FilePolicy {
    rules: FileRules,
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    ask: Vec<Pattern>,
    sensitive: Vec<(Pattern, &'static str)>,
}

/// Which way a path is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Written inside the sandbox.
    Write,
    /// Leaving it.
    Export,
}

/// What one rule says to one path or number.
struct Finding {
    verdict: Verdict,
    rule: String,
    words: String,
}

impl Finding {
    fn deny(rule: String, words: String) -> Self {
        Self {
            verdict: Verdict::Deny,
            rule,
            words,
        }
    }
}

impl FilePolicy {
    /// Compiles the rules of an environment.
    pub(crate) fn compile(rules: &FileRules) -> Result<Self, String> {
        let compile = |patterns: &[PathPattern], case: Case| -> Vec<Pattern> {
            patterns.iter().map(|pattern| Pattern::new(pattern, case)).collect()
        };
        let mut sensitive = Vec::new();
        for category in SENSITIVE {
            for text in category.patterns {
                let pattern: PathPattern = text.parse().map_err(|error| format!("the curated list: {error}"))?;
                sensitive.push((Pattern::new(&pattern, Case::Folded), category.who));
            }
        }
        Ok(Self {
            allow: compile(&rules.allow, Case::Exact),
            deny: compile(&rules.deny, Case::Folded),
            ask: compile(&rules.ask, Case::Folded),
            sensitive,
            rules: rules.clone(),
        })
    }

    /// The curated list, where it decides anything; part of the policy's version.
    pub(crate) fn list(&self) -> Value {
        if self.rules.sensitive == RuleVerdict::Allow {
            return Value::Null;
        }
        let patterns: Vec<&str> = self.sensitive.iter().map(|(pattern, _)| pattern.text()).collect();
        serde_json::json!({ "version": SENSITIVE_VERSION, "patterns": patterns })
    }

    /// Whether any rule can refuse a write because of where it goes.
    pub fn looks_at_writes(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty() || self.rules.sensitive == RuleVerdict::Deny
    }

    /// Whether so much written passes a limit.
    pub fn exceeds(&self, files: u64, bytes: u64) -> bool {
        self.totals(files, bytes, "").is_some()
    }

    /// What refuses a tool's or a harness's write, if anything does.
    pub fn judge_write(&self, action: &Action) -> Option<PolicyVerdict> {
        let operation = action.operation.as_str();
        let writes = match action.kind {
            ActionKind::Tool => WRITES.contains(&operation),
            ActionKind::Permission => CHANGES.contains(&operation),
            _ => false,
        };
        if !writes {
            return None;
        }
        let path = action.args.get("path").and_then(Value::as_str);
        let place = match (path, action.kind) {
            (Some(path), _) => Place::of(path),
            // A question need not name a path; what is then written is judged when it leaves.
            (None, ActionKind::Permission) => return None,
            (None, _) => Err("the action names no path".to_owned()),
        };
        let found = match place {
            Ok(place) => self
                .path(&place, false, Way::Write)
                .or_else(|| self.size(place.as_str(), size_of(&action.args)))
                .or_else(|| self.written(&action.args)),
            Err(cause) => Some(Finding::deny("stockade.path".to_owned(), cause)),
        }?;
        Some(PolicyVerdict {
            verdict: found.verdict,
            rule: found.rule,
            reason: found.words,
        })
    }

    /// What the rules say to an export; `None` when it is none of a change, or nothing objects.
    pub(crate) fn judge_export(&self, action: &Action) -> Option<PolicyVerdict> {
        if action.operation != "diff" && action.args.get("files").is_none() {
            return None;
        }
        let Some(files) = from_args(&action.args) else {
            return Some(PolicyVerdict {
                verdict: Verdict::Deny,
                rule: "stockade.files".to_owned(),
                reason: "the export does not say which files it brings out".to_owned(),
            });
        };
        let mut findings: Vec<Finding> = files.iter().filter_map(|file| self.exported(file)).collect();
        let kept = files.iter().filter(|file| file.kind != ExportedKind::Removed);
        let (mut count, mut bytes) = (0_u64, 0_u64);
        for file in kept {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(file.bytes.unwrap_or(0));
        }
        findings.extend(self.totals(count, bytes, "the change has"));
        summary(&findings, files.len())
    }

    /// The strictest answer to one file of a change; of equals the first.
    fn exported(&self, file: &ExportedFile) -> Option<Finding> {
        let place = match Place::in_tree(&file.path) {
            Ok(place) => place,
            Err(cause) => return Some(Finding::deny("stockade.path".to_owned(), cause)),
        };
        let (special, told) = match &file.kind {
            ExportedKind::Link(target) => {
                let out = target.as_deref().is_none_or(|target| leads_out(&place, target));
                let shown = target.as_deref().unwrap_or("somewhere far away");
                let told = format!("a link to '{}', out of the workspace", shown.escape_debug());
                (out.then_some(("outside_links", self.rules.outside_links)), told)
            }
            ExportedKind::Submodule => (Some(("submodules", self.rules.submodules)), "a submodule".to_owned()),
            ExportedKind::Executable => (
                Some(("executables", self.rules.executables)),
                "becomes executable".to_owned(),
            ),
            ExportedKind::File | ExportedKind::Removed => (None, String::new()),
        };
        // A link or a submodule can stand for a whole directory.
        let directory = matches!(file.kind, ExportedKind::Link(_) | ExportedKind::Submodule);
        let special = special.and_then(|(name, says)| {
            Some(Finding {
                verdict: verdict(says, Way::Export)?,
                rule: format!("env.files.{name}"),
                words: format!("{} ({told})", quoted(&file.path)),
            })
        });
        let found = [
            self.path(&place, directory, Way::Export),
            self.size(&file.path, file.bytes.unwrap_or(0)),
            special,
        ];
        let mut found: Vec<Finding> = found.into_iter().flatten().collect();
        let strictest = found.iter().position(|finding| finding.verdict == Verdict::Deny);
        (!found.is_empty()).then(|| found.swap_remove(strictest.unwrap_or(0)))
    }

    /// What the rules say to a path. `directory`: what is there can stand for a directory.
    fn path(&self, place: &Place, directory: bool, way: Way) -> Option<Finding> {
        let names = Names::of_place(place);
        let hit = |pattern: &&Pattern| pattern.covers(&names) || (directory && pattern.reaches_below(&names));
        let path = quoted(place.as_str());
        if let Some(pattern) = self.deny.iter().find(hit) {
            let rule = format!("env.files.deny:{}", pattern.text());
            return Some(Finding::deny(
                rule,
                format!("{path} (the environment denies {})", pattern.text()),
            ));
        }
        let allowed = |pattern: &Pattern| place.is_inside() && pattern.covers(&names);
        if !self.allow.is_empty() && !self.allow.iter().any(allowed) {
            let words = format!("{path} (not among the paths the environment allows)");
            return Some(Finding::deny("env.files.allow".to_owned(), words));
        }
        let sensitive = verdict(self.rules.sensitive, way).and_then(|verdict| {
            let (pattern, who) = self.sensitive.iter().find(|(pattern, _)| hit(&pattern))?;
            Some(Finding {
                verdict,
                rule: format!("env.files.sensitive:{}", pattern.text()),
                words: format!("{path} ({who})"),
            })
        });
        let asked = || {
            let verdict = verdict(RuleVerdict::Ask, way)?;
            let pattern = self.ask.iter().find(hit)?;
            Some(Finding {
                verdict,
                rule: format!("env.files.ask:{}", pattern.text()),
                words: format!("{path} (the environment asks about {})", pattern.text()),
            })
        };
        sensitive.or_else(asked)
    }

    fn size(&self, path: &str, bytes: u64) -> Option<Finding> {
        let limit = self.rules.max_file_bytes?.get();
        (bytes > limit).then(|| {
            let words = format!("{} ({bytes} bytes; a file may have {limit})", quoted(path));
            Finding::deny("env.files.max_file_bytes".to_owned(), words)
        })
    }

    /// What passes a limit of all files together.
    fn totals(&self, files: u64, bytes: u64, what: &str) -> Option<Finding> {
        let over = |name: &str, unit: &str, is: u64, limit: Option<std::num::NonZeroU64>| {
            let limit = limit?.get();
            (is > limit).then(|| {
                let words = format!("{what} {is} {unit}; the environment allows {limit}");
                Finding::deny(format!("env.files.{name}"), words)
            })
        };
        over("max_files", "files", files, self.rules.max_files)
            .or_else(|| over("max_total_bytes", "bytes", bytes, self.rules.max_total_bytes))
    }

    fn written(&self, args: &Value) -> Option<Finding> {
        let written = args.get("written")?;
        let number = |key: &str| written.get(key).and_then(Value::as_u64);
        match (number("files"), number("bytes")) {
            (Some(files), Some(bytes)) => self.totals(files, bytes, "with this one the run has written"),
            _ => Some(Finding::deny(
                "stockade.files".to_owned(),
                "the action does not say how much was written".to_owned(),
            )),
        }
    }
}

/// What a verdict means on that way; `None` where it lets pass.
fn verdict(says: RuleVerdict, way: Way) -> Option<Verdict> {
    match (says, way) {
        (RuleVerdict::Deny, _) => Some(Verdict::Deny),
        (RuleVerdict::Ask, Way::Export) => Some(Verdict::Hold),
        (RuleVerdict::Ask, Way::Write) | (RuleVerdict::Allow, _) => None,
    }
}

/// One answer for the strictest findings, naming every path as far as there is room.
fn summary(findings: &[Finding], files: usize) -> Option<PolicyVerdict> {
    let verdict = match findings.iter().any(|finding| finding.verdict == Verdict::Deny) {
        true => Verdict::Deny,
        false if findings.is_empty() => return None,
        false => Verdict::Hold,
    };
    let strictest: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict == verdict).collect();
    let head = match verdict {
        Verdict::Deny => "may not leave the sandbox",
        _ => "a person decides before this leaves the sandbox",
    };
    let mut reason = format!("{head} ({} of {files} changed): ", strictest.len());
    for (named, finding) in strictest.iter().enumerate() {
        if named > 0 && reason.len() + finding.words.len() > REASON {
            reason.push_str(&format!(", and {} more", strictest.len() - named));
            break;
        }
        if named > 0 {
            reason.push_str(", ");
        }
        reason.push_str(&finding.words);
    }
    Some(PolicyVerdict {
        verdict,
        rule: strictest.first()?.rule.clone(),
        reason,
    })
}

/// The bytes a write is about, as far as its arguments say.
fn size_of(args: &Value) -> u64 {
    let text = |key: &str| {
        args.get(key)
            .and_then(Value::as_str)
            .map_or(0, |text| text.len() as u64)
    };
    let bytes = args.get("bytes").and_then(Value::as_u64).unwrap_or(0);
    bytes.max(text("content")).max(text("new_string"))
}

fn quoted(path: &str) -> String {
    let shown: String = path.chars().take(500).collect();
    format!("'{}'", shown.escape_debug())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
