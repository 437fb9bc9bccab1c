//! Stockade from the outside: the binary, its HTTP interface, and what sandboxes can and cannot do.

mod support;

mod agents;
mod api;
mod apply;
mod approvals;
mod backends;
mod bad_input;
mod bad_requests;
mod bombs;
mod canary;
mod clients;
mod crash;
mod credentials;
mod demo;
mod egress_rules;
mod file_policy;
mod git_through;
mod images;
mod limits;
mod logs;
mod planted;
mod production;
mod proxy;
mod publishing;
mod pull_request;
mod reach;
mod redteam;
mod rootless;
mod secrets;
mod traffic;
mod traps;
mod upstream;
