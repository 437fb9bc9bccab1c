//! A run as it happens: one event, no or a few lines.

use serde_json::Value;
use stockade_domain::{Event, EventType as T};

use super::{say, style};

/// Widest line of detail.
const WIDTH: usize = 100;
/// Most lines shown of what a tool printed.
const TOOL_LINES: usize = 8;

/// Shows events. Keeps what it needs to show each thing once.
#[derive(Debug, Default)]
pub(crate) struct Live {
    speaking: bool,
    spoke: bool,
}

fn text<'a>(data: &'a Value, key: &str) -> &'a str {
    data.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn mark(sign: &str, rest: &str) {
    say(&format!("  {sign} {rest}"));
}

impl Live {
    /// Shows one event.
    pub(crate) fn show(&mut self, event: &Event) {
        let data = &event.data;
        if event.kind == T::MessageDelta {
            return self.speak(text(data, "text"));
        }
        self.hush();
        match event.kind {
            T::RunQueued => match data.get("failure") {
                Some(failure) => mark(
                    &style::wait("↻"),
                    &format!("trying again: {}", style::line(text(failure, "message"), WIDTH)),
                ),
                None => mark(&style::dim("·"), &format!("{} queued", event.run)),
            },
            T::SandboxReady => sandbox(data),
            T::RepoReady => {
                let commit: String = text(data, "base_commit").chars().take(10).collect();
                mark(
                    &style::good("▸"),
                    &format!("repository at {commit} {}", style::dim(text(data, "branch"))),
                );
                if !text(data, "note").is_empty() {
                    mark(&style::wait("!"), &style::line(text(data, "note"), 2 * WIDTH));
                }
            }
            T::AgentReady => mark(
                &style::good("▸"),
                &format!(
                    "agent {} with model {}",
                    style::clean(text(data, "agent")),
                    style::clean(text(data, "model"))
                ),
            ),
            T::MessageAgent => self.message(text(data, "text")),
            T::MessageUser => mark(&style::bold("you"), &style::line(text(data, "text"), WIDTH)),
            T::ToolCall => tool_call(data),
            T::ToolResult => tool_result(data),
            T::EgressDenied => mark(
                &style::bad("✗"),
                &format!(
                    "network refused: {} {}",
                    style::bold(&style::line(text(data, "target"), 60)),
                    style::dim(&style::line(text(data, "reason"), WIDTH))
                ),
            ),
            T::EgressAllowed if text(data, "operation") == "connect" => {
                mark(
                    &style::dim("→"),
                    &style::dim(&format!("network: {}", style::line(text(data, "target"), 60))),
                );
            }
            T::ActionDenied => mark(
                &style::bad("✗"),
                &format!(
                    "refused: {} {}",
                    style::line(text(data, "target"), 60),
                    style::dim(&style::line(text(data, "reason"), WIDTH))
                ),
            ),
            T::ApprovalDecided => decided(data),
            T::ApprovalExpired => mark(&style::bad("✗"), "nobody answered in time: refused"),
            T::BudgetExhausted => mark(
                &style::bad("■"),
                &format!(
                    "limit reached: {} {} of {}",
                    text(data, "resource"),
                    data["used"],
                    data["limit"]
                ),
            ),
            T::ExportDiff => export(data),
            T::ExportBranch => mark(
                &style::good("▸"),
                &format!(
                    "committed on branch {}",
                    style::bold(&style::clean(text(data, "branch")))
                ),
            ),
            T::RunFailed => {
                let failure = &data["failure"];
                mark(
                    &style::bad("■"),
                    &format!("failed: {}", style::clean(text(failure, "message"))),
                );
                if !text(failure, "hint").is_empty() {
                    mark(
                        " ",
                        &style::dim(&format!("hint: {}", style::clean(text(failure, "hint")))),
                    );
                }
            }
            T::RunCancelled => mark(
                &style::wait("■"),
                &format!(
                    "cancelled by {} {}",
                    style::clean(text(data, "by")),
                    style::clean(text(data, "reason"))
                ),
            ),
            T::RunCompleted => mark(&style::good("■"), "completed"),
            _ => {}
        }
    }

    fn speak(&mut self, words: &str) {
        use std::io::Write as _;
        let mut stderr = std::io::stderr().lock();
        let margin = if self.speaking { "" } else { "\n  " };
        let _ = write!(stderr, "{margin}{}", style::clean(words).replace('\n', "\n  "));
        let _ = stderr.flush();
        (self.speaking, self.spoke) = (true, true);
    }

    fn hush(&mut self) {
        if std::mem::take(&mut self.speaking) {
            say("\n");
        }
    }

    fn message(&mut self, words: &str) {
        // What was shown piece by piece is not shown again.
        if !std::mem::take(&mut self.spoke) && !words.trim().is_empty() {
            say(&format!("\n  {}\n", style::clean(words.trim()).replace('\n', "\n  ")));
        }
    }
}

fn sandbox(data: &Value) {
    let limits: Vec<String> = data["limits"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(limit)
        .collect();
    let detail = style::dim(&format!(
        "{} {}, no network card; {}",
        text(data, "backend"),
        text(data, "mode"),
        limits.join(", ")
    ));
    mark(
        &style::good("▸"),
        &format!("sandbox ready in {} ms {detail}", data["start_ms"]),
    );
}

fn limit(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name @ ("memory" | "disk"), value)) => value
            .parse()
            .map_or_else(|_| pair.to_owned(), |count| format!("{name} {}", style::bytes(count))),
        Some((name, value)) => format!("{name} {value}"),
        None => pair.to_owned(),
    }
}

fn tool_call(data: &Value) {
    let name = style::clean(text(data, "tool"));
    let detail = ["title", "target", "command", "path"]
        .iter()
        .map(|key| text(data, key))
        .find(|t| !t.is_empty())
        .unwrap_or_default();
    mark(&style::bold("⚒"), &format!("{name} {}", style::line(detail, WIDTH)));
}

fn tool_result(data: &Value) {
    let output = style::clean(text(data, "output"));
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    for line in lines.iter().take(TOOL_LINES) {
        say(&style::dim(&format!("    │ {}", style::line(line, WIDTH))));
    }
    if lines.len() > TOOL_LINES {
        say(&style::dim(&format!("    │ … {} more lines", lines.len() - TOOL_LINES)));
    }
}

fn decided(data: &Value) {
    let by = style::clean(text(data, "by"));
    let why = match text(data, "reason") {
        "" => String::new(),
        reason => format!(": {}", style::clean(reason)),
    };
    if text(data, "decision").starts_with("approve") {
        mark(&style::good("✓"), &format!("approved by {by}{why}"));
    } else {
        mark(&style::bad("✗"), &format!("rejected by {by}{why}"));
    }
}

fn export(data: &Value) {
    let files = data["files"].as_array().map_or(0, Vec::len);
    mark(
        &style::good("▸"),
        &format!("change exported: {files} file{}", if files == 1 { "" } else { "s" }),
    );
}
