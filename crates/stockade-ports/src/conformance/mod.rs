//! Conformance suites: one per trait, passed by every implementation.

pub mod store;
