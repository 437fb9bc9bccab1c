//! Who asks, and under which rules.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::StatusCode;
use stockade_domain::{RunId, Wire};
use stockade_gate::{Gate, Scope, model::ErrorBody};
use stockade_policy::PolicyError;
use stockade_ports::{RunIdentity, StoreError};

/// How many runs are remembered. More only cost a look into the store each.
const REMEMBERED: usize = 1024;

/// An identified caller.
#[derive(Debug, Clone)]
pub struct LlmCaller {
    /// Under which the gate is asked.
    pub scope: Scope,
    /// The model it may ask for.
    pub model: String,
}

/// Why a caller is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnknownCaller {
    #[error("the run behind this request cannot be looked up: {0}")]
    Store(#[from] StoreError),
    #[error("the run's policy does not compile: {0}")]
    Policy(#[from] PolicyError),
}

impl UnknownCaller {
    pub(super) fn body(&self, wire: Wire) -> ErrorBody {
        let (status, kind) = match self {
            Self::Store(StoreError::Unavailable(_)) => (StatusCode::SERVICE_UNAVAILABLE, "api_error"),
            Self::Store(_) | Self::Policy(_) => (StatusCode::BAD_REQUEST, "permission_error"),
        };
        ErrorBody::new(wire, status, kind, &self.to_string())
    }
}

/// Callers by run: what a run is frozen with does not change, only the hold on it.
#[derive(Debug, Default)]
pub(super) struct Callers {
    known: Mutex<HashMap<RunId, Arc<LlmCaller>>>,
}

impl Callers {
    pub(super) async fn find(&self, gate: &Gate, identity: RunIdentity) -> Result<Arc<LlmCaller>, UnknownCaller> {
        if let Some(caller) = self.remembered(identity) {
            return Ok(caller);
        }
        let run = gate.store().run(None, identity.run).await?;
        let caller = Arc::new(LlmCaller {
            scope: Scope::of(&run, identity.lease)?,
            model: run.spec.model,
        });
        self.remember(&caller);
        Ok(caller)
    }

    fn remembered(&self, identity: RunIdentity) -> Option<Arc<LlmCaller>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = known.get(&identity.run)?;
        (caller.scope.lease() == identity.lease).then(|| Arc::clone(caller))
    }

    fn remember(&self, caller: &Arc<LlmCaller>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(caller.scope.run(), Arc::clone(caller));
    }
}
