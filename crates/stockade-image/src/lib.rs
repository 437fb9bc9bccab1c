//! OCI images on this host's disk: pulled by digest, unpacked safely, shared by all sandboxes.
//!
//! ```text
//! DIR/images/sha256/<manifest>.json   what an image is made of, or which image an index means here
//! DIR/layers/sha256/<diff id>/tree    one unpacked layer, shared by all images that have it
//! DIR/layers/sha256/<diff id>/info.json
//! DIR/downloads/                      compressed layers on their way, kept to be resumed
//! DIR/tmp/                            trees that are being made or removed
//! DIR/locks/                          one file for each image and layer
//! ```
//!
//! A thing appears under its name by one `rename`, complete and flushed, so a process that dies
//! leaves nothing broken. Who uses an image holds shared locks (`flock(2)`) on it and its layers;
//! who makes or removes one needs the exclusive lock. The kernel frees the locks of a dead
//! process, and the store may be shared by any number of processes.
//!
//! Every byte is checked twice: the compressed blob against the manifest's digest and the tar
//! stream against the configuration's diff id; manifest and configuration against theirs. A
//! registry is trusted with nothing but availability. One thing cannot be bounded here: the client
//! library reads a manifest into memory before its size is known.

mod collect;
mod config;
mod download;
mod fault;
mod flight;
mod layer;
mod lock;
mod manifest;
mod places;
mod pull;
mod reference;
mod registry;
mod store;

pub use config::{Credential, ImageConfig, ImageLimits};
pub use store::ImageStore;
