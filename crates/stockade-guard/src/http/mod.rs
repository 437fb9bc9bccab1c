//! HTTP/1 in the clear: every request of a connection is read, judged and sent on anew.

mod filter;
mod internal;
mod problem;
mod proxy;
mod request;

pub(crate) use internal::serve_internal;
pub(crate) use problem::problem_bytes;
pub(crate) use proxy::serve_proxied;
