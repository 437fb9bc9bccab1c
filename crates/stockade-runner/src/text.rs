//! Text from inside a sandbox, made fit for people, models and events.

use std::collections::VecDeque;

/// Most bytes of one text in an event.
pub(crate) const EVENT_TEXT: usize = 8 << 10;

/// Cuts a text at a character boundary; says whether anything was cut.
pub(crate) fn clip(text: &str, limit: usize) -> (&str, bool) {
    if text.len() <= limit {
        return (text, false);
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (&text[..end], true)
}

/// Keeps the beginning and the end of a stream of bytes and forgets its middle, so that no
/// output, however long, costs more memory than the limit.
#[derive(Debug)]
pub(crate) struct MiddleOut {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl MiddleOut {
    /// Keeps at most about `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            half: (limit / 2).max(1),
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
        }
    }

    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.half.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        let rest = &bytes[room..];
        let rest = &rest[rest.len().saturating_sub(self.half)..];
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..over);
    }

    /// Bytes seen.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// What was kept, with a line that says what was left out.
    pub(crate) fn into_text(self) -> String {
        let kept = (self.head.len() + self.tail.len()) as u64;
        let mut bytes = self.head;
        if kept < self.total {
            let head = String::from_utf8_lossy(&bytes);
            let tail: Vec<u8> = self.tail.into();
            let left_out = self.total - kept;
            return format!(
                "{head}\n[... {left_out} bytes left out ...]\n{}",
                String::from_utf8_lossy(&tail)
            );
        }
        bytes.extend(self.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Cuts the middle out of a text.
pub(crate) fn middle_out(text: &str, limit: usize) -> String {
    let mut kept = MiddleOut::new(limit);
    kept.push(text.as_bytes());
    kept.into_text()
}

/// Replaces what looks like a credential. A second line of defence for texts that go into
/// failures: no credential should be where such a text comes from.
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut after_scheme = false;
    for piece in text.split_inclusive(|c: char| c.is_whitespace() || "\"'`,;<>()[]{}".contains(c)) {
        let end = piece
            .char_indices()
            .next_back()
            .filter(|(_, c)| c.is_whitespace() || "\"'`,;<>()[]{}".contains(*c))
            .map_or(piece.len(), |(at, _)| at);
        let (word, rest) = piece.split_at(end);
        out.push_str(&redact_word(word, after_scheme));
        out.push_str(rest);
        if !word.is_empty() {
            after_scheme =
                ["bearer", "basic", "token"].contains(&word.trim_end_matches(':').to_ascii_lowercase().as_str());
        }
    }
    out
}

fn redact_word(word: &str, after_scheme: bool) -> String {
    const HIDDEN: &str = "[redacted]";
    const PREFIXES: [&str; 10] = [
        "sk-",
        "sk_",
        "ghp_",
        "gho_",
        "ghs_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "AKIA",
        "AIza",
    ];
    if after_scheme && word.len() >= 8 && word.contains(|c: char| c.is_ascii_digit()) {
        return HIDDEN.to_owned();
    }
    if let Some(at) = word.find("://")
        && let Some(host) = word[at + 3..].split('/').next()
        && let Some((_, after)) = host.rsplit_once('@')
    {
        let rest = &word[at + 3 + host.len()..];
        return format!("{}://{HIDDEN}@{after}{rest}", &word[..at]);
    }
    for (at, _) in word.match_indices(|c: char| c.is_ascii_alphabetic()) {
        let starts_word = at == 0 || !word.as_bytes()[at - 1].is_ascii_alphanumeric();
        if starts_word && PREFIXES.iter().any(|p| word[at..].starts_with(p)) && word.len() - at >= 16 {
            return format!("{}{HIDDEN}", &word[..at]);
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_goes_and_both_ends_stay() {
        let text = middle_out(&format!("start{}end", "x".repeat(1000)), 100);
        assert!(text.starts_with("start") && text.ends_with("end"), "{text}");
        assert!(text.contains("908 bytes left out"), "{text}");
        assert_eq!(middle_out("short", 100), "short");
        let mut pieces = MiddleOut::new(10);
        for piece in ["abc", "defgh", "ijklmnopqrstuvwxyz"] {
            pieces.push(piece.as_bytes());
        }
        assert_eq!(pieces.into_text(), "abcde\n[... 16 bytes left out ...]\nvwxyz");
    }

    #[test]
    fn clipping_never_splits_a_character() {
        assert_eq!(clip("aü", 2), ("a", true));
        assert_eq!(clip("aü", 3), ("aü", false));
    }

    #[test]
    fn credentials_are_hidden_and_ordinary_words_stay() {
        let text =
            redact("Authorization: Bearer abcdefgh12345, key=sk-ant-1234567890abcdef in https://me:pw@host/x ok");
        assert_eq!(
            text,
            "Authorization: Bearer [redacted], key=[redacted] in https://[redacted]@host/x ok"
        );
        let plain = "error: no such file 'src/task-list.rs' at line 3 (token expected)";
        assert_eq!(redact(plain), plain);
    }
}
