//! What the tests stand on: an installation of their own, servers to reach, a story to read.

pub(crate) mod anthropic;
pub(crate) mod forge;
pub(crate) mod installation;
pub(crate) mod names;
pub(crate) mod program;
pub(crate) mod raw;
pub(crate) mod receipt;
pub(crate) mod repository;
pub(crate) mod server;
pub(crate) mod story;
pub(crate) mod turns;
pub(crate) mod web;
