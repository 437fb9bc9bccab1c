//! Simulated implementations for tests: honest about the contract, quick, and able to fail
//! on command.

mod bus;
mod egress;
mod memory;
pub mod samples;
mod tables;

pub use bus::RecordingBus;
pub use egress::ClosedDoor;
pub use memory::MemoryStore;
