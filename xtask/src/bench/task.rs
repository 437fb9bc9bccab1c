//! From `POST /v1/tasks` to the event `agent.ready`, through the binary: queue, sandbox, boundary, agent.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::Context;
use super::helper::Helper;
use super::http::Origin;
use super::report::Report;
use crate::process;

const BINARY: Helper = Helper {
    package: "stockade",
    kind: "bin",
    name: "stockade",
};

/// A model that has nothing to do: the agent's start is measured, not its work.
const SCRIPT: &str = "turns: []\notherwise: {say: done}\n";

pub(crate) fn run(context: &Context) -> Result<Report> {
    let binary = BINARY.build(&context.workspace)?;
    let server = Server::start(&binary, &context.workspace.target)?;
    let samples = sample(&server, context.rounds);
    let (samples, log) = (samples, server.stop()?);
    let samples = samples.with_context(|| format!("the server said:\n{log}"))?;
    let mut report = Report::default();
    report.row("POST /v1/tasks to agent.ready, built-in loop", &samples)?;
    Ok(report)
}

fn sample(server: &Server, rounds: usize) -> Result<Vec<f64>> {
    // The first run pays for cold caches and is thrown away.
    one(&server.origin)?;
    (0..rounds).map(|_| one(&server.origin)).collect()
}

/// One run, from the request to its end; milliseconds until its agent was ready.
fn one(origin: &Origin) -> Result<f64> {
    let task = json!({ "prompt": "Say that you are ready." }).to_string();
    let start = Instant::now();
    let created = origin.post("/v1/tasks", &task)?;
    let created: Value = serde_json::from_str(&created).context("POST /v1/tasks did not answer with JSON")?;
    let run = created
        .pointer("/run/id")
        .and_then(Value::as_str)
        .context("no run was created")?;
    let mut ready = None;
    for line in origin.events(&format!("/v1/runs/{run}/events"))?.lines() {
        let line = line.context("the events broke off")?;
        let Some(kind) = line.strip_prefix("data:").and_then(kind) else {
            continue;
        };
        match (kind.as_str(), ready) {
            ("agent.ready", _) => ready = Some(start.elapsed()),
            // Waits for the end, so that no run measures the clean-up of the one before.
            ("run.completed", Some(ready)) => return Ok(Duration::as_secs_f64(&ready) * 1e3),
            ("run.failed" | "run.cancelled" | "run.completed", _) => bail!("run {run} ended: {line}"),
            _ => {}
        }
    }
    bail!("the events of run {run} ended before the run did")
}

fn kind(data: &str) -> Option<String> {
    let event: Value = serde_json::from_str(data.trim()).ok()?;
    Some(event.get("type")?.as_str()?.to_owned())
}

/// `stockade up` with a state directory of its own.
struct Server {
    child: Child,
    dir: PathBuf,
    origin: Origin,
}

impl Server {
    fn start(binary: &Path, target: &Path) -> Result<Self> {
        let dir = target.join(format!("bench-task-{}", std::process::id()));
        let state = dir.join("state");
        std::fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
        let script = dir.join("script.yaml");
        std::fs::write(&script, SCRIPT)?;
        let log = std::fs::File::create(dir.join("log"))?;
        let mut up = Command::new(binary);
        up.arg("--state-dir")
            .arg(&state)
            .arg("--provider")
            .arg(format!("scripted:{}", script.display()));
        up.args(["up", "--listen", "127.0.0.1:0"]);
        let child = up
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start stockade up")?;
        let mut server = Self {
            child,
            dir,
            origin: Origin::new("http://127.0.0.1:0", "")?,
        };
        match server.wait(&state) {
            Ok(origin) => {
                server.origin = origin;
                Ok(server)
            }
            Err(error) => Err(error.context(format!("`stockade up` said:\n{}", server.stop()?))),
        }
    }

    /// The server announces itself in its state directory, where the CLI finds it too.
    fn wait(&mut self, state: &Path) -> Result<Origin> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let (Ok(beacon), Ok(token)) = (
                std::fs::read(state.join("server.json")),
                std::fs::read_to_string(state.join("token")),
            ) {
                let beacon: Value = serde_json::from_slice(&beacon).context("server.json is not JSON")?;
                let url = beacon
                    .get("url")
                    .and_then(Value::as_str)
                    .context("server.json has no url")?;
                return Origin::new(url, token.trim());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("`stockade up` ended with {status}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("`stockade up` did not announce itself within 30 s")
    }

    /// Asks it to stop, and takes its files away. Returns what it said.
    fn stop(mut self) -> Result<String> {
        let asked = process::capture(Command::new("kill").args(["-TERM", &self.child.id().to_string()]));
        let deadline = Instant::now() + Duration::from_secs(10);
        while asked.is_ok() && self.child.try_wait()?.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Already gone is what we want.
        let _ = self.child.kill();
        self.child.wait()?;
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))?;
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one request for a task and one for its events, as the gateway would.
    fn gateway(events: &'static str) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for body in [r#"{"task":{"id":"t"},"run":{"id":"r1"},"replayed":false}"#, events] {
                let (stream, _) = listener.accept().unwrap();
                let mut from = BufReader::new(&stream);
                let mut line = String::new();
                while from.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                // The task itself, of known length, so that closing the connection does not reset it.
                let unread = from.buffer().len();
                from.consume(unread);
                (&stream)
                    .write_all(format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes())
                    .unwrap();
            }
        });
        Origin::new(&url, "token").unwrap()
    }

    #[test]
    fn a_run_that_got_ready_and_completed_is_a_sample() {
        let events = "id: 1\ndata: {\"type\":\"run.queued\"}\n\nid: 2\ndata: {\"type\":\"agent.ready\"}\n\n\
                      id: 3\ndata: {\"type\":\"run.completed\"}\n\n";
        assert!(one(&gateway(events)).unwrap() > 0.0);
    }

    #[test]
    fn a_run_that_did_not_get_there_is_an_error() {
        for (events, why) in [
            ("data: {\"type\":\"run.failed\"}\n\n", "run.failed"),
            ("data: {\"type\":\"run.completed\"}\n\n", "run.completed"),
            ("data: {\"type\":\"agent.ready\"}\n\n", "ended before the run did"),
        ] {
            let error = one(&gateway(events)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn events_are_told_apart_by_their_type() {
        assert_eq!(
            kind(r#" {"seq":3,"type":"agent.ready","data":{}}"#).as_deref(),
            Some("agent.ready")
        );
        assert_eq!(kind("not an event"), None);
    }
}
