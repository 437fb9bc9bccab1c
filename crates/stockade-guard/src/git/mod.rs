//! Git through the Guard: the smart HTTP protocol, read as it passes.
//!
//! | Module | Part |
//! |---|---|
//! | `pkt` | pkt-lines: packets from bytes in any pieces, and back |
//! | `request` | is this request git, and which of its four |
//! | `body` | request bodies as clients send them: plain or gzip, bounded |
//! | `advert` | the references a server says it has |
//! | `names` | which references stand where, for the record of a fetch |
//! | `fetch` | what a client asks to read |
//! | `upload` | one fetch: the list, then the objects, asked about once |
//! | `commands` | what a client asks to move, before the pack |
//! | `spool` | the pack, kept until somebody has looked into it |
//! | `report` | answers a git client prints, and the server's own |
//! | `door` | asking the gate |
//! | `push` | one push: read, looked into, asked about, written anew |
//! | `serve` | one request, from the client to the server and back |
//! | `answer` | answers without git in them, and watching one pass |
//!
//! A push is read whole before a byte of it goes on: its commands, then its pack, which the host's
//! git unpacks apart from everything and compares with the run's base. What then goes on is
//! written anew from what was read, so that the server can read nothing else: no push
//! certificate, no push option, no line of a shallow client, no bytes behind the pack.
//!
//! Whether an update loses commits cannot be seen from its command: the old commit must be an
//! ancestor of the new one, and only the commits tell. The inspector says so where it has both;
//! an old commit that is not known on the host counts as one that could be lost.
//!
//! What the server has is taken from its own list of references, read on its way to the client.
//! Without that list nothing counts as known to the server, and the push is about all history.
//!
//! Not spoken: the protocol without a server program, Git LFS, and bundles by URL.

mod advert;
mod answer;
mod body;
mod commands;
mod door;
mod fetch;
mod names;
mod pkt;
mod push;
mod report;
mod request;
mod serve;
mod spool;
mod upload;

pub use advert::{AdvertReader, Advertised};
pub(crate) use answer::refusal;
pub use commands::{CommandReader, PushCommands};
pub(crate) use door::GateDoor;
pub use door::{Door, Pass, Refused};
pub use fetch::FetchReader;
pub use pkt::{MAX_DATA, MAX_PACKET, Packet, PktError, PktReader};
pub use report::{RefResult, ReportReader, ServerReport};
pub use request::{GitRequest, NotGit, Service};
pub use serve::{GitSession, GitSettings, Upstream};
