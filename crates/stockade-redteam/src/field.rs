//! The field: two proved sandboxes of the installation's, and what is planted around them.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, time::Duration};

use stockade_domain::{
    AddressException, Environment, NetworkLevel, Run, RunId, RunInput, RunSpec, SandboxLimits, TaskId, TeamId,
};
use stockade_policy::Policy;
use stockade_ports::{
    Clock as _, CreateRun, CreateTask, Egress, Images, ProbePlan, RootFs, Sandbox, SandboxFacts, SandboxSpec, Store,
    SystemClock, Witness, prove,
    sandbox::{Check, Kernel},
};
use tokio::{
    process::Child,
    sync::{Mutex, OnceCell},
};

use crate::{
    RedTeamError,
    canary::{Canaries, TWIN_ADDRESS, TWIN_HOST},
    capture::{Capture, Counts},
    ferry::Ferry,
    inside::{Call, Inside},
    outside,
    plant::Plants,
    prepare,
    told::Told,
    world::realm,
};

/// Limits of the sandboxes whose limits are attacked: small, so that reaching them is quick and
/// harms nobody.
pub(crate) const TIGHT: SandboxLimits = SandboxLimits {
    memory_bytes: 192 << 20,
    pids: 64,
    cpu_millis: 1000,
    disk_bytes: 24 << 20,
    io_bytes_per_second: None,
};

/// What the red team works with.
pub struct Parts {
    /// The backend under attack.
    pub sandbox: Arc<dyn Sandbox>,
    /// The installation's Guard, asking [`Canaries::nameserver`].
    pub egress: Arc<dyn Egress>,
    /// A store for throwaway runs, the one behind the Guard's gate.
    pub store: Arc<dyn Store>,
    /// What the runs are frozen with: the installation's agent and environment, after [`twin`].
    pub spec: RunSpec,
    /// What the sandboxes' root file systems are made of.
    pub rootfs: RootFs,
    /// An image store of the red team's own, for images an attacker made.
    pub images: Arc<dyn Images>,
    /// The servers.
    pub canaries: Arc<Canaries>,
    /// The installation's state directory: the plants stand in it, and nothing may stay in it.
    pub state_dir: PathBuf,
}

/// Opens [`TWIN_HOST`] in an environment, and nothing else. `false` where the environment opens
/// no names at all and none is opened.
#[must_use]
pub fn twin(environment: &mut Environment, canaries: &Canaries) -> bool {
    if environment.network == NetworkLevel::None {
        return false;
    }
    environment
        .domains
        .push(format!("{TWIN_HOST}:{}", canaries.twin_port()));
    environment.address_exceptions.push(AddressException {
        cidr: format!("{TWIN_ADDRESS}/32"),
        reason: "the allowed server of the red team".to_owned(),
    });
    true
}

pub(crate) struct Field {
    pub(crate) parts: Parts,
    pub(crate) plants: Plants,
    pub(crate) facts: SandboxFacts,
    pub(crate) root: bool,
    pub(crate) target: Arc<Inside>,
    pub(crate) neighbour: Arc<Inside>,
    /// A sandbox in the red team's own environment; the neighbour is in it as well.
    pub(crate) realm: Arc<Inside>,
    ferries: OnceCell<Result<(Ferry, Ferry), String>>,
    capture: OnceCell<Option<Mutex<Capture>>>,
    pub(crate) proved: Vec<Check>,
    /// A process of the host's with the token in its environment and its command line.
    pub(crate) victim: Child,
    claims: Mutex<()>,
}

impl Field {
    pub(crate) async fn prepare(parts: Parts) -> Result<Self, RedTeamError> {
        let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let facts = parts.sandbox.check().await;
        let facts = facts.map_err(|error| RedTeamError::Sandbox(error.to_string()))?;
        let name = format!("stockade-redteam-{}", SystemClock.uuid().simple());
        let token = parts.canaries.token().to_owned();
        let mut plants = Plants::make(&parts.state_dir.join(&name), &name, &token, root)?;
        for path in plants.sockets() {
            // A path longer than a socket's address can be is no loss: there are others.
            let _ = parts.canaries.listen_at(&path);
        }
        plants.settle();
        let victim = Call::new("victim").with("token", victim_token(&token));
        let named = ("STOCKADE_REDTEAM_CANARY", victim_token(&token));
        let victim = outside::start(&plants.attacker(), &plants.outside(), &victim, (named.0, &named.1)).await?;
        let claims = Mutex::new(());
        let limits = parts.spec.environment.limits;
        let rootfs = || parts.rootfs.clone();
        let spec = realm(parts.spec.clone());
        let (target, proved) = provision(&parts, &parts.spec, &plants, &claims, rootfs(), limits).await?;
        let (neighbour, _) = provision(&parts, &spec, &plants, &claims, rootfs(), limits).await?;
        let (realm, _) = provision(&parts, &spec, &plants, &claims, rootfs(), limits).await?;
        Ok(Self {
            parts,
            plants,
            facts,
            root,
            target: Arc::new(target),
            neighbour: Arc::new(neighbour),
            realm: Arc::new(realm),
            ferries: OnceCell::new(),
            capture: OnceCell::new(),
            proved,
            victim,
            claims,
        })
    }

    /// One more sandbox.
    pub(crate) async fn sandbox(&self, limits: SandboxLimits) -> Result<Inside, RedTeamError> {
        self.sandbox_of(self.parts.rootfs.clone(), limits).await
    }

    /// One more, made of something else.
    pub(crate) async fn sandbox_of(&self, rootfs: RootFs, limits: SandboxLimits) -> Result<Inside, RedTeamError> {
        let (inside, _) = provision(
            &self.parts,
            &self.parts.spec,
            &self.plants,
            &self.claims,
            rootfs,
            limits,
        )
        .await?;
        Ok(inside)
    }

    /// Replaces a target that did not survive its attack.
    pub(crate) async fn repair(&mut self) -> Result<(), RedTeamError> {
        if self.target.is_healthy().await {
            return Ok(());
        }
        self.target.end().await;
        self.target = Arc::new(self.sandbox(self.parts.spec.environment.limits).await?);
        Ok(())
    }

    /// The ferries in the realm and where nothing stops them; they are started when first asked for.
    pub(crate) async fn ferries(&self) -> Result<(&Ferry, &Ferry), String> {
        let started = self.ferries.get_or_init(|| async {
            let inside = Ferry::inside(&self.realm).await?;
            Ok((inside, Ferry::outside(self)?))
        });
        match started.await {
            Ok((inside, outside)) => Ok((inside, outside)),
            Err(why) => Err(why.clone()),
        }
    }

    /// Packets of this host that have held the attackers' word so far; nothing where nobody may look.
    pub(crate) async fn packets(&self) -> Option<Counts> {
        let begin = || async {
            let word = &self.parts.canaries.world().words().stray;
            Capture::begin(self, word).await.map(Mutex::new)
        };
        let capture = self.capture.get_or_init(begin).await.as_ref()?;
        capture.lock().await.counts().await
    }

    /// The attacker where nothing stops it.
    pub(crate) async fn outside(&self, call: &Call) -> Told {
        outside::run(&self.plants.attacker(), &self.plants.outside(), call).await
    }

    pub(crate) fn token(&self) -> &str {
        self.parts.canaries.token()
    }

    pub(crate) fn victim_token(&self) -> String {
        victim_token(self.token())
    }

    pub(crate) fn victim_pid(&self) -> u32 {
        self.victim.id().unwrap_or(0)
    }

    /// Whether the environment opens the allowed name.
    pub(crate) fn has_twin(&self) -> bool {
        self.parts.spec.environment.network != NetworkLevel::None
    }

    /// A call that knows whose kernel it is made to.
    pub(crate) fn to_kernel(&self, call: Call) -> Call {
        match self.parts.sandbox.capabilities().kernel {
            Kernel::Own => call.with("kernel", "own"),
            Kernel::Shared => call,
        }
    }

    /// Longest a process inside may take to show on the host; where it never does, that is soon known.
    pub(crate) fn showing(&self) -> Duration {
        Duration::from_millis(match self.parts.sandbox.capabilities().kernel {
            Kernel::Own => 300,
            Kernel::Shared => 2000,
        })
    }

    pub(crate) fn enforces(&self, limit: &str) -> bool {
        self.facts.enforced_limits.iter().any(|enforced| enforced == limit)
    }

    pub(crate) async fn clear(mut self) {
        self.target.end().await;
        drop((self.ferries.take(), self.capture.take()));
        self.neighbour.end().await;
        self.realm.end().await;
        let _ = self.victim.kill().await;
    }
}

/// Another word than the servers' and files', so that one is not taken for the other.
fn victim_token(token: &str) -> String {
    format!("victim-{}", token.trim_start_matches("canary-"))
}

async fn provision(
    parts: &Parts,
    spec: &RunSpec,
    plants: &Plants,
    claims: &Mutex<()>,
    rootfs: RootFs,
    limits: SandboxLimits,
) -> Result<(Inside, Vec<Check>), RedTeamError> {
    let (run, lease) = {
        // The oldest run is claimed first; between creating and claiming there must be no other.
        let _one = claims.lock().await;
        throwaway(parts, spec.clone()).await?
    };
    let wrong = |error: &dyn std::fmt::Display| RedTeamError::Sandbox(error.to_string());
    let wanted = SandboxSpec {
        rootfs,
        limits,
        workspace: Some(plants.scratch.join("workspace")),
        base_git: Some(plants.scratch.join("base.git")),
        agents_dir: Some(plants.scratch.join("agents")),
        ..SandboxSpec::plain(run.id)
    };
    let mut fresh = parts.sandbox.create(wanted).await.map_err(|e| wrong(&e))?;
    let boundary = fresh.take_boundary();
    let boundary = boundary.ok_or_else(|| wrong(&"the sandbox has no boundary"))?;
    let session = parts.egress.guard(&run, lease, boundary).await.map_err(|e| wrong(&e))?;
    let witness = Arc::clone(&parts.canaries) as Arc<dyn Witness>;
    let plan = ProbePlan::standard(Some(witness));
    let (handle, measured) = prove(fresh, &plan, &*session).await.map_err(|e| wrong(&e))?;
    let step = parts
        .store
        .step(run.id, Some(lease), RunInput::Provisioned, SystemClock.now());
    step.await.map_err(prepare("a run"))?;
    let inside = Inside {
        handle,
        run: run.id,
        session,
        store: Arc::clone(&parts.store),
    };
    Ok((inside, measured.checks))
}

/// A run nobody drives, for the Guard to ask about.
async fn throwaway(parts: &Parts, mut spec: RunSpec) -> Result<(Run, stockade_ports::Lease), RedTeamError> {
    let policy = Policy::compile(&spec.agent, &spec.environment).map_err(prepare("a policy"))?;
    spec.policy_version = policy.version();
    let clock = SystemClock;
    let id = RunId::from_uuid(clock.uuid());
    let create = CreateTask {
        id: TaskId::from_uuid(clock.uuid()),
        team: TeamId::DEFAULT,
        prompt: spec.prompt.clone(),
        repo: None,
        run: Some(CreateRun { id, spec }),
        idempotency_key: None,
        now: clock.now(),
    };
    parts.store.create_task(create).await.map_err(prepare("a run"))?;
    let claim = parts.store.claim(clock.now()).await.map_err(prepare("a run"))?;
    let claim = claim.filter(|claim| claim.run.id == id);
    let claim = claim.ok_or_else(|| prepare("a run")("the store has other runs; give the red team its own"))?;
    Ok((claim.run, claim.lease))
}
