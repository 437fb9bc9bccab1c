//! What a server says it has (gitprotocol-pack(5) "Reference Discovery", gitprotocol-http(5)).

use std::collections::{BTreeSet, HashMap};

use stockade_domain::ObjectId;

use super::pkt::{Packet, PktReader};

/// Most references that are remembered; a server with more has said nothing.
const MAX_REFS: usize = 200_000;

/// A server's list of references.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertised {
    /// Where each reference stands.
    pub refs: HashMap<String, ObjectId>,
    /// Every object the server said it has, references and others (`.have`).
    pub objects: BTreeSet<ObjectId>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Service,
    ServiceEnd,
    Refs,
    End,
    /// Not a list that can be used.
    Lost,
}

/// Reads the list as it passes to the client. It refuses nothing: a list that is not understood
/// is no list.
#[derive(Debug, Default)]
pub struct AdvertReader {
    packets: PktReader,
    place: Place,
    found: Advertised,
}

impl AdvertReader {
    /// Adds bytes of the answer to `info/refs`.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.place == Place::Lost {
            return;
        }
        self.packets.push(bytes);
        loop {
            match self.packets.read() {
                Ok(Some(packet)) => self.place = self.step(&packet),
                Ok(None) => return,
                Err(_) => self.place = Place::Lost,
            }
            if self.place == Place::Lost {
                (self.packets, self.found) = Default::default();
                return;
            }
        }
    }

    /// The list, if it came whole.
    pub fn finish(self) -> Option<Advertised> {
        (self.place == Place::End && self.packets.pending() == 0).then_some(self.found)
    }

    fn step(&mut self, packet: &Packet) -> Place {
        let line = match packet {
            Packet::Data(data) => data.strip_suffix(b"\n").unwrap_or(data),
            Packet::Flush => {
                return match self.place {
                    Place::ServiceEnd => Place::Refs,
                    Place::Refs => Place::End,
                    _ => Place::Lost,
                };
            }
            _ => return Place::Lost,
        };
        match self.place {
            Place::Service if line == b"# service=git-receive-pack" => Place::ServiceEnd,
            Place::Refs => self.reference(line).map_or(Place::Lost, |()| Place::Refs),
            _ => Place::Lost,
        }
    }

    fn reference(&mut self, line: &[u8]) -> Option<()> {
        let line = line.split(|b| *b == 0).next()?;
        let text = std::str::from_utf8(line).ok()?;
        // Version 1 says so first; a shallow server says where its history ends.
        if text == "version 1" || text.starts_with("shallow ") {
            return Some(());
        }
        let (id, name) = text.split_once(' ')?;
        let id: ObjectId = id.parse().ok()?;
        if id.is_zero() {
            return (name == "capabilities^{}").then_some(());
        }
        if self.found.objects.len() >= MAX_REFS || self.found.refs.len() >= MAX_REFS {
            return None;
        }
        self.found.objects.insert(id.clone());
        if name.starts_with("refs/") {
            self.found.refs.insert(name.to_owned(), id);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pkt::PktWriter, *};

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const SERVICE: &str = "# service=git-receive-pack\n";

    fn read(lists: &[&[&str]], piece: usize) -> Option<Advertised> {
        let mut writer = PktWriter::default();
        for list in lists {
            for line in *list {
                writer.data(line.as_bytes());
            }
            writer.flush();
        }
        let mut reader = AdvertReader::default();
        for piece in writer.finish().chunks(piece) {
            reader.push(piece);
        }
        reader.finish()
    }

    #[test]
    fn references_and_other_objects_are_remembered() {
        let first = format!("{A} refs/heads/main\0report-status delete-refs\n");
        let have = format!("{B} .have\n");
        for piece in [1, 6, 4096] {
            let found = read(&[&[SERVICE], &["version 1", &first, &have]], piece).unwrap();
            assert_eq!(found.refs.get("refs/heads/main").map(ObjectId::as_str), Some(A));
            assert_eq!(found.objects.len(), 2);
        }
        let empty = format!("{} capabilities^{{}}\0report-status\n", "0".repeat(40));
        assert_eq!(read(&[&[SERVICE], &[&empty]], 9), Some(Advertised::default()));
    }

    #[test]
    fn a_list_that_is_not_understood_is_no_list() {
        let first = format!("{A} refs/heads/main\n");
        assert!(read(&[&[SERVICE], &[&first]], 9).is_some(), "the control");
        assert_eq!(read(&[&[SERVICE]], 9), None, "no end");
        assert_eq!(read(&[&["# service=git-upload-pack\n"], &[&first]], 9), None);
        assert_eq!(read(&[&[SERVICE], &["version 2"]], 9), None);
        assert_eq!(read(&[&[SERVICE], &[&first], &[]], 9), None, "two ends");
        let zero = format!("{} refs/heads/x", "0".repeat(40));
        assert_eq!(read(&[&[SERVICE], &[&zero]], 9), None);
    }
}
