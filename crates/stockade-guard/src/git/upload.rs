//! Reading: the list a client is offered, and what it asks for then.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::json;
use stockade_domain::{ObjectId, Outcome, Verdict};
use stockade_policy::git::fetch_action;
use stockade_ports::InternalBody;

use super::{
    answer::{Watch, Watched, full, is_plain, result, text},
    body::Decoded,
    fetch::FetchReader,
    names::NamesReader,
    pkt::PktWriter,
    request::Service,
    serve::{GitSession, Lists, Upstream, bad_body, plain_body, sent},
};

/// References and objects of one fetch that are written down.
const TOLD: usize = 50;

/// A fetch that goes on in more than one request: where, and what is wanted.
pub(super) type Round = (String, Vec<ObjectId>, Vec<String>);

impl GitSession {
    /// The server's list, or what it can do, on its way to a client that wants to read.
    pub(super) async fn offer(
        &self,
        repository: String,
        request: Request<InternalBody>,
        upstream: &dyn Upstream,
    ) -> Response<InternalBody> {
        let action = fetch_action(&repository, &[], &[]);
        let answer = self.policy.judge(&action);
        if answer.is_none_or(|answer| answer.verdict != Verdict::Allow) {
            let refused = self.refuse(action).await;
            return text(StatusCode::FORBIDDEN, &refused.reason);
        }
        let response = sent(upstream, request).await;
        self.named(repository, response)
    }

    /// A request to read passes only when all of it is one. Where it asks for objects, the gate is
    /// asked, once for all rounds of one fetch.
    pub(super) async fn fetch(
        &self,
        repository: String,
        request: Request<InternalBody>,
        upstream: &dyn Upstream,
    ) -> Response<InternalBody> {
        let (mut parts, body) = request.into_parts();
        let (whole, asked) = match self.read_fetch(body, &parts.headers).await {
            Ok(read) => read,
            Err((status, words)) => return text(status, &words),
        };
        plain_body(&mut parts.headers, whole.len() as u64);
        let request = Request::from_parts(parts, full(whole));
        if asked.wants().is_empty() && asked.names().is_empty() {
            let response = sent(upstream, request).await;
            return match asked.lists() {
                true => self.named(repository, response),
                false => response,
            };
        }
        let round = (repository.clone(), asked.wants().to_vec(), asked.names().to_vec());
        if self.is_next_round(&round, asked.is_last()) {
            return sent(upstream, request).await;
        }
        let objects: Vec<String> = asked.wants().iter().take(TOLD).map(ToString::to_string).collect();
        let action = fetch_action(&repository, &self.refs_of(&repository, &asked), &objects);
        let pass = match self.door.ask(action).await {
            Ok(pass) => pass,
            Err(refused) => return error(&refused.reason),
        };
        if !asked.is_last() {
            *self.round() = Some(round);
        }
        let (outcome, response) = match upstream.send(request).await {
            Ok(response) => (Outcome::Done, response),
            Err(cause) => {
                let cause = format!("the git server could not be reached: {cause}");
                let told = text(StatusCode::BAD_GATEWAY, &cause);
                (Outcome::Failed { error: cause }, told)
            }
        };
        let status = response.status().as_u16();
        pass.settle(outcome, json!({ "status": status, "objects": asked.wants().len() }))
            .await;
        response
    }

    /// Whether this goes on with a fetch that was admitted: the same objects, some more of what
    /// the client has.
    fn is_next_round(&self, round: &Round, last: bool) -> bool {
        let mut open = self.round();
        let same = open.as_ref() == Some(round);
        if same && last {
            *open = None;
        }
        same
    }

    fn refs_of(&self, repository: &str, asked: &FetchReader) -> Vec<String> {
        let names = self.names.get(repository).unwrap_or_default();
        let behind = asked.wants().iter().filter_map(|id| names.get(id)).flatten();
        let mut refs: Vec<String> = asked.names().iter().chain(behind).cloned().collect();
        refs.sort();
        refs.dedup();
        refs.truncate(TOLD);
        refs
    }

    /// An answer whose names are remembered as it passes.
    fn named(&self, repository: String, response: Response<InternalBody>) -> Response<InternalBody> {
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK || !is_plain(&parts.headers) {
            return Response::from_parts(parts, body);
        }
        let watch = NamesWatch {
            reader: NamesReader::default(),
            names: Arc::clone(&self.names),
            repository,
        };
        Response::from_parts(parts, Watched::over(body, watch))
    }

    async fn read_fetch(
        &self,
        body: InternalBody,
        headers: &HeaderMap,
    ) -> Result<(Bytes, FetchReader), (StatusCode, String)> {
        let mut body = Decoded::new(body, headers, self.settings.max_fetch_bytes).map_err(bad_body)?;
        let (mut reader, mut whole) = (FetchReader::default(), BytesMut::new());
        while let Some(piece) = body.next().await.map_err(bad_body)? {
            reader
                .push(&piece)
                .map_err(|fault| (StatusCode::FORBIDDEN, fault.to_string()))?;
            whole.extend_from_slice(&piece);
        }
        reader
            .finish()
            .map_err(|fault| (StatusCode::FORBIDDEN, fault.to_string()))?;
        Ok((whole.freeze(), reader))
    }
}

/// A refusal that git prints in the middle of a fetch (gitprotocol-pack(5), `error-line`).
fn error(words: &str) -> Response<InternalBody> {
    let clean: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = PktWriter::default();
    line.data(format!("ERR stockade: {clean}\n").as_bytes());
    result(Service::UploadPack, full(line.finish()))
}

/// Remembers names when they have passed.
struct NamesWatch {
    reader: NamesReader,
    names: Arc<Lists<super::names::Names>>,
    repository: String,
}

impl Watch for NamesWatch {
    fn see(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    fn end(self) {
        let found = self.reader.finish();
        if !found.is_empty() {
            self.names.set(self.repository, Some(found));
        }
    }
}
