//! `stockade redteam`: attacks the sandboxes of this installation, with a control for every attack.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use stockade_bus::InProcessBus;
use stockade_domain::{Environment, RunSpec};
use stockade_gate::{
    Gate, Gated, kind,
    model::{ModelDoor, PriceTable},
};
use stockade_gateway::llm::LlmGateway;
use stockade_guard::{Dial, Guard, GuardConfig};
use stockade_policy::Policy;
use stockade_ports::{Clock as _, ModelProvider, RootFs, Sandbox, Store, SystemClock};
use stockade_redteam::{
    BackendReport, Canaries, CaseReport, Group, Parts, Peers, RedTeamError, Report, Score, Verdict, attack, twin,
    unconfined,
};
use stockade_store::SqliteStore;
use tokio::net::TcpStream;

use crate::{
    backends,
    cli::Redteam,
    exit::{Complaint, Exit, Outcome},
    settings::Settings,
    terminal::{self, out, say, style, table},
    wiring,
};

pub(crate) async fn execute(options: Redteam, settings: Settings, json: bool) -> Outcome {
    let names = names(options.backend.as_deref(), &settings)?;
    let mut reports = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        let sandbox = backends::one(&settings, &name)?;
        if !json {
            say(&format!("{} {name}", style::bold("attacking")));
        }
        match Box::pin(one(&settings, sandbox, json)).await {
            Ok(report) => reports.push(report),
            Err(error) => missing.push((name, format!("{error:#}"))),
        }
    }
    let mut surface = vec![unconfined(&settings.state_dir).await?];
    surface.extend(
        Peers::new(&settings.state_dir, &settings.sandbox.docker_socket)?
            .measure()
            .await,
    );
    let report = Report::new(reports, missing, surface);
    if json {
        terminal::json(&report)?;
    } else {
        show(&report);
    }
    Ok(if report.green { Exit::Done } else { Exit::RunFailed })
}

/// The backends to attack: the configured default, all that are configured, or one.
fn names(asked: Option<&str>, settings: &Settings) -> Result<Vec<String>, Complaint> {
    let configured = &settings.sandbox.backends;
    match asked {
        Some("all") => Ok(configured.clone()),
        Some(name) => Ok(vec![name.to_owned()]),
        None => match configured.first() {
            Some(first) => Ok(vec![first.clone()]),
            None => Err(Complaint::usage(
                "sandbox.backends is empty: there is nothing to attack",
            )),
        },
    }
}

async fn one(settings: &Settings, sandbox: Arc<dyn Sandbox>, quiet: bool) -> anyhow::Result<BackendReport> {
    let canaries = Canaries::start().await?;
    let mut environment = environment(settings)?.clone();
    // An environment that opens no name stays as it is.
    let _ = twin(&mut environment, &canaries);
    let rootfs = rootfs(settings, &environment.image).await?;
    let throwaway = Throwaway::make(&settings.state_dir)?;
    let store = throwaway.store().await?;
    let parts = Parts {
        egress: Arc::new(guard(&store, &canaries)?),
        spec: spec(settings, environment, sandbox.name())?,
        sandbox,
        store,
        rootfs,
        images: backends::images_in(settings, throwaway.dir.join("images")),
        canaries,
        state_dir: settings.state_dir.clone(),
    };
    let watch = |case: &CaseReport| {
        if !quiet {
            say(&format!("  {} {:<9} {}", sign(case), case.id, style::dim(&case.tried)));
        }
    };
    attack(parts, &watch).await.map_err(|error| complaint(&error).into())
}

fn complaint(error: &RedTeamError) -> Complaint {
    Complaint::unavailable(error.to_string()).hint("`stockade doctor` shows what this host lacks")
}

/// What the environment's sandboxes are made of.
async fn rootfs(settings: &Settings, image: &str) -> anyhow::Result<RootFs> {
    if image == "host" {
        return Ok(RootFs::Host);
    }
    let tree = backends::images(settings).prepare(image, &()).await;
    Ok(RootFs::Image(
        tree.map_err(|error| Complaint::unavailable(error.to_string()))?,
    ))
}

/// The environment runs get when they name none.
fn environment(settings: &Settings) -> Result<&Environment, Complaint> {
    let wanted = &settings.default_environment;
    let found = settings.environments.iter().find(|known| known.name == *wanted);
    found.ok_or_else(|| {
        Complaint::usage(format!("the default environment '{wanted}' is not configured"))
            .hint("describe it under 'environments'")
    })
}

fn spec(settings: &Settings, environment: Environment, backend: &str) -> anyhow::Result<RunSpec> {
    let mut agents = wiring::agents(settings)?;
    let name = &settings.default_agent;
    let agent = agents.remove(name);
    let agent = agent.ok_or_else(|| Complaint::usage(format!("there is no agent '{name}'")))?;
    let policy = Policy::compile(&agent, &environment).map_err(|error| Complaint::usage(error.to_string()))?;
    Ok(RunSpec {
        prompt: "red team".to_owned(),
        repo: None,
        model: "none".to_owned(),
        backend: backend.to_owned(),
        snapshot: stockade_domain::SnapshotPlan::default(),
        git_host: None,
        publish: None,
        limits: settings.limits,
        policy_version: policy.version(),
        agent,
        environment,
    })
}

/// The installation's Guard behind a gate of its own, asking the red team's name server.
fn guard(store: &Arc<dyn Store>, canaries: &Arc<Canaries>) -> anyhow::Result<Guard> {
    let gate = Gate::new(
        Arc::clone(store),
        Arc::new(InProcessBus::default()),
        Arc::new(SystemClock),
    );
    let provider: Arc<dyn ModelProvider> = Arc::new(wiring::NoModel);
    let door = ModelDoor::new(gate.clone(), Gated::<kind::Model, _>::new(provider), PriceTable::free());
    let config = GuardConfig {
        nameservers: vec![canaries.nameserver()],
        extra_roots: vec![canaries.authority().into()],
        ..GuardConfig::default()
    };
    let guard = Guard::new(gate, Arc::new(LlmGateway::new(door)), config);
    let guard = guard.map_err(|error| Complaint::unavailable(error.to_string()))?;
    let world = Arc::new(World(Arc::clone(canaries)));
    Ok(guard.with_dial(world).with_secrets(canaries.secrets()))
}

/// What the Guard dials is the red team's: nothing it can be made to do leaves this host.
struct World(Arc<Canaries>);

#[async_trait]
impl Dial for World {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(self.0.place(address)).await
    }
}

/// A store for runs nobody will ask about again.
struct Throwaway {
    dir: PathBuf,
}

impl Throwaway {
    fn make(state_dir: &Path) -> Result<Self, Complaint> {
        let dir = state_dir.join(format!("redteam-{}", SystemClock.uuid().simple()));
        fs::create_dir(&dir)
            .map_err(|error| Complaint::unavailable(format!("cannot make {}: {error}", dir.display())))?;
        Ok(Self { dir })
    }

    async fn store(&self) -> Result<Arc<dyn Store>, Complaint> {
        let store = SqliteStore::open(&self.dir.join("redteam.db")).await;
        let store = store.map_err(|error| Complaint::unavailable(error.to_string()))?;
        Ok(Arc::new(store))
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn sign(case: &CaseReport) -> String {
    match case.verdict {
        Verdict::Passed => style::good("✓"),
        Verdict::Failed => style::bad("✗"),
        Verdict::Void => style::wait("○"),
    }
}

fn show(report: &Report) {
    for (name, why) in &report.missing {
        out(&format!("{name}: not attacked: {}", style::clean(why)));
    }
    groups(report);
    for backend in &report.backends {
        explain(backend);
    }
    surface(report);
    out("");
    out(if report.green {
        "Every attack failed, and every attack works where nothing stops it."
    } else {
        "Something got through, or could not be judged."
    });
}

/// The table by group and backend: passed of all, and how many are void or failed.
fn groups(report: &Report) {
    let mut header = vec!["GROUP"];
    let names: Vec<String> = report
        .backends
        .iter()
        .map(|b| format!("{} ({})", b.backend, b.mode))
        .collect();
    header.extend(names.iter().map(String::as_str));
    let cell = |backend: &BackendReport, group: Group| {
        let of = |verdict| {
            let cases = backend.cases.iter().filter(|case| case.group == group);
            cases.filter(|case| case.verdict == verdict).count()
        };
        let all = backend.cases.iter().filter(|case| case.group == group).count();
        let mut cell = format!("{}/{all}", of(Verdict::Passed));
        for (count, word) in [(of(Verdict::Failed), "FAILED"), (of(Verdict::Void), "void")] {
            if count > 0 {
                cell.push_str(&format!(", {count} {word}"));
            }
        }
        cell
    };
    let rows: Vec<Vec<String>> = Group::ALL
        .into_iter()
        .map(|group| {
            let cells = report.backends.iter().map(|backend| cell(backend, group));
            std::iter::once(group.name().to_owned()).chain(cells).collect()
        })
        .collect();
    table::print(&header, &rows);
}

/// What failed and what is void, and why.
fn explain(backend: &BackendReport) {
    for case in backend.cases.iter().filter(|case| case.verdict != Verdict::Passed) {
        let word = match (case.verdict, case.excuse) {
            (Verdict::Failed, _) => style::bad("failed"),
            (_, Some(_)) => style::wait("void (listed)"),
            _ => style::bad("void"),
        };
        out("");
        out(&format!("{} {} on {}: {}", case.id, word, backend.backend, case.tried));
        out(&format!("  expected: {}", case.expected));
        for reason in &case.reasons {
            out(&format!("  {}", style::clean(reason)));
        }
    }
    if backend.left_out > 0 {
        out(&format!(
            "{} attacks were left out: no sandbox was left to attack",
            backend.left_out
        ));
    }
}

/// The kernel surface, the smallest first.
fn surface(report: &Report) {
    let ours = report.backends.iter().map(|backend| (true, &backend.score));
    let mut scores: Vec<(bool, &Score)> = ours.chain(report.surface.iter().map(|score| (false, score))).collect();
    scores.sort_by_key(|(_, score)| (score.missing.is_some(), score.answered));
    let rows: Vec<Vec<String>> = scores
        .into_iter()
        .map(|(own, score)| {
            let name = if own {
                format!("stockade {}", score.name)
            } else {
                score.name.clone()
            };
            let figure = match &score.missing {
                Some(why) => why.clone(),
                None => format!("{} of {}", score.answered, score.tried),
            };
            vec![name, figure]
        })
        .collect();
    out("");
    table::print(&["KERNEL SURFACE", "DANGEROUS CALLS NOT REFUSED"], &rows);
}
