//! A parser for `text/event-stream` (WHATWG HTML, section 9.2 "Server-sent events").

/// One event as it came over the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseMessage {
    /// The `event` field; empty when absent, which means `message`.
    pub event: String,
    /// The `id` in force when the event was dispatched.
    pub id: Option<String>,
    /// The `data` lines, joined by line feeds.
    pub data: String,
}

/// Why a stream is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event is larger than the parser holds.
    #[error("one event of the stream is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The stream is not UTF-8.
    #[error("the event stream is not UTF-8")]
    NotUtf8,
}

/// Turns bytes as they arrive into events. Holds at most one unfinished event.
#[derive(Debug)]
pub struct SseParser {
    line: Vec<u8>,
    data: String,
    has_data: bool,
    event: String,
    last_id: Option<String>,
    after_cr: bool,
    first_line: bool,
    limit: usize,
}

impl SseParser {
    /// A parser that refuses events of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            data: String::new(),
            has_data: false,
            event: String::new(),
            last_id: None,
            after_cr: false,
            first_line: true,
            limit,
        }
    }

    /// Takes bytes, however they were cut, and gives the events that became complete.
    ///
    /// # Errors
    ///
    /// [`SseError`]; the parser is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseMessage>, SseError> {
        let mut messages = Vec::new();
        for &byte in bytes {
            let line_feed_of_crlf = std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
            if line_feed_of_crlf {
                continue;
            }
            if byte == b'\r' || byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                messages.extend(self.end_of_line(&line)?);
                continue;
            }
            self.line.push(byte);
            if self.line.len() + self.data.len() > self.limit {
                return Err(SseError::TooLarge { limit: self.limit });
            }
        }
        Ok(messages)
    }

    fn end_of_line(&mut self, line: &[u8]) -> Result<Option<SseMessage>, SseError> {
        let mut line = std::str::from_utf8(line).map_err(|_| SseError::NotUtf8)?;
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            "event" => value.clone_into(&mut self.event),
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            // Comments (an empty field name), `retry` and unknown fields carry nothing for us.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<SseMessage> {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then(|| SseMessage {
            event,
            id: self.last_id.clone(),
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Vec<SseMessage> {
        SseParser::new(1024).push(text.as_bytes()).unwrap()
    }

    fn message(event: &str, id: Option<&str>, data: &str) -> SseMessage {
        SseMessage {
            event: event.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        }
    }

    #[test]
    fn fields_comments_ids_and_multiline_data() {
        let text = "\u{feff}: hi\nid: r:1\nevent: a\ndata: one\ndata:two\n\ndata\n\nretry: 5\n\nid: bad\0\ndata: x\n\n";
        assert_eq!(
            parse(text),
            vec![
                message("a", Some("r:1"), "one\ntwo"),
                message("", Some("r:1"), ""),
                message("", Some("r:1"), "x")
            ]
        );
    }

    #[test]
    fn an_event_without_its_empty_line_is_not_told() {
        assert_eq!(parse("data: half\n"), vec![]);
        assert_eq!(parse("data: whole\n\n"), vec![message("", None, "whole")]);
    }

    #[test]
    fn too_large_and_not_utf8_are_refused() {
        let mut parser = SseParser::new(16);
        assert_eq!(
            parser.push(b"data: 0123456789abcdef"),
            Err(SseError::TooLarge { limit: 16 })
        );
        assert_eq!(SseParser::new(16).push(b"data: \xff\n"), Err(SseError::NotUtf8));
    }

    proptest! {
        /// However the bytes are cut and whatever ends the lines, the events are the same.
        #[test]
        fn cuts_do_not_matter(cuts in proptest::collection::vec(0usize..80, 0..12), ending in 0usize..3) {
            let text = "id: r:1\nevent: x\ndata: {\"ü\":1}\n\n: ka\n\ndata: a\ndata: b\n\n"
                .replace('\n', ["\n", "\r\n", "\r"][ending]);
            let whole = parse(&text);
            prop_assert_eq!(whole.len(), 2);
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut parser = SseParser::new(1024);
            let (mut from, mut pieces) = (0, Vec::new());
            for cut in cuts.into_iter().map(|c| c.min(text.len())).chain([text.len()]) {
                pieces.extend(parser.push(&text.as_bytes()[from..cut]).unwrap());
                from = cut;
            }
            prop_assert_eq!(pieces, whole);
        }
    }
}
