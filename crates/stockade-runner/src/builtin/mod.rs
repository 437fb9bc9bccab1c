//! The built-in loop: model calls from the trusted runner, tools inside the sandbox.

mod ask;
mod conversation;
mod tools;
mod wire;

use serde_json::json;
use stockade_domain::{EventType, Failure, Wire};
use stockade_gate::{Gated, model::ModelDoor};

use self::{
    ask::Asker,
    conversation::{Conversation, Entry, Reply, Stop, ToolResult},
    tools::{ToolSpec, Toolbox},
    wire::Ask,
};
pub(crate) use tools::{Trouble, Write, Writes, normalized_path, rejected_by_a_person};

use crate::{inbox::Inbox, live::Stage, mishap, narrator::Narrator};

/// How often an answer that ran into its limit is asked to go on.
const GO_ON: u32 = 3;

const SYSTEM: &str = "You are a software engineer who works alone in a sandbox until a task is done.\n\n\
    The repository, if there is one, is at /workspace; your tools start there. If it holds an AGENTS.md, CONTRIBUTING.md \
    or README.md, look there for how the project is built and tested. You may do anything inside the sandbox. It has no \
    network card: connections are allowed to few hosts or none, and every one is recorded. Some actions wait for a \
    person; when one is refused, respect that and find another way or stop.\n\n\
    Work in small steps. Look before you change, follow the style around your change, run the tests that show it works, \
    and leave nothing half done. What differs in /workspace when you end is your result; do not push it anywhere. When \
    you are done, say in a few sentences what you changed and how you checked it.";

/// Sees the task through.
pub(crate) async fn drive(stage: &Stage<'_>, door: &ModelDoor, names: &[String]) -> Result<(), Failure> {
    let specs = tools::specs(names)?;
    let wire = choose(door.wires())?;
    let narrator = Narrator::new(stage.gate.clone(), stage.place.scope.clone());
    let mut work = Loop {
        asker: Asker {
            door,
            scope: &stage.place.scope,
            pulse: stage.pulse.clone(),
            wire,
        },
        toolbox: Toolbox {
            gate: stage.gate.clone(),
            scope: stage.place.scope.clone(),
            sandbox: Gated::new(stage.place.sandbox.clone()),
            specs: specs.clone(),
            output_limit: stage.config.tool_output_bytes,
            pulse: stage.pulse.clone(),
            writes: Writes::new(stage.gate, &stage.place.scope),
            trusting: stage.place.trusting.clone(),
        },
        inbox: Inbox::new(stage.gate.store(), stage.run.id),
        conversation: Conversation::default(),
        narrator,
        specs,
        stage,
    };
    tokio::select! {
        () = stage.live.stop.cancelled() => Err(mishap::stopped()),
        done = Box::pin(work.run()) => done,
    }
}

/// The wire to speak: the first of ours that the door answers.
fn choose(wires: &[Wire]) -> Result<Wire, Failure> {
    [Wire::AnthropicMessages, Wire::OpenaiChat, Wire::OpenaiResponses]
        .into_iter()
        .find(|wire| wires.contains(wire))
        .ok_or_else(|| {
            Failure::terminal("no_model", "no model provider is configured")
                .with_hint("configure a provider, or use the scripted one")
        })
}

struct Loop<'a> {
    stage: &'a Stage<'a>,
    asker: Asker<'a>,
    toolbox: Toolbox,
    inbox: Inbox,
    conversation: Conversation,
    narrator: Narrator,
    specs: Vec<ToolSpec>,
}

impl Loop<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        let spec = &self.stage.run.spec;
        let tools: Vec<&str> = self.specs.iter().map(|tool| tool.name).collect();
        let ready = json!({
            "agent": spec.agent.name, "model": spec.model, "wire": self.asker.wire.as_str(), "tools": tools,
        });
        self.narrator.tell(EventType::AgentReady, ready).await?;
        self.conversation.user(spec.prompt.clone());
        self.hear().await?;
        let mut lengths = 0;
        loop {
            let reply = self.turn().await?;
            let heard = self.hear().await?;
            if !reply.calls.is_empty() || heard {
                lengths = 0;
                continue;
            }
            if reply.stop == Stop::Length && lengths < GO_ON {
                lengths += 1;
                self.conversation
                    .user("Your answer ran into its length limit. Go on where it ended.");
                continue;
            }
            self.stage.live.conclude(self.narrator.last_words());
            return Ok(());
        }
    }

    /// One answer of the model and the tools it calls.
    async fn turn(&mut self) -> Result<Reply, Failure> {
        let number = self
            .stage
            .gate
            .begin_turn(&self.stage.place.scope)
            .await
            .map_err(|refusal| mishap::refusal(&refusal))?;
        self.conversation.forget_over(self.stage.config.max_conversation_bytes);
        let system = self.system();
        let ask = Ask {
            model: &self.stage.run.spec.model,
            system: &system,
            tools: &self.specs,
            max_tokens: self.stage.config.max_output_tokens,
        };
        let reply = self.asker.ask(&ask, &self.conversation, &mut self.narrator).await?;
        self.narrator.end_message().await?;
        self.conversation.entries.push(Entry::Assistant(reply.clone()));
        if !reply.calls.is_empty() {
            let results = self.use_tools(&reply).await?;
            self.conversation.entries.push(Entry::Results(results));
        }
        let ended = json!({ "turn": number, "stop": reply.stop.as_str(), "tools": reply.calls.len() });
        self.narrator.tell(EventType::TurnEnded, ended).await?;
        if reply.stop == Stop::Refusal {
            let words = crate::text::clip(&reply.text, 500).0;
            return Err(Failure::terminal(
                "model_refused",
                format!("the model refuses the task: {words}"),
            ));
        }
        Ok(reply)
    }

    /// Uses the tools one after the other; somebody who interrupts is heard before the next one.
    async fn use_tools(&mut self, reply: &Reply) -> Result<Vec<ToolResult>, Failure> {
        let mut results = Vec::new();
        for call in &reply.calls {
            let interrupted = !results.is_empty() && self.inbox.is_steered().await?;
            results.push(match interrupted {
                false => self.toolbox.call(call, &self.inbox, &mut self.narrator).await?,
                true => ToolResult {
                    call: call.id.clone(),
                    text: "not done: a person interrupted; read their words first".to_owned(),
                    error: true,
                },
            });
        }
        Ok(results)
    }

    /// Passes on what people said in the meantime; says whether there was anything.
    async fn hear(&mut self) -> Result<bool, Failure> {
        let messages = self.inbox.take().await?;
        for message in &messages {
            self.conversation.user(message.text.clone());
        }
        Ok(!messages.is_empty())
    }

    fn system(&self) -> String {
        match &self.stage.run.spec.agent.instructions {
            Some(instructions) => format!("{SYSTEM}\n\n{instructions}"),
            None => SYSTEM.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_is_one_the_door_answers() {
        let chosen = choose(&[Wire::OpenaiResponses, Wire::OpenaiChat]);
        assert_eq!(chosen, Ok(Wire::OpenaiChat));
        assert_eq!(choose(&[]).unwrap_err().code, "no_model");
    }
}
