//! What is known about an agent's tool calls, and whether it repeats itself.

use std::collections::HashMap;

use serde_json::{Value, json};
use stockade_domain::{Digest, digest_of, repeat};

use crate::{narrator::shown, text};

/// Most calls kept in mind at a time.
const MOST_CALLS: usize = 4096;
/// Fields of an input that name the attempt and not the deed.
const VOLATILE: [&str; 8] = [
    "call_id",
    "callId",
    "toolCallId",
    "tool_call_id",
    "turn_id",
    "turnId",
    "itemId",
    "process_id",
];

/// Fields of an input that say where and not what: an input of these alone is not known yet.
const PLACES: [&str; 2] = ["cwd", "workdir"];

/// What is known about one call; updates add to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    pub(super) title: String,
    pub(super) kind: String,
    pub(super) input: Value,
    pub(super) locations: Value,
    status: String,
    output: String,
    raw_output: Value,
    told: bool,
    settled: bool,
}

impl Known {
    /// Adds what an update, or a permission request, says about the call.
    pub(super) fn learn(&mut self, update: &Value) {
        for (field, key) in [
            (&mut self.title, "title"),
            (&mut self.kind, "kind"),
            (&mut self.status, "status"),
        ] {
            if let Some(text) = update[key].as_str() {
                text::clip(text, 2000).0.clone_into(field);
            }
        }
        if let Some(input) = update.get("rawInput").filter(|input| !is_empty(input)) {
            self.input = steady(input);
        }
        if let Some(locations) = update.get("locations").filter(|l| !is_empty(l)) {
            self.locations = locations.clone();
        }
        if let Some(raw) = update.get("rawOutput").filter(|raw| !is_empty(raw)) {
            self.raw_output = shown(raw);
        }
        let words = words_of(&update["content"]);
        if !words.is_empty() {
            self.output = text::middle_out(&words, text::EVENT_TEXT);
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed")
    }

    /// What the loop detection compares.
    fn digest(&self) -> Digest {
        digest_of(&json!({ "kind": self.kind, "title": self.title, "input": self.input }))
    }

    fn called(&self, id: &str) -> Value {
        json!({
            "call": id, "title": self.title, "kind": self.kind, "status": self.status,
            "locations": shown(&self.locations), "input": shown(&self.input),
        })
    }

    fn answered(&self, id: &str) -> Value {
        let output = if self.output.is_empty() {
            &self.raw_output
        } else {
            &json!(self.output)
        };
        json!({
            "call": id, "title": self.title, "kind": self.kind, "status": self.status, "output": output,
        })
    }
}

/// What an update means.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Data of a `tool.call` event.
    pub(super) call: Option<Value>,
    /// Data of a `tool.result` event, and whether the tool did what it was asked.
    pub(super) result: Option<(Value, bool)>,
    /// The call, if it is one too many of the same.
    pub(super) repeats: Option<Known>,
}

/// Follows an agent's tool calls.
#[derive(Debug)]
pub(super) struct ToolWatch {
    calls: HashMap<String, Known>,
    history: Vec<Digest>,
    limit: u32,
}

impl ToolWatch {
    /// Calls the same `limit` times, without anything new in between, repeat.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            calls: HashMap::new(),
            history: Vec::new(),
            limit: limit.max(2),
        }
    }

    /// What is known about a call.
    pub(super) fn known(&self, id: &str) -> Known {
        self.calls.get(id).cloned().unwrap_or_default()
    }

    /// Adds an update of a call.
    pub(super) fn update(&mut self, id: &str, update: &Value) -> Told {
        if self.calls.len() >= MOST_CALLS && !self.calls.contains_key(id) {
            self.calls.clear();
        }
        let known = self.calls.entry(id.to_owned()).or_default();
        known.learn(update);
        let mut told = Told::default();
        // Some agents announce a call before they know its input.
        let begun = says_what(&known.input) || known.status == "in_progress" || known.is_over();
        if begun && !known.told {
            known.told = true;
            told.call = Some(known.called(id));
            let digest = known.digest();
            let known = known.clone();
            told.repeats = self.count(digest).then_some(known);
        }
        if let Some(known) = self.calls.get_mut(id).filter(|known| known.is_over() && !known.settled) {
            known.settled = true;
            told.result = Some((known.answered(id), known.status == "completed"));
        }
        told
    }

    fn count(&mut self, digest: Digest) -> bool {
        let times = repeat::repetitions(&self.history, digest);
        self.history.push(digest);
        times >= self.limit
    }

    /// A person lets the agent go on: the count starts anew.
    pub(super) fn forgive(&mut self) {
        self.history.clear();
    }

    /// The turn is over, and with it every call.
    pub(super) fn end_turn(&mut self) {
        self.calls.clear();
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Whether an input says what the call does.
fn says_what(input: &Value) -> bool {
    match input {
        Value::Object(map) => map.keys().any(|key| !PLACES.contains(&key.as_str())),
        other => !is_empty(other),
    }
}

/// An input without what differs between two identical attempts.
pub(super) fn steady(input: &Value) -> Value {
    match input {
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| !VOLATILE.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        other => other.clone(),
    }
}

/// The text in a tool call's content: texts as they are, diffs by their path.
fn words_of(content: &Value) -> String {
    let mut words = String::new();
    for part in content.as_array().into_iter().flatten() {
        let text = match part["type"].as_str() {
            Some("content") => part["content"]["text"].as_str().unwrap_or_default().to_owned(),
            Some("diff") => format!("[change of {}]", part["path"].as_str().unwrap_or("a file")),
            _ => continue,
        };
        if !words.is_empty() {
            words.push('\n');
        }
        words.push_str(&text);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(watch: &mut ToolWatch, id: &str, command: &str) -> Told {
        watch.update(
            id,
            &json!({ "title": "sh", "kind": "execute", "status": "pending", "rawInput": {} }),
        );
        let told = watch.update(
            id,
            &json!({ "status": "in_progress", "rawInput": { "command": command, "call_id": id } }),
        );
        watch.update(
            id,
            &json!({ "status": "completed", "content": [{ "type": "content", "content": { "text": "ok" } }] }),
        );
        told
    }

    #[test]
    fn a_call_is_told_once_when_its_input_is_known() {
        let mut watch = ToolWatch::new(3);
        let first = watch.update("1", &json!({ "title": "sh", "kind": "execute", "status": "pending" }));
        assert_eq!(first, Told::default());
        let second = watch.update("1", &json!({ "rawInput": { "command": "ls" } }));
        assert_eq!(second.call.unwrap()["input"]["command"], "ls");
        let third = watch.update("1", &json!({ "status": "failed", "rawOutput": { "error": "no" } }));
        assert_eq!(third.call, None);
        let (data, well) = third.result.unwrap();
        assert_eq!((&data["output"]["error"], well), (&json!("no"), false));
    }

    #[test]
    fn different_commands_in_the_same_place_do_not_repeat() {
        let mut watch = ToolWatch::new(2);
        for (id, command) in [("1", "make"), ("2", "make test"), ("3", "make doc")] {
            let pending =
                json!({ "title": "bash", "kind": "execute", "status": "pending", "rawInput": { "cwd": "/workspace" } });
            assert_eq!(watch.update(id, &pending), Told::default());
            let told = watch.update(
                id,
                &json!({ "status": "in_progress", "rawInput": { "command": command } }),
            );
            assert_eq!(told.call.unwrap()["input"]["command"], command);
            assert_eq!(told.repeats, None);
        }
    }

    #[test]
    fn the_same_call_three_times_repeats_and_progress_starts_anew() {
        let mut watch = ToolWatch::new(3);
        for (id, command, repeats) in [
            ("1", "test", false),
            ("2", "test", false),
            ("3", "edit", false),
            ("4", "test", false),
            ("5", "test", false),
            ("6", "test", true),
        ] {
            assert_eq!(run(&mut watch, id, command).repeats.is_some(), repeats, "{id}");
        }
        watch.forgive();
        assert!(run(&mut watch, "7", "test").repeats.is_none());
    }
}
