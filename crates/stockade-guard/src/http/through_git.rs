//! Git in an exchange: its requests go through the session's git part, and from there out as
//! every other request does.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Request, Response, Uri};
use stockade_domain::Action;
use stockade_ports::InternalBody;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::exchange::{Answer, Exchange};
use crate::{
    ask,
    git::{GitRequest, NotGit, Upstream, refusal},
    session::Denial,
};

/// The rule behind a refusal of what is not git as it is spoken.
const RULE: &str = "stockade.git";

/// The way out for git's requests.
struct Out {
    exchange: Arc<Exchange>,
    action: Action,
    /// The exchange stays open until what was handed over has been answered.
    _open: TaskTrackerToken,
}

#[async_trait]
impl Upstream for Out {
    async fn send(&self, request: Request<InternalBody>) -> Result<Response<InternalBody>, String> {
        let answer = self.exchange.exchanged(request, self.action.clone(), false).await;
        answer.map_err(|(_, Denial { reason, .. })| reason)
    }
}

/// Whether a refusal is read by git.
pub(super) fn is_git<B>(request: &Request<B>) -> bool {
    let asked = GitRequest::read(request.method(), request.uri(), request.headers());
    !matches!(asked, Err(NotGit::Other))
}

impl Exchange {
    /// Serves a request that is git's; gives any other back.
    pub(super) async fn through_git(
        self: &Arc<Self>,
        request: Request<InternalBody>,
        action: &Action,
    ) -> Result<Answer, Request<InternalBody>> {
        // Only what is read can be told; before the agent starts nothing goes out at all.
        if !(self.pin.secure || ask::is_inspected(action)) || self.session.trial.is_on() {
            return Err(request);
        }
        let asked = match GitRequest::read(request.method(), request.uri(), request.headers()) {
            Ok(asked) => asked,
            Err(NotGit::Other) => return Err(request),
            Err(NotGit::Refused(words)) => {
                return Ok(self.not_git(request.method(), request.uri(), action, words).await);
            }
        };
        let Some(git) = self.session.git.get() else {
            let words = "git does not pass here: nobody looks into pushes for this sandbox";
            return Ok(self.not_git(request.method(), request.uri(), action, words).await);
        };
        // A person may be asked before the first byte of the answer.
        let _busy = self.idle.busy();
        let out = Out {
            exchange: Arc::clone(self),
            action: action.clone(),
            _open: self.deliveries.token(),
        };
        Ok(git.serve(&self.pin.origin(), asked, request, Arc::new(out)).await)
    }

    async fn not_git(&self, method: &Method, uri: &Uri, action: &Action, words: &str) -> Answer {
        let path = ask::clipped(uri.path());
        let action = ask::with(action.clone(), "method", method.as_str().into());
        let action = ask::with(action, "path", path.into());
        self.session.refuse_because(action, RULE, words).await;
        refusal(uri, words)
    }
}
