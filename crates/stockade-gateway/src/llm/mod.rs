//! The model gateway: what answers inside a sandbox at `llm.stockade.internal`.
//!
//! Real clients work through it unchanged. It knows who asks from the socket the request
//! came through ([`RunIdentity`]) and believes nothing the client says about itself:
//! credentials and identity headers are dropped. Everything else passes as it came, with
//! one exception that a setting turns off: the model's name (see [`LlmConfig`]).
//!
//! | Request, after any path prefix | Answer |
//! |---|---|
//! | `POST` `messages`, `chat/completions`, `responses`, each with or without `v1/` | the model's, through the [`ModelDoor`] |
//! | `POST` `messages/count_tokens` | an estimate; no model is asked |
//! | `GET` `models`, `models/NAME` | the run's model |
//! | `GET` `responses` as a WebSocket | 426; clients go on over HTTP |
//! | `GET`, `HEAD` `/`, `api/hello` | 200: clients look whether anybody is there |
//! | anything else | 404 in the format of the wire |

mod answer;
mod body;
mod caller;
mod headers;
mod rename;
mod route;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;
use stockade_domain::Wire;
use stockade_gate::model::{ErrorBody, ModelDoor};
use stockade_ports::{Internal, InternalBody, InternalRequest, InternalResponse, ModelRequest, RunIdentity};
use tokio::time::Instant;

use caller::Callers;
use route::Route;

pub use caller::LlmCaller;

/// The name it answers at inside a sandbox.
pub const LLM_HOST: &str = "llm.stockade.internal";

/// Settings of the model gateway.
#[derive(Debug, Clone)]
pub struct LlmConfig {
    /// The largest request body, in bytes; 32 MiB.
    pub body_bytes: usize,
    /// How long a client may take over its request's body; 60 s.
    pub body_timeout: Duration,
    /// Other names for models: a request that asks for the first is sent asking for the second.
    pub model_aliases: BTreeMap<String, String>,
    /// Whether a request for a model that is neither the run's nor an alias is sent asking
    /// for the run's model; on by default.
    ///
    /// Harnesses ask for small models of their own for titles and summaries. A run is frozen
    /// with one model, and that is what its prices, its rules and its receipt speak of. Only
    /// the value of the `model` field changes; every other byte of the body stays. Off, every
    /// name is passed on as it is.
    pub map_unknown_models: bool,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            body_timeout: Duration::from_secs(60),
            model_aliases: BTreeMap::new(),
            map_unknown_models: true,
        }
    }
}

/// The model gateway. Cheap to clone.
#[derive(Clone)]
pub struct LlmGateway {
    door: ModelDoor,
    config: Arc<LlmConfig>,
    callers: Arc<Callers>,
}

impl LlmGateway {
    /// A gateway in front of a door.
    pub fn new(door: ModelDoor) -> Self {
        Self::with_config(door, LlmConfig::default())
    }

    /// A gateway with other settings.
    pub fn with_config(door: ModelDoor, config: LlmConfig) -> Self {
        Self {
            door,
            config: Arc::new(config),
            callers: Arc::default(),
        }
    }

    /// Answers a request of a caller that has been identified already.
    pub async fn handle(&self, caller: &LlmCaller, request: Request<InternalBody>) -> InternalResponse {
        let route = Route::of(request.method(), request.uri().path(), request.headers());
        match route {
            Route::Call(wire) => self.call_model(caller, wire, request).await,
            Route::CountTokens => self.count_tokens(request).await,
            Route::Models => answer::json(StatusCode::OK, &models(&caller.model)),
            Route::WebSocket => answer::upgrade_required(),
            Route::Hello => answer::json(StatusCode::OK, &json!({ "message": "hello" })),
            Route::Method(wire, allow) => answer::method_not_allowed(wire, allow),
            Route::Unknown(wire) => answer::error(&ErrorBody::new(
                wire,
                StatusCode::NOT_FOUND,
                "not_found_error",
                "the model gateway has no such path; it answers v1/messages, v1/chat/completions, v1/responses and v1/models",
            )),
        }
    }

    async fn call_model(&self, caller: &LlmCaller, wire: Wire, request: InternalRequest) -> InternalResponse {
        let (parts, body) = request.into_parts();
        let body = match self.body(wire, &parts.headers, body).await {
            Ok(body) => body,
            Err(error) => return answer::error(&error),
        };
        let began = Instant::now();
        let body = rename::model(&body, |name| self.model_for(caller, name)).unwrap_or(body);
        let request = ModelRequest {
            wire,
            query: parts.uri.query().map(str::to_owned),
            headers: headers::of_client(&parts.headers),
            body,
        };
        let mapped = began.elapsed();
        match self.door.call(&caller.scope, request).await {
            Ok(response) => answer::model(response, mapped),
            Err(error) => answer::error(&error.body(wire)),
        }
    }

    /// The model to ask for instead of this one.
    fn model_for(&self, caller: &LlmCaller, name: &str) -> Option<String> {
        if name == caller.model {
            return None;
        }
        match self.config.model_aliases.get(name) {
            Some(other) => Some(other.clone()),
            None if self.config.map_unknown_models => Some(caller.model.clone()),
            None => None,
        }
    }

    async fn count_tokens(&self, request: InternalRequest) -> InternalResponse {
        /// Bytes of a request that make a token, about.
        const BYTES_PER_TOKEN: usize = 4;
        let (parts, body) = request.into_parts();
        match self.body(Wire::AnthropicMessages, &parts.headers, body).await {
            Ok(body) => answer::json(
                StatusCode::OK,
                &json!({ "input_tokens": body.len().div_ceil(BYTES_PER_TOKEN) }),
            ),
            Err(error) => answer::error(&error),
        }
    }

    async fn body(&self, wire: Wire, headers: &http::HeaderMap, body: InternalBody) -> Result<Bytes, ErrorBody> {
        body::read(headers, body, self.config.body_bytes, self.config.body_timeout)
            .await
            .map_err(|error| error.body(wire))
    }
}

/// The list of models, in words that both kinds of client understand.
fn models(model: &str) -> serde_json::Value {
    json!({
        "object": "list", "has_more": false, "first_id": model, "last_id": model,
        "data": [{
            "id": model, "object": "model", "type": "model", "display_name": model, "owned_by": "stockade",
            "created": 0, "created_at": "1970-01-01T00:00:00Z",
        }],
    })
}

#[async_trait]
impl Internal for LlmGateway {
    fn hosts(&self) -> &[&'static str] {
        &[LLM_HOST]
    }

    async fn call(&self, identity: RunIdentity, _host: &str, request: InternalRequest) -> InternalResponse {
        match self.callers.find(self.door.gate(), identity).await {
            Ok(caller) => self.handle(&caller, request).await,
            Err(error) => {
                let wire = Route::of(request.method(), request.uri().path(), request.headers()).wire();
                answer::error(&error.body(wire))
            }
        }
    }
}

#[cfg(test)]
mod tests;
