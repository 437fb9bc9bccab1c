//! Whether everything the demo promises really happened, read from what it left behind.

use std::path::Path;

use serde_json::Value;
use stockade_api::{Client, v1};
use stockade_domain::{Event, EventType, RunId, RunState, event::chain_head, receipt};

use crate::{
    keys, server,
    terminal::{say, style},
};

/// One promise, and whether it was kept.
struct Promise {
    words: &'static str,
    kept: bool,
    detail: String,
}

/// What the demo left behind.
pub(super) struct Facts {
    run: v1::Run,
    patch: String,
    promises: Vec<Promise>,
}

impl Facts {
    pub(super) async fn gather(client: &Client, id: RunId, events: Vec<Event>, key: &Path) -> anyhow::Result<Self> {
        let run = client.run(id).await?;
        let patch = match client.diff(id).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                tracing::debug!(%error, "the run left no patch");
                String::new()
            }
        };
        let promises = vec![
            Promise {
                words: "the agent finished",
                kept: run.state == RunState::Completed,
                detail: run.state.as_str().to_owned(),
            },
            sandboxed(&events),
            tests(&events),
            refused(&events),
            asked(&events),
            Promise {
                words: "the change is a patch",
                kept: patch.contains("slug.sh"),
                detail: format!("{} bytes", patch.len()),
            },
            signed(client, id, &events, key).await,
        ];
        Ok(Self { run, patch, promises })
    }

    pub(super) fn all_true(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    pub(super) fn show(&self) {
        say(&style::bold("\n  the change"));
        for line in self.patch.lines().filter(|line| !line.starts_with("index ")) {
            let clean = style::clean(line);
            let shown = match clean.as_bytes().first() {
                Some(b'+') => style::good(&clean),
                Some(b'-') => style::bad(&clean),
                _ => style::dim(&clean),
            };
            say(&format!("    {shown}"));
        }
        say(&style::bold("\n  what really happened"));
        for promise in &self.promises {
            let sign = if promise.kept {
                style::good("✓")
            } else {
                style::bad("✗")
            };
            say(&format!(
                "  {sign} {:<42} {}",
                promise.words,
                style::dim(&style::line(&promise.detail, 90))
            ));
        }
        let used = self.run.used;
        say(&style::dim(&format!(
            "\n  {} tokens, {} model calls, {} turns",
            used.tokens, used.model_requests, used.turns
        )));
    }
}

fn of_kind(events: &[Event], kind: EventType) -> impl Iterator<Item = &Event> {
    events.iter().filter(move |event| event.kind == kind)
}

fn text<'a>(data: &'a Value, key: &str) -> &'a str {
    data.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn sandboxed(events: &[Event]) -> Promise {
    let ready = of_kind(events, EventType::SandboxReady).next();
    let detail = ready.map(|e| {
        format!(
            "{} {}, {} ms",
            text(&e.data, "backend"),
            text(&e.data, "mode"),
            e.data["start_ms"]
        )
    });
    Promise {
        words: "it ran in a sandbox without a network card",
        kept: ready.is_some(),
        detail: detail.unwrap_or_default(),
    }
}

/// The test ran inside, failed first and passed last.
fn tests(events: &[Event]) -> Promise {
    let outputs: Vec<&str> = of_kind(events, EventType::ToolResult)
        .map(|e| text(&e.data, "output"))
        .collect();
    let failed = outputs.iter().position(|output| output.contains("some tests failed"));
    let passed = outputs.iter().rposition(|output| output.contains("all tests passed"));
    let kept = matches!((failed, passed), (Some(before), Some(after)) if before < after);
    Promise {
        words: "the test failed first and passes now",
        kept,
        detail: "run inside the sandbox".to_owned(),
    }
}

fn refused(events: &[Event]) -> Promise {
    let denied =
        of_kind(events, EventType::EgressDenied).find(|e| text(&e.data, "target").starts_with("telemetry.example.net"));
    let detail = denied.map(|e| format!("{}: {}", text(&e.data, "target"), text(&e.data, "reason")));
    Promise {
        words: "a connection was refused",
        kept: denied.is_some(),
        detail: detail.unwrap_or_default(),
    }
}

fn asked(events: &[Event]) -> Promise {
    let requested = of_kind(events, EventType::ApprovalRequested).next();
    let decided = requested.and_then(|asked| {
        of_kind(events, EventType::ApprovalDecided).find(|e| text(&e.data, "approval") == text(&asked.data, "approval"))
    });
    let detail = decided.map(|e| format!("{} by {}", text(&e.data, "decision"), text(&e.data, "by")));
    Promise {
        words: "a person was asked and decided",
        kept: decided.is_some(),
        detail: detail.unwrap_or_default(),
    }
}

/// The receipt verifies with this installation's key and covers exactly the events that were shown.
async fn signed(client: &Client, id: RunId, events: &[Event], key: &Path) -> Promise {
    let words = "the receipt verifies and covers every event";
    let checked = async {
        let file = server::receipt(client, id).await?;
        let statement = receipt::verify(&file, &keys::verifying_key(key)?)?;
        let chain = statement.predicate.events;
        anyhow::ensure!(
            chain_head(events)? == chain.head && events.len() as u64 == chain.count,
            "the events differ from the receipt's"
        );
        Ok::<_, anyhow::Error>(format!(
            "{} events, {} actions, key {}",
            chain.count,
            statement.predicate.actions.len(),
            keys::short(&key_of(key)?)
        ))
    };
    match checked.await {
        Ok(detail) => Promise {
            words,
            kept: true,
            detail,
        },
        Err(error) => Promise {
            words,
            kept: false,
            detail: error.to_string(),
        },
    }
}

fn key_of(path: &Path) -> anyhow::Result<String> {
    Ok(receipt::key_id(&keys::verifying_key(path)?))
}
