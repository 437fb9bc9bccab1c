//! The gate: the only way to an effect.
//!
//! An effect needs an [`Admitted`] value of its kind, and only [`Gate::pass`] and
//! [`Gate::admit`] make one, after a transaction that wrote the verdict down. Roles never
//! hold an effector directly; the binary hands them a [`Gated`] one, which opens only to an
//! admission of the right kind:
//!
//! ```
//! use stockade_gate::{Admitted, Gated, kind};
//!
//! fn effect(gated: &Gated<kind::Model, String>, admitted: &Admitted<kind::Model>) -> usize {
//!     gated.open(admitted).len()
//! }
//! ```
//!
//! Each way around it is the program above with one thing changed, and does not compile.
//! An admission of another kind:
//!
//! ```compile_fail,E0308
//! use stockade_gate::{Admitted, Gated, kind};
//!
//! fn effect(gated: &Gated<kind::Model, String>, admitted: &Admitted<kind::Tool>) -> usize {
//!     gated.open(admitted).len()
//! }
//! ```
//!
//! The effector without an admission:
//!
//! ```compile_fail,E0616
//! use stockade_gate::{Admitted, Gated, kind};
//!
//! fn effect(gated: &Gated<kind::Model, String>, admitted: &Admitted<kind::Model>) -> usize {
//!     gated.effector.len()
//! }
//! ```
//!
//! One admission used twice:
//!
//! ```compile_fail,E0599
//! use stockade_gate::{Admitted, Gated, kind};
//!
//! fn effect(gated: &Gated<kind::Model, String>, admitted: &Admitted<kind::Model>) -> usize {
//!     gated.open(&Admitted::clone(admitted)).len()
//! }
//! ```
//!
//! An admission made up:
//!
//! ```compile_fail,E0451
//! use stockade_gate::{Admitted, Gated, kind};
//!
//! fn effect(gated: &Gated<kind::Model, String>, admitted: &Admitted<kind::Model>) -> usize {
//!     gated.open(&Admitted { ..*admitted }).len()
//! }
//! ```
//!
//! A kind of one's own:
//!
//! ```compile_fail,E0277
//! use stockade_gate::kind::Kind;
//!
//! enum Mine {}
//! impl Kind for Mine {
//!     const KIND: stockade_domain::ActionKind = stockade_domain::ActionKind::Tool;
//! }
//! ```
//!
//! Whatever goes wrong on the way (no store, no policy, no budget row) is a refusal.

#![forbid(unsafe_code)]

mod admitted;
mod gate;
pub mod kind;
pub mod model;
mod refusal;
mod scope;

pub use admitted::{Admitted, Gated};
pub use gate::{Admission, Gate, HeldAction};
pub use refusal::Refusal;
pub use scope::Scope;
