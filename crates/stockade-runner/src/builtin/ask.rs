//! One answer of a model: asked through the door, read as it streams, asked again where
//! that may help.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use stockade_domain::{Failure, FailureClass, Wire, failure};
use stockade_gate::{
    Scope,
    model::{DoorError, ModelDoor},
};
use stockade_ports::{ModelError, ModelRequest, ModelResponse};
use tokio::time;

use super::{
    conversation::{Conversation, Reply},
    wire::{
        self, Ask, Piece, WireError,
        sse::{SseData, SseReader},
    },
};
use crate::{mishap, narrator::Narrator, pulse::Pulse, text};

/// How often a call is made before its failure counts.
const ATTEMPTS: u32 = 5;
/// Longest pause an upstream may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Most bytes of an answer that does not stream.
const ANSWER_LIMIT: usize = 32 << 20;

/// Asks a model.
pub(super) struct Asker<'a> {
    pub(super) door: &'a ModelDoor,
    pub(super) scope: &'a Scope,
    pub(super) pulse: Pulse,
    pub(super) wire: Wire,
}

/// A call that failed, and how long its upstream wants to be left alone.
struct Trouble {
    failure: Failure,
    pause: Option<Duration>,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { failure, pause: None }
    }
}

impl From<WireError> for Trouble {
    fn from(error: WireError) -> Self {
        Self::from(classed("model_failed", error.class, &error.message))
    }
}

impl Asker<'_> {
    /// Asks until there is an answer, or a failure that another attempt will not mend.
    pub(super) async fn ask(
        &self,
        ask: &Ask<'_>,
        conversation: &Conversation,
        narrator: &mut Narrator,
    ) -> Result<Reply, Failure> {
        let body = Bytes::from(wire::encode(self.wire, ask, conversation).to_string());
        let mut attempt = 1;
        loop {
            let trouble = match self.once(body.clone(), narrator).await {
                Ok(reply) => return Ok(reply),
                Err(trouble) => trouble,
            };
            if !trouble.failure.may_retry() || attempt >= ATTEMPTS {
                return Err(trouble.failure);
            }
            tracing::info!(attempt, failure = %trouble.failure, "a model call is made again");
            let usual = Duration::from_millis(failure::backoff_ms(attempt));
            time::sleep(trouble.pause.unwrap_or(usual).min(LONGEST_PAUSE)).await;
            self.pulse.beat();
            attempt += 1;
        }
    }

    async fn once(&self, body: Bytes, narrator: &mut Narrator) -> Result<Reply, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if self.wire == Wire::AnthropicMessages {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        let request = ModelRequest {
            wire: self.wire,
            query: None,
            headers,
            body,
        };
        let response = self
            .door
            .call(self.scope, request)
            .await
            .map_err(|error| door(&error))?;
        self.pulse.beat();
        if !response.status.is_success() {
            return Err(self.complaint(response).await);
        }
        let streams = response
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/event-stream"));
        if streams {
            self.stream(response, narrator).await
        } else {
            let body = self.collect(response, ANSWER_LIMIT).await?;
            let answer = serde_json::from_slice(&body)
                .map_err(|e| Failure::unknown("model_failed", format!("the model's answer is not JSON: {e}")))?;
            let reply = wire::read(self.wire, &answer)?;
            narrator.say(&reply.text).await?;
            Ok(reply)
        }
    }

    async fn stream(&self, mut response: ModelResponse, narrator: &mut Narrator) -> Result<Reply, Trouble> {
        let mut reader = SseReader::default();
        let mut assembler = wire::assembler(self.wire);
        while let Some(bytes) = response.body.next().await {
            self.pulse.beat();
            let bytes = bytes.map_err(|error| model(&error))?;
            for data in reader.feed(&bytes).map_err(malformed)? {
                take(assembler.as_mut(), data, narrator).await?;
            }
        }
        for data in reader.end().map_err(malformed)? {
            take(assembler.as_mut(), data, narrator).await?;
        }
        Ok(assembler.finish()?)
    }

    /// An HTTP error of the upstream, as a failure.
    async fn complaint(&self, response: ModelResponse) -> Trouble {
        let status = response.status;
        let pause = response
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let words = match self.collect(response, 64 << 10).await {
            Ok(body) => words_of(&body),
            Err(_) => String::new(),
        };
        let message = format!("the model answers {status}: {words}");
        let failure = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::terminal("unauthorized", message)
                .with_hint("check the key of the model provider; 'stockade doctor' shows which one is used"),
            _ => classed("model_failed", failure::class_of_status(status.as_u16()), &message),
        };
        Trouble { failure, pause }
    }

    async fn collect(&self, mut response: ModelResponse, limit: usize) -> Result<Vec<u8>, Trouble> {
        let mut body = Vec::new();
        while let Some(bytes) = response.body.next().await {
            self.pulse.beat();
            let bytes = bytes.map_err(|error| model(&error))?;
            if body.len() + bytes.len() > limit {
                let message = format!("the model's answer is longer than {limit} bytes");
                return Err(Failure::terminal("model_failed", message).into());
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }
}

async fn take(assembler: &mut dyn wire::Assembler, data: SseData, narrator: &mut Narrator) -> Result<(), Trouble> {
    let SseData::Json(data) = data else { return Ok(()) };
    for piece in assembler.event(&data)? {
        match piece {
            Piece::Text(text) => narrator.say(&text).await?,
            Piece::Thought(text) => narrator.think(&text).await?,
        }
    }
    Ok(())
}

/// The message in an error body, or the body itself.
fn words_of(body: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let words = match parsed["error"]["message"].as_str().or(parsed["detail"].as_str()) {
        Some(words) => words.to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    text::redact(text::clip(words.trim(), 1000).0)
}

fn classed(code: &str, class: FailureClass, message: &str) -> Failure {
    match class {
        FailureClass::Transient => Failure::transient(code, message),
        FailureClass::Terminal => Failure::terminal(code, message),
        FailureClass::Unknown => Failure::unknown(code, message),
    }
}

fn malformed(error: wire::sse::SseError) -> Trouble {
    Failure::unknown("model_failed", error.to_string()).into()
}

fn model(error: &ModelError) -> Trouble {
    classed("model_failed", error.class, &text::redact(&error.to_string())).into()
}

/// What the door says instead of an answer.
fn door(error: &DoorError) -> Trouble {
    match error {
        DoorError::Refused(refusal) => mishap::refusal(refusal).into(),
        DoorError::Model(error) => model(error),
        other => Failure::terminal("model_failed", other.to_string()).into(),
    }
}
