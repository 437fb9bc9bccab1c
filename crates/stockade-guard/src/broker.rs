//! The place where credentials are put into requests and taken out of responses.

use async_trait::async_trait;
use stockade_policy::Host;
use stockade_ports::{InternalResponse, RunIdentity};

/// Where a judged request is about to go.
#[derive(Debug, Clone, Copy)]
pub struct Leaving<'a> {
    /// Whose request it is.
    pub run: RunIdentity,
    /// The host that every name of it agrees on.
    pub host: &'a Host,
    /// The port.
    pub port: u16,
    /// Whether it goes through TLS.
    pub secure: bool,
}

/// Why a broker lets a request not go, for the client and the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// The rule behind it.
    pub rule: String,
    /// Why, in words.
    pub reason: String,
}

/// Sees requests after they were judged and before they leave, and their responses before
/// they go in.
#[async_trait]
pub trait Broker: Send + Sync {
    /// May change headers and the query. Method, path and authority were judged: a request in
    /// which they differ afterwards does not leave.
    ///
    /// # Errors
    ///
    /// [`Withheld`] when the request must not leave; the client is told.
    async fn request(&self, leaving: &Leaving<'_>, head: &mut http::request::Parts) -> Result<(), Withheld>;

    /// May change a response, its streaming body included.
    async fn response(&self, leaving: &Leaving<'_>, response: InternalResponse) -> InternalResponse;
}
