//! Frames: `length u32 BE | kind u8 | stream u32 BE | payload`.

/// Bytes before the payload.
pub const HEADER_LEN: usize = 9;
/// Longest payload of a control frame, in bytes.
pub const MAX_CONTROL: usize = 1024 * 1024;
/// Longest payload of any other frame, in bytes.
pub const MAX_DATA: usize = 64 * 1024;

/// What a frame carries. The number is its byte on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// One JSON message.
    Control = 0,
    /// Bytes for a command's standard input.
    Stdin = 1,
    /// Bytes from a command's standard output.
    Stdout = 2,
    /// Bytes from a command's standard error.
    Stderr = 3,
    /// Bytes of a file that is being read or written.
    File = 4,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Control,
            1 => Self::Stdin,
            2 => Self::Stdout,
            3 => Self::Stderr,
            4 => Self::File,
            _ => return None,
        })
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// The request it belongs to; 0 for control frames.
    pub stream: u32,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Why bytes are not a conversation any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame announced more than its kind may carry.
    #[error("a frame of {len} bytes is over the limit of {limit} bytes")]
    TooLong {
        /// Announced length.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// The header of a frame whose payload of `len` bytes follows.
///
/// # Panics
/// When `len` is over [`MAX_CONTROL`]: senders split or refuse before they come here.
#[must_use]
pub fn header(kind: FrameKind, stream: u32, len: usize) -> [u8; HEADER_LEN] {
    assert!(len <= MAX_CONTROL, "a frame payload over its limit");
    let mut out = [0; HEADER_LEN];
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the assertion")]
    out[..4].copy_from_slice(&(len as u32).to_be_bytes());
    out[4] = kind as u8;
    out[5..].copy_from_slice(&stream.to_be_bytes());
    out
}

/// Appends a whole frame to `out`.
pub fn encode(out: &mut Vec<u8>, kind: FrameKind, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&header(kind, stream, payload.len()));
    out.extend_from_slice(payload);
}

/// Cuts a byte stream into frames. Holds at most one frame's bytes more than it was fed.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds received bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            // One long message must not cost its memory for ever.
            if self.buffer.is_empty() && self.buffer.capacity() > 2 * MAX_DATA {
                self.buffer = Vec::new();
            }
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole frame, skipping kinds this version does not know.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]; the conversation cannot go on after it.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let rest = &self.buffer[self.start..];
            let Some(head) = rest.first_chunk::<HEADER_LEN>() else {
                return Ok(None);
            };
            let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let kind = FrameKind::from_byte(head[4]);
            let limit = match kind {
                Some(FrameKind::Control) => MAX_CONTROL,
                _ => MAX_DATA,
            };
            if len > limit {
                return Err(FrameError::TooLong { len, limit });
            }
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some(payload) = rest.get(HEADER_LEN..HEADER_LEN + len) else {
                return Ok(None);
            };
            let payload = payload.to_vec();
            self.start += HEADER_LEN + len;
            if let Some(kind) = kind {
                return Ok(Some(Frame { kind, stream, payload }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Vec<u8> {
        let mut wire = Vec::new();
        encode(&mut wire, FrameKind::Control, 0, b"{}");
        // A kind of a later version, to be skipped.
        wire.extend_from_slice(&[0, 0, 0, 3, 200, 0, 0, 0, 9, 1, 2, 3]);
        encode(&mut wire, FrameKind::Stdout, 7, &[0, 255, 10]);
        wire
    }

    fn all(decoder: &mut Decoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next_frame().expect("well-formed")).collect()
    }

    #[test]
    fn frames_survive_any_cut_and_unknown_kinds_are_skipped() {
        let wire = wire();
        for cut in 0..=wire.len() {
            let mut decoder = Decoder::default();
            decoder.feed(&wire[..cut]);
            let mut got = all(&mut decoder);
            decoder.feed(&wire[cut..]);
            got.extend(all(&mut decoder));
            assert_eq!(got.len(), 2, "cut at {cut}");
            assert_eq!(got[0].payload, b"{}");
            assert_eq!((got[1].kind, got[1].stream), (FrameKind::Stdout, 7));
            assert_eq!(got[1].payload, [0, 255, 10]);
        }
    }

    /// A small generator (xorshift64*): the same frames in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        fn below(&mut self, bound: usize) -> usize {
            usize::try_from(self.roll() >> 33).unwrap_or(0) % bound
        }

        fn bytes(&mut self, len: usize) -> Vec<u8> {
            (0..len).map(|_| self.roll().to_le_bytes()[7]).collect()
        }
    }

    #[test]
    fn random_bytes_are_frames_or_an_error_and_never_a_panic() {
        for seed in 1..=2_000 {
            let mut dice = Dice(seed);
            let mut decoder = Decoder::default();
            'stream: for _ in 0..20 {
                // Half of them with a length that is allowed, or little would get past the header.
                let len = dice.below(300);
                let mut bytes = dice.bytes(len);
                if dice.below(2) == 0 && bytes.len() > 4 {
                    bytes[..3].fill(0);
                }
                decoder.feed(&bytes);
                loop {
                    match decoder.next_frame() {
                        Ok(Some(frame)) => {
                            assert!(frame.payload.len() <= MAX_CONTROL);
                            let _ = serde_json::from_slice::<crate::ToGuest>(&frame.payload);
                            let _ = serde_json::from_slice::<crate::FromGuest>(&frame.payload);
                        }
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
            }
        }
    }

    #[test]
    fn random_frames_survive_random_cuts() {
        for seed in 1..=500 {
            let mut dice = Dice(seed);
            let kinds = [
                FrameKind::Control,
                FrameKind::Stdin,
                FrameKind::Stdout,
                FrameKind::Stderr,
                FrameKind::File,
            ];
            let count = dice.below(12);
            let frames: Vec<_> = (0..count)
                .map(|_| Frame {
                    kind: kinds[dice.below(kinds.len())],
                    stream: u32::try_from(dice.roll() >> 32).unwrap_or(0),
                    payload: {
                        let len = dice.below(2_000);
                        dice.bytes(len)
                    },
                })
                .collect();
            let mut wire = Vec::new();
            for frame in &frames {
                encode(&mut wire, frame.kind, frame.stream, &frame.payload);
            }
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            let mut rest = &wire[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(1 + dice.below(rest.len()));
                decoder.feed(now);
                got.extend(all(&mut decoder));
                rest = later;
            }
            assert_eq!(got, frames, "seed {seed}");
        }
    }

    #[test]
    fn a_frame_over_its_limit_is_refused_before_its_bytes_arrive() {
        let mut decoder = Decoder::default();
        let mut head = header(FrameKind::Stdout, 1, MAX_DATA);
        decoder.feed(&head);
        assert_eq!(decoder.next_frame(), Ok(None), "the limit itself is allowed");
        head[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        let mut decoder = Decoder::default();
        decoder.feed(&head);
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong { .. })));
    }
}
