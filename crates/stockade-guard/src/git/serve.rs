//! One git request, from the client to the server and back.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HeaderName, TRANSFER_ENCODING},
};
use stockade_domain::{Action, ObjectId, Outcome, Verdict};
use stockade_policy::git::{GitPolicy, unreadable_push};
use stockade_ports::{InternalBody, PushInspector};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    advert::AdvertReader,
    answer::{Watch, Watched, is_plain, text},
    body::BodyError,
    door::{Door, Refused},
    names::Names,
    request::{GitRequest, Service},
    upload::Round,
};

/// Which version of the protocol the client would like (gitprotocol-v2(5)).
const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");
/// Repositories whose lists are remembered in one session.
const MAX_LISTS: usize = 64;
/// Pushes of one run at a time; each may fill a file.
const MAX_PUSHES: usize = 2;

/// The way to the server. Where it leads was decided before; a credential is put in by it.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Sends a request in origin form and gives back the answer.
    ///
    /// # Errors
    ///
    /// Words about why there is no answer.
    async fn send(&self, request: Request<InternalBody>) -> Result<Response<InternalBody>, String>;
}

/// Numbers and places.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// An existing directory for packs that do not fit in memory; only the Guard may read it.
    pub spool_dir: PathBuf,
    /// Bytes of a pack that are kept in memory.
    pub spool_memory: usize,
    /// Largest request to read, in bytes; it is kept in memory.
    pub max_fetch_bytes: u64,
    /// How often a client that waits hears that somebody is still there.
    pub keep_alive: Duration,
}

impl GitSettings {
    /// Defaults for everything but the directory.
    pub fn new(spool_dir: PathBuf) -> Self {
        Self {
            spool_dir,
            spool_memory: 1 << 20,
            max_fetch_bytes: 16 << 20,
            keep_alive: Duration::from_secs(5),
        }
    }
}

/// The git part of one run's boundary.
pub struct GitSession {
    pub(super) policy: GitPolicy,
    pub(super) door: Arc<dyn Door>,
    pub(super) inspector: Arc<dyn PushInspector>,
    pub(super) settings: GitSettings,
    pub(super) stop: CancellationToken,
    pub(super) pushes: Arc<Semaphore>,
    lists: Arc<Lists<BTreeSet<ObjectId>>>,
    /// For each repository the names of what it was last said to have, to tell what is fetched.
    pub(super) names: Arc<Lists<Names>>,
    /// The fetch that goes on in more than one request.
    round: Mutex<Option<Round>>,
}

/// What servers said, by repository.
#[derive(Debug)]
pub(super) struct Lists<T>(Mutex<HashMap<String, Arc<T>>>);

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Lists<T> {
    pub(super) fn get(&self, repository: &str) -> Option<Arc<T>> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.get(repository).cloned()
    }

    /// Remembers a list, or forgets the last one.
    pub(super) fn set(&self, repository: String, found: Option<T>) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Some(found) if lists.len() < MAX_LISTS || lists.contains_key(&repository) => {
                lists.insert(repository, Arc::new(found));
            }
            _ => drop(lists.remove(&repository)),
        }
    }
}

impl GitSession {
    /// A session that ends when `stop` is cancelled.
    pub fn new(
        policy: GitPolicy,
        door: Arc<dyn Door>,
        inspector: Arc<dyn PushInspector>,
        settings: GitSettings,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            policy,
            door,
            inspector,
            settings,
            stop,
            pushes: Arc::new(Semaphore::new(MAX_PUSHES)),
            lists: Arc::default(),
            names: Arc::default(),
            round: Mutex::default(),
        })
    }

    /// Serves a request that [`GitRequest::read`] recognised. `origin` is the server's, such as
    /// `https://git.example`, and part of what an approval is about.
    pub async fn serve(
        self: &Arc<Self>,
        origin: &str,
        asked: GitRequest,
        mut request: Request<InternalBody>,
        upstream: Arc<dyn Upstream>,
    ) -> Response<InternalBody> {
        let repository = format!("{origin}{}", asked.repository);
        tidy(request.headers_mut());
        match (asked.service, asked.advertise) {
            (Service::UploadPack, true) => self.offer(repository, request, &*upstream).await,
            (Service::UploadPack, false) => self.fetch(repository, request, &*upstream).await,
            (Service::ReceivePack, true) => self.advertise(repository, request, &*upstream).await,
            (Service::ReceivePack, false) => self.push(repository, request, upstream).await,
        }
    }

    /// The list of references on its way to a client that wants to push.
    async fn advertise(
        &self,
        repository: String,
        request: Request<InternalBody>,
        upstream: &dyn Upstream,
    ) -> Response<InternalBody> {
        if !self.policy.may_push() {
            let words = "this environment does not allow pushing through git";
            let refused = self.refuse(unreadable_push(&repository, words)).await;
            return text(StatusCode::FORBIDDEN, &refused.reason);
        }
        let (parts, body) = sent(upstream, request).await.into_parts();
        if parts.status != StatusCode::OK || !is_plain(&parts.headers) {
            return Response::from_parts(parts, body);
        }
        let watch = ListWatch {
            reader: AdvertReader::default(),
            lists: Arc::clone(&self.lists),
            repository,
        };
        Response::from_parts(parts, Watched::over(body, watch))
    }

    pub(super) fn round(&self) -> MutexGuard<'_, Option<Round>> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server last said it has; empty when it did not.
    pub(super) fn known(&self, repository: &str) -> Arc<BTreeSet<ObjectId>> {
        self.lists.get(repository).unwrap_or_default()
    }

    /// Has a refusal written down. Should the gate admit what is refused here, it is settled so.
    pub(super) async fn refuse(&self, action: Action) -> Refused {
        let own = self.policy.judge(&action);
        match self.door.ask(action).await {
            Err(refused) => refused,
            Ok(pass) => {
                let own = own.filter(|own| own.verdict != Verdict::Allow);
                let (rule, reason) = match own {
                    Some(own) => (own.rule, own.reason),
                    None => ("stockade.git".to_owned(), "refused by the Guard".to_owned()),
                };
                let error = reason.clone();
                pass.settle(Outcome::Failed { error }, serde_json::json!({ "rule": rule }))
                    .await;
                Refused { rule, reason }
            }
        }
    }
}

/// Remembers a list when it has passed.
struct ListWatch {
    reader: AdvertReader,
    lists: Arc<Lists<BTreeSet<ObjectId>>>,
    repository: String,
}

impl Watch for ListWatch {
    fn see(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    fn end(self) {
        let found = self.reader.finish().map(|found| found.objects);
        self.lists.set(self.repository, found);
    }
}

/// Sends a request; a server that does not answer is told in words.
pub(super) async fn sent(upstream: &dyn Upstream, request: Request<InternalBody>) -> Response<InternalBody> {
    match upstream.send(request).await {
        Ok(response) => response,
        Err(error) => text(
            StatusCode::BAD_GATEWAY,
            &format!("the git server could not be reached: {error}"),
        ),
    }
}

pub(super) fn bad_body(error: BodyError) -> (StatusCode, String) {
    let status = match error {
        BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::Coding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        BodyError::Broken | BodyError::Lost(_) => StatusCode::BAD_REQUEST,
    };
    (status, error.to_string())
}

/// Headers that would make the answer, or the request, something the Guard does not read.
fn tidy(headers: &mut HeaderMap) {
    headers.remove(ACCEPT_ENCODING);
    headers.remove(EXPECT);
    let versions: Vec<&HeaderValue> = headers.get_all(GIT_PROTOCOL).iter().collect();
    let known = match versions.as_slice() {
        [] => return,
        [one] => ["version=0", "version=1", "version=2"]
            .iter()
            .any(|version| one.as_bytes() == version.as_bytes()),
        _ => false,
    };
    if !known {
        headers.remove(GIT_PROTOCOL);
    }
}

/// The headers of a body that is sent as it was read.
pub(super) fn plain_body(headers: &mut HeaderMap, length: u64) {
    headers.remove(CONTENT_ENCODING);
    headers.remove(TRANSFER_ENCODING);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
}
