//! Policy, pure: what the rules of a run say to an action, and which rule said it.
//!
//! A [`Policy`] is compiled once from what a run is frozen with (its agent's rules and its
//! environment) and evaluated for every action. First the agent's own rules, the first
//! that matches decides; then what the kind of action does by default. An agent's rule can
//! narrow what the environment allows and never widen it.

#![forbid(unsafe_code)]

pub mod pattern;
pub mod policy;

pub use policy::{Policy, PolicyError};
