//! Tools of the built-in loop. Every call is an action: it runs when the gate admits it,
//! and it runs what the gate admitted, which a person may have edited.

mod bash;
mod files;
mod look;
mod path;
mod spec;
mod writes;

use std::pin::pin;

use serde_json::{Value, json};
use stockade_domain::{Action, ActionKind, Amounts, ApprovalState, EventType, Failure, Outcome};
use stockade_gate::{Admitted, Gate, Gated, Refusal, Scope, kind};
use stockade_ports::{ExecRequest, Exit, Output, SandboxError, SandboxHandle};

pub(crate) use path::normalized as normalized_path;
pub(crate) use spec::{ToolSpec, specs};
pub(crate) use writes::{Trouble, Write, Writes};

use super::conversation::{ToolCall, ToolResult};
use crate::{
    inbox::Inbox,
    mishap,
    narrator::{Narrator, shown},
    pulse::Pulse,
    text::{self, MiddleOut},
    trust::Trusting,
};

/// How a command ends whose process is dropped.
const SIGKILL: i32 = 9;

/// What a tool says to the model, and what its action is settled with.
#[derive(Debug)]
struct Said {
    text: String,
    error: bool,
    details: Value,
}

impl Said {
    fn well(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            error: false,
            details: json!({}),
        }
    }

    fn complaint(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            error: true,
            details: json!({}),
        }
    }
}

/// Everything tools work with. The sandbox is behind the gate: it opens to an admission only.
pub(crate) struct Toolbox {
    pub(crate) gate: Gate,
    pub(crate) scope: Scope,
    pub(crate) sandbox: Gated<kind::Tool, dyn SandboxHandle>,
    pub(crate) specs: Vec<ToolSpec>,
    pub(crate) output_limit: usize,
    pub(crate) pulse: Pulse,
    pub(crate) writes: Writes,
    pub(crate) trusting: Trusting,
}

impl Toolbox {
    /// Does one call; an `Err` ends the run.
    pub(crate) async fn call(
        &self,
        call: &ToolCall,
        inbox: &Inbox,
        narrator: &mut Narrator,
    ) -> Result<ToolResult, Failure> {
        let (name, id) = (&call.name, &call.id);
        let input = call.input.clone().unwrap_or_else(|raw| json!({ "malformed": raw }));
        narrator
            .tell(
                EventType::ToolCall,
                json!({ "call": id, "tool": name, "title": title(name, &input), "input": shown(&input) }),
            )
            .await?;
        let said = match self.action_of(call) {
            Ok(action) => self.act(action, inbox).await?,
            Err(complaint) => Said::complaint(complaint),
        };
        let text = text::middle_out(&said.text, self.output_limit);
        let status = if said.error { "failed" } else { "completed" };
        narrator
            .tell(
                EventType::ToolResult,
                json!({ "call": id, "tool": name, "status": status, "output": shown(&json!(text)) }),
            )
            .await?;
        Ok(ToolResult {
            call: id.clone(),
            text,
            error: said.error,
        })
    }

    /// The action a call asks for, or what is wrong with the call.
    fn action_of(&self, call: &ToolCall) -> Result<Action, String> {
        let spec = self.specs.iter().find(|spec| spec.name == call.name).ok_or_else(|| {
            let names: Vec<&str> = self.specs.iter().map(|spec| spec.name).collect();
            format!("there is no tool '{}'; use one of {}", call.name, names.join(", "))
        })?;
        let input = call
            .input
            .as_ref()
            .map_err(|raw| format!("the input is not a JSON object: {}", text::clip(raw, 200).0))?;
        let args = spec.checked(input)?;
        Ok(Action {
            kind: ActionKind::Tool,
            operation: spec.name.to_owned(),
            target: title(spec.name, &args),
            args,
        })
    }

    async fn act(&self, action: Action, inbox: &Inbox) -> Result<Said, Failure> {
        let action = match action.operation.as_str() {
            "write_file" => self.writes.counted(action),
            _ => action,
        };
        let asked = action.args.clone();
        let admitted = match self.gate.pass::<kind::Tool>(&self.scope, action, Amounts::ZERO).await {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refused(&refusal).await,
        };
        let done = self.perform(&admitted, inbox).await;
        let (outcome, said) = match done {
            Ok(said) => (Outcome::Done, said),
            Err(Trouble::Refused(refusal)) => {
                let error = refusal.to_string();
                admitted
                    .settle(Outcome::Failed { error }, Amounts::ZERO, json!({}))
                    .await
                    .map_err(|e| mishap::store(&e))?;
                return self.refused(&refusal).await;
            }
            Err(Trouble::Sandbox(error @ SandboxError::Gone(_))) => {
                let error = mishap::sandbox(error);
                let failed = Outcome::Failed {
                    error: error.message.clone(),
                };
                // The run ends with the sandbox; whether this can still be written no longer matters.
                let _ = admitted.settle(failed, Amounts::ZERO, json!({})).await;
                return Err(error);
            }
            Err(Trouble::Sandbox(error)) => {
                let error = error.to_string();
                (Outcome::Failed { error: error.clone() }, Said::complaint(error))
            }
        };
        let edited = (admitted.action().args != asked).then(|| admitted.action().args.clone());
        admitted
            .settle(outcome, Amounts::ZERO, said.details.clone())
            .await
            .map_err(|e| mishap::store(&e))?;
        Ok(match edited {
            Some(args) => Said {
                text: format!("[a person changed the input to {args}]\n{}", said.text),
                ..said
            },
            None => said,
        })
    }

    /// A refusal is the model's to know, with a person's words; some end the run.
    async fn refused(&self, refusal: &Refusal) -> Result<Said, Failure> {
        if mishap::ends_run(refusal) {
            return Err(mishap::refusal(refusal));
        }
        if let Refusal::Denied { record } = refusal
            && record.rule == "stockade.repetition"
            && !rejected_by_a_person(&self.gate, record.approval).await
        {
            return Err(mishap::repeating(&record.action.target));
        }
        Ok(Said::complaint(format!(
            "{refusal}. This action did not happen. Do not try to get around it; go on without it, or end and say what is missing."
        )))
    }

    async fn perform(&self, admitted: &Admitted<kind::Tool>, inbox: &Inbox) -> Result<Said, Trouble> {
        let hand = Hand {
            sandbox: self.sandbox.open(admitted),
            limit: self.output_limit,
            pulse: &self.pulse,
            inbox,
            writes: &self.writes,
            trusting: &self.trusting,
        };
        let action = admitted.action();
        // Arguments a person edited are checked like a model's.
        let spec = self.specs.iter().find(|spec| spec.name == action.operation);
        let args = match spec.map(|spec| spec.checked(&action.args)) {
            Some(Ok(args)) => args,
            Some(Err(complaint)) => return Ok(Said::complaint(complaint)),
            None => return Ok(Said::complaint("no such tool")),
        };
        Ok(match action.operation.as_str() {
            "bash" => bash::bash(&hand, &args).await?,
            "read_file" => files::read_file(&hand, &args).await?,
            "write_file" => files::write_file(&hand, &args).await?,
            "edit_file" => files::edit_file(&hand, &args).await?,
            "list_files" => look::list_files(&hand, &args).await?,
            "search" => look::search(&hand, &args).await?,
            other => Said::complaint(format!("there is no tool '{other}'")),
        })
    }
}

/// Whether a person said no, as against nobody saying anything.
pub(crate) async fn rejected_by_a_person(gate: &Gate, approval: Option<stockade_domain::ApprovalId>) -> bool {
    match approval {
        Some(id) => gate
            .store()
            .approval(None, id)
            .await
            .is_ok_and(|approval| approval.state == ApprovalState::Rejected),
        None => false,
    }
}

/// What people see of a call: its command line or its path.
fn title(name: &str, input: &Value) -> String {
    let object = ["command", "path", "pattern"]
        .iter()
        .find_map(|key| input[*key].as_str());
    match object {
        Some(object) => text::clip(object, 400).0.to_owned(),
        None => name.to_owned(),
    }
}

/// The sandbox, for the length of one admitted call.
struct Hand<'a> {
    sandbox: &'a dyn SandboxHandle,
    limit: usize,
    pulse: &'a Pulse,
    inbox: &'a Inbox,
    writes: &'a Writes,
    trusting: &'a Trusting,
}

/// What a command printed and how it ended.
struct Ran {
    output: String,
    exit: Exit,
    total: u64,
    /// A person spoke and the command was ended for it.
    interrupted: bool,
}

impl Hand<'_> {
    /// Runs a command; output and errors come in the order they were written. Somebody who
    /// interrupts ends it.
    async fn run(&self, mut request: ExecRequest, limit: usize, errors: bool) -> Result<Ran, SandboxError> {
        self.trusting.extend(&mut request.env);
        let mut process = self.sandbox.exec(request).await?;
        let mut kept = MiddleOut::new(limit);
        let mut exit = Exit::SandboxGone;
        let mut interrupted = false;
        let mut steered = pin!(self.inbox.steered());
        loop {
            let output = tokio::select! {
                output = process.output.recv() => output,
                () = &mut steered => {
                    (interrupted, exit) = (true, Exit::Signal(SIGKILL));
                    break;
                }
            };
            let Some(output) = output else { break };
            self.pulse.beat();
            match output {
                Output::Stdout(bytes) => kept.push(&bytes),
                Output::Stderr(bytes) if errors => kept.push(&bytes),
                Output::Stderr(_) => {}
                Output::Exited(how) => {
                    exit = how;
                    break;
                }
            }
        }
        if exit == Exit::SandboxGone {
            return Err(SandboxError::Gone("while a command was running".to_owned()));
        }
        Ok(Ran {
            total: kept.total(),
            output: kept.into_text(),
            exit,
            interrupted,
        })
    }
}
