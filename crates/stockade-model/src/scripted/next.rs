//! Which turn is next: read from the conversation itself, so that the model keeps no state
//! about its clients and a resumed conversation goes on where it stood.
//!
//! Every tool call of a script carries the number of its turn in its id, and clients send
//! ids back with the results. Turns that only speak are found again by their words.

use stockade_policy::pattern::matches;

use super::{
    conversation::{Conversation, Item},
    file::{Guard, Script, Turn},
};

/// Part of every call id a script makes.
const MARK: &str = "_sc_";

/// A turn to use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chosen<'a> {
    pub(crate) turn: &'a Turn,
    /// Its place in the script; the number of turns stands for `otherwise`.
    pub(crate) index: usize,
}

/// The turns that could come next, best first: each applies, and only an error turn whose
/// times are up makes room for the one after it.
pub(crate) fn candidates<'a>(
    script: &'a Script,
    conversation: &Conversation,
) -> impl Iterator<Item = Chosen<'a>> + use<'a> {
    let from = position(script, conversation);
    let (result, request) = (conversation.last_tool_result(), conversation.request());
    script
        .turns
        .iter()
        .chain(&script.otherwise)
        .enumerate()
        .skip(from)
        .filter(move |(_, turn)| applies(&turn.when, &result, &request))
        .map(|(index, turn)| Chosen { turn, index })
}

fn applies(guard: &Guard, result: &str, request: &str) -> bool {
    let fits = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|p| matches(p, text));
    fits(&guard.last_tool_result, result) && fits(&guard.request, request)
}

/// Where the conversation stands in the script.
fn position(script: &Script, conversation: &Conversation) -> usize {
    let end = script.turns.len();
    conversation.items.iter().fold(0, |at, item| match item {
        Item::Assistant { text, calls } => match calls.iter().filter_map(|id| turn_of(id)).max() {
            Some(index) => (index + 1).min(end),
            None => said_at(script, at, text).unwrap_or(if calls.is_empty() { at } else { at + 1 }),
        },
        _ => at,
    })
}

/// The place after the turn that says this.
fn said_at(script: &Script, from: usize, text: &str) -> Option<usize> {
    let said = |turn: &Turn| turn.say.as_deref().map(str::trim) == Some(text.trim());
    let later = script.turns.get(from..).unwrap_or(&[]);
    later.iter().position(said).map(|at| from + at + 1)
}

/// The id of a call: unique in its conversation, and telling its turn.
pub(crate) fn call_id(prefix: &str, index: usize, call: usize, step: usize, salt: &str) -> String {
    format!("{prefix}{MARK}{index}_{call}_{step}_{salt}")
}

fn turn_of(id: &str) -> Option<usize> {
    let (_, rest) = id.split_once(MARK)?;
    rest.split('_').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(yaml: &str) -> Script {
        Script::parse(yaml).unwrap()
    }

    fn conversation(items: Vec<Item>) -> Conversation {
        Conversation {
            stream: false,
            include_usage: false,
            tools: Vec::new(),
            schema: None,
            items,
        }
    }

    fn step(text: &str, calls: &[&str]) -> Item {
        Item::Assistant {
            text: text.to_owned(),
            calls: calls.iter().map(|&c| c.to_owned()).collect(),
        }
    }

    fn next(script: &Script, items: Vec<Item>) -> Option<usize> {
        candidates(script, &conversation(items)).next().map(|c| c.index)
    }

    #[test]
    fn a_conversation_walks_through_the_script() {
        let script = script("turns:\n- {say: one, call: [{tool: bash}]}\n- {say: two}\n- {say: three}\n");
        let user = || Item::User("go".to_owned());
        let id = call_id("toolu", 0, 0, 0, "s");
        let result = || Item::ToolResult("ok".to_owned());
        assert_eq!(next(&script, vec![user()]), Some(0));
        assert_eq!(next(&script, vec![user(), step("one", &[&id]), result()]), Some(1));
        let answered = vec![user(), step("one", &[&id]), result(), step(" two\n", &[]), user()];
        assert_eq!(next(&script, answered.clone()), Some(2));
        let all = [answered, vec![step("three", &[]), user()]].concat();
        assert_eq!(next(&script, all), None, "a used-up script has nothing to say");
    }

    #[test]
    fn ids_that_a_client_rewrote_still_move_on() {
        let script = script("turns:\n- {call: [{tool: bash}]}\n- {say: two}\n");
        let items = vec![step("", &["rewritten"]), Item::ToolResult(String::new())];
        assert_eq!(next(&script, items), Some(1));
    }

    #[test]
    fn guards_pass_turns_over_and_otherwise_stays() {
        let script = script(
            "turns:\n- {when: {request: '*alpha*'}, say: a}\n- {when: {last_tool_result: '*FAIL*'}, say: f}\n- {say: z}\notherwise: {say: more}\n",
        );
        let user = |text: &str| Item::User(text.to_owned());
        assert_eq!(next(&script, vec![user("do alpha now")]), Some(0));
        assert_eq!(next(&script, vec![user("do beta")]), Some(2));
        let failed = vec![user("x"), step("", &["foreign"]), Item::ToolResult("1 FAIL".to_owned())];
        assert_eq!(next(&script, failed), Some(1));
        let done = vec![user("x"), step("z", &[]), user("y")];
        assert_eq!(next(&script, done.clone()), Some(3));
        let more = [done, vec![step("more", &[]), user("w")]].concat();
        assert_eq!(next(&script, more), Some(3));
    }
}
