//! Watching a run at a terminal and answering what it asks.

use futures::StreamExt as _;
use stockade_api::{Client, v1::DecideApproval};
use stockade_domain::{Approval, ApprovalId, ApprovalState, Event, EventType, RunId};

use crate::terminal::{live::Live, prompt, prompt::Keyboard, question, say, style};

/// Who answers questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Approver {
    /// The person at this terminal.
    Person,
    /// Somebody elsewhere.
    Elsewhere,
    /// Every question is approved, for automation that said so.
    Always,
}

impl Approver {
    /// The person here if there is one.
    pub(crate) fn here() -> Self {
        if prompt::is_interactive() {
            Self::Person
        } else {
            Self::Elsewhere
        }
    }
}

/// Shows a run until it ends and returns all its events.
pub(crate) async fn follow(client: &Client, run: RunId, approver: Approver) -> anyhow::Result<Vec<Event>> {
    let mut watch = Watch {
        client,
        live: Live::default(),
        approver,
        open: Vec::new(),
        keyboard: None,
    };
    let mut stream = client.events(run, 0);
    let mut events = Vec::new();
    loop {
        let next = tokio::select! {
            event = stream.next() => Next::Event(event),
            line = answer(&mut watch.keyboard), if !watch.open.is_empty() => Next::Line(line),
        };
        match next {
            Next::Event(None) => return Ok(events),
            Next::Event(Some(event)) => {
                let event = event?;
                watch.event(&event).await?;
                events.push(event);
            }
            Next::Line(Some(line)) => watch.answered(&line).await?,
            Next::Line(None) => watch.unattended(),
        }
    }
}

enum Next {
    Event(Option<Result<Event, stockade_api::ClientError>>),
    Line(Option<String>),
}

async fn answer(keyboard: &mut Option<Keyboard>) -> Option<String> {
    match keyboard {
        Some(keyboard) => keyboard.line().await,
        None => std::future::pending().await,
    }
}

struct Watch<'a> {
    client: &'a Client,
    live: Live,
    approver: Approver,
    /// Questions that wait, oldest first; the first one is on the screen.
    open: Vec<Approval>,
    keyboard: Option<Keyboard>,
}

impl Watch<'_> {
    async fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        self.live.show(event);
        let approval = || {
            event.data["approval"]
                .as_str()
                .and_then(|id| id.parse::<ApprovalId>().ok())
        };
        match (event.kind, approval()) {
            (EventType::ApprovalRequested, Some(id)) => self.asked(id).await?,
            (EventType::ApprovalDecided | EventType::ApprovalExpired, Some(id)) => {
                let shown = self.open.first().map(|a| a.id);
                self.open.retain(|approval| approval.id != id);
                if shown == Some(id) {
                    self.ask();
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn asked(&mut self, id: ApprovalId) -> anyhow::Result<()> {
        let approval = self.client.approval(id).await?;
        if approval.state != ApprovalState::Pending {
            return Ok(());
        }
        show(&approval);
        match self.approver {
            Approver::Always => {
                let yes = DecideApproval {
                    reason: Some("approved by --yes".to_owned()),
                    ..DecideApproval::approve()
                };
                self.client.decide(id, &yes).await?;
            }
            Approver::Elsewhere => elsewhere(id),
            Approver::Person => {
                self.open.push(approval);
                if self.open.len() == 1 {
                    self.ask();
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let question = style::bold("    approve? [y]es, [n]o, [d]etails (a reason may follow): ");
        self.keyboard.get_or_insert_with(Keyboard::open).prompt(&question);
    }

    async fn answered(&mut self, line: &str) -> anyhow::Result<()> {
        let Some(approval) = self.open.first() else {
            return Ok(());
        };
        let (word, reason) = line.split_once(' ').unwrap_or((line, ""));
        let reason = (!reason.trim().is_empty()).then(|| reason.trim().to_owned());
        let decision = match word.to_lowercase().as_str() {
            "y" | "yes" | "a" | "approve" => DecideApproval {
                reason,
                ..DecideApproval::approve()
            },
            "n" | "no" | "r" | "reject" => DecideApproval {
                reason,
                ..DecideApproval::reject()
            },
            "d" | "details" => {
                say(&style::clean(&serde_json::to_string_pretty(approval)?));
                self.ask();
                return Ok(());
            }
            _ => {
                self.ask();
                return Ok(());
            }
        };
        let id = approval.id;
        // Somebody else may have been faster; their decision arrives as an event.
        if let Err(error) = self.client.decide(id, &decision).await {
            say(&format!("  {} {}", style::wait("!"), style::clean(&error.to_string())));
        }
        Ok(())
    }

    /// The input has ended, so nobody here can answer any more.
    fn unattended(&mut self) {
        say("");
        self.approver = Approver::Elsewhere;
        for approval in self.open.drain(..) {
            elsewhere(approval.id);
        }
    }
}

fn elsewhere(id: ApprovalId) {
    say(&style::dim(&format!(
        "    answer with: stockade approvals approve {id}   (or reject)"
    )));
}

/// A question as a person reads it.
pub(crate) fn show(approval: &Approval) {
    let sign = if approval.repetition {
        "⏸ the agent repeats itself"
    } else {
        "⏸ approval needed"
    };
    say(&format!(
        "  {} {}",
        style::wait(sign),
        style::dim(&format!(
            "{} ({})",
            style::clean(&approval.reason),
            style::clean(&approval.rule)
        ))
    ));
    say(&format!(
        "    {} {}",
        style::bold(&style::clean(&approval.action.operation)),
        style::clean(&approval.action.target).replace('\n', "\n      ")
    ));
    question::lines(&approval.action).iter().for_each(|line| say(line));
    say(&style::dim(&format!(
        "    {}  expires {}",
        approval.digest, approval.expires_at
    )));
}
