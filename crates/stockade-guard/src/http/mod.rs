//! HTTP: every request of a connection is read, judged and sent on anew, in the clear or
//! inside TLS that the Guard opened.
//!
//! | Module | Part |
//! |---|---|
//! | `filter` | lets only HTTP/1 pass that every server reads alike |
//! | `http1`, `http2` | the client's side of a connection |
//! | `exchange` | one request: whom it names, what the rules say, what comes back |
//! | `through_git` | the same for requests of git's |
//! | `outer` | the server's side |
//! | `request` | names, and headers that concern one hop only |
//! | `upgrade` | WebSocket |

mod exchange;
mod filter;
mod http1;
mod http2;
mod internal;
mod outer;
mod problem;
mod request;
mod tasks;
mod through_git;
mod upgrade;

pub(crate) use exchange::Exchange;
pub(crate) use http1::{serve_http1, serve_plain};
pub(crate) use http2::serve_http2;
pub(crate) use internal::serve_internal;
pub(crate) use outer::Outer;
pub(crate) use problem::problem_bytes;
pub(crate) use request::Pin;

/// Bytes of one HTTP/2 stream that may be under way unread.
const WINDOW: u32 = 256 * 1024;
/// The same for a whole connection.
const WINDOWS: u32 = 1024 * 1024;
