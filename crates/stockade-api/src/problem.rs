//! Errors on the wire: RFC 9457 problem details with a stable code and a hint.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What every problem's `type` starts with; the code follows.
pub const PROBLEM_TYPE_BASE: &str = "https://stockade.dev/problems/";

macro_rules! problem_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// Everything that can go wrong over HTTP, by a code that never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ProblemCode {
            $($(#[$doc])* $variant,)*
        }

        impl ProblemCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it stands at the end of a problem's `type`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status it comes with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// A short summary that is the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

problem_codes! {
    /// The body is not JSON; `line` and `column` say where.
    MalformedJson = "malformed_json", 400, "The body is not valid JSON";
    /// The body is not UTF-8.
    InvalidUtf8 = "invalid_utf8", 400, "The body is not valid UTF-8";
    /// A query parameter is unknown or wrong.
    InvalidQuery = "invalid_query", 400, "The query string is not understood";
    /// A header is missing or wrong.
    InvalidHeader = "invalid_header", 400, "A request header is not understood";
    /// `Last-Event-ID` or `after` does not name a place in this run.
    InvalidEventId = "invalid_event_id", 400, "Not a place in this run's events";
    /// No token, or one that does not work.
    Unauthorized = "unauthorized", 401, "A valid token is required";
    /// A browser asked from another site.
    ForeignOrigin = "foreign_origin", 403, "Requests from other origins are refused";
    /// No such thing, or not this team's.
    NotFound = "not_found", 404, "Not found";
    /// No such route.
    NoSuchRoute = "no_such_route", 404, "No such route";
    /// The run has not produced this artifact.
    NoArtifact = "no_artifact", 404, "The run has no such artifact";
    /// The route exists, not with this method; `Allow` lists those it has.
    MethodNotAllowed = "method_not_allowed", 405, "The route does not take this method";
    /// The body did not arrive in time.
    RequestTimeout = "request_timeout", 408, "The request did not arrive in time";
    /// Somebody or something answered the approval first.
    ApprovalClosed = "approval_closed", 409, "The approval is already closed";
    /// The same `Idempotency-Key` came with another request.
    IdempotencyKeyReused = "idempotency_key_reused", 409, "The idempotency key was used for another request";
    /// The run has ended and never changes.
    RunEnded = "run_ended", 409, "The run has ended";
    /// The body is larger than the gateway takes.
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    /// The body is not announced as what the route takes: JSON, or bytes for a secret.
    UnsupportedMediaType = "unsupported_media_type", 415, "The body is of another media type";
    /// The `Host` header names somebody else.
    Misdirected = "misdirected", 421, "This gateway does not answer for that host";
    /// The body is JSON of another shape; `field` says where.
    InvalidBody = "invalid_body", 422, "The body does not have the expected shape";
    /// The name in the path cannot name such a thing.
    InvalidName = "invalid_name", 422, "The name cannot be used";
    /// A prompt or message without words.
    EmptyText = "empty_text", 422, "The text is empty";
    /// A prompt or message that is too long.
    TextTooLong = "text_too_long", 422, "The text is too long";
    /// No agent of that name; `known` lists those there are.
    UnknownAgent = "unknown_agent", 422, "No such agent";
    /// No environment of that name; `known` lists those there are.
    UnknownEnvironment = "unknown_environment", 422, "No such environment";
    /// No sandbox backend of that name; `known` lists those there are.
    UnknownBackend = "unknown_backend", 422, "No such sandbox backend";
    /// The backend cannot give what the run asks for; `cause` says what.
    BackendUnavailable = "backend_unavailable", 422, "The sandbox backend cannot do that";
    /// The agent cannot run here; `cause` says why.
    AgentUnavailable = "agent_unavailable", 422, "The agent cannot run here";
    /// Neither the request nor the agent nor the configuration names a model.
    ModelRequired = "model_required", 422, "No model is named";
    /// A limit is out of range; `field` says which.
    InvalidLimits = "invalid_limits", 422, "A limit is out of range";
    /// The environment or the repository's git host needs a secret that the team has not set; `missing` lists them.
    MissingSecret = "missing_secret", 422, "A secret that the run needs is not set";
    /// The agent's rules or the environment do not compile.
    InvalidPolicy = "invalid_policy", 422, "The policy does not compile";
    /// The repository cannot be used.
    Repository = "repository", 422, "The repository cannot be used";
    /// The change could not be pushed, or no pull request opened, where the repository is; `field` says which.
    Unpublishable = "unpublishable", 422, "The change cannot be published there";
    /// The arguments of this action cannot be edited.
    NotEditable = "not_editable", 422, "The arguments of this action cannot be edited";
    /// A fault of the gateway; `instance` finds it in the log.
    Internal = "internal", 500, "The gateway failed";
    /// The store does not answer, so nothing is done.
    StoreUnavailable = "store_unavailable", 503, "The store does not answer";
    /// No model provider is configured, so no run can start.
    NoModel = "no_model", 503, "No model provider is configured";
}

impl ProblemCode {
    /// The code of that spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that went wrong, as RFC 9457 writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI that names the kind of problem: [`PROBLEM_TYPE_BASE`] and the code.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// A short summary, the same for every occurrence.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What was wrong this time, and where.
    #[serde(default)]
    pub detail: String,
    /// Names this occurrence, so that it can be found in the gateway's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Members that belong to one code: `line`, `column`, `field`, `known`, `state`, `cause` …
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// A problem of that code.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{PROBLEM_TYPE_BASE}{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            instance: None,
            hint: None,
            extensions: Map::new(),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// The code; `None` for a problem that is not Stockade's (a proxy's, a newer version's).
    pub fn code(&self) -> Option<ProblemCode> {
        ProblemCode::parse(self.kind.strip_prefix(PROBLEM_TYPE_BASE)?)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.title.is_empty(), self.detail.is_empty()) {
            (false, false) => write!(f, "{}: {}", self.title, self.detail)?,
            (false, true) => f.write_str(&self.title)?,
            (true, false) => f.write_str(&self.detail)?,
            (true, true) => write!(f, "HTTP status {}", self.status)?,
        }
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_problem_round_trips_with_its_own_members() {
        let problem = Problem::new(ProblemCode::UnknownAgent, "no agent is called 'x'")
            .with_hint("use one of: y")
            .with("known", vec!["y"]);
        let text = serde_json::to_string(&problem).unwrap();
        assert!(
            text.contains(r#""type":"https://stockade.dev/problems/unknown_agent""#),
            "{text}"
        );
        let back: Problem = serde_json::from_str(&text).unwrap();
        assert_eq!(back, problem);
        assert_eq!(back.code(), Some(ProblemCode::UnknownAgent));
    }

    #[test]
    fn a_foreign_problem_is_read_and_has_no_code() {
        let problem: Problem = serde_json::from_str(r#"{"title":"Bad Gateway","status":502}"#).unwrap();
        assert_eq!((problem.code(), problem.kind.as_str()), (None, "about:blank"));
    }

    #[test]
    fn codes_are_unique_and_errors() {
        let codes: BTreeSet<_> = ProblemCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(codes.len(), ProblemCode::ALL.len());
        assert!(ProblemCode::ALL.iter().all(|c| (400..600).contains(&c.status())));
    }
}
