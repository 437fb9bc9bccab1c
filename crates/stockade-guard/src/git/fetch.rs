//! What a client asks to read: upload-pack requests of protocol versions 0, 1 and 2
//! (gitprotocol-pack(5), gitprotocol-v2(5)), checked as they pass.

use stockade_domain::ObjectId;

use super::pkt::{Packet, PktError, PktReader};

/// Most objects one request may name; as many fit into a request that is read at all.
const MAX_WANTS: usize = 400_000;
/// Commands of version 2 that only read.
const COMMANDS: [&str; 3] = ["ls-refs", "fetch", "object-info"];
/// Lines of versions 0 and 1 in front of the first end.
const WISHES: [&str; 6] = [
    "want ",
    "shallow ",
    "deepen ",
    "deepen-since ",
    "deepen-not ",
    "filter ",
];

/// Why a request to read is refused, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchFault {
    /// The packets are broken.
    #[error("the fetch is not in git's format: {0}")]
    Packet(#[from] PktError),
    /// A line is none that the protocol has, or stands where it has none.
    #[error("the fetch is not in git's format: {0}")]
    Line(&'static str),
    /// A command of version 2 that is not spoken.
    #[error("git's command '{}' is not spoken through the Guard", .0.escape_debug())]
    Command(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Nothing was read.
    #[default]
    Start,
    /// Versions 0 and 1: what is wanted.
    Wants,
    /// Versions 0 and 1: what is there already.
    Haves,
    /// Version 2: capabilities behind the command.
    Capabilities,
    /// Version 2: arguments.
    Arguments,
    /// Nothing may follow.
    End,
}

/// Checks a request in any pieces; what it takes without error may pass.
#[derive(Debug, Default)]
pub struct FetchReader {
    packets: PktReader,
    place: Place,
    wants: Vec<ObjectId>,
    names: Vec<String>,
    lists: bool,
    done: bool,
}

impl FetchReader {
    /// Adds bytes.
    ///
    /// # Errors
    ///
    /// [`FetchFault`]; nothing more may pass then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FetchFault> {
        self.packets.push(bytes);
        while let Some(packet) = self.packets.read()? {
            self.place = self.step(&packet)?;
        }
        Ok(())
    }

    /// The request is over.
    ///
    /// # Errors
    ///
    /// [`FetchFault`] when it broke off.
    pub fn finish(&self) -> Result<(), FetchFault> {
        let broken = matches!(self.place, Place::Wants | Place::Capabilities | Place::Arguments);
        if broken || self.packets.pending() > 0 {
            return Err(FetchFault::Line("it has no end"));
        }
        Ok(())
    }

    /// Objects asked for, in versions 0 and 1 and in `fetch`.
    pub fn wants(&self) -> &[ObjectId] {
        &self.wants
    }

    /// References asked for without their objects, in version 2.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether it asks for the list of references, in version 2.
    pub fn lists(&self) -> bool {
        self.lists
    }

    /// Whether the client has nothing more to say about what it has.
    pub fn is_last(&self) -> bool {
        self.done
    }

    fn step(&mut self, packet: &Packet) -> Result<Place, FetchFault> {
        let line = match packet {
            Packet::Data(data) => {
                let text = std::str::from_utf8(data).map_err(|_| FetchFault::Line("a line is not UTF-8"))?;
                Some(text.strip_suffix('\n').unwrap_or(text))
            }
            _ => None,
        };
        if let Some(line) = line {
            self.note(line)?;
        }
        match (self.place, packet, line) {
            (Place::Start, _, Some(line)) if line.starts_with("command=") => command(line),
            (Place::Start | Place::Wants, _, Some(line)) if WISHES.iter().any(|wish| line.starts_with(wish)) => {
                Ok(Place::Wants)
            }
            // Nothing wanted: the client is up to date, or knocks at the door.
            (Place::Start | Place::Wants, Packet::Flush, _) => Ok(Place::Haves),
            (Place::Haves, Packet::Flush, _) => Ok(Place::Haves),
            (Place::Haves, _, Some(line)) if line.starts_with("have ") => Ok(Place::Haves),
            (Place::Haves, _, Some("done")) => Ok(Place::End),
            (Place::Capabilities, _, Some(_)) => Ok(Place::Capabilities),
            (Place::Capabilities, Packet::Delim, _) => Ok(Place::Arguments),
            (Place::Arguments, _, Some(_)) => Ok(Place::Arguments),
            (Place::Capabilities | Place::Arguments, Packet::Flush, _) => Ok(Place::End),
            (Place::End, ..) => Err(FetchFault::Line("something follows its end")),
            _ => Err(FetchFault::Line("a line stands where it has no meaning")),
        }
    }
}

impl FetchReader {
    fn note(&mut self, line: &str) -> Result<(), FetchFault> {
        self.lists |= line == "command=ls-refs";
        self.done |= line == "done";
        if self.wants.len() + self.names.len() >= MAX_WANTS {
            return Err(FetchFault::Line("it wants more objects than a fetch can"));
        }
        self.names.extend(line.strip_prefix("want-ref ").map(str::to_owned));
        let Some(want) = line.strip_prefix("want ") else {
            return Ok(());
        };
        // Behind the first one stand capabilities, in versions 0 and 1.
        let id = want.split(' ').next().unwrap_or_default();
        let id = id
            .parse()
            .map_err(|_| FetchFault::Line("what it wants is no object's name"))?;
        self.wants.push(id);
        Ok(())
    }
}

fn command(line: &str) -> Result<Place, FetchFault> {
    let name = line.strip_prefix("command=").unwrap_or_default();
    match COMMANDS.contains(&name) {
        true => Ok(Place::Capabilities),
        false => Err(FetchFault::Command(name.chars().take(80).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pkt::PktWriter, *};

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// `-` is a flush, `|` a delimiter.
    fn bytes(lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            let mut writer = PktWriter::default();
            match *line {
                "-" => writer.flush(),
                "|" => out.extend_from_slice(b"0001"),
                line => writer.data(line.as_bytes()),
            }
            out.extend_from_slice(&writer.finish());
        }
        out
    }

    fn read(bytes: &[u8], piece: usize) -> Result<u64, FetchFault> {
        let mut reader = FetchReader::default();
        for piece in bytes.chunks(piece) {
            reader.push(piece)?;
        }
        reader.finish()?;
        Ok((reader.wants().len() + reader.names().len()) as u64)
    }

    #[test]
    fn requests_of_every_version_pass() {
        let want = format!("want {A} multi_ack_detailed side-band-64k agent=git/2\n");
        let have = format!("have {A}\n");
        for (lines, wants) in [
            (
                vec![
                    "command=ls-refs\n",
                    "agent=git/2",
                    "object-format=sha1",
                    "|",
                    "peel\n",
                    "ref-prefix HEAD\n",
                    "-",
                ],
                0,
            ),
            (
                vec![
                    "command=fetch",
                    "agent=git/2",
                    "|",
                    "thin-pack",
                    &want,
                    &have,
                    "done\n",
                    "-",
                ],
                1,
            ),
            (vec!["command=ls-refs\n", "-"], 0),
            (vec![want.as_str(), "deepen 1\n", "-", "done\n"], 1),
            (vec![want.as_str(), want.as_str(), "-", &have, "-", &have, "done"], 2),
            (vec![want.as_str(), "-", &have, "-"], 1),
            (vec!["-"], 0),
        ] {
            for piece in [1, 5, 4096] {
                assert_eq!(read(&bytes(&lines), piece), Ok(wants), "{lines:?}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_reading_does_not_pass() {
        let want = format!("want {A}");
        for lines in [
            vec!["command=receive", "-"],
            vec!["command=bundle-uri", "-"],
            vec!["command=fetch "],
            vec!["command=fetch", "-", "command=fetch", "-"],
            vec!["command=fetch", "|", "x", "|", "-"],
            vec!["command=fetch", "|", "x"],
            vec![want.as_str()],
            vec![want.as_str(), "|"],
            vec![want.as_str(), "-", "want x"],
            vec![want.as_str(), "-", "done", "done"],
            vec![want.as_str(), "-", "done", "-"],
            vec!["hello"],
            vec![""],
        ] {
            assert!(read(&bytes(&lines), 4096).is_err(), "{lines:?}");
        }
        for bytes in [&b"0003"[..], b"zzzz", b"0008ab", b"00000"] {
            assert!(read(bytes, 1).is_err(), "{bytes:?}");
        }
    }
}
