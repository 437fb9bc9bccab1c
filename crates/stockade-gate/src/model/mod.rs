//! The door to models: every model call passes the gate here, is metered while it streams,
//! and is settled when it ends, however it ends.
//!
//! | Moment | What counts against the run's budget |
//! |---|---|
//! | before the call | the input estimated from the body's bytes, plus the output the request allows; the cost of both; one request |
//! | answered in full | what the provider reports; estimated from the bytes where it reports nothing |
//! | an HTTP error, or never reached | one request, no tokens |
//! | broken off on either side | what is known, and never less than was reserved |
//!
//! Bodies pass through unchanged and without waiting: the door reads along, it does not
//! rewrite.

mod door;
mod error;
mod flight;
mod peek;
mod price;
mod sse;
mod stream;
mod usage;

pub use door::{DoorConfig, ModelDoor};
pub use error::{DoorError, ErrorBody};
pub use peek::{Peek, PeekError};
pub use price::{Price, PriceTable};
pub use usage::Usage;
