//! What stands where, as a server tells readers (gitprotocol-pack(5) "Reference Discovery",
//! gitprotocol-v2(5) "ls-refs"): the names behind the objects that are asked for.

use std::collections::HashMap;

use stockade_domain::ObjectId;

use super::pkt::{Packet, PktReader};

/// Most names that are remembered.
const MAX_NAMES: usize = 100_000;

/// The references that stand at each object.
pub(super) type Names = HashMap<ObjectId, Vec<String>>;

/// Reads the list as it passes to the client. It refuses nothing; what is not understood has no
/// name.
#[derive(Debug, Default)]
pub(super) struct NamesReader {
    packets: PktReader,
    found: Names,
    count: usize,
    lost: bool,
}

impl NamesReader {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.lost {
            return;
        }
        self.packets.push(bytes);
        loop {
            match self.packets.read() {
                Ok(Some(Packet::Data(data))) => self.line(&data),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => {
                    self.lost = true;
                    return;
                }
            }
        }
    }

    pub(super) fn finish(self) -> Names {
        self.found
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.split(|b| *b == 0).next().unwrap_or_default();
        let Some((id, rest)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' ')) else {
            return;
        };
        let name = rest.split([' ', '\n']).next().unwrap_or_default();
        let named = name == "HEAD" || name.starts_with("refs/") && !name.ends_with("^{}");
        if let (Ok(id), true, true) = (id.parse(), named, self.count < MAX_NAMES) {
            self.count += 1;
            self.found.entry(id).or_default().push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pkt::PktWriter, *};

    #[test]
    fn names_are_read_from_the_lists_of_every_version() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let old = [
            "# service=git-upload-pack\n".to_owned(),
            "version 1\n".to_owned(),
            format!("{a} HEAD\0multi_ack symref=HEAD:refs/heads/main\n"),
            format!("{a} refs/heads/main\n"),
            format!("{b} refs/tags/v1^{{}}\n"),
        ];
        let new = [
            format!("{a} HEAD symref-target:refs/heads/main\n"),
            format!("{a} refs/heads/main\n"),
            "unborn HEAD symref-target:refs/heads/x\n".to_owned(),
        ];
        for lines in [&old[..], &new[..]] {
            let mut writer = PktWriter::default();
            for line in lines {
                writer.data(line.as_bytes());
            }
            writer.flush();
            let mut reader = NamesReader::default();
            for piece in writer.finish().chunks(7) {
                reader.push(piece);
            }
            let found = reader.finish();
            assert_eq!(found[&a.parse().unwrap()], ["HEAD", "refs/heads/main"]);
            assert_eq!(found.len(), 1);
        }
    }

    #[test]
    fn what_is_no_list_has_no_names() {
        let mut reader = NamesReader::default();
        reader.push(b"<html>not git</html>");
        assert!(reader.finish().is_empty());
    }
}
