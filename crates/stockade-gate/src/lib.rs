//! The gate: the only way to an effect.
//!
//! An effect needs an [`Admitted`] value of its kind, and only [`Gate::pass`] and
//! [`Gate::admit`] make one, after a transaction that wrote the verdict down. Roles never
//! hold an effector directly; the binary hands them a [`Gated`] one, which opens only to an
//! admission of the right kind:
//!
//! ```compile_fail
//! use stockade_gate::{Admitted, kind};
//! // No constructor, no public field, no Default, no Clone: an admission cannot be made up.
//! let forged: Admitted<kind::Model> = Admitted { record: todo!() };
//! ```
//!
//! Whatever goes wrong on the way (no store, no policy, no budget row) is a refusal.

#![forbid(unsafe_code)]

mod admitted;
mod gate;
pub mod kind;
mod refusal;
mod scope;

pub use admitted::{Admitted, Gated};
pub use gate::{Admission, Gate, HeldAction};
pub use refusal::Refusal;
pub use scope::Scope;
