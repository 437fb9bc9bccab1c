//! One push: read, looked into, asked about, and written anew for the server.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _, channel::mpsc};
use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use stockade_domain::{Action, Outcome, Verdict};
use stockade_policy::git::{push_action, unreadable_push};
use stockade_ports::{Inspected, InternalBody, PushToInspect};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

use super::{
    answer::{full, is_plain, result, text},
    body::{BodyError, Decoded},
    commands::{CommandReader, PushCommands},
    door::{Pass, Refused},
    report::{KEEP_ALIVE, ReportReader, progress, refusal},
    request::Service,
    serve::{GitSession, Upstream, bad_body, plain_body, sent},
    spool::{Spool, Spooled},
};

/// Most of a server's answer that is kept where it cannot be passed on as it comes.
const MAX_ANSWER: usize = 4 << 20;
/// Longest time a server may take to answer a push that was handed over whole.
const SERVER_PATIENCE: Duration = Duration::from_secs(600);

/// A push that was read whole.
struct Push {
    repository: String,
    head: Parts,
    commands: PushCommands,
    pack: Spooled,
}

/// A push that may go on.
struct Decided {
    push: Push,
    inspected: Inspected,
    pass: Box<dyn Pass>,
}

/// Why a push is refused, for each reference the same or its own reason.
struct No {
    reasons: Vec<String>,
    note: String,
}

/// What became of a push.
type Ended = Result<(Response<InternalBody>, Leave), No>;

/// What is left to do when the server's answer has passed.
struct Leave {
    pass: Box<dyn Pass>,
    inspected: Inspected,
    pack_bytes: u64,
}

impl GitSession {
    pub(super) async fn push(
        self: &Arc<Self>,
        repository: String,
        request: Request<InternalBody>,
        upstream: Arc<dyn Upstream>,
    ) -> Response<InternalBody> {
        let (mut head, body) = request.into_parts();
        let limit = self.policy.rules().max_pack_bytes.get().saturating_add(2 << 20);
        let (commands, rest, mut body) = match read_commands(body, &head.headers, limit).await {
            Ok(read) => read,
            Err((status, words)) => {
                let refused = self.refuse(unreadable_push(&repository, &words)).await;
                return text(status, &refused.reason);
            }
        };
        let Some(commands) = commands else {
            // A knock at the door, before a large push: the server may ask who it is.
            if !rest.is_empty() || !matches!(body.next().await, Ok(None)) {
                return text(StatusCode::BAD_REQUEST, "the push moves no reference and has a pack");
            }
            plain_body(&mut head.headers, 4);
            return sent(&*upstream, Request::from_parts(head, full(Bytes::from_static(b"0000")))).await;
        };
        if let Some(no) = self.refused_early(&repository, &commands).await {
            // The client reads the answer only when it has sent everything.
            return match body.drain().await {
                Ok(()) => no.answer(&commands),
                Err(error) => text(bad_body(error).0, &no.note),
            };
        }
        let Ok(place) = Arc::clone(&self.pushes).acquire_owned().await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the sandbox ended");
        };
        let pack = match self.spool(rest, body, &commands).await {
            Ok(pack) => pack,
            Err(words) => {
                let action = unreadable_push(&repository, &words);
                let refused = self.refuse(action).await;
                return No::all(&commands, &refused).answer(&commands);
            }
        };
        let push = Push {
            repository,
            head,
            commands,
            pack,
        };
        match push.commands.replies().side_band && push.commands.replies().status {
            true => self.stream(push, place, upstream),
            false => self.at_once(push, upstream).await,
        }
    }

    /// What the commands alone rule out.
    async fn refused_early(&self, repository: &str, commands: &PushCommands) -> Option<No> {
        let verdicts = self.policy.commands(&commands.updates);
        if verdicts.iter().all(|answer| answer.verdict != Verdict::Deny) {
            return None;
        }
        let refused = self.refuse(push_action(repository, &commands.updates, None)).await;
        let others = "not pushed: another reference of this push was refused";
        let reason = |denied: bool, own: String| if denied { own } else { others.to_owned() };
        let reasons = verdicts
            .into_iter()
            .map(|answer| reason(answer.verdict == Verdict::Deny, answer.reason))
            .collect();
        Some(No {
            reasons,
            note: noted(&refused),
        })
    }

    async fn spool(&self, rest: Bytes, mut body: Decoded, commands: &PushCommands) -> Result<Spooled, String> {
        let most = self.policy.rules().max_pack_bytes.get();
        let mut spool = Spool::new(self.settings.spool_dir.clone(), self.settings.spool_memory);
        let too_large = || format!("the pack is larger than {most} bytes, which is what the environment allows");
        let disk = |error: io::Error| format!("the pack could not be kept: {error}");
        spool.write(&rest).await.map_err(disk)?;
        loop {
            match body.next().await {
                Ok(Some(piece)) => spool.write(&piece).await.map_err(disk)?,
                Ok(None) => break,
                Err(BodyError::TooLarge(_)) => return Err(too_large()),
                Err(error) => return Err(error.to_string()),
            }
        }
        if spool.len() > most {
            return Err(too_large());
        }
        if commands.has_pack() != (spool.len() > 0) {
            return Err("a push comes with a pack exactly when something is not only removed".to_owned());
        }
        spool.finish().await.map_err(disk)
    }

    /// Answers when everything is decided.
    async fn at_once(&self, push: Push, upstream: Arc<dyn Upstream>) -> Response<InternalBody> {
        let commands = push.commands.clone();
        let ended = match self.decide(push).await {
            Ok(decided) => self.deliver(decided, &*upstream).await,
            Err(no) => Err(no),
        };
        let (response, leave) = match ended {
            Ok(ended) => ended,
            Err(no) => return no.answer(&commands),
        };
        let (parts, mut body) = response.into_parts();
        let (mut reader, mut kept) = (ReportReader::new(commands.replies().side_band), BytesMut::new());
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.into_data().unwrap_or_default();
            if kept.len() + data.len() > MAX_ANSWER {
                break;
            }
            reader.push(&data);
            kept.extend_from_slice(&data);
        }
        self.leave(leave, &commands, parts.status, reader).await;
        let mut answer = result(Service::ReceivePack, full(kept.freeze()));
        *answer.status_mut() = parts.status;
        answer
    }

    /// Answers at once and says what becomes of the push as it comes: a person may have to
    /// decide, and a client that hears nothing gives up.
    fn stream(
        self: &Arc<Self>,
        push: Push,
        place: OwnedSemaphorePermit,
        upstream: Arc<dyn Upstream>,
    ) -> Response<InternalBody> {
        let (mut out, frames) = mpsc::channel::<Piece>(4);
        let session = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            let commands = push.commands.clone();
            let decided = tokio::select! {
                decided = session.decide(push) => decided,
                // Nothing has gone on yet: a client that went away, or a sandbox that ended, ends the wait.
                () = session.keep_alive(out.clone()) => return,
                () = session.stop.cancelled() => Err(No::all(&commands, &ended())),
            };
            let ended = match decided {
                Ok(decided) => {
                    let waiting = AbortOnDropHandle::new(tokio::spawn({
                        let (session, out) = (Arc::clone(&session), out.clone());
                        async move { session.keep_alive(out).await }
                    }));
                    let ended = session.deliver(decided, &*upstream).await;
                    drop(waiting);
                    ended
                }
                Err(no) => Err(no),
            };
            match ended {
                Err(no) => drop(out.send(Ok(no.bytes(&commands))).await),
                Ok((response, leave)) => session.pass_on(response, leave, &commands, &mut out).await,
            }
        });
        let frames = frames.map(|piece| piece.map(Frame::data));
        result(
            Service::ReceivePack,
            InternalBody::new(StreamBody::new(frames).map_err(Into::into)),
        )
    }

    /// Says again and again that somebody is still there; returns when the client is not.
    async fn keep_alive(&self, mut out: mpsc::Sender<Piece>) {
        loop {
            tokio::time::sleep(self.settings.keep_alive).await;
            if out.send(Ok(Bytes::from_static(KEEP_ALIVE))).await.is_err() {
                return;
            }
        }
    }

    /// Hands the server's answer to a client whose own answer has begun.
    async fn pass_on(
        &self,
        response: Response<InternalBody>,
        leave: Leave,
        commands: &PushCommands,
        out: &mut mpsc::Sender<Piece>,
    ) {
        let (parts, mut body) = response.into_parts();
        let mut reader = ReportReader::new(true);
        if parts.status != StatusCode::OK || !is_plain(&parts.headers) {
            self.leave(leave, commands, parts.status, reader).await;
            let refused = Refused {
                rule: "stockade.unreachable".to_owned(),
                reason: format!("the git server answered {}", parts.status),
            };
            let _ = out.send(Ok(No::all(commands, &refused).bytes(commands))).await;
            return;
        }
        while let Some(frame) = body.frame().await {
            let piece = frame
                .map(|frame| frame.into_data().unwrap_or_default())
                .map_err(io::Error::other);
            let broken = piece.is_err();
            if let Ok(data) = &piece {
                reader.push(data);
            }
            // A client that went away does not change what the server did. One that is there must
            // see that an answer broke off: git waits for ever for the rest of one that only ends.
            let _ = out.send(piece).await;
            if broken {
                break;
            }
        }
        self.leave(leave, commands, parts.status, reader).await;
    }

    /// Looks into a push and asks about it. Dropping the future leaves nothing behind.
    async fn decide(&self, push: Push) -> Result<Decided, No> {
        let rules = self.policy.rules();
        let inspected = self.inspector.inspect(PushToInspect {
            updates: push.commands.updates.clone(),
            remote: self.known(&push.repository).iter().cloned().collect(),
            pack: push.pack.pack(),
            max_pack_bytes: rules.max_pack_bytes.get(),
            max_commits: rules.max_commits.get(),
        });
        let inspected = match inspected.await {
            Ok(inspected) => inspected,
            Err(failure) => {
                let refused = self.refuse(unreadable_push(&push.repository, &failure.message)).await;
                return Err(No::all(&push.commands, &refused));
            }
        };
        let action = push_action(&push.repository, &push.commands.updates, Some(&inspected.facts));
        match self.ask(action).await {
            Ok(pass) => Ok(Decided { push, inspected, pass }),
            Err(refused) => Err(No::all(&push.commands, &refused)),
        }
    }

    /// Sends an admitted push to the server.
    async fn deliver(&self, decided: Decided, upstream: &dyn Upstream) -> Ended {
        let Decided { push, inspected, pass } = decided;
        let (mut head, commands, pack) = (push.head, push.commands, push.pack);
        let front = commands.encode();
        plain_body(&mut head.headers, front.len() as u64 + pack.len());
        let sent = match pack.body(front).await {
            Ok(body) => {
                let request = Request::from_parts(head, body);
                let answer = tokio::time::timeout(SERVER_PATIENCE, upstream.send(request)).await;
                answer.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
            }
            Err(error) => Err(format!("the pack could not be read again: {error}")),
        };
        match sent {
            Ok(response) => {
                let pack_bytes = pack.len();
                let leave = Leave {
                    pass,
                    inspected,
                    pack_bytes,
                };
                Ok((response, leave))
            }
            Err(error) => {
                let error = format!("the git server could not be reached: {error}");
                let refused = Refused {
                    rule: "stockade.unreachable".to_owned(),
                    reason: error.clone(),
                };
                pass.settle(Outcome::Failed { error }, json!({})).await;
                Err(No::all(&commands, &refused))
            }
        }
    }

    /// Asks. Whatever the answer, what the rules refuse is refused, what they leave to a person
    /// needs one, and what was edited is not what was asked.
    async fn ask(&self, action: Action) -> Result<Box<dyn Pass>, Refused> {
        let own = self.policy.judge(&action);
        let Some(own) = own.filter(|own| matches!(own.verdict, Verdict::Allow | Verdict::Hold)) else {
            return Err(self.refuse(action).await);
        };
        let pass = self.door.ask(action.clone()).await?;
        let refused = |rule: String, reason: String| Refused { rule, reason };
        let no = match own.verdict {
            _ if pass.action() != &action => {
                let words = "a push cannot be edited; approve or reject it as it is";
                refused("stockade.git".to_owned(), words.to_owned())
            }
            Verdict::Hold if !pass.is_approved() => refused(own.rule, format!("{}; nobody was asked", own.reason)),
            _ => return Ok(pass),
        };
        let error = no.reason.clone();
        pass.settle(Outcome::Failed { error }, json!({ "rule": no.rule })).await;
        Err(no)
    }

    /// Writes down what the server said.
    async fn leave(&self, leave: Leave, commands: &PushCommands, status: StatusCode, reader: ReportReader) {
        let report = reader.finish();
        let silent = !commands.replies().status;
        let moved = status == StatusCode::OK && (silent || report.all_moved(commands.updates.len()));
        let refused: Vec<_> = report.refs.iter().filter(|one| one.refused.is_some()).collect();
        let details = json!({
            "status": status.as_u16(), "pack_bytes": leave.pack_bytes,
            "pack_objects": leave.inspected.facts.pack_objects,
            "refused": refused.iter().map(|one| json!({ "ref": one.name, "reason": one.refused })).collect::<Vec<_>>(),
        });
        let outcome = match moved {
            true => Outcome::Done,
            // The server has the push and its report broke off.
            false if status == StatusCode::OK && report.unpacked.is_none() => Outcome::Unknown,
            false => Outcome::Failed {
                error: "the git server did not take the push".to_owned(),
            },
        };
        leave.pass.settle(outcome, details).await;
        // Also what the server took in part; what it has is asked of the server again.
        if status == StatusCode::OK {
            self.inspector.delivered(leave.inspected).await;
        }
    }
}

/// A piece of an answer.
type Piece = io::Result<Bytes>;

fn ended() -> Refused {
    Refused {
        rule: "stockade.gone".to_owned(),
        reason: "the sandbox ended before a person decided".to_owned(),
    }
}

type Read = (Option<PushCommands>, Bytes, Decoded);

async fn read_commands(body: InternalBody, headers: &HeaderMap, limit: u64) -> Result<Read, (StatusCode, String)> {
    let mut body = Decoded::new(body, headers, limit).map_err(bad_body)?;
    let mut reader = CommandReader::default();
    let fault = |fault: super::commands::CommandFault| (StatusCode::FORBIDDEN, fault.to_string());
    while let Some(piece) = body.next().await.map_err(bad_body)? {
        if reader.push(&piece).map_err(fault)? {
            break;
        }
    }
    let (commands, rest) = reader.finish().map_err(fault)?;
    Ok((commands, rest, body))
}

fn noted(refused: &Refused) -> String {
    format!("stockade: {} ({})", refused.reason, refused.rule)
}

impl No {
    fn all(commands: &PushCommands, refused: &Refused) -> Self {
        Self {
            reasons: vec![refused.reason.clone(); commands.updates.len()],
            note: noted(refused),
        }
    }

    /// The bytes of an answer that has begun.
    fn bytes(&self, commands: &PushCommands) -> Bytes {
        let bytes = refusal(commands.replies(), &commands.updates, &self.reasons, &self.note);
        bytes.unwrap_or_else(|| progress(&self.note))
    }

    fn answer(&self, commands: &PushCommands) -> Response<InternalBody> {
        match refusal(commands.replies(), &commands.updates, &self.reasons, &self.note) {
            Some(bytes) => result(Service::ReceivePack, full(bytes)),
            None => text(StatusCode::FORBIDDEN, &self.note),
        }
    }
}
