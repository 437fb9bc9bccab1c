//! The egress port: the Guard, as the runner sees it, and the way in for internal names.

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use stockade_domain::{Run, RunId};

use crate::{Boundary, GitPlace, Lease};

/// Serves sandboxes' boundaries. Implemented by the Guard.
#[async_trait]
pub trait Egress: Send + Sync {
    /// Starts to serve a boundary for a run, under the run's frozen environment.
    ///
    /// # Errors
    ///
    /// [`EgressError`] when the environment's rules do not compile; the boundary then stays
    /// unserved, which means closed.
    async fn guard(&self, run: &Run, lease: Lease, boundary: Boundary) -> Result<Box<dyn EgressSession>, EgressError>;
}

/// A boundary that is being served. Dropping it closes every connection.
///
/// It starts closed: every attempt is judged as it will be later, counted in the tally, and
/// refused whatever the judgement. [`EgressSession::open`] ends that.
#[async_trait]
pub trait EgressSession: Send + Sync {
    /// What was tried while the session was closed.
    fn tally(&self) -> Tally;

    /// Lets the rules decide from now on. Called by [`crate::sandbox::prove`] alone.
    fn open(&self);

    /// What the run's programs have to believe so that connections can be inspected; `None`
    /// where no rule needs that and a sandbox stays as it is.
    fn trust(&self) -> Option<Trust> {
        None
    }

    /// Variables that the run's programs get: placeholders of credentials, which are worth nothing elsewhere.
    fn variables(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Lets git through, as far as the environment's rules do. Until then nothing of git passes.
    fn serve_git(&self, _place: GitPlace) {}

    /// Limits on the run's traffic that were met, as results spell them: `env.traffic.bytes_up=1048576`.
    fn limits_met(&self) -> Vec<String> {
        Vec::new()
    }

    /// Resolves when the boundary is no longer served though nobody closed it, with the reason.
    /// The sandbox then has to end.
    async fn lost(&self) -> String;

    /// Closes every connection and waits until each is settled.
    async fn close(&self);
}

/// The certificate authority of one run, in the forms that programs read. There is no secret in
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The authority's certificate in PEM.
    pub authority: String,
    /// The web's authorities and the run's own in PEM, for sandboxes without a list.
    pub bundle: String,
    /// The name of the authority in a directory of certificates that OpenSSL reads, like
    /// `1a2b3c4d` (`openssl x509 -subject_hash`).
    pub subject_hash: String,
    /// The bundle as a Java key store of type JKS; its password is `changeit`.
    pub java: Vec<u8>,
}

/// What was tried on a closed session, each by host name or address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// What the rules refuse.
    pub denied: Vec<String>,
    /// What they would have let pass.
    pub allowed: Vec<String>,
}

/// Why a boundary is not served.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The environment is wrong.
    #[error("environment '{environment}': {cause}")]
    Environment {
        /// Its name.
        environment: String,
        /// What is wrong and what to do.
        cause: String,
    },
    /// The sockets could not be used.
    #[error("the boundary cannot be served: {0}")]
    Boundary(String),
}

/// Who is speaking, known from the socket it came through and from nothing the agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunIdentity {
    /// The run.
    pub run: RunId,
    /// The worker's hold on it.
    pub lease: Lease,
}

/// A body that streams.
pub type InternalBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
/// A request to an internal name.
pub type InternalRequest = http::Request<InternalBody>;
/// Its answer.
pub type InternalResponse = http::Response<InternalBody>;

/// Answers requests to `llm.stockade.internal` and its siblings. Implemented by the gateway.
#[async_trait]
pub trait Internal: Send + Sync {
    /// Host names it answers, lower case, without a trailing dot.
    fn hosts(&self) -> &[&'static str];

    /// Answers one request. `host` is one of [`Internal::hosts`].
    async fn call(&self, identity: RunIdentity, host: &str, request: InternalRequest) -> InternalResponse;
}
