//! Server-sent events, read along as they pass (WHATWG HTML, section 9.2.6).

/// One event's data may be this long; a longer one is not read.
const LIMIT: usize = 16 << 20;

/// Finds the data of events in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    overflowed: bool,
}

impl SseReader {
    /// Takes the next piece and hands every finished event's data to `event`.
    pub(super) fn feed(&mut self, piece: &[u8], mut event: impl FnMut(&[u8])) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > LIMIT {
                self.overflowed = true;
                self.line.clear();
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line(&mut event);
            }
        }
    }

    /// The stream ended; an event without its blank line still counts.
    pub(super) fn finish(&mut self, mut event: impl FnMut(&[u8])) {
        self.line.push(b'\n');
        self.end_line(&mut event);
        self.line.push(b'\n');
        self.end_line(&mut event);
    }

    fn end_line(&mut self, event: &mut impl FnMut(&[u8])) {
        let mut line = self.line.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if self.has_data && !self.overflowed {
                event(&self.data);
            }
            self.data.clear();
            self.has_data = false;
            self.overflowed = false;
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            if self.has_data {
                self.data.push(b'\n');
            }
            if self.data.len() + value.len() > LIMIT {
                self.overflowed = true;
            } else {
                self.data.extend_from_slice(value);
            }
            self.has_data = true;
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut reader = SseReader::default();
        let mut events = Vec::new();
        for piece in pieces {
            reader.feed(piece, |data| events.push(String::from_utf8_lossy(data).into_owned()));
        }
        reader.finish(|data| events.push(String::from_utf8_lossy(data).into_owned()));
        events
    }

    #[test]
    fn events_are_found_whatever_the_line_ends() {
        let stream = b": hello\nevent: a\ndata: {\"x\":1}\n\ndata:two\r\ndata: lines\r\n\r\nid: 4\n\ndata: last";
        assert_eq!(read(&[stream]), ["{\"x\":1}", "two\nlines", "last"]);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&bytes), read(&[stream]));
    }

    #[test]
    fn an_endless_line_is_passed_over_and_the_next_event_is_read() {
        let long = vec![b'x'; LIMIT];
        assert_eq!(read(&[b"data: ", &long, &long, b"\n\ndata: next\n\n"]), ["next"]);
    }
}
