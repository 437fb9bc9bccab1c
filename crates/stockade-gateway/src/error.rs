//! Refusals: every error of the edge as RFC 9457 problem details.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use stockade_api::{Problem, ProblemCode, v1::PROBLEM_JSON};
use stockade_domain::approval::DecisionError;
use stockade_ports::StoreError;

/// A request that is not carried out, and why.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Box<Problem>);

pub(crate) type Answer<T> = Result<T, Refusal>;

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

/// A refusal of that code.
pub(crate) fn refuse(code: ProblemCode, detail: impl Into<String>) -> Refusal {
    Problem::new(code, detail).into()
}

/// A fault of ours: the caller learns where to look, the log learns what.
pub(crate) fn internal(what: &str) -> Refusal {
    let instance = format!("urn:uuid:{}", uuid::Uuid::new_v4());
    tracing::error!(%instance, what, "the gateway failed");
    let mut problem = Problem::new(ProblemCode::Internal, "something went wrong inside the gateway")
        .with_hint("look for the instance in the gateway's log");
    problem.instance = Some(instance);
    problem.into()
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what, id } => not_found(what, &id),
            StoreError::Illegal(illegal) if illegal.state.is_terminal() => Problem::new(
                ProblemCode::RunEnded,
                format!("the run is {} and never changes", illegal.state.as_str()),
            )
            .with_hint("start another run of its task: POST /v1/tasks/{id}/runs")
            .with("state", illegal.state.as_str())
            .into(),
            StoreError::Decision(DecisionError::Closed { id, state }) => Problem::new(
                ProblemCode::ApprovalClosed,
                format!("approval {id} is already {}", state.as_str()),
            )
            .with_hint("an approval is answered once; read it to see by whom")
            .with("state", state.as_str())
            .into(),
            StoreError::Decision(error @ DecisionError::NotEditable(_)) => {
                Problem::new(ProblemCode::NotEditable, error.to_string())
                    .with_hint("decide without edited_args")
                    .into()
            }
            StoreError::KeyReused { .. } => Problem::new(
                ProblemCode::IdempotencyKeyReused,
                "this Idempotency-Key was used before with a different request",
            )
            .with_hint("use a new key for a new request")
            .into(),
            StoreError::Unavailable(cause) => {
                tracing::warn!(cause, "the store does not answer");
                Problem::new(
                    ProblemCode::StoreUnavailable,
                    "the store does not answer, so nothing was done",
                )
                .with_hint("try again; GET /readyz says when the store is back")
                .into()
            }
            StoreError::Illegal(_) | StoreError::Fenced { .. } | StoreError::Corrupt(_) => internal(&error.to_string()),
        }
    }
}

/// No such thing, or not this team's: the two are not told apart.
pub(crate) fn not_found(what: &str, id: &str) -> Refusal {
    let id: String = id.chars().take(80).collect();
    refuse(ProblemCode::NotFound, format!("there is no {what} '{id}'"))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = self.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Problems are strings and numbers; they always serialize.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match problem.code() {
            Some(ProblemCode::Unauthorized) => {
                let challenge = if problem.extensions.contains_key("cause") {
                    r#"Bearer realm="stockade", error="invalid_token""#
                } else {
                    r#"Bearer realm="stockade""#
                };
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            Some(ProblemCode::StoreUnavailable) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
