//! A run as it happens: one event, no or a few lines.

use std::io::Write as _;

use serde_json::Value;
use stockade_domain::{Event, EventType as T};

use super::{say, style, traffic};

/// Widest line of detail.
const WIDTH: usize = 100;
/// Most lines shown of what a tool printed.
const TOOL_LINES: usize = 8;

/// Shows events. Remembers only what it needs to show each thing once.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// A sentence is on the screen and not finished.
    speaking: bool,
    /// What the agent is saying was shown piece by piece.
    spoken: bool,
    /// The last lines, to leave out the same refusal twice in a row.
    last: Vec<String>,
}

impl Live {
    /// Shows one event.
    pub(crate) fn show(&mut self, event: &Event) {
        match event.kind {
            T::MessageDelta => self.speak(text(&event.data, "text")),
            T::MessageAgent if std::mem::take(&mut self.spoken) => self.hush(),
            _ => self.print(lines(event)),
        }
    }

    fn print(&mut self, lines: Vec<String>) {
        if lines.is_empty() || (lines == self.last && !self.speaking) {
            return;
        }
        self.hush();
        lines.iter().for_each(|line| say(line));
        self.last = lines;
    }

    fn speak(&mut self, words: &str) {
        let mut stderr = std::io::stderr().lock();
        let margin = if self.speaking { "" } else { "\n  " };
        let _ = write!(stderr, "{margin}{}", style::clean(words).replace('\n', "\n  "));
        let _ = stderr.flush();
        (self.speaking, self.spoken) = (true, true);
    }

    fn hush(&mut self) {
        if std::mem::take(&mut self.speaking) {
            say("\n");
        }
    }
}

/// The lines of an event; none for what only machines need.
fn lines(event: &Event) -> Vec<String> {
    let data = &event.data;
    match event.kind {
        T::RunQueued => one(match data.get("failure") {
            Some(failure) => mark(
                &style::wait("↻"),
                &format!("trying again: {}", style::line(text(failure, "message"), WIDTH)),
            ),
            None => mark(&style::dim("·"), &style::dim(&format!("{} queued", event.run))),
        }),
        T::RunProvisioning if data["attempt"].as_u64() > Some(1) => one(mark(
            &style::wait("↻"),
            &format!("starting over, attempt {}", data["attempt"]),
        )),
        T::SandboxProgress => one(progress(data)),
        T::SandboxReady => std::iter::once(sandbox(data)).chain(measured(data)).collect(),
        T::SandboxSnapshot => one(mark(
            &style::good("▸"),
            &format!(
                "snapshot kept {} {}",
                short(data, "digest"),
                style::dim(&style::rough(data["bytes"].as_u64().unwrap_or(0)))
            ),
        )),
        T::SandboxLimit => one(mark(
            &style::wait("■"),
            &format!(
                "the sandbox ran into its limit: {}",
                limit(&format!("{}={}", text(data, "limit"), data["value"]))
            ),
        )),
        T::RepoReady => repository(data),
        T::AgentReady => one(mark(
            &style::good("▸"),
            &format!("agent {} with model {}", short(data, "agent"), short(data, "model")),
        )),
        T::MessageAgent => message(text(data, "text")),
        T::MessageUser => one(mark(&style::bold("you"), &short(data, "text"))),
        T::ToolCall => one(tool_call(data)),
        T::ToolResult => tool_result(data),
        T::EgressDenied => one(refusal("network refused:", data)),
        T::EgressLimit => one(mark(
            &style::bad("■"),
            &format!("network limit reached: {}", short(data, "reason")),
        )),
        T::EgressRevoked => one(mark(
            &style::bad("■"),
            &format!(
                "{} revoked {}, {} connections closed {}",
                short(data, "by"),
                style::bold(&short(data, "hosts")),
                data["closed"],
                style::dim(&short(data, "reason"))
            ),
        )),
        T::EgressRestored => one(mark(
            &style::good("▸"),
            &format!("no longer revoked: {}", short(data, "hosts")),
        )),
        T::ActionSettled if text(data, "operation") == "push" => one(pushed(data)),
        T::ActionSettled => match traffic::ended(data) {
            Some(line) => {
                let sign = if data["outcome"]["error"].is_null() {
                    style::dim("←")
                } else {
                    style::bad("✗")
                };
                one(mark(&sign, &line))
            }
            None => Vec::new(),
        },
        T::EgressAllowed if text(data, "operation") == "connect" => one(mark(
            &style::dim("→"),
            &style::dim(&format!("network: {}", short(data, "target"))),
        )),
        T::EgressAllowed if text(data, "operation") == "fetch" => one(mark(
            &style::dim("→"),
            &style::dim(&format!("git: fetches from {}", short(data, "target"))),
        )),
        // A person's no was shown when it was said.
        T::ActionDenied if data["approval"].is_null() => one(refusal("refused:", data)),
        T::ApprovalDecided => one(decided(data)),
        T::ApprovalExpired => one(mark(&style::bad("✗"), "nobody answered in time: refused")),
        T::BudgetExhausted => one(mark(
            &style::bad("■"),
            &format!(
                "limit reached: {} {} of {}",
                short(data, "resource"),
                data["used"],
                data["limit"]
            ),
        )),
        T::ExportDiff => one(export(data)),
        // The push was shown when it was settled.
        T::ExportBranch if data["pushed"] == true => Vec::new(),
        T::ExportPullRequest => one(mark(
            &style::good("▸"),
            &format!("pull request #{} {}", data["number"], style::bold(&short(data, "url"))),
        )),
        T::ExportBranch => one(mark(
            &style::good("▸"),
            &format!("committed on branch {}", style::bold(&short(data, "branch"))),
        )),
        T::RunFailed => failed(&data["failure"]),
        T::RunCancelled => one(mark(
            &style::wait("■"),
            &format!("cancelled by {} {}", short(data, "by"), short(data, "reason")),
        )),
        T::RunCompleted => one(mark(&style::good("■"), "completed")),
        _ => Vec::new(),
    }
}

fn one(line: String) -> Vec<String> {
    vec![line]
}

fn mark(sign: &str, rest: &str) -> String {
    format!("  {sign} {rest}")
}

fn text<'a>(data: &'a Value, key: &str) -> &'a str {
    data.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn short(data: &Value, key: &str) -> String {
    style::line(text(data, key), WIDTH)
}

fn refusal(what: &str, data: &Value) -> String {
    let target = style::bold(&style::line(text(data, "target"), 60));
    mark(
        &style::bad("✗"),
        &format!(
            "{what} {target}{} {}",
            traffic::times(data),
            style::dim(&format!("({})", short(data, "reason")))
        ),
    )
}

/// What became of a push through git.
fn pushed(data: &Value) -> String {
    let target = style::bold(&short(data, "target"));
    let outcome = &data["outcome"];
    match outcome["error"].as_str() {
        None if outcome["result"] != "done" => mark(
            &style::wait("!"),
            &format!("git: nobody knows what became of the push to {target}"),
        ),
        None => mark(&style::good("▸"), &format!("git: pushed to {target}")),
        Some(error) => mark(
            &style::bad("✗"),
            &format!("git: not pushed to {target} {}", style::dim(&style::line(error, WIDTH))),
        ),
    }
}

fn repository(data: &Value) -> Vec<String> {
    let commit: String = short(data, "base_commit").chars().take(10).collect();
    let mut lines = one(mark(
        &style::good("▸"),
        &format!("repository at {commit} {}", style::dim(&short(data, "branch"))),
    ));
    if !text(data, "note").is_empty() {
        lines.push(mark(&style::wait("!"), &style::line(text(data, "note"), 2 * WIDTH)));
    }
    lines
}

fn message(words: &str) -> Vec<String> {
    let words = words.trim();
    if words.is_empty() {
        return Vec::new();
    }
    one(format!("\n  {}\n", style::clean(words).replace('\n', "\n  ")))
}

fn sandbox(data: &Value) -> String {
    let pairs = data["limits"].as_array().into_iter().flatten();
    let limits: Vec<String> = pairs.filter_map(Value::as_str).map(limit).collect();
    let detail = format!(
        "({} {}, no network card; {})",
        short(data, "backend"),
        short(data, "mode"),
        limits.join(", ")
    );
    mark(
        &style::good("▸"),
        &format!("sandbox ready in {} ms {}", data["start_ms"], style::dim(&detail)),
    )
}

/// What was measured before the agent was let in, where that is more than nothing.
fn measured(data: &Value) -> Option<String> {
    let checks = data["measured"].as_object()?;
    let micros = data["measured_us"].as_u64().unwrap_or_default();
    let detail = format!(
        "{} checks from inside in {:.1} ms: {}",
        checks.len(),
        micros as f64 / 1000.0,
        checks.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    );
    Some(mark(
        &style::good("▸"),
        &format!("measured {}", style::dim(&style::line(&detail, 2 * WIDTH))),
    ))
}

/// How far a pull or a restore has come.
fn progress(data: &Value) -> String {
    let (done, total) = (data["done"].as_u64().unwrap_or(0), data["total"].as_u64().unwrap_or(0));
    let amount = match total {
        0 => String::new(),
        _ => format!(" {} of {}", style::rough(done), style::rough(total)),
    };
    let words = match (text(data, "what"), text(data, "step")) {
        ("restore", _) => "restoring snapshot",
        (_, "begin" | "resolve") => "looking for image",
        (_, "download") => "pulling image",
        (_, "unpack") => "unpacking image",
        (_, other) => other,
    };
    mark(&style::dim("·"), &format!("{words} {}{amount}", short(data, "name")))
}

/// A limit as the sandbox measured it, for example `memory=4294967296`, in people's units.
fn limit(pair: &str) -> String {
    let Some((name, value)) = pair.split_once('=') else {
        return style::line(pair, WIDTH);
    };
    match (name, value.parse::<u64>()) {
        ("memory" | "disk", Ok(bytes)) => format!("{name} {}", style::bytes(bytes)),
        ("cpu", Ok(millis)) => format!("{} cores", millis as f64 / 1000.0),
        ("pids", Ok(count)) => format!("{count} processes"),
        ("io", Ok(bytes)) => format!("I/O {}/s", style::bytes(bytes)),
        _ => format!("{} {}", style::line(name, 20), style::line(value, 40)),
    }
}

fn tool_call(data: &Value) -> String {
    let keys = ["title", "target", "command", "path"];
    let detail = keys
        .iter()
        .map(|key| text(data, key))
        .find(|t| !t.is_empty())
        .unwrap_or_default();
    mark(
        &style::bold("⚒"),
        &format!("{} {}", style::bold(&short(data, "tool")), style::line(detail, WIDTH)),
    )
}

fn tool_result(data: &Value) -> Vec<String> {
    let output = style::clean(text(data, "output"));
    let all: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let mut lines: Vec<String> = all
        .iter()
        .take(TOOL_LINES)
        .map(|line| style::dim(&format!("    │ {}", style::line(line, WIDTH))))
        .collect();
    if all.len() > TOOL_LINES {
        lines.push(style::dim(&format!("    │ … {} more lines", all.len() - TOOL_LINES)));
    }
    lines
}

fn decided(data: &Value) -> String {
    let by = short(data, "by");
    let why = match short(data, "reason") {
        reason if reason.is_empty() => reason,
        reason => format!(": {reason}"),
    };
    if text(data, "decision").starts_with("approve") {
        mark(&style::good("✓"), &format!("approved by {by}{why}"))
    } else {
        mark(&style::bad("✗"), &format!("rejected by {by}{why}"))
    }
}

fn export(data: &Value) -> String {
    let files = data["files"].as_array().map_or(0, Vec::len);
    mark(
        &style::good("▸"),
        &format!("change exported: {files} file{}", if files == 1 { "" } else { "s" }),
    )
}

fn failed(failure: &Value) -> Vec<String> {
    let mut lines = one(mark(
        &style::bad("■"),
        &format!("failed: {}", style::clean(text(failure, "message"))),
    ));
    if !text(failure, "hint").is_empty() {
        lines.push(mark(
            " ",
            &style::dim(&format!("hint: {}", style::clean(text(failure, "hint")))),
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stockade_domain::{NewEvent, RunId, Timestamp};

    use super::*;

    fn shown(kind: T, data: Value) -> String {
        let run = RunId::from_uuid(uuid::Uuid::nil());
        lines(&Event::place(
            NewEvent::new(kind, data),
            run,
            1,
            Timestamp::UNIX_EPOCH,
            None,
        ))
        .join("\n")
    }

    #[test]
    fn limits_are_in_peoples_units() {
        let data = json!({ "backend": "native", "mode": "rootless", "start_ms": 9,
            "limits": ["memory=4294967296", "pids=64", "cpu=1500"] });
        assert_eq!(
            shown(T::SandboxReady, data),
            "  ▸ sandbox ready in 9 ms (native rootless, no network card; memory 4 GiB, 64 processes, 1.5 cores)"
        );
    }

    #[test]
    fn a_tool_cannot_write_to_the_screen() {
        let result = shown(T::ToolResult, json!({ "output": "\u{1b}[2Jgone\nok" }));
        assert!(!result.contains('\u{1b}') && result.contains("ok"), "{result:?}");
    }

    #[test]
    fn long_output_is_cut_and_says_so() {
        let output: String = (0..20).map(|n| format!("line {n}\n")).collect();
        assert!(shown(T::ToolResult, json!({ "output": output })).ends_with("… 12 more lines"));
    }
}
