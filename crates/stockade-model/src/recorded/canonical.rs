//! A request without what differs between two runs of the same conversation.
//!
//! Left out: headers and the query; the fields in [`VOLATILE`]; ids of items in a Responses
//! `input`; Claude Code's billing line in `system`. Inside texts, UUIDs, SHA-1 and SHA-256
//! digests, dates and times become placeholders, and lines that begin like one of
//! [`VOLATILE_LINES`] keep their beginning only.

use serde_json::{Map, Value, json};
use stockade_domain::{Digest, Wire, digest_of};

/// Fields of a request that name the client's session, machine or user.
const VOLATILE: &[&str] = &[
    "metadata",
    "client_metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
];

/// Beginnings of lines that clients write with the day, a duration or a random id.
const VOLATILE_LINES: &[&str] = &["Today's date", "Wall time:", "Chunk ID:"];

/// Claude Code puts its version and a checksum of the request there.
const BILLING: &str = "x-anthropic-billing-header:";

/// The canonical request, or `null` when the body is not JSON.
pub(super) fn request(body: &[u8]) -> Value {
    let Ok(Value::Object(mut body)) = serde_json::from_slice(body) else {
        return Value::Null;
    };
    body.retain(|name, _| !VOLATILE.contains(&name.as_str()));
    if let Some(Value::Array(system)) = body.get_mut("system") {
        system.retain(|block| !block["text"].as_str().is_some_and(|text| text.starts_with(BILLING)));
    }
    for item in body
        .get_mut("input")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Value::Object(item) = item {
            item.remove("id");
        }
    }
    calm(Value::Object(body))
}

/// The digest by which a request finds its recording.
pub(super) fn digest(wire: Wire, canonical: &Value) -> Digest {
    digest_of(&json!({ "wire": wire, "request": canonical }))
}

fn calm(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(calm_text(&text)),
        Value::Array(items) => items.into_iter().map(calm).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, calm(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn calm_text(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(calm_line).collect();
    lines.join("\n")
}

fn calm_line(line: &str) -> String {
    let begins = |start: &&&str| line.trim_start().starts_with(**start);
    if let Some(start) = VOLATILE_LINES.iter().find(begins) {
        return (*start).to_owned();
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '+');
    let mut calm = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        calm.push_str(placeholder(word).unwrap_or(word));
        let next = after.find(is_word).unwrap_or(after.len());
        calm.push_str(&after[..next]);
        rest = &after[next..];
    }
    calm
}

/// What stands for a word that differs from run to run.
fn placeholder(word: &str) -> Option<&'static str> {
    let word = word.trim_end_matches(['.', ':']);
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if matches!(word.len(), 40 | 64) && hex(word) {
        return Some("<digest>");
    }
    let groups: Vec<&str> = word.split('-').collect();
    if groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(|group| hex(group)) {
        return Some("<uuid>");
    }
    if shape.starts_with("0000-00-00") && (shape.len() == 10 || shape[10..].starts_with("T00:00")) {
        return Some("<date>");
    }
    (shape == "00:00:00" || shape.starts_with("00:00:00.")).then_some("<time>")
}

/// Where two canonical requests first differ, as a JSON pointer (RFC 6901).
pub(super) fn first_difference(a: &Value, b: &Value) -> Option<String> {
    if a == b {
        return None;
    }
    let at = |name: &str, a: Option<&Value>, b: Option<&Value>| match (a, b) {
        (Some(a), Some(b)) => first_difference(a, b).map(|rest| format!("/{name}{rest}")),
        _ => Some(format!("/{name}")),
    };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let names = x.keys().chain(y.keys().filter(|name| !x.contains_key(*name)));
            names.into_iter().find_map(|name| at(name, x.get(name), y.get(name)))
        }
        (Value::Array(x), Value::Array(y)) => {
            (0..x.len().max(y.len())).find_map(|place| at(&place.to_string(), x.get(place), y.get(place)))
        }
        _ => Some(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &Value, b: &Value) -> bool {
        let digest = |value: &Value| digest(Wire::OpenaiChat, &request(value.to_string().as_bytes()));
        digest(a) == digest(b)
    }

    #[test]
    fn sessions_ids_and_clocks_do_not_count() {
        let session = |user: &str, id: &str, text: &str| {
            json!({"model": "m", "metadata": {"user_id": user}, "prompt_cache_key": user, "client_metadata": {"x": user},
                "system": [{"type": "text", "text": format!("{BILLING} cch={user}")}, {"type": "text", "text": "be brief"}],
                "input": [{"id": id, "role": "user", "content": text}]})
        };
        let a = "run 01a1fc5a-f325-7032-88fa-8f49be5d992a at 2026-11-21, 2026-11-21T04:42:33.614Z or 04:42:33.\nWall time: 0.1 seconds\nToday's date is Monday";
        let b = "run 11a1fc5a-f325-7032-88fa-8f49be5d992b at 2027-01-02, 2027-01-02T14:42:33.1Z or 14:42:33.\nWall time: 9 seconds\nToday's date is Friday";
        assert!(same(&session("a", "msg_1", a), &session("b", "msg_2", b)));
        assert!(!same(&session("a", "msg_1", a), &session("a", "msg_1", "another")));
    }

    #[test]
    fn words_that_mean_something_stay() {
        for text in [
            "error at 12:30 in a.rs:10:5",
            "deadbeef",
            "v1.2.3-rc.1",
            "2026-13",
            "a-b-c-d-e",
            "wall time: 3",
        ] {
            assert_eq!(calm_text(text), text);
        }
        assert_eq!(calm_text(&format!("commit {}", "a1".repeat(20))), "commit <digest>");
    }

    #[test]
    fn the_first_difference_has_a_place() {
        let difference = |a, b| first_difference(&a, &b);
        assert_eq!(difference(json!({"a": [1, 2]}), json!({"a": [1, 2]})), None);
        assert_eq!(difference(json!({"a": [1, 2]}), json!({"a": [1, 3]})).unwrap(), "/a/1");
        assert_eq!(difference(json!({"a": [1]}), json!({"a": [1, 3]})).unwrap(), "/a/1");
        assert_eq!(difference(json!({"a": 1}), json!({"a": 1, "b": 2})).unwrap(), "/b");
    }
}
