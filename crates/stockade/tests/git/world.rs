//! A git server with one repository, the run's pristine copy of it, a client's clone, and the
//! Guard's git part between client and server.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use stockade_domain::{
    Action, AgentKind, AgentSpec, Environment, LimitsPatch, NetworkLevel, Outcome, RefRules, RunId, Verdict,
};
use stockade_guard::git::{Door, GitSession, GitSettings, Pass, Refused};
use stockade_origins::{Credential, GitServer};
use stockade_policy::Policy;
use stockade_runner::{PushInspection, RunnerConfig};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use crate::proxy::{self, ToServer};

pub(crate) const RUN: &str = "run_00000000000000000000000000000007";
pub(crate) const PASSWORD: &str = "s3cr3t-of-the-server";

/// The run's own branch.
pub(crate) fn own(rest: &str) -> String {
    format!("refs/heads/stockade/{RUN}{rest}")
}

pub(crate) struct World {
    dir: TempDir,
    pub(crate) server: GitServer,
    pub(crate) gate: Arc<Answers>,
    pub(crate) upstream: Arc<ToServer>,
    pub(crate) stop: CancellationToken,
    pub(crate) url: String,
}

/// What a test changes.
pub(crate) struct Wish {
    pub(crate) rules: RefRules,
    pub(crate) environment: Environment,
    /// What a person says to what is held.
    pub(crate) person: bool,
    pub(crate) spool_memory: usize,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            rules: RefRules::default(),
            environment: Environment::named("test", NetworkLevel::None),
            person: false,
            spool_memory: 1 << 20,
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Wish::default()).await
    }

    pub(crate) async fn with(wish: Wish) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["served/octo", "spool", "client", "seed"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let seed = root.join("seed");
        ok(&seed, &["init", "--quiet", "--initial-branch=main"]).await;
        commit(&seed, "README", "hello\n", "one").await;
        commit(&seed, "src/lib.rs", "pub fn one() {}\n", "two").await;
        ok(&seed, &["branch", "other"]).await;
        ok(&seed, &["tag", "v1"]).await;
        let bare = root.join("served/octo/hello.git");
        ok(root, &["clone", "--quiet", "--bare", "seed", bare.to_str().unwrap()]).await;
        ok(&bare, &["config", "receive.shallowUpdate", "false"]).await;
        ok(
            root,
            &["clone", "--quiet", "--mirror", bare.to_str().unwrap(), "base.git"],
        )
        .await;
        let credential = Credential {
            user: "bot".to_owned(),
            password: PASSWORD.to_owned(),
        };
        let server = GitServer::start(&root.join("served"), Some(credential.clone()))
            .await
            .unwrap();
        let run: RunId = RUN.parse().unwrap();
        let environment = Environment {
            git: wish.rules,
            ..wish.environment
        };
        let whole = Policy::compile(&nobody(), &environment).unwrap().for_run(run, None);
        let policy = whole.git().unwrap().clone();
        let gate = Arc::new(Answers {
            policy: whole,
            person: wish.person,
            forgetful: AtomicBool::new(false),
            asked: Mutex::default(),
            fetched: Mutex::default(),
            settled: Mutex::default(),
            wait: Mutex::default(),
        });
        let inspection = PushInspection::new(
            RunnerConfig::new(root.to_owned()),
            root.join("base.git"),
            root.join("pushes"),
        );
        let settings = GitSettings {
            spool_memory: wish.spool_memory,
            keep_alive: Duration::from_millis(50),
            ..GitSettings::new(root.join("spool"))
        };
        let stop = CancellationToken::new();
        let door = Arc::new(Keeper(Arc::clone(&gate)));
        let session = GitSession::new(policy, door, Arc::new(inspection), settings, stop.clone());
        let upstream = Arc::new(ToServer {
            host: server.origin().trim_start_matches("http://").to_owned(),
            authorization: Some(credential.header()),
            fail_from: AtomicUsize::new(usize::MAX),
            sent: AtomicUsize::new(0),
        });
        let address = proxy::start(session, "https://git.example".to_owned(), Arc::clone(&upstream)).await;
        Self {
            url: format!("http://{address}/octo/hello.git"),
            dir,
            server,
            gate,
            upstream,
            stop,
        }
    }

    /// A world with a clone in it, made through the Guard, on the run's branch with one commit.
    pub(crate) async fn cloned(wish: Wish) -> (Self, PathBuf) {
        let world = Self::with(wish).await;
        let work = world.clone_as("work", &[]).await;
        ok(&work, &["checkout", "--quiet", "-b", "work"]).await;
        commit(&work, "src/new.rs", "pub fn new() {}\n", "three").await;
        (world, work)
    }

    pub(crate) async fn clone_as(&self, name: &str, more: &[&str]) -> PathBuf {
        let client = self.dir.path().join("client");
        let args = [&["clone", "--quiet"], more, &[self.url.as_str(), name]].concat();
        ok(&client, &args).await;
        client.join(name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where a reference stands on the server.
    pub(crate) async fn on_server(&self, name: &str) -> Option<String> {
        let bare = self.path("served/octo/hello.git");
        let output = git(&bare, &["rev-parse", "--verify", "--quiet", name]).await;
        output.status.success().then(|| text(&output.stdout))
    }

    /// Every reference of the server in one text.
    pub(crate) async fn server_refs(&self) -> String {
        text(&git(&self.path("served/octo/hello.git"), &["for-each-ref"]).await.stdout)
    }

    /// Bodies of pushes that reached the server, knocks aside.
    pub(crate) fn pushed(&self) -> Vec<bytes::Bytes> {
        let seen = self.server.seen();
        let push = seen
            .iter()
            .filter(|seen| seen.uri.path().ends_with("/git-receive-pack") && seen.body != "0000");
        push.map(|seen| seen.body.clone()).collect()
    }

    pub(crate) fn set_unreachable(&self) {
        self.upstream
            .fail_from
            .store(self.upstream.sent.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
    }

    /// Nothing of any push is left on the host's disk but what was delivered.
    pub(crate) fn left_behind(&self) -> Vec<PathBuf> {
        let entries = |name: &str| {
            let dir = std::fs::read_dir(self.path(name)).into_iter().flatten();
            dir.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>()
        };
        let mut left = entries("spool");
        left.extend(entries("pushes").into_iter().filter(|path| !path.ends_with("kept.git")));
        left
    }
}

/// An agent without rules of its own.
fn nobody() -> AgentSpec {
    AgentSpec {
        name: "nobody".to_owned(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules: Vec::new(),
        limits: LimitsPatch::default(),
    }
}

/// Stands for the gate: the same policy, and a person who always says the same.
pub(crate) struct Answers {
    policy: Policy,
    person: bool,
    /// Whether the gate forgets to hold what the git rules hold.
    pub(crate) forgetful: AtomicBool,
    pub(crate) asked: Mutex<Vec<(Action, Verdict, String)>>,
    /// Fetches that were let through, which stand nowhere else here.
    pub(crate) fetched: Mutex<Vec<Action>>,
    pub(crate) settled: Mutex<Vec<(Outcome, Value)>>,
    /// What a held question waits for, where it shall wait.
    pub(crate) wait: Mutex<Option<Arc<Notify>>>,
}

struct Leave {
    action: Action,
    approved: bool,
    gate: Arc<Answers>,
}

/// The door to it.
struct Keeper(Arc<Answers>);

#[async_trait]
impl Door for Keeper {
    async fn ask(&self, action: Action) -> Result<Box<dyn Pass>, Refused> {
        self.0.ask(action).await
    }
}

impl Answers {
    async fn ask(self: &Arc<Self>, action: Action) -> Result<Box<dyn Pass>, Refused> {
        let answer = self.policy.evaluate(&action);
        let leave = |approved| Leave {
            action: action.clone(),
            approved,
            gate: Arc::clone(self),
        };
        if action.operation == "fetch" && answer.verdict == Verdict::Allow {
            self.fetched.lock().unwrap().push(action.clone());
            return Ok(Box::new(leave(false)));
        }
        self.asked
            .lock()
            .unwrap()
            .push((action.clone(), answer.verdict, answer.rule.clone()));
        let wait = self.wait.lock().unwrap().clone();
        if let (Verdict::Hold, Some(wait)) = (answer.verdict, wait) {
            wait.notified().await;
        }
        let approved = answer.verdict == Verdict::Hold && self.person;
        let forgotten = answer.verdict == Verdict::Hold && self.forgetful.load(Ordering::SeqCst);
        match answer.verdict == Verdict::Allow || approved || forgotten {
            true => Ok(Box::new(leave(approved))),
            false => Err(Refused {
                rule: answer.rule,
                reason: answer.reason,
            }),
        }
    }

    /// The last question with its verdict and rule.
    pub(crate) fn last(&self) -> (Action, Verdict, String) {
        self.asked.lock().unwrap().last().cloned().unwrap()
    }
}

#[async_trait]
impl Pass for Leave {
    fn action(&self) -> &Action {
        &self.action
    }

    fn is_approved(&self) -> bool {
        self.approved
    }

    async fn settle(self: Box<Self>, outcome: Outcome, details: Value) {
        if self.action.operation != "fetch" {
            self.gate.settled.lock().unwrap().push((outcome, details));
        }
    }
}

/// Runs git as a client: no configuration, nobody to ask.
pub(crate) async fn git(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().await.unwrap()
}

/// A client and its helpers in a group of their own, so that all of it can be killed.
pub(crate) fn spawn(dir: &Path, args: &[&str]) -> Child {
    command(dir, args).process_group(0).spawn().unwrap()
}

/// Kills such a group.
pub(crate) async fn kill(mut child: Child) {
    let group = format!("-{}", child.id().unwrap());
    let killed = Command::new("kill")
        .args(["-KILL", "--", &group])
        .status()
        .await
        .unwrap();
    assert!(killed.success());
    child.wait().await.unwrap();
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.invalid",
            "-c",
            "advice.detachedHead=false",
        ])
        .args(args)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub(crate) async fn ok(dir: &Path, args: &[&str]) -> String {
    let output = git(dir, args).await;
    assert!(output.status.success(), "git {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What git printed when it failed, as it must.
pub(crate) async fn fails(dir: &Path, args: &[&str]) -> String {
    let output = git(dir, args).await;
    let words = text(&output.stderr);
    assert!(!output.status.success(), "git {args:?} did not fail: {words}");
    words
}

pub(crate) async fn commit(dir: &Path, file: &str, content: impl AsRef<[u8]>, message: &str) -> String {
    let path = dir.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    ok(dir, &["add", "--all"]).await;
    ok(dir, &["commit", "--quiet", "-m", message]).await;
    ok(dir, &["rev-parse", "HEAD"]).await
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
