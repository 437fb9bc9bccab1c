//! Credentials: secrets that the Guard puts into requests, so that no sandbox ever holds one.
//!
//! A run's [`RunCredentials`] know the bindings of its environment. For every request that the Guard has read
//! (after TLS inspection) and judged they answer, in this order:
//!
//! 1. [`RunCredentials::judge`]: which binding covers the request, and whether a placeholder stands where none
//!    belongs. Pure; opens no secret. The use is an Action, so the gate is asked next.
//! 2. [`RunCredentials::inject`]: opens or mints the value and puts it in the place of what the client sent.
//! 3. [`ScannedBody`] around the request's body: a placeholder in it ends the request.
//! 4. [`admissible`], [`Scrubber::head`] and [`ScrubbedBody`] on the response: what the server echoes is `[redacted]`.
//!
//! | Module | Part |
//! |---|---|
//! | `cover` | whether a binding covers a request |
//! | `placeholder` | what the sandbox holds instead, and finding it in every form |
//! | `inject` | the secret in its place |
//! | `forms`, `scrub`, `body` | finding secrets in streams |
//! | `run` | one run's bindings, values and tokens |
//! | `host` | the same for the installation's own requests to its git hosts |
//! | `github`, `oauth`, `jwt`, `fetch`, `own` | tokens that the Guard asks for itself |

mod body;
mod cover;
mod fault;
mod fetch;
mod forms;
mod github;
mod host;
mod inject;
mod jwt;
mod oauth;
mod own;
mod percent;
mod placeholder;
mod run;
mod scrub;
#[cfg(test)]
mod test_upstream;

pub use body::{ScannedBody, ScrubbedBody};
pub use cover::Destination;
pub use fault::CredentialFault;
pub use fetch::{Fetch, FetchError};
pub use github::Repository;
pub use host::{HostDoor, HostLogin, HostLoginParts};
pub(crate) use own::OwnRequests;
pub(crate) use placeholder::refuse_in_name;
pub use placeholder::{BodyScan, MARKER, Place, Placeholder};
pub use run::{CredentialUse, RunCredentials, RunCredentialsParts};
pub use scrub::{REDACTED, Scrubber, admissible};
