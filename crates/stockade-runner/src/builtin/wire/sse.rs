//! Server-sent events (WHATWG HTML, section 9.2), as far as model answers use them.

use serde_json::Value;

/// Most bytes of one event; a longer one is no model's.
const LIMIT: usize = 16 << 20;

/// Cuts bytes into the data of events.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    buffer: Vec<u8>,
    data: String,
}

/// An event that is not what a model sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream of events is malformed: {0}")]
pub(crate) struct SseError(String);

/// The data of an event.
#[derive(Debug, PartialEq)]
pub(crate) enum SseData {
    /// JSON.
    Json(Value),
    /// OpenAI's end mark, `[DONE]`.
    Done,
}

impl SseReader {
    /// Takes bytes, gives the events they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<SseData>, SseError> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                events.extend(self.end_event()?);
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        if self.buffer.len() + self.data.len() > LIMIT {
            return Err(SseError(format!("an event is longer than {LIMIT} bytes")));
        }
        Ok(events)
    }

    /// The stream has ended; some upstreams leave out the last empty line.
    pub(crate) fn end(&mut self) -> Result<Vec<SseData>, SseError> {
        self.feed(b"\n\n")
    }

    fn end_event(&mut self) -> Result<Option<SseData>, SseError> {
        let data = std::mem::take(&mut self.data);
        match data.trim() {
            "" => Ok(None),
            "[DONE]" => Ok(Some(SseData::Done)),
            text => serde_json::from_str(text)
                .map(|value| Some(SseData::Json(value)))
                .map_err(|e| SseError(format!("its data is not JSON: {e}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_survive_any_cut() {
        let wire = b": ping\r\nevent: x\r\ndata: {\"a\":\r\ndata: \"\xc3\xbc\"}\r\n\r\ndata: [DONE]\n\ndata:{\"b\":1}";
        for cut in 0..=wire.len() {
            let mut reader = SseReader::default();
            let mut events = reader.feed(&wire[..cut]).unwrap();
            events.extend(reader.feed(&wire[cut..]).unwrap());
            events.extend(reader.end().unwrap());
            assert_eq!(
                events,
                [
                    SseData::Json(json!({"a": "ü"})),
                    SseData::Done,
                    SseData::Json(json!({"b": 1}))
                ],
                "cut at {cut}"
            );
        }
        assert!(SseReader::default().feed(b"data: {nope\n\n").is_err());
    }
}
