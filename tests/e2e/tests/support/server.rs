//! A running `stockade up`.

use std::{
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use stockade_api::{
    Client, ListRuns,
    domain::{Approval, RunId},
    v1::{self, CreateTask, NameOr, RepoInput},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::oneshot,
    time::timeout,
};

use super::{installation::Installation, repository::Repository, story::Story};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server of an installation. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) client: Client,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server and waits until it serves.
    pub(crate) async fn up(installation: &Installation) -> Self {
        Self::start(installation.command(&["up", "--listen", "127.0.0.1:0"])).await
    }

    pub(crate) async fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let url = first(child.stderr.take().unwrap(), Arc::clone(&log), |line| {
            let (_, url) = line.split_once("API")?;
            url.trim().starts_with("http://").then(|| url.trim().to_owned())
        });
        let token = first(child.stdout.take().unwrap(), Arc::default(), |line| {
            (!line.trim().is_empty()).then(|| line.trim().to_owned())
        });
        let told = timeout(PATIENCE, async { (url.await, token.await) }).await;
        let Ok((Ok(url), Ok(token))) = told else {
            panic!("the server did not start; it says:\n{}", log.lock().unwrap());
        };
        let client = Client::new(&url, &token).unwrap();
        client
            .ready()
            .await
            .unwrap_or_else(|error| panic!("the server is not ready: {error}"));
        Self {
            child,
            url,
            token,
            client,
            log,
        }
    }

    /// What the server has written to standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the server runs")
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("the server did not stop; it says:\n{}", self.log()))
            .unwrap()
    }

    /// Creates a task with its run.
    pub(crate) async fn create(&self, task: &CreateTask) -> RunId {
        let created = self.client.create_task(task, None).await;
        created
            .unwrap_or_else(|error| panic!("no run: {error}"))
            .run
            .expect("a run")
            .id
    }

    /// Creates a run of the built-in agent about a repository.
    pub(crate) async fn run(&self, repo: &Repository, agent: serde_json::Value) -> RunId {
        self.create(&task(repo, agent)).await
    }

    /// The story of a run from its beginning.
    pub(crate) fn story(&self, run: RunId) -> Story {
        Story::of(&self.client, run)
    }

    /// The story of a run, complete.
    pub(crate) async fn told(&self, run: RunId) -> Story {
        let mut story = self.story(run);
        story.finish().await;
        story
    }

    /// The run as it stands.
    pub(crate) async fn look(&self, run: RunId) -> v1::Run {
        self.client.run(run).await.unwrap()
    }

    /// Every question of a run, oldest first.
    pub(crate) async fn approvals(&self, run: RunId) -> Vec<Approval> {
        let mut page = self.client.approvals(Some(run), None, None).await.unwrap().items;
        page.reverse();
        page
    }
}

/// The first run somebody else creates. Nothing tells of new runs, so this asks again and again.
pub(crate) async fn first_run(client: &Client) -> RunId {
    let look = async {
        loop {
            let runs = client.runs(&ListRuns::default()).await.unwrap().items;
            match runs.last() {
                Some(run) => return run.id,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, look).await.expect("somebody creates a run")
}

/// A client of the server that a command of the installation brings along, once it is announced.
pub(crate) async fn announced(installation: &Installation) -> Client {
    let look = async {
        loop {
            let text = std::fs::read_to_string(installation.state().join("server.json")).unwrap_or_default();
            let token = std::fs::read_to_string(installation.state().join("token")).unwrap_or_default();
            let beacon: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            match beacon["url"].as_str() {
                Some(url) if !token.is_empty() => return Client::new(url, token.trim()).unwrap(),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, look).await.expect("a server is announced")
}

/// A task about a repository for an agent that is spelled out.
pub(crate) fn task(repo: &Repository, agent: serde_json::Value) -> CreateTask {
    let mut task = CreateTask::new("Do what the script says.");
    task.repo = Some(RepoInput::from(repo.source()));
    task.agent = Some(match agent {
        serde_json::Value::String(name) => NameOr::from(name.as_str()),
        spec => serde_json::from_value(spec).unwrap(),
    });
    task
}

/// Reads lines for as long as there are any; resolves with the first that fits.
fn first(
    from: impl AsyncRead + Unpin + Send + 'static,
    log: Arc<Mutex<String>>,
    fits: impl Fn(&str) -> Option<String> + Send + 'static,
) -> oneshot::Receiver<String> {
    let (send, receive) = oneshot::channel();
    let mut send = Some(send);
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(found) = fits(&line)
                && let Some(send) = send.take()
            {
                let _ = send.send(found);
            }
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    receive
}
