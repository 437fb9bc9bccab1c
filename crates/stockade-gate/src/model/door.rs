//! The door itself.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use http::{HeaderName, HeaderValue, header};
use serde_json::json;
use stockade_domain::{Action, ActionKind, Digest, Wire};
use stockade_ports::{ModelProvider, ModelRequest, ModelResponse};
use tokio::time::Instant;

use super::{DoorError, Peek, PriceTable, flight::Flight, stream::Metered};
use crate::{Gate, Gated, Scope, kind};

/// Header that tells what the gateway itself took, in milliseconds with three decimals:
/// everything before the provider was asked and after it answered, a wait for a person included.
const OVERHEAD: HeaderName = HeaderName::from_static("x-stockade-overhead-ms");

/// Settings of the door.
#[derive(Debug, Clone)]
pub struct DoorConfig {
    /// Output tokens to reserve for a request that names no limit.
    pub default_output_tokens: u64,
}

impl Default for DoorConfig {
    fn default() -> Self {
        Self {
            default_output_tokens: 16_384,
        }
    }
}

/// The way to a model. Cheap to clone.
#[derive(Clone)]
pub struct ModelDoor {
    gate: Gate,
    provider: Gated<kind::Model, dyn ModelProvider>,
    prices: Arc<PriceTable>,
    config: DoorConfig,
}

impl ModelDoor {
    /// A door to a provider.
    pub fn new(gate: Gate, provider: Gated<kind::Model, dyn ModelProvider>, prices: PriceTable) -> Self {
        Self {
            gate,
            provider,
            prices: Arc::new(prices),
            config: DoorConfig::default(),
        }
    }

    /// The door with other settings.
    #[must_use]
    pub fn with_config(mut self, config: DoorConfig) -> Self {
        self.config = config;
        self
    }

    /// The gate it stands in.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Name of the provider behind it.
    pub fn provider(&self) -> &str {
        self.provider.facts().0
    }

    /// Wires the provider answers.
    pub fn wires(&self) -> &[Wire] {
        self.provider.facts().1
    }

    /// Calls the model for a run: reserves, asks the gate, sends, meters, settles.
    ///
    /// An HTTP error of the provider is an `Ok` response with that status and its
    /// `retry-after`. The call is settled before the body ends, or when the body is dropped.
    ///
    /// # Errors
    ///
    /// [`DoorError`] when there is no answer to pass on.
    pub async fn call(&self, scope: &Scope, mut request: ModelRequest) -> Result<ModelResponse, DoorError> {
        let began = Instant::now();
        let wire = request.wire;
        self.speaks(wire)?;
        let peek = Peek::read(wire, &request.body)?;
        let action = action(wire, &peek, Digest::of_bytes(&request.body));
        let (price, priced) = self.prices.price(&peek.model);
        let expected = peek.expected(self.config.default_output_tokens);
        let reserve = price.worst_input().amounts(expected);
        let admitted = self.gate.pass::<kind::Model>(scope, action.clone(), reserve).await?;
        // The body is fixed, so an action that differs from it has no effect to carry out.
        let unchanged = *admitted.action() == action;
        let mut flight = Flight::new(admitted, wire, peek, expected, price, priced, self.provider());
        if !unchanged {
            flight.refused("the approver changed the call").await;
            return Err(DoorError::Edited);
        }
        // A compressed answer could not be metered.
        request.headers.remove(header::ACCEPT_ENCODING);
        let sent = Instant::now();
        let answer = self.provider.open(flight.admitted()).call(request).await;
        let waited = sent.elapsed();
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => {
                flight.unanswered(&error).await;
                return Err(error.into());
            }
        };
        flight.answered(response.status, &response.headers);
        response
            .headers
            .insert(OVERHEAD, overhead(began.elapsed().saturating_sub(waited)));
        response.body = Metered::new(response.body, flight).boxed();
        Ok(response)
    }

    fn speaks(&self, wire: Wire) -> Result<(), DoorError> {
        let (provider, wires) = self.provider.facts();
        if wires.contains(&wire) {
            return Ok(());
        }
        let names: Vec<&str> = wires.iter().map(|wire| wire.as_str()).collect();
        Err(DoorError::Wire {
            provider: provider.to_owned(),
            wire,
            offered: names.join(", "),
        })
    }
}

/// The action of a call. Two identical requests are the same action.
fn action(wire: Wire, peek: &Peek, body: Digest) -> Action {
    Action {
        kind: ActionKind::Model,
        operation: wire.as_str().to_owned(),
        target: peek.model.clone(),
        args: json!({
            "model": peek.model, "stream": peek.stream, "bytes": peek.bytes, "request_sha256": body.hex(),
        }),
    }
}

fn overhead(time: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("{:.3}", time.as_secs_f64() * 1000.0))
        .unwrap_or_else(|_| HeaderValue::from_static("0"))
}
