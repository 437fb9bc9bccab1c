//! Rules for git: what may be fetched and pushed.
//!
//! A push is one action of kind `export` and operation `push`, a pull request one of operation
//! `pull_request`; a fetch is kind `egress` and operation `fetch`. What has `files` in its
//! arguments is judged by the file rules too, and an agent's rules can only narrow the answer.
//!
//! | `args` of a push | Meaning |
//! |---|---|
//! | `repository` | where to: origin and path |
//! | `refs` | what moves: `ref`, `old`, `new`, and after the inspection `history` |
//! | `inspected` | whether the pack was read; a push that was not is never allowed |
//! | `commits`, `log` | how many commits the server does not have, and the first of them |
//! | `stray_objects` | objects of the pack that no commit of the push needs |
//! | `files`, `sizes`, `special` | every file of every such commit, as of any export |
//! | `fault` | what makes the push unreadable, in words |

mod explain;
mod facts;
mod judge;
mod over;
#[cfg(test)]
mod tests;

pub use facts::{History, LogLine, PushFacts, RefFacts, fetch_action, push_action, unreadable_push};
pub use judge::GitPolicy;
pub(crate) use judge::strictest;
pub(crate) use over::{GitOver, HOSTS as GIT_HOSTS};
