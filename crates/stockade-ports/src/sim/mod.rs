//! Simulated implementations for tests: honest about the contract, quick, and able to fail
//! on command.

mod bus;
mod memory;
pub mod samples;
mod tables;

pub use bus::RecordingBus;
pub use memory::MemoryStore;
