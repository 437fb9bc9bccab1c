//! A call between its admission and its settlement.

use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use stockade_domain::{Amounts, FailureClass, Outcome, Wire};
use stockade_ports::{ModelError, StoreError};
use tokio::{runtime::Handle, task::JoinHandle, time::Instant};

use super::{Peek, Price, Usage, usage::Meter};
use crate::{Admitted, kind};

/// Longest error text in an event, in characters.
const ERROR_TEXT: usize = 300;

/// How a call ended.
#[derive(Debug)]
pub(super) enum End {
    /// The body came to its end.
    Body,
    /// The provider's body broke off.
    Broken(String),
    /// Nobody reads on.
    Dropped,
    /// There was no answer; tokens may have been used or certainly not.
    Unanswered { error: String, certain: bool },
}

/// A call in flight. However it is let go, it is settled exactly once.
pub(super) struct Flight {
    admitted: Option<Admitted<kind::Model>>,
    wire: Wire,
    peek: Peek,
    expected: Usage,
    price: Price,
    priced: bool,
    provider: String,
    began: Instant,
    first_byte_ms: Option<u64>,
    status: Option<StatusCode>,
    meter: Meter,
}

impl Flight {
    pub(super) fn new(
        admitted: Admitted<kind::Model>,
        wire: Wire,
        peek: Peek,
        expected: Usage,
        price: Price,
        priced: bool,
        provider: &str,
    ) -> Self {
        Self {
            admitted: Some(admitted),
            wire,
            peek,
            expected,
            price,
            priced,
            provider: provider.to_owned(),
            began: Instant::now(),
            first_byte_ms: None,
            status: None,
            meter: Meter::new(wire, None, true),
        }
    }

    pub(super) fn admitted(&self) -> &Admitted<kind::Model> {
        self.admitted
            .as_ref()
            .expect("present until settled, and settling is the last thing that happens")
    }

    /// The provider's answer begins.
    pub(super) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let encoded = text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
        self.status = Some(status);
        self.meter = Meter::new(self.wire, text(header::CONTENT_TYPE), encoded);
    }

    /// A piece of the answer passes.
    pub(super) fn piece(&mut self, piece: &[u8]) {
        if self.first_byte_ms.is_none() {
            self.first_byte_ms = Some(self.elapsed_ms());
        }
        self.meter.feed(piece);
    }

    /// Nothing was sent.
    pub(super) async fn refused(mut self, why: &str) {
        let end = End::Unanswered {
            error: why.to_owned(),
            certain: true,
        };
        settled(self.close(end)).await;
    }

    /// The provider gave no answer.
    pub(super) async fn unanswered(mut self, error: &ModelError) {
        let end = End::Unanswered {
            error: error.message.clone(),
            certain: error.class != FailureClass::Unknown,
        };
        settled(self.close(end)).await;
    }

    /// Settles in a task of its own, so that a client that goes away cannot stop it halfway.
    pub(super) fn close(&mut self, end: End) -> Option<JoinHandle<()>> {
        let runtime = Handle::try_current().ok()?;
        let admitted = self.admitted.take()?;
        self.meter.finish();
        let (outcome, spent, details) = self.account(&end, admitted.reserved());
        let id = admitted.id();
        Some(runtime.spawn(async move {
            match admitted.settle(outcome, spent, details).await {
                Ok(()) => {}
                Err(error @ (StoreError::Illegal(_) | StoreError::Fenced { .. })) => {
                    tracing::debug!(action = %id, %error, "the run ended or moved on before its model call did");
                }
                Err(error) => {
                    tracing::warn!(action = %id, %error, "a model call could not be settled; recovery marks it unknown");
                }
            }
        }))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Outcome, what counts against the budget, and the details for the event.
    fn account(&self, end: &End, reserved: Amounts) -> (Outcome, Amounts, Value) {
        let seen = self.meter.seen();
        let (known, estimated) = seen.usage_or(self.expected.input);
        let billed = self.price.amounts(known);
        let request_only = self.price.amounts(Usage::default());
        let refused = self.status.is_some_and(|status| !status.is_success());
        let (usage, spent, estimated) = match end {
            End::Unanswered { certain: true, .. } => (Usage::default(), request_only, false),
            End::Unanswered { certain: false, .. } => (self.expected, reserved, true),
            _ if refused => (Usage::default(), request_only, false),
            _ if self.interrupted(end) || seen.unread => (known, most(billed, reserved), true),
            _ => (known, billed, estimated),
        };
        let mut details = json!({
            "provider": self.provider, "model": self.peek.model, "wire": self.wire.as_str(),
            "status": self.status.map(|status| status.as_u16()), "stream": self.peek.stream, "usage": usage,
            "cost_micro_usd": spent.cost_micro_usd, "first_byte_ms": self.first_byte_ms, "duration_ms": self.elapsed_ms(),
        });
        if estimated {
            details["estimated"] = true.into();
        }
        if !self.priced {
            details["note"] = "no price is known for this model; the default price was used".into();
        }
        (self.outcome(end), spent, details)
    }

    /// Whether the answer broke off before it said that it was complete.
    fn interrupted(&self, end: &End) -> bool {
        !self.meter.seen().complete && !matches!(end, End::Body)
    }

    fn outcome(&self, end: &End) -> Outcome {
        let failed = |error: &str| Outcome::Failed {
            error: error.chars().take(ERROR_TEXT).collect(),
        };
        match (end, self.status) {
            (End::Unanswered { error, .. } | End::Broken(error), _) => failed(error),
            (_, Some(status)) if !status.is_success() => {
                let said = self.meter.seen().error.as_deref().unwrap_or("no reason given");
                failed(&format!("status {}: {said}", status.as_u16()))
            }
            _ => match &self.meter.seen().error {
                Some(error) => failed(error),
                None if self.interrupted(end) => failed("the client stopped reading before the answer was complete"),
                None => Outcome::Done,
            },
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // The task settles on its own; without a runtime the admission's own drop has its say.
        drop(self.close(End::Dropped));
    }
}

/// Waits until a settlement is through.
async fn settled(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        // A settlement that panicked is one that recovery finds.
        let _ = task.await;
    }
}

fn most(a: Amounts, b: Amounts) -> Amounts {
    Amounts {
        tokens: a.tokens.max(b.tokens),
        cost_micro_usd: a.cost_micro_usd.max(b.cost_micro_usd),
        model_requests: a.model_requests.max(b.model_requests),
        turns: a.turns.max(b.turns),
    }
}
