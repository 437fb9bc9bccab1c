//! Pkt-lines (gitprotocol-common(5)): a length in four hexadecimal digits that counts itself,
//! then the data. Lengths 0, 1 and 2 are packets without data; 3 means nothing.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest packet with its length, in bytes.
pub const MAX_PACKET: usize = 65_520;
/// Longest data of a packet, in bytes.
pub const MAX_DATA: usize = MAX_PACKET - 4;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Data; may be empty.
    Data(Bytes),
    /// `0000`: the end of a list.
    Flush,
    /// `0001`: the end of a section (gitprotocol-v2(5)).
    Delim,
    /// `0002`: the end of an answer (gitprotocol-v2(5)).
    ResponseEnd,
}

/// Why bytes are no packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PktError {
    /// Four bytes that are no length.
    #[error("a packet does not begin with its length in four hexadecimal digits")]
    NoLength,
    /// Length 3, which no packet has.
    #[error("a packet has the length 0003, which means nothing")]
    BadLength,
    /// Longer than any packet.
    #[error("a packet is longer than {MAX_PACKET} bytes")]
    TooLong,
}

/// Makes packets of bytes that come in any pieces.
#[derive(Debug, Default)]
pub struct PktReader {
    buffer: BytesMut,
}

impl PktReader {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet, if it is there.
    ///
    /// # Errors
    ///
    /// [`PktError`]; the stream is lost then.
    pub fn read(&mut self) -> Result<Option<Packet>, PktError> {
        let Some(digits) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let packet = match length(*digits)? {
            0 => Packet::Flush,
            1 => Packet::Delim,
            2 => Packet::ResponseEnd,
            3 => return Err(PktError::BadLength),
            length if length > MAX_PACKET => return Err(PktError::TooLong),
            length if self.buffer.len() < length => return Ok(None),
            length => {
                self.buffer.advance(4);
                return Ok(Some(Packet::Data(self.buffer.split_to(length - 4).freeze())));
            }
        };
        self.buffer.advance(4);
        Ok(Some(packet))
    }

    /// Bytes that are no whole packet yet.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Takes the bytes that were not read as packets.
    pub fn into_rest(self) -> Bytes {
        self.buffer.freeze()
    }
}

fn length(digits: [u8; 4]) -> Result<usize, PktError> {
    digits.iter().try_fold(0, |sum, digit| {
        let value = char::from(*digit).to_digit(16).ok_or(PktError::NoLength)?;
        Ok(sum * 16 + value as usize)
    })
}

/// Writes packets.
#[derive(Debug, Default)]
pub(super) struct PktWriter {
    out: BytesMut,
}

impl PktWriter {
    /// A packet of data, cut to what fits.
    pub(super) fn data(&mut self, data: &[u8]) {
        let data = &data[..data.len().min(MAX_DATA)];
        self.out.put_slice(format!("{:04x}", data.len() + 4).as_bytes());
        self.out.put_slice(data);
    }

    /// Data on a band (gitprotocol-capabilities(5), `side-band-64k`), in as many packets as it needs.
    pub(super) fn band(&mut self, band: u8, data: &[u8]) {
        for piece in data.chunks(MAX_DATA - 1) {
            let mut packet = Vec::with_capacity(piece.len() + 1);
            packet.push(band);
            packet.extend_from_slice(piece);
            self.data(&packet);
        }
    }

    /// The end of a list.
    pub(super) fn flush(&mut self) {
        self.out.put_slice(b"0000");
    }

    /// The bytes written.
    pub(super) fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], cuts: &[usize]) -> (Vec<Packet>, Option<PktError>, usize) {
        let mut reader = PktReader::default();
        let (mut packets, mut rest, mut cuts) = (Vec::new(), bytes, cuts.iter().cycle());
        loop {
            loop {
                match reader.read() {
                    Ok(Some(packet)) => packets.push(packet),
                    Ok(None) => break,
                    Err(error) => return (packets, Some(error), 0),
                }
            }
            if rest.is_empty() {
                return (packets, None, reader.pending());
            }
            let cut = cuts.next().map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
            reader.push(&rest[..cut]);
            rest = &rest[cut..];
        }
    }

    #[test]
    fn lengths_that_mean_nothing_are_refused() {
        for (bytes, error) in [
            (&b"0003"[..], PktError::BadLength),
            (b"fff1", PktError::TooLong),
            (b"ffff", PktError::TooLong),
            (b"00g0", PktError::NoLength),
            (b"PACK", PktError::NoLength),
            (b" 004", PktError::NoLength),
            (b"+004", PktError::NoLength),
            (b"0000000\xff", PktError::NoLength),
        ] {
            assert_eq!(read(bytes, &[1]).1, Some(error), "{bytes:?}");
        }
        let (packets, error, rest) = read(b"000000010002000400050000a", &[3]);
        assert_eq!(error, None);
        assert_eq!(
            packets,
            [
                Packet::Flush,
                Packet::Delim,
                Packet::ResponseEnd,
                Packet::Data(Bytes::new()),
                Packet::Data(Bytes::from_static(b"0")),
            ]
        );
        assert_eq!(rest, 4, "what is no packet yet stays");
    }

    #[test]
    fn the_longest_packet_passes_and_one_more_byte_does_not() {
        let longest = [b"fff0".as_slice(), &vec![7; MAX_DATA]].concat();
        assert_eq!(
            read(&longest, &[1000]).0,
            [Packet::Data(Bytes::from(vec![7; MAX_DATA]))]
        );
        let mut writer = PktWriter::default();
        writer.band(1, &vec![1; MAX_DATA]);
        let written = writer.finish();
        assert_eq!(
            read(&written, &[999]).0.len(),
            2,
            "a band's byte needs room, so it takes two packets"
        );
    }

    fn packet() -> impl Strategy<Value = Packet> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(|data| Packet::Data(Bytes::from(data))),
            Just(Packet::Flush),
            Just(Packet::Delim),
            Just(Packet::ResponseEnd),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_however_it_is_cut(
            packets in proptest::collection::vec(packet(), 0..20),
            cuts in proptest::collection::vec(1_usize..64, 1..20),
        ) {
            let mut writer = PktWriter::default();
            for packet in &packets {
                match packet {
                    Packet::Data(data) => writer.data(data),
                    Packet::Flush => writer.flush(),
                    Packet::Delim => writer.out.put_slice(b"0001"),
                    Packet::ResponseEnd => writer.out.put_slice(b"0002"),
                }
            }
            let (read, error, rest) = read(&writer.finish(), &cuts);
            prop_assert_eq!((read, error, rest), (packets, None, 0));
        }

        #[test]
        fn cuts_change_nothing(
            bytes in proptest::collection::vec(prop_oneof![Just(b'0'), Just(b'5'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(1_usize..9, 1..9),
        ) {
            prop_assert_eq!(read(&bytes, &[usize::MAX]), read(&bytes, &cuts));
        }
    }
}
