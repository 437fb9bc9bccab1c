//! A conversation with a model, in no wire's words.

use serde_json::Value;

/// What has been said so far, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conversation {
    /// The entries.
    pub(crate) entries: Vec<Entry>,
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// A person's words.
    User(String),
    /// The model's answer.
    Assistant(Reply),
    /// What the tools it called answered, in the order of the calls.
    Results(Vec<ToolResult>),
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    /// Its words.
    pub(crate) text: String,
    /// Tools it wants to use.
    pub(crate) calls: Vec<ToolCall>,
    /// Why it ended.
    pub(crate) stop: Stop,
    /// The parts of the answer as its wire spells them, to be sent back unchanged.
    pub(crate) raw: Vec<Value>,
}

/// A tool a model wants to use.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolCall {
    /// The model's name for this call.
    pub(crate) id: String,
    /// The tool.
    pub(crate) name: String,
    /// Its input; where it is not JSON, the text that came.
    pub(crate) input: Result<Value, String>,
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolResult {
    /// The call.
    pub(crate) call: String,
    /// The answer.
    pub(crate) text: String,
    /// Whether it is a complaint.
    pub(crate) error: bool,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The model has said what it wanted, or calls tools.
    Done,
    /// It ran into the limit of its answer.
    Length,
    /// It, or its provider, refuses.
    Refusal,
}

impl Stop {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Length => "length",
            Self::Refusal => "refusal",
        }
    }
}

/// Stands where old tool output was.
const FORGOTTEN: &str = "[old output removed to save space; run the tool again if you need it]";

impl Conversation {
    /// Adds a person's words.
    pub(crate) fn user(&mut self, text: impl Into<String>) {
        self.entries.push(Entry::User(text.into()));
    }

    /// Forgets the oldest tool output until the conversation is half as long as the limit.
    ///
    /// Half, so that a cached prefix is thrown away rarely and not every turn. The output
    /// of the last two rounds stays whatever its length.
    pub(crate) fn forget_over(&mut self, limit: usize) {
        let mut size: usize = self.entries.iter().map(size_of).sum();
        if size <= limit {
            return;
        }
        let results = self.entries.iter().filter(|e| matches!(e, Entry::Results(_))).count();
        let old = results.saturating_sub(2);
        let candidates = self.entries.iter_mut().filter_map(|entry| match entry {
            Entry::Results(results) => Some(results),
            _ => None,
        });
        for result in candidates.take(old).flatten() {
            if size <= limit / 2 {
                return;
            }
            if result.text.len() > FORGOTTEN.len() {
                size -= result.text.len() - FORGOTTEN.len();
                FORGOTTEN.clone_into(&mut result.text);
            }
        }
    }
}

fn size_of(entry: &Entry) -> usize {
    match entry {
        Entry::User(text) => text.len(),
        Entry::Assistant(reply) => {
            let inputs = reply.calls.iter().map(|call| match &call.input {
                Ok(value) => value.to_string().len(),
                Err(text) => text.len(),
            });
            reply.text.len() + inputs.sum::<usize>()
        }
        Entry::Results(results) => results.iter().map(|r| r.text.len()).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(text: &str) -> Entry {
        Entry::Results(vec![ToolResult {
            call: "c".to_owned(),
            text: text.to_owned(),
            error: false,
        }])
    }

    #[test]
    fn the_oldest_output_is_forgotten_first_and_the_newest_never() {
        let mut conversation = Conversation::default();
        conversation.user("do it");
        for _ in 0..5 {
            conversation.entries.push(results(&"x".repeat(1000)));
        }
        let whole = conversation.clone();
        conversation.forget_over(10_000);
        assert_eq!(conversation.entries.len(), whole.entries.len());
        conversation.forget_over(4000);
        let lengths: Vec<usize> = conversation.entries.iter().map(size_of).collect();
        assert_eq!(lengths[4..], [1000, 1000], "the newest stay");
        assert!(lengths[1] < 100 && lengths[2] < 100 && lengths[3] < 100, "{lengths:?}");
    }
}
