//! `session/request_permission`: the agent asks, the gate answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Map, Value, json};
use stockade_domain::{Action, ActionKind, Amounts, Failure, Outcome};
use stockade_gate::{Admitted, Gate, Refusal, Scope, kind};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{rpc::Peer, tools::Known};
use crate::{builtin::normalized_path, builtin::rejected_by_a_person, mishap, text};

/// What an answer means for the session.
#[derive(Debug)]
pub(super) enum Signal {
    /// The run cannot go on.
    Fatal(Failure),
    /// Something was refused.
    Refused {
        /// What the agent should hear about it.
        words: String,
        /// Whether a person said something, which it should hear in any case.
        spoken: bool,
    },
}

/// Asks the gate for an agent and remembers what was admitted.
#[derive(Clone)]
pub(super) struct Permissions {
    pub(super) gate: Gate,
    pub(super) scope: Scope,
    pub(super) signals: mpsc::UnboundedSender<Signal>,
    pub(super) open: Arc<Mutex<HashMap<String, Admitted<kind::Permission>>>>,
}

/// One question of an agent.
pub(super) struct Question {
    pub(super) id: Value,
    pub(super) call: String,
    pub(super) known: Known,
    pub(super) options: Value,
}

impl Permissions {
    /// Answers one question; waits for a person where one must decide. Never called on the
    /// loop that reads the agent, which would then wait for itself.
    pub(super) async fn decide(self, peer: Peer, question: Question, turn: CancellationToken) {
        let action = action_of(&question.known);
        let gate = self.gate.clone();
        let decision = tokio::select! {
            () = turn.cancelled() => {
                peer.answer(&question.id, cancelled()).await;
                return;
            }
            decision = gate.pass::<kind::Permission>(&self.scope, action, Amounts::ZERO) => decision,
        };
        let answer = match decision {
            Ok(admitted) => self.allow(admitted, &question).await,
            Err(refusal) => self.refuse(&refusal, &question).await,
        };
        peer.answer(&question.id, answer).await;
    }

    async fn allow(&self, admitted: Admitted<kind::Permission>, question: &Question) -> Value {
        // Only ever once: a standing permission would let later actions pass unseen.
        match option(&question.options, "allow_once") {
            Some(id) => {
                let earlier = self.lock().insert(question.call.clone(), admitted);
                if let Some(earlier) = earlier {
                    settle(earlier, Outcome::Done).await;
                }
                selected(&id)
            }
            None => {
                let error = "the agent offers no way to allow this once".to_owned();
                settle(admitted, Outcome::Failed { error }).await;
                cancelled()
            }
        }
    }

    async fn refuse(&self, refusal: &Refusal, question: &Question) -> Value {
        if mishap::ends_run(refusal) {
            let _ = self.signals.send(Signal::Fatal(mishap::refusal(refusal)));
            return cancelled();
        }
        if let Refusal::Denied { record } = refusal {
            let by_person = rejected_by_a_person(&self.gate, record.approval).await;
            if record.rule == "stockade.repetition" && !by_person {
                let _ = self
                    .signals
                    .send(Signal::Fatal(mishap::repeating(&record.action.target)));
                return cancelled();
            }
            let title = text::clip(&question.known.title, 200).0;
            let words = format!("'{title}' was refused: {}. It did not happen.", record.reason);
            let spoken = by_person && record.reason.contains(": ");
            let _ = self.signals.send(Signal::Refused { words, spoken });
        }
        match option(&question.options, "reject_once") {
            Some(id) => selected(&id),
            None => cancelled(),
        }
    }

    /// Settles what was admitted for a call that has ended.
    pub(super) async fn settle(&self, call: &str, well: bool) {
        let admitted = self.lock().remove(call);
        if let Some(admitted) = admitted {
            let outcome = if well {
                Outcome::Done
            } else {
                Outcome::Failed {
                    error: "the agent's tool reports a failure".to_owned(),
                }
            };
            settle(admitted, outcome).await;
        }
    }

    /// Settles what is left at the end of a turn: the agent has had its permission.
    pub(super) async fn settle_all(&self) {
        let left: Vec<_> = self.lock().drain().map(|(_, admitted)| admitted).collect();
        for admitted in left {
            settle(admitted, Outcome::Done).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Admitted<kind::Permission>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes down how an admitted question ended.
pub(super) async fn settle(admitted: Admitted<kind::Permission>, outcome: Outcome) {
    if let Err(error) = admitted.settle(outcome, Amounts::ZERO, json!({})).await {
        tracing::debug!(%error, "the end of a permission was not written down; recovery marks it unknown");
    }
}

/// The permission to go on with a call that repeats.
pub(super) fn repeat_action(known: &Known) -> Action {
    Action {
        kind: ActionKind::Permission,
        operation: "repeat".to_owned(),
        target: known.title.clone(),
        args: json!({ "kind": known.kind, "input": known.input }),
    }
}

fn action_of(known: &Known) -> Action {
    let kind = if known.kind.is_empty() {
        "other"
    } else {
        known.kind.as_str()
    };
    let mut args = Map::new();
    if let Some(command) = command_of(&known.input) {
        args.insert("command".to_owned(), json!(command));
    }
    if let Some(path) = path_of(known) {
        args.insert("path".to_owned(), json!(path));
    }
    if let Some(host) = host_of(&known.input) {
        args.insert("host".to_owned(), json!(host));
    }
    let input = if known.input.is_null() {
        known.locations.clone()
    } else {
        known.input.clone()
    };
    args.insert("input".to_owned(), input);
    Action {
        kind: ActionKind::Permission,
        operation: kind.to_owned(),
        target: known.title.clone(),
        args: Value::Object(args),
    }
}

/// The command line in an input; `sh -c LINE` is the line.
fn command_of(input: &Value) -> Option<String> {
    let command = ["command", "cmd"].iter().find_map(|key| input.get(*key))?;
    if let Some(line) = command.as_str() {
        return Some(line.to_owned());
    }
    let words: Vec<&str> = command.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    match words.as_slice() {
        [shell, "-c" | "-lc" | "-ic", line] if shell.ends_with("sh") => Some((*line).to_owned()),
        words => Some(words.join(" ")),
    }
}

fn path_of(known: &Known) -> Option<String> {
    let path = ["file_path", "filePath", "filepath", "path", "notebook_path"]
        .iter()
        .find_map(|key| known.input.get(*key)?.as_str())
        .or_else(|| known.locations.get(0)?.get("path")?.as_str())?;
    normalized_path(path).ok()
}

fn host_of(input: &Value) -> Option<String> {
    let url = Url::parse(input.get("url")?.as_str()?).ok()?;
    Some(url.host_str()?.trim_end_matches('.').to_lowercase())
}

/// The id of the option of that kind.
fn option(options: &Value, kind: &str) -> Option<String> {
    options
        .as_array()?
        .iter()
        .find(|option| option["kind"] == kind)
        .and_then(|option| option["optionId"].as_str())
        .map(str::to_owned)
}

fn selected(id: &str) -> Value {
    json!({ "outcome": { "outcome": "selected", "optionId": id } })
}

fn cancelled() -> Value {
    json!({ "outcome": { "outcome": "cancelled" } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(update: &Value) -> Known {
        let mut known = Known::default();
        known.learn(update);
        known
    }

    #[test]
    fn actions_carry_what_rules_look_at_and_nothing_that_changes_between_attempts() {
        let ask = |id: &str| {
            action_of(&known(&json!({
                "title": "Run tests", "kind": "execute",
                "rawInput": { "command": ["/bin/bash", "-lc", "make test"], "call_id": id },
            })))
        };
        assert_eq!(ask("1").digest(), ask("2").digest());
        assert_eq!(ask("1").args["command"], "make test");
        assert_eq!(
            (ask("1").operation.as_str(), ask("1").target.as_str()),
            ("execute", "Run tests")
        );
        let edit = action_of(&known(
            &json!({ "kind": "edit", "locations": [{ "path": "/workspace/./a.txt" }] }),
        ));
        assert_eq!(edit.args["path"], "a.txt");
        let fetch = action_of(&known(
            &json!({ "kind": "fetch", "rawInput": { "url": "https://Example.COM./x" } }),
        ));
        assert_eq!(fetch.args["host"], "example.com");
        assert_eq!(action_of(&known(&json!({}))).operation, "other");
    }

    #[test]
    fn only_options_of_the_asked_kind_are_chosen() {
        let options = json!([{ "optionId": "a", "kind": "allow_always" }, { "optionId": "o", "kind": "allow_once" }]);
        assert_eq!(option(&options, "allow_once").as_deref(), Some("o"));
        assert_eq!(option(&options, "reject_once"), None);
        assert_eq!(option(&json!(null), "allow_once"), None);
    }
}
