//! The public contract of Stockade over HTTP: what requests and answers look like, what can
//! go wrong, and a typed client.
//!
//! * [`v1`]: the bodies of version 1, under `/v1`. Requests refuse unknown fields; answers
//!   may gain fields, so readers ignore what they do not know.
//! * [`Problem`] and [`ProblemCode`]: every error, as RFC 9457 `application/problem+json`.
//! * [`sse`]: the parser of the event stream's wire format.
//! * [`Client`]: one method per route, and [`EventStream`], which survives broken
//!   connections without a gap and without telling an event twice.

#![forbid(unsafe_code)]

pub mod client;
pub mod problem;
pub mod sse;
pub mod v1;

pub use client::{Client, ClientError, EventStream, ListRuns, Reconnect};
pub use problem::{PROBLEM_TYPE_BASE, Problem, ProblemCode};
/// The types of the domain that appear in bodies, for programs that depend on this crate alone.
pub use stockade_domain as domain;
