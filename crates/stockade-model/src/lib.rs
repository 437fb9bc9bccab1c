//! Model providers: who answers a model call.
//!
//! | Provider | Answers with | Wires |
//! |---|---|---|
//! | [`UpstreamProvider`] | a real endpoint, by URL and key | those of its kind |
//! | [`ScriptedProvider`] | turns from a YAML file | all three |
//! | [`RecordingProvider`] | another provider, and keeps what it said | the other's |
//! | [`ReplayProvider`] | what was recorded | all three |
//!
//! All implement [`stockade_ports::ModelProvider`]. A provider never decides whether a call
//! may happen; the gate does, before it opens one.

#![forbid(unsafe_code)]

mod recorded;
pub mod scripted;
mod tls;
pub mod upstream;

pub use recorded::{RecordingError, RecordingProvider, ReplayProvider};
pub use scripted::{Script, ScriptError, ScriptedProvider};
pub use tls::install_ring;
pub use upstream::{UpstreamConfig, UpstreamError, UpstreamKind, UpstreamProvider};
