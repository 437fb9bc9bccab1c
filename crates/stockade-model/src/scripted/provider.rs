//! The provider: a request in, the next turn out.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use stockade_domain::{Digest, Wire};
use stockade_ports::{ModelError, ModelProvider, ModelRequest, ModelResponse, wire_error};

use super::{
    answer::{Answer, AnswerCall, call_prefix},
    conversation::Conversation,
    file::{ErrorTurn, Script, Turn, TurnUsage},
    next::{self, Chosen},
    structured, tools,
};

/// Bytes of text that count as one token when a turn names no usage.
const BYTES_PER_TOKEN: usize = 4;

/// Answers with the turns of a [`Script`].
#[derive(Debug)]
pub struct ScriptedProvider {
    script: Script,
    /// How often an error turn was given, by conversation and turn.
    errors_given: Mutex<HashMap<(Digest, usize), u32>>,
}

impl ScriptedProvider {
    /// A model that follows a script.
    pub fn new(script: Script) -> Self {
        Self {
            script,
            errors_given: Mutex::default(),
        }
    }

    /// The turn to use now. Error turns count themselves.
    fn choose(&self, conversation: &Conversation, digest: Digest) -> Option<Chosen<'_>> {
        next::candidates(&self.script, conversation).find(|chosen| match &chosen.turn.error {
            Some(ErrorTurn { times: Some(times), .. }) => {
                let mut given = self.errors_given.lock().unwrap_or_else(PoisonError::into_inner);
                let count = given.entry((digest, chosen.index)).or_default();
                *count += 1;
                *count <= *times
            }
            _ => true,
        })
    }

    fn answer(&self, wire: Wire, request: &ModelRequest, conversation: &Conversation) -> Result<Planned<'_>, Refused> {
        let digest = conversation_digest(conversation);
        let salt = digest.hex()[..12].to_owned();
        if conversation.tools.is_empty() {
            return Ok(Planned::untooled(self.untooled(conversation, salt, request.body.len())));
        }
        let Some(Chosen { turn, index }) = self.choose(conversation, digest) else {
            return Err(Refused::exhausted(self.script.turns.len()));
        };
        if let Some(error) = &turn.error {
            return Err(Refused::scripted(error));
        }
        let step = conversation.steps();
        let mut calls = Vec::with_capacity(turn.call.len());
        for (place, call) in turn.call.iter().enumerate() {
            let mapped = tools::map(call, &conversation.tools)
                .map_err(|error| Refused::invalid(&format!("turn {}: {error}", index + 1)))?;
            calls.push(AnswerCall {
                id: next::call_id(call_prefix(wire), index, place, step, &salt),
                name: mapped.name,
                namespace: mapped.namespace,
                input: mapped.input,
            });
        }
        let text = turn.say.clone().unwrap_or_default();
        Ok(Planned {
            answer: self.finish(salt, text, calls, turn.usage, request.body.len()),
            delay: Duration::from_millis(turn.delay_ms),
            chunk_delay: Duration::from_millis(turn.chunk_delay_ms),
            turn: Some(turn),
        })
    }

    fn untooled(&self, conversation: &Conversation, salt: String, input: usize) -> Answer {
        let text = match &conversation.schema {
            Some(schema) => structured::instance(schema, &self.script.untooled).to_string(),
            None => self.script.untooled.clone(),
        };
        self.finish(salt, text, Vec::new(), None, input)
    }

    fn finish(
        &self,
        salt: String,
        text: String,
        calls: Vec<AnswerCall>,
        usage: Option<TurnUsage>,
        input: usize,
    ) -> Answer {
        let output = text.len() + calls.iter().map(|call| call.arguments().len()).sum::<usize>();
        let tokens = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN) as u64;
        let usage = usage.unwrap_or(TurnUsage {
            input: tokens(input),
            output: tokens(output),
            cache_read: 0,
            cache_write: 0,
        });
        Answer {
            salt,
            model: self.script.model.clone(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            text,
            calls,
            usage,
        }
    }
}

/// An answer with its pace.
struct Planned<'a> {
    answer: Answer,
    delay: Duration,
    chunk_delay: Duration,
    turn: Option<&'a Turn>,
}

impl Planned<'_> {
    fn untooled(answer: Answer) -> Self {
        Self {
            answer,
            delay: Duration::ZERO,
            chunk_delay: Duration::ZERO,
            turn: None,
        }
    }
}

/// An HTTP error instead of an answer.
struct Refused {
    status: StatusCode,
    kind: &'static str,
    message: String,
    retry_after: Option<u64>,
}

impl Refused {
    fn invalid(message: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            message: message.to_owned(),
            retry_after: None,
        }
    }

    fn exhausted(turns: usize) -> Self {
        Self {
            kind: "script_exhausted",
            ..Self::invalid(&format!(
                "the script has no turn left for this conversation (it has {turns}); add a turn, or 'otherwise'"
            ))
        }
    }

    fn scripted(error: &ErrorTurn) -> Self {
        let (status, kind) = match error.status.0 {
            401 => (StatusCode::UNAUTHORIZED, "authentication_error"),
            403 => (StatusCode::FORBIDDEN, "permission_error"),
            429 => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
            other => (
                StatusCode::from_u16(other).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                match other {
                    529 => "overloaded_error",
                    500.. => "api_error",
                    _ => "invalid_request_error",
                },
            ),
        };
        Self {
            status,
            kind,
            message: error
                .message
                .clone()
                .unwrap_or_else(|| format!("scripted error {}", status.as_u16())),
            retry_after: error.retry_after,
        }
    }

    fn response(&self, wire: Wire) -> ModelResponse {
        let mut response = whole(self.status, wire_error(wire, self.kind, &self.message));
        if let Some(seconds) = self.retry_after {
            response.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[async_trait]
impl ModelProvider for ScriptedProvider {
    fn name(&self) -> &str {
        "scripted"
    }

    fn wires(&self) -> &[Wire] {
        &[Wire::AnthropicMessages, Wire::OpenaiChat, Wire::OpenaiResponses]
    }

    async fn call(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        let wire = request.wire;
        let conversation = match Conversation::read(wire, &request.body) {
            Ok(conversation) => conversation,
            Err(error) => return Ok(Refused::invalid(&error.to_string()).response(wire)),
        };
        let planned = match self.answer(wire, &request, &conversation) {
            Ok(planned) => planned,
            Err(refused) => return Ok(refused.response(wire)),
        };
        tracing::trace!(turn = ?planned.turn, "scripted answer");
        tokio::time::sleep(planned.delay).await;
        if !conversation.stream {
            return Ok(whole(StatusCode::OK, planned.answer.json(wire)));
        }
        Ok(streamed(
            planned.answer.events(wire, conversation.include_usage),
            planned.chunk_delay,
        ))
    }
}

fn whole(status: StatusCode, body: Bytes) -> ModelResponse {
    ModelResponse {
        status,
        headers: content_type("application/json"),
        body: stream::once(async { Ok(body) }).boxed(),
    }
}

fn streamed(events: Vec<Bytes>, pause: Duration) -> ModelResponse {
    let body = stream::iter(events.into_iter().enumerate()).then(move |(place, event)| async move {
        if place > 0 && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok(event)
    });
    let mut headers = content_type("text/event-stream; charset=utf-8");
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    ModelResponse {
        status: StatusCode::OK,
        headers,
        body: body.boxed(),
    }
}

fn content_type(value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))])
}

/// Tells conversations apart, and nothing else of the request.
fn conversation_digest(conversation: &Conversation) -> Digest {
    Digest::of_bytes(format!("{:?}", conversation.items).as_bytes())
}

#[cfg(test)]
#[path = "provider_tests.rs"]
mod tests;
