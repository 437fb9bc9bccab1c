//! One sandbox under attack, and the attacker in it.

use std::{sync::Arc, time::Duration};

use stockade_domain::{Event, EventType, RunId};
use stockade_ports::{
    EgressSession, ExecRequest, Exit, Output, Process, SandboxError, SandboxHandle, Store, sandbox::AGENTS_DIR,
};
use tokio::time::timeout;

use crate::told::Told;

/// Longest one attack may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest a sandbox may take to show that it is well.
const PULSE: Duration = Duration::from_secs(5);

/// One start of the attacker, on either side.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) attack: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) max_output: u64,
    /// Outside alone: the user to be.
    pub(crate) user: Option<u32>,
}

impl Call {
    pub(crate) fn new(attack: &'static str) -> Self {
        Self {
            attack,
            args: Vec::new(),
            cwd: None,
            timeout: PATIENCE,
            max_output: 8 << 20,
            user: None,
        }
    }

    /// One more word for the attacker.
    pub(crate) fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.args.push(format!("{key}={value}"));
        self
    }

    /// The same key for several values.
    pub(crate) fn each<T: std::fmt::Display>(self, key: &str, values: impl IntoIterator<Item = T>) -> Self {
        values.into_iter().fold(self, |call, value| call.with(key, value))
    }
}

/// A sandbox of the installation's, proved and released.
pub(crate) struct Inside {
    pub(crate) handle: Arc<dyn SandboxHandle>,
    pub(crate) run: RunId,
    pub(crate) session: Box<dyn EgressSession>,
    pub(crate) store: Arc<dyn Store>,
}

impl Inside {
    /// Starts the attacker and returns at once.
    pub(crate) async fn start(&self, call: &Call) -> Result<Process, SandboxError> {
        let mut argv = vec![format!("{AGENTS_DIR}/attacker"), call.attack.to_owned()];
        argv.extend(call.args.iter().cloned());
        self.handle
            .exec(ExecRequest {
                argv,
                cwd: call.cwd.clone(),
                timeout: Some(call.timeout),
                max_output: Some(call.max_output),
                ..ExecRequest::default()
            })
            .await
    }

    /// Runs the attacker to its end.
    pub(crate) async fn run(&self, call: &Call) -> Told {
        match self.start(call).await {
            Ok(process) => finish(process, call.timeout + PULSE).await,
            Err(error) => Told::fault(error.to_string()),
        }
    }

    /// Whether it still does what it is told.
    pub(crate) async fn is_healthy(&self) -> bool {
        self.run(&Call::new("ok")).await.done
    }

    /// Why it does not.
    pub(crate) async fn ailment(&self) -> String {
        let soon = Duration::from_millis(500);
        match timeout(soon, self.handle.ended()).await {
            Ok(reason) => reason,
            Err(_) => "it does not answer".to_owned(),
        }
    }

    /// The Guard's words on destinations: who denied each, where somebody did.
    pub(crate) async fn denials(&self, places: &[String]) -> Vec<Option<String>> {
        let begun = std::time::Instant::now();
        loop {
            let events = self.store.events(self.run, 0, 10_000).await.unwrap_or_default();
            let word = |place: &String| events.iter().find_map(|event| denied(event, place));
            let words: Vec<_> = places.iter().map(word).collect();
            if words.iter().all(Option::is_some) || begun.elapsed() > Duration::from_secs(2) {
                return words;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn end(&self) {
        let _ = self.handle.destroy().await;
        self.session.close().await;
    }
}

fn denied(event: &Event, target: &str) -> Option<String> {
    let text = |key: &str| event.data.get(key).and_then(|value| value.as_str());
    let is = event.kind == EventType::EgressDenied && text("target")?.contains(target);
    is.then(|| format!("denied by {}", text("rule").unwrap_or("no rule")))
}

/// Collects a process's output to its end.
pub(crate) async fn finish(mut process: Process, patience: Duration) -> Told {
    let mut output = Vec::new();
    let collect = async {
        while let Some(piece) = process.output.recv().await {
            match piece {
                Output::Stdout(bytes) => output.extend_from_slice(&bytes),
                Output::Stderr(_) => {}
                Output::Exited(exit) => return Some(exit),
            }
        }
        None
    };
    let exit = timeout(patience, collect).await;
    let mut told = Told::read(&output);
    match exit {
        Ok(Some(exit)) => {
            if !told.done && exit != Exit::Code(0) {
                told.fault = Some(format!("{exit:?}"));
            }
            told.exit = Some(exit);
        }
        Ok(None) => told.fault = Some("its output ended without an end".to_owned()),
        Err(_) => told.fault = Some(format!("it did not end within {patience:?}")),
    }
    told
}
