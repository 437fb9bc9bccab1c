//! The world a run lives in, without privileges.

pub(crate) mod agent;
pub(crate) mod egress;
pub(crate) mod model;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use ed25519_dalek::SigningKey;
use stockade_domain::{
    AgentKind, AgentSpec, Approval, ApprovalDecision, ApprovalId, ApprovalState, Decision, Digest, Environment, Event,
    EventType, Failure, FileRules, Limits, NetworkLevel, RepoSpec, Rule, RuleMatch, RuleVerdict, Run, RunId, RunInput,
    RunSpec, SnapshotPlan, TaskId, TeamId, run::RunResult,
};
use stockade_gate::{
    Gate, Gated,
    model::{ModelDoor, PriceTable},
};
use stockade_policy::Policy;
use stockade_ports::{
    Activities, Clock, CreateRun, CreateTask, Lease, Store, SystemClock,
    sim::{MemoryStore, RecordingBus},
};
use stockade_runner::{Runner, RunnerConfig, RunnerParts};
use stockade_sandbox::{UnisolatedConfig, UnisolatedSandbox};

use self::{egress::Sessions, model::Answers};

/// What a test changes about the usual world.
pub(crate) struct Wish {
    pub(crate) kind: AgentKind,
    pub(crate) rules: Vec<Rule>,
    pub(crate) files: FileRules,
    pub(crate) limits: Limits,
    pub(crate) repo: Option<RepoSpec>,
    pub(crate) answers: Answers,
    pub(crate) max_patch_bytes: u64,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            kind: AgentKind::Builtin { tools: Vec::new() },
            rules: Vec::new(),
            files: FileRules::default(),
            limits: Limits::default(),
            repo: None,
            answers: Answers::default(),
            max_patch_bytes: 1 << 20,
        }
    }
}

/// A rule about one kind of tool.
pub(crate) fn rule(tool: &str, verdict: RuleVerdict) -> Rule {
    Rule {
        id: format!("test-{tool}"),
        when: RuleMatch {
            tool: Some(tool.to_owned()),
            ..RuleMatch::default()
        },
        verdict,
        reason: "the test says so".to_owned(),
    }
}

/// A run in a world of its own.
pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) runner: Arc<Runner>,
    pub(crate) sandbox: Arc<UnisolatedSandbox>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) key: SigningKey,
    pub(crate) id: RunId,
    pub(crate) lease: Lease,
    pub(crate) answers: Answers,
}

impl World {
    /// Makes the world, creates the run and claims it.
    pub(crate) async fn new(wish: Wish) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(SystemClock);
        let gate = Gate::new(store.clone(), Arc::new(RecordingBus::default()), clock.clone());
        let sandbox = Arc::new(UnisolatedSandbox::new(UnisolatedConfig {
            dir: root.path().join("sandboxes"),
            pretend_for_tests: true,
        }));
        let sessions = Arc::new(Sessions::default());
        let key = SigningKey::from_bytes(&[7; 32]);
        let config = RunnerConfig {
            max_patch_bytes: wish.max_patch_bytes,
            agent_start_timeout: Duration::from_secs(5),
            ..RunnerConfig::new(root.path().join("state"))
        };
        let answers = wish.answers.clone();
        let runner = Runner::new(RunnerParts {
            gate: gate.clone(),
            backends: vec![sandbox.clone()],
            images: None,
            git_hosts: None,
            egress: sessions.clone(),
            door: ModelDoor::new(gate.clone(), Gated::new(Arc::new(wish.answers)), PriceTable::builtin()),
            sealer: key.clone(),
            config,
        });
        let spec = spec(wish.kind, wish.rules, wish.files, wish.limits, wish.repo);
        let id = RunId::from_uuid(clock.uuid());
        let task = CreateTask {
            id: TaskId::from_uuid(clock.uuid()),
            team: TeamId::DEFAULT,
            prompt: spec.prompt.clone(),
            repo: spec.repo.clone(),
            run: Some(CreateRun { id, spec }),
            idempotency_key: None,
            now: clock.now(),
        };
        store.create_task(task).await.unwrap();
        let claim = store.claim(clock.now()).await.unwrap().unwrap();
        Self {
            root,
            store,
            runner: Arc::new(runner),
            sandbox,
            sessions,
            key,
            id,
            lease: claim.lease,
            answers,
        }
    }

    pub(crate) async fn run(&self) -> Run {
        self.store.run(None, self.id).await.unwrap()
    }

    pub(crate) async fn step(&self, input: RunInput) {
        self.store
            .step(self.id, Some(self.lease), input, SystemClock.now())
            .await
            .unwrap();
    }

    pub(crate) async fn provision(&self) -> Result<(), Failure> {
        self.runner.provision(&self.run().await, self.lease).await?;
        self.step(RunInput::Provisioned).await;
        Ok(())
    }

    pub(crate) async fn drive(&self) -> Result<(), Failure> {
        self.runner.drive(&self.run().await, self.lease).await
    }

    /// Provisions and drives.
    pub(crate) async fn work(&self) -> Result<(), Failure> {
        self.provision().await?;
        self.drive().await
    }

    pub(crate) async fn export(&self) -> Result<RunResult, Failure> {
        self.step(RunInput::AgentFinished).await;
        self.runner.export(&self.run().await, self.lease).await
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        self.store.events(self.id, 0, u32::MAX).await.unwrap()
    }

    /// Data of the events of one type.
    pub(crate) async fn told(&self, kind: EventType) -> Vec<serde_json::Value> {
        self.events()
            .await
            .into_iter()
            .filter(|e| e.kind == kind)
            .map(|e| e.data)
            .collect()
    }

    /// Waits for a question to a person.
    pub(crate) async fn question(&self) -> Approval {
        for _ in 0..600 {
            let open = self
                .store
                .approvals(None, Some(self.id), Some(ApprovalState::Pending), 10)
                .await
                .unwrap();
            if let Some(approval) = open.into_iter().next() {
                return approval;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody was asked; events: {:#?}", self.events().await);
    }

    pub(crate) async fn decide(&self, id: ApprovalId, decision: Decision, reason: Option<&str>) {
        self.decide_edited(id, decision, reason, None).await;
    }

    pub(crate) async fn decide_edited(
        &self,
        id: ApprovalId,
        decision: Decision,
        reason: Option<&str>,
        edited_args: Option<serde_json::Value>,
    ) {
        let decision = ApprovalDecision {
            decision,
            by: "ada".to_owned(),
            reason: reason.map(str::to_owned),
            edited_args,
        };
        self.store
            .decide(TeamId::DEFAULT, id, decision, SystemClock.now())
            .await
            .unwrap();
    }

    pub(crate) async fn say(&self, text: &str, steer: bool) {
        self.store
            .push_message(
                TeamId::DEFAULT,
                self.id,
                "ada".into(),
                text.into(),
                steer,
                SystemClock.now(),
            )
            .await
            .unwrap();
    }

    /// A file of the workspace, as it is now.
    pub(crate) fn workspace(&self, path: &str) -> PathBuf {
        self.sandbox.dir_of(self.id).unwrap().join("workspace").join(path)
    }
}

fn spec(kind: AgentKind, rules: Vec<Rule>, files: FileRules, limits: Limits, repo: Option<RepoSpec>) -> RunSpec {
    let agent = AgentSpec {
        name: "tester".to_owned(),
        description: String::new(),
        kind,
        model: None,
        instructions: Some("Be brief.".to_owned()),
        rules,
        limits: Default::default(),
    };
    let environment = Environment {
        files,
        ..Environment::named("test", NetworkLevel::None)
    };
    let policy_version: Digest = Policy::compile(&agent, &environment).unwrap().version();
    RunSpec {
        prompt: "Fix the greeting".to_owned(),
        repo,
        agent,
        environment,
        model: "test-model".to_owned(),
        backend: "unisolated".to_owned(),
        snapshot: SnapshotPlan::default(),
        git_host: None,
        publish: None,
        limits,
        policy_version,
    }
}

pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args([
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@example.invalid",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository with a greeting in it.
pub(crate) fn repository() -> (tempfile::TempDir, RepoSpec) {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"]);
    std::fs::write(dir.path().join("hello.txt"), "Helo\nworld\n").unwrap();
    std::fs::write(dir.path().join(".gitignore"), "ignored/\n").unwrap();
    git(dir.path(), &["add", "."]);
    git(dir.path(), &["commit", "-qm", "greeting"]);
    let spec = RepoSpec {
        source: dir.path().to_string_lossy().into_owned(),
        reference: None,
    };
    (dir, spec)
}
