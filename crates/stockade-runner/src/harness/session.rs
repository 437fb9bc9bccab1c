//! One conversation with an agent: start, prompts, end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use stockade_domain::{EventType, Failure, HarnessProfile, Outcome};
use stockade_gate::{Gated, kind};
use stockade_ports::Exit;
use tokio::{sync::mpsc, task::JoinSet, time};

use super::{
    files::Files,
    launch::launch,
    permission::{self, Permissions, Signal, repeat_action},
    rpc::{self, Ending, Incoming, Line, Peer, RpcError},
    tools::{Known, ToolWatch},
    turn::{Cause, TurnEnd},
};
use crate::{builtin::Writes, inbox::Inbox, live::Stage, mishap, narrator::Narrator, text};

/// How long an agent may take to end after its input is closed.
const GOODBYE: Duration = Duration::from_secs(3);
/// How often a turn that ended early is followed by another one.
const GO_ON: u32 = 2;

/// One conversation with an agent.
pub(super) struct Session<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) peer: Peer,
    pub(super) line: Line,
    pub(super) narrator: Narrator,
    pub(super) watch: ToolWatch,
    pub(super) permissions: Permissions,
    pub(super) signals: mpsc::UnboundedReceiver<Signal>,
    pub(super) inbox: Inbox,
    pub(super) asked: JoinSet<()>,
    pub(super) files: Option<Files>,
    /// The agent's name for this conversation.
    pub(super) id: String,
    /// Words of people that belong into the next prompt.
    pub(super) words: Vec<String>,
    /// What was refused in this turn, for an agent that stops because of it.
    pub(super) refused: Vec<String>,
    /// Whether the agent has said or done nothing since something was refused.
    pub(super) silenced: bool,
}

impl<'a> Session<'a> {
    /// Starts the agent and opens a session in the workspace.
    pub(super) async fn start(stage: &'a Stage<'a>, profile: &HarnessProfile) -> Result<Self, Failure> {
        let process = launch(stage, profile).await?;
        let (peer, line) = rpc::connect(process, stage.pulse.clone());
        let (tell, signals) = mpsc::unbounded_channel();
        let (gate, scope) = (stage.gate.clone(), stage.place.scope.clone());
        let files = profile.offer_fs.then(|| Files {
            gate: gate.clone(),
            scope: scope.clone(),
            sandbox: Gated::new(stage.place.sandbox.clone()),
            writes: Writes::new(stage.gate, &stage.place.scope),
            signals: tell.clone(),
        });
        let mut session = Self {
            narrator: Narrator::new(gate.clone(), scope.clone()),
            watch: ToolWatch::new(stage.run.spec.limits.repeat_limit),
            permissions: Permissions {
                gate: gate.clone(),
                scope,
                signals: tell,
                open: Arc::new(Mutex::new(HashMap::new())),
            },
            inbox: Inbox::new(gate.store(), stage.run.id),
            asked: JoinSet::new(),
            files,
            id: String::new(),
            words: Vec::new(),
            refused: Vec::new(),
            silenced: false,
            stage,
            peer,
            line,
            signals,
        };
        let limit = stage.config.agent_start_timeout;
        tokio::select! {
            () = stage.live.stop.cancelled() => Err(mishap::stopped()),
            opened = time::timeout(limit, session.open()) => match opened {
                Ok(opened) => opened,
                Err(_) => Err(session.blame("agent_no_answer", &format!("it did not open a session within {} seconds", limit.as_secs()))),
            },
        }?;
        Ok(session)
    }

    async fn open(&mut self) -> Result<(), Failure> {
        let offered = self.files.is_some();
        let hello = json!({
            "protocolVersion": 1,
            "clientCapabilities": { "fs": { "readTextFile": offered, "writeTextFile": offered }, "terminal": false },
            "clientInfo": { "name": "stockade", "title": "Stockade", "version": env!("CARGO_PKG_VERSION") },
        });
        let welcome = self.call("initialize", hello).await?;
        if welcome["protocolVersion"] != 1 {
            let message = format!(
                "it speaks version {} of the protocol, not 1",
                welcome["protocolVersion"]
            );
            return Err(self.blame("agent_protocol", &message));
        }
        let workspace = stockade_ports::sandbox::WORKSPACE;
        let opened = self
            .call("session/new", json!({ "cwd": workspace, "mcpServers": [] }))
            .await?;
        match opened["sessionId"].as_str() {
            Some(id) => id.clone_into(&mut self.id),
            None => return Err(self.blame("agent_protocol", "it opened a session without naming it")),
        }
        let spec = &self.stage.run.spec;
        let (name, version) = (&welcome["agentInfo"]["name"], &welcome["agentInfo"]["version"]);
        let ready = json!({ "agent": spec.agent.name, "model": spec.model, "name": name, "version": version });
        self.narrator.tell(EventType::AgentReady, ready).await
    }

    /// Asks the agent something other than a prompt.
    async fn call(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        let peer = self.peer.clone();
        let mut answer = std::pin::pin!(peer.request(method, params));
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => return answered.map_err(|error| self.complaint(method, &error)),
                incoming = self.line.incoming.recv() => self.take(incoming, None).await?,
            }
        }
    }

    /// Prompts until there is nothing left to say.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let spec = &self.stage.run.spec;
        let mut prompt = match &spec.agent.instructions {
            Some(instructions) => format!("{instructions}\n\n{}", spec.prompt),
            None => spec.prompt.clone(),
        };
        self.hear().await?;
        for words in self.words.drain(..) {
            prompt.push_str("\n\n");
            prompt.push_str(&words);
        }
        let mut early_ends = 0;
        loop {
            let end = self.turn(&prompt).await?;
            self.hear().await?;
            prompt = match end {
                TurnEnd::Cut(Cause::Loop(known)) => self.let_go_on(&known).await?,
                TurnEnd::Cut(Cause::Stop) => return Err(mishap::stopped()),
                TurnEnd::Early if self.words.is_empty() && early_ends < GO_ON => {
                    early_ends += 1;
                    "Go on where you stopped.".to_owned()
                }
                // Some agents stop at a refusal and wait to hear what to do instead.
                TurnEnd::Refused => {
                    let mut words = std::mem::take(&mut self.refused);
                    words.append(&mut self.words);
                    words.push("Go on without it, or end and say what is missing.".to_owned());
                    words.join("\n\n")
                }
                _ if self.words.is_empty() => break,
                _ => std::mem::take(&mut self.words).join("\n\n"),
            };
        }
        self.stage.live.conclude(self.narrator.last_words());
        Ok(())
    }

    /// Collects what people said in the meantime.
    async fn hear(&mut self) -> Result<(), Failure> {
        let messages = self.inbox.take().await?;
        self.words.extend(messages.into_iter().map(|message| message.text));
        self.hear_signals()
    }

    /// Takes what answered questions left to say.
    pub(super) fn hear_signals(&mut self) -> Result<(), Failure> {
        while let Ok(signal) = self.signals.try_recv() {
            match signal {
                Signal::Fatal(failure) => return Err(failure),
                Signal::Refused { words, spoken } => self.refusal(words, spoken),
            }
        }
        Ok(())
    }

    /// Remembers a refusal until the turn has ended.
    pub(super) fn refusal(&mut self, words: String, spoken: bool) {
        self.silenced = true;
        if spoken {
            self.words.push(words);
        } else {
            self.refused.push(words);
        }
    }

    /// An agent that repeats itself has been interrupted; a person decides whether it goes on.
    async fn let_go_on(&mut self, known: &Known) -> Result<String, Failure> {
        let gate = self.stage.gate.clone();
        let asked = gate.pass::<kind::Permission>(
            &self.stage.place.scope,
            repeat_action(known),
            stockade_domain::Amounts::ZERO,
        );
        let answer = tokio::select! {
            () = self.stage.live.stop.cancelled() => return Err(mishap::stopped()),
            answer = asked => answer,
        };
        match answer {
            Ok(admitted) => {
                permission::settle(admitted, Outcome::Done).await;
                self.watch.forgive();
                let mut words = vec![format!(
                    "You were interrupted because you repeated '{}' without progress. A person looked at it and lets you go on.",
                    text::clip(&known.title, 200).0
                )];
                words.append(&mut self.words);
                Ok(words.join("\n\n"))
            }
            Err(refusal) if mishap::ends_run(&refusal) => Err(mishap::refusal(&refusal)),
            Err(_) => Err(mishap::repeating(&known.title)),
        }
    }

    /// Lets the agent end by itself, shortly.
    pub(super) async fn close(mut self) {
        self.permissions.settle_all().await;
        self.asked.abort_all();
        // The last sender of its input goes, and the input is closed.
        drop((self.peer, self.asked));
        let ended = async {
            while let Some(incoming) = self.line.incoming.recv().await {
                if matches!(incoming, Incoming::Ended(_)) {
                    return;
                }
            }
        };
        if time::timeout(GOODBYE, ended).await.is_err() {
            tracing::debug!(run = %self.stage.run.id, "the agent did not end by itself and is killed");
        }
    }

    /// A failure that is the agent's, with the end of what it printed.
    pub(super) fn blame(&self, code: &str, what: &str) -> Failure {
        let name = &self.stage.run.spec.agent.name;
        let tail = self.line.tail.text();
        let printed = if tail.is_empty() {
            String::new()
        } else {
            format!("; it printed: {tail}")
        };
        Failure::terminal(code, format!("the agent '{name}' failed: {what}{printed}"))
            .with_hint("start it by hand with the command of its profile to see more")
    }

    pub(super) fn exited(&self, ending: &Ending) -> Failure {
        let how = match (&ending.complaint, ending.exit) {
            (Some(complaint), _) => complaint.clone(),
            (None, Exit::Code(code)) => format!("it ended with exit code {code} before it was done"),
            (None, Exit::Signal(signal)) => format!("it was ended by signal {signal} before it was done"),
            (None, Exit::TimedOut) => "its time was up".to_owned(),
            (None, Exit::OutputLimit) => "it printed too much".to_owned(),
            (None, Exit::SandboxGone) => "its sandbox ended under it".to_owned(),
        };
        self.blame("agent_exited", &how)
    }

    /// An error the agent answers with.
    pub(super) fn complaint(&self, method: &str, error: &RpcError) -> Failure {
        let data = if error.data.is_null() {
            String::new()
        } else {
            format!(" ({})", error.data)
        };
        let words = text::redact(text::clip(&format!("{}{data}", error.message), 2000).0);
        let what = format!("it answers {method} with error {}: {words}", error.code);
        // ACP: authentication is required.
        let code = if error.code == -32000 {
            "unauthorized"
        } else {
            "agent_error"
        };
        self.blame(code, &what)
    }
}
