//! One prompt and everything until its answer.

use std::time::Duration;

use serde_json::{Value, json};
use stockade_domain::{EventType, Failure, Outcome};
use stockade_ports::Topic;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    permission::{Question, Signal},
    rpc::{INVALID_PARAMS, Incoming, METHOD_NOT_FOUND, RpcError},
    session::Session,
    tools::Known,
};
use crate::{mishap, narrator::PACE};

/// How often messages are looked for without a hint.
const POLL: Duration = Duration::from_millis(500);
/// How long an agent may take to end a turn it was asked to end.
const YIELD: Duration = Duration::from_secs(10);
/// Events read at a time.
const PAGE: u32 = 500;

/// Why a turn was cut short.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cause {
    /// A person interrupts.
    Steer,
    /// The run is asked to stop.
    Stop,
    /// The agent repeats itself.
    Loop(Box<Known>),
}

/// How a turn ended.
#[derive(Debug, PartialEq)]
pub(super) enum TurnEnd {
    /// The agent has said and done what it wanted.
    Done,
    /// It ran into one of its own limits.
    Early,
    /// It stopped because something was refused.
    Refused,
    /// It was interrupted.
    Cut(Cause),
}

/// A turn that is going on.
pub(super) struct Turn {
    /// Cancelled with the turn; questions still open are then withdrawn.
    token: CancellationToken,
    cut: Option<Cause>,
    deadline: Option<Instant>,
}

impl Session<'_> {
    /// Prompts, and follows the agent until it answers.
    pub(super) async fn turn(&mut self, prompt: &str) -> Result<TurnEnd, Failure> {
        let gate = self.stage.gate.clone();
        let number = gate
            .begin_turn(&self.stage.place.scope)
            .await
            .map_err(|refusal| mishap::refusal(&refusal))?;
        let since = gate
            .store()
            .run(None, self.stage.run.id)
            .await
            .map_err(|e| mishap::store(&e))?
            .last_seq;
        self.refused.clear();
        self.silenced = false;
        let mut turn = Turn {
            token: CancellationToken::new(),
            cut: None,
            deadline: None,
        };
        let answer = self.follow(prompt, &mut turn).await;
        turn.token.cancel();
        self.permissions.settle_all().await;
        self.hear_signals()?;
        let refused = self.silenced;
        self.watch.end_turn();
        self.narrator.end_message().await?;
        let stop = match &answer {
            Ok(Ok(answer)) => answer["stopReason"].as_str().unwrap_or("end_turn").to_owned(),
            _ => "error".to_owned(),
        };
        self.narrator
            .tell(EventType::TurnEnded, json!({ "turn": number, "stop": stop }))
            .await?;
        // A limit that was reached explains whatever else went wrong.
        self.look_back(since, &answer).await?;
        let answered = answer?;
        if let Some(cause) = turn.cut {
            return Ok(TurnEnd::Cut(cause));
        }
        answered.map_err(|error| self.complaint("the prompt", &error))?;
        match stop.as_str() {
            "end_turn" | "cancelled" if refused => Ok(TurnEnd::Refused),
            "end_turn" => Ok(TurnEnd::Done),
            "max_tokens" | "max_turn_requests" => Ok(TurnEnd::Early),
            "refusal" => Err(Failure::terminal("model_refused", "the model refuses the task")),
            "cancelled" => Err(self.blame(
                "agent_cancelled",
                "it ended its turn as cancelled, and nobody had cancelled it",
            )),
            // A reason of a later version: the turn is over all the same.
            _ => Ok(TurnEnd::Done),
        }
    }

    /// The answer to a prompt; an outer error is one that ends the run.
    async fn follow(&mut self, prompt: &str, turn: &mut Turn) -> Result<Result<Value, RpcError>, Failure> {
        let (peer, stop) = (self.peer.clone(), self.stage.live.stop.clone());
        let content = json!([{ "type": "text", "text": prompt }]);
        let params = json!({ "sessionId": self.id, "prompt": content });
        let mut answer = std::pin::pin!(peer.request("session/prompt", params));
        let mut hints = self.stage.gate.bus().subscribe();
        let mut poll = time::interval(POLL);
        poll.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let waits = self.narrator.has_pieces();
            let hint = async {
                loop {
                    match hints.recv().await {
                        Ok(topic) if topic == Topic::Run(self.stage.run.id) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                        Ok(_) | Err(RecvError::Lagged(_)) => {}
                    }
                }
            };
            tokio::select! {
                biased;
                answered = &mut answer => {
                    self.drain().await?;
                    return Ok(answered);
                }
                () = at(turn.deadline) => {
                    if turn.cut == Some(Cause::Stop) {
                        return Err(mishap::stopped());
                    }
                    return Err(self.blame("agent_unresponsive", "it did not end its turn when it was asked to"));
                }
                () = stop.cancelled(), if turn.cut.is_none() => self.cut(turn, Cause::Stop).await,
                Some(signal) = self.signals.recv() => match signal {
                    Signal::Fatal(failure) => return Err(failure),
                    Signal::Refused { words, spoken } => self.refusal(words, spoken),
                },
                incoming = self.line.incoming.recv() => self.take(incoming, Some(turn)).await?,
                () = time::sleep(PACE), if waits => self.narrator.flush().await?,
                () = hint => self.look_for_steering(turn).await?,
                _ = poll.tick() => self.look_for_steering(turn).await?,
            }
        }
    }

    async fn look_for_steering(&mut self, turn: &mut Turn) -> Result<(), Failure> {
        if turn.cut.is_none() && self.inbox.is_steered().await? {
            self.cut(turn, Cause::Steer).await;
        }
        Ok(())
    }

    /// Asks the agent to end its turn.
    async fn cut(&mut self, turn: &mut Turn, cause: Cause) {
        turn.cut = Some(cause);
        turn.deadline = Some(Instant::now() + YIELD);
        turn.token.cancel();
        self.peer
            .notify("session/cancel", json!({ "sessionId": self.id }))
            .await;
    }

    /// Takes what was sent before an answer that has already arrived.
    async fn drain(&mut self) -> Result<(), Failure> {
        while let Ok(incoming) = self.line.incoming.try_recv() {
            if !matches!(incoming, Incoming::Ended(_)) {
                self.take(Some(incoming), None).await?;
            }
        }
        Ok(())
    }

    /// Takes one thing the agent sends. Never waits for a person: that would stop the line.
    pub(super) async fn take(&mut self, incoming: Option<Incoming>, turn: Option<&mut Turn>) -> Result<(), Failure> {
        match incoming {
            Some(Incoming::Notification { method, params }) if method == "session/update" => {
                self.update(&params["update"], turn).await
            }
            Some(Incoming::Notification { .. }) => Ok(()),
            Some(Incoming::Request { id, method, params }) => {
                let token = turn.map_or_else(CancellationToken::new, |turn| turn.token.clone());
                self.request(id, method, params, token).await;
                Ok(())
            }
            Some(Incoming::Ended(ending)) => Err(self.exited(&ending)),
            None => Err(self.blame("agent_exited", "its output ended")),
        }
    }

    async fn update(&mut self, update: &Value, turn: Option<&mut Turn>) -> Result<(), Failure> {
        let words = || update["content"]["text"].as_str().unwrap_or_default();
        match update["sessionUpdate"].as_str() {
            Some("agent_message_chunk") => {
                self.silenced = false;
                self.narrator.say(words()).await
            }
            Some("agent_thought_chunk") => self.narrator.think(words()).await,
            Some("tool_call" | "tool_call_update") => self.tool(update, turn).await,
            _ => Ok(()),
        }
    }

    async fn tool(&mut self, update: &Value, turn: Option<&mut Turn>) -> Result<(), Failure> {
        let id = update["toolCallId"].as_str().unwrap_or_default();
        let told = self.watch.update(id, update);
        if let Some(data) = told.call {
            self.silenced = false;
            self.narrator.end_message().await?;
            self.narrator.tell(EventType::ToolCall, data).await?;
        }
        if let Some((data, well)) = told.result {
            self.narrator.tell(EventType::ToolResult, data).await?;
            self.permissions.settle(id, well).await;
        }
        if let (Some(known), Some(turn)) = (told.repeats, turn)
            && turn.cut.is_none()
        {
            self.cut(turn, Cause::Loop(Box::new(known))).await;
        }
        Ok(())
    }

    async fn request(&mut self, id: Value, method: String, params: Value, token: CancellationToken) {
        // Finished ones make room.
        while self.asked.try_join_next().is_some() {}
        match (method.as_str(), &self.files) {
            ("session/request_permission", _) => {
                let call = params["toolCall"]["toolCallId"].as_str();
                let Some(call) = call.filter(|_| params["sessionId"] == self.id.as_str()) else {
                    self.peer
                        .refuse(&id, INVALID_PARAMS, "no such session or tool call")
                        .await;
                    return;
                };
                let mut known = self.watch.known(call);
                known.learn(&params["toolCall"]);
                let question = Question {
                    id,
                    call: call.to_owned(),
                    known,
                    options: params["options"].clone(),
                };
                let (permissions, peer) = (self.permissions.clone(), self.peer.clone());
                self.asked.spawn(permissions.decide(peer, question, token));
            }
            ("fs/read_text_file" | "fs/write_text_file", Some(files)) => {
                let (files, peer) = (files.clone(), self.peer.clone());
                self.asked.spawn(files.serve(peer, id, method, params, token));
            }
            _ => {
                let message = format!("this client has no method '{method}'");
                self.peer.refuse(&id, METHOD_NOT_FOUND, &message).await;
            }
        }
    }

    /// Looks at what the gate wrote down during the turn. Agents turn a refused or failed
    /// model call into words, and would otherwise seem to have finished.
    async fn look_back(&self, since: u64, answer: &Result<Result<Value, RpcError>, Failure>) -> Result<(), Failure> {
        let store = self.stage.gate.store();
        let (mut after, mut calls, mut failed) = (since, 0, None);
        loop {
            let page = store
                .events(self.stage.run.id, after, PAGE)
                .await
                .map_err(|e| mishap::store(&e))?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for event in &page {
                if event.kind == EventType::BudgetExhausted
                    && let Ok(exhausted) = serde_json::from_value(event.data.clone())
                {
                    return Err(mishap::refusal(&stockade_gate::Refusal::Exhausted { exhausted }));
                }
                if event.kind == EventType::ModelCall {
                    calls += 1;
                    match serde_json::from_value(event.data["outcome"].clone()) {
                        Ok(Outcome::Failed { error }) if calls == 1 || failed.is_some() => failed = Some(error),
                        _ => failed = None,
                    }
                }
            }
        }
        match failed {
            // Every single call failed: the agent never heard its model.
            Some(error) if answer.is_ok() => Err(Failure::terminal(
                "model_failed",
                format!("none of the agent's {calls} model calls was answered: {error}"),
            )
            .with_hint("check the model's name and its provider's key")),
            _ => Ok(()),
        }
    }
}

/// Waits for a moment, for ever when there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
