//! What a client asks to move: everything of a receive-pack request in front of the pack
//! (gitprotocol-pack(5), "Reference Update Request").

use bytes::Bytes;
use stockade_domain::{ObjectId, RefName, RefUpdate};

use super::pkt::{Packet, PktError, PktReader, PktWriter};

/// Most bytes in front of the pack.
const MAX_BYTES: usize = 1 << 20;
/// Most references in one push, whatever the rules say.
const MAX_UPDATES: usize = 4096;
/// Most lines of a shallow client.
const MAX_SHALLOW: usize = 16_384;
/// Capabilities that change nothing about how a request is read (gitprotocol-capabilities(5)).
const KNOWN: [&str; 7] = [
    "report-status",
    "report-status-v2",
    "side-band-64k",
    "quiet",
    "delete-refs",
    "ofs-delta",
    "atomic",
];

/// How a client wants to hear what became of its push.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replies {
    /// Line by line for each reference.
    pub status: bool,
    /// With the rest of the answer on side bands.
    pub side_band: bool,
}

/// The commands of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushCommands {
    /// What moves; each reference once.
    pub updates: Vec<RefUpdate>,
    /// The capabilities the client chose, as it wrote them.
    pub capabilities: Vec<String>,
    /// Commits at which a shallow client's history ends. They are not passed on: the push must
    /// be complete without them.
    pub shallow: Vec<ObjectId>,
}

/// Why commands cannot be read, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// The packets are broken.
    #[error("the push is not in git's format: {0}")]
    Packet(#[from] PktError),
    /// A line is none that the protocol has.
    #[error("the push is not in git's format: {0}")]
    Line(&'static str),
    /// Well-formed and not spoken.
    #[error("{0}")]
    Unspoken(&'static str),
    /// A capability nobody here knows; it could change what follows.
    #[error("the push uses '{}', which the Guard does not know", .0.escape_debug())]
    Capability(String),
    /// Too much of something.
    #[error("the push has more than {0}")]
    TooMany(&'static str),
}

impl PushCommands {
    /// How the client wants to be answered.
    pub fn replies(&self) -> Replies {
        let has = |name: &str| self.capabilities.iter().any(|own| own == name);
        Replies {
            status: has("report-status") || has("report-status-v2"),
            side_band: has("side-band-64k"),
        }
    }

    /// Whether a pack follows: not when everything is removed.
    pub fn has_pack(&self) -> bool {
        self.updates.iter().any(|update| !update.new.is_zero())
    }

    /// The commands written anew: what was read and nothing else.
    pub fn encode(&self) -> Bytes {
        let mut writer = PktWriter::default();
        for (at, RefUpdate { name, old, new }) in self.updates.iter().enumerate() {
            let mut line = format!("{old} {new} {name}");
            if at == 0 {
                line.push('\0');
                line.push(' ');
                line.push_str(&self.capabilities.join(" "));
            }
            writer.data(line.as_bytes());
        }
        writer.flush();
        writer.finish()
    }
}

/// Reads commands from bytes in any pieces, and stops in front of the pack.
#[derive(Debug, Default)]
pub struct CommandReader {
    packets: PktReader,
    read: usize,
    updates: Vec<RefUpdate>,
    capabilities: Vec<String>,
    shallow: Vec<ObjectId>,
    ended: bool,
}

impl CommandReader {
    /// Adds bytes; whether the commands are complete.
    ///
    /// # Errors
    ///
    /// [`CommandFault`]; the push must then be refused.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, CommandFault> {
        self.packets.push(bytes);
        while !self.ended {
            match self.packets.read()? {
                Some(Packet::Data(line)) => {
                    self.read += line.len() + 4;
                    self.line(&line)?;
                }
                Some(Packet::Flush) => self.ended = true,
                Some(_) => {
                    return Err(CommandFault::Line(
                        "a packet of another protocol stands among the commands",
                    ));
                }
                None => break,
            }
            if self.read > MAX_BYTES {
                return Err(CommandFault::TooMany("a megabyte of commands"));
            }
        }
        Ok(self.ended)
    }

    /// The commands, and what followed them so far. `None` in place of the commands when there
    /// was nothing but an end, which clients send to see whether they may come in.
    ///
    /// # Errors
    ///
    /// [`CommandFault`] when the commands are not complete.
    pub fn finish(self) -> Result<(Option<PushCommands>, Bytes), CommandFault> {
        if !self.ended {
            return Err(CommandFault::Line("the commands have no end"));
        }
        let rest = self.packets.into_rest();
        if self.updates.is_empty() {
            return match self.shallow.is_empty() {
                true => Ok((None, rest)),
                false => Err(CommandFault::Line("it moves no reference")),
            };
        }
        let commands = PushCommands {
            updates: self.updates,
            capabilities: self.capabilities,
            shallow: self.shallow,
        };
        Ok((Some(commands), rest))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), CommandFault> {
        let mut halves = line.splitn(2, |b| *b == 0);
        let (command, capabilities) = (halves.next().unwrap_or_default(), halves.next());
        let command = std::str::from_utf8(command).map_err(|_| CommandFault::Line("a command is not UTF-8"))?;
        let command = command.strip_suffix('\n').unwrap_or(command);
        if command == "push-cert" || command.starts_with("push-cert ") {
            return Err(CommandFault::Unspoken(
                "signed pushes are not passed on; push without --signed",
            ));
        }
        if let Some(id) = command.strip_prefix("shallow ") {
            return self.shallow_line(id, capabilities.is_some());
        }
        match (capabilities, self.updates.is_empty()) {
            (Some(text), true) => self.capabilities = capabilities_of(text)?,
            (Some(_), false) => return Err(CommandFault::Line("capabilities stand behind the first command")),
            (None, _) => {}
        }
        let update = update_of(command)?;
        if self.updates.iter().any(|other| other.name == update.name) {
            return Err(CommandFault::Line("a reference is named twice"));
        }
        let lengths = |update: &RefUpdate| [update.old.as_str().len(), update.new.as_str().len()];
        let first = self.updates.first().unwrap_or(&update);
        if lengths(&update).iter().any(|length| *length != lengths(first)[0]) {
            return Err(CommandFault::Line("names of objects have two lengths"));
        }
        if self.updates.len() == MAX_UPDATES {
            return Err(CommandFault::TooMany("4096 references"));
        }
        self.updates.push(update);
        Ok(())
    }

    fn shallow_line(&mut self, id: &str, more: bool) -> Result<(), CommandFault> {
        if more || !self.updates.is_empty() {
            return Err(CommandFault::Line("a line 'shallow' stands behind a command"));
        }
        if self.shallow.len() == MAX_SHALLOW {
            return Err(CommandFault::TooMany("16384 lines of a shallow client"));
        }
        let id = id
            .parse()
            .map_err(|_| CommandFault::Line("a line 'shallow' names no commit"))?;
        self.shallow.push(id);
        Ok(())
    }
}

fn update_of(command: &str) -> Result<RefUpdate, CommandFault> {
    let wrong = || CommandFault::Line("a command is not 'old new ref'");
    let (old, rest) = command.split_once(' ').ok_or_else(wrong)?;
    let (new, name) = rest.split_once(' ').ok_or_else(wrong)?;
    Ok(RefUpdate {
        old: old.parse().map_err(|_| wrong())?,
        new: new.parse().map_err(|_| wrong())?,
        name: name
            .parse::<RefName>()
            .map_err(|_| CommandFault::Line("a command names no reference"))?,
    })
}

fn capabilities_of(text: &[u8]) -> Result<Vec<String>, CommandFault> {
    let text = std::str::from_utf8(text).map_err(|_| CommandFault::Line("capabilities are not UTF-8"))?;
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(CommandFault::Line("capabilities contain control characters"));
    }
    let mut found = Vec::new();
    for name in text
        .strip_suffix('\n')
        .unwrap_or(text)
        .split(' ')
        .filter(|name| !name.is_empty())
    {
        match name.split_once('=') {
            _ if KNOWN.contains(&name) => {}
            Some(("agent" | "session-id", _)) | Some(("object-format", "sha1" | "sha256")) => {}
            _ if name == "push-options" => {
                let words = "push options are not passed on: they can start things that nobody approved";
                return Err(CommandFault::Unspoken(words));
            }
            _ => return Err(CommandFault::Capability(name.chars().take(80).collect())),
        }
        found.push(name.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
#[path = "commands_tests.rs"]
mod tests;
