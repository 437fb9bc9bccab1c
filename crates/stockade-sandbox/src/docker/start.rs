//! From a request to a Guest that answers behind its boundary.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bollard::{
    errors::Error,
    models::ContainerCreateBody,
    query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions},
};
use stockade_ports::sandbox::{Boundary, SandboxError, SandboxEvidence, SandboxSpec};
use tokio::{sync::oneshot, time::timeout};

use super::{
    BACKEND, Host,
    container::Order,
    daemon::{is_unknown, step, unsupported},
    den::Den,
    error, import,
    life::{DockerLife, Held},
    stream::Printed,
};
use crate::{
    boundary, cgroup,
    client::Client,
    failure::{Failure, Step as _},
    filter,
    live::Live,
};

/// Longest the Guest may take to say hello.
const HELLO: Duration = Duration::from_secs(30);
/// How long the daemon may take to report the end of a container whose output has ended.
const DEATH_NOTICE: Duration = Duration::from_secs(10);

/// Somebody who waits for the sandbox, or does not any more.
type Waiting = oneshot::Sender<Result<Live<DockerLife>, SandboxError>>;

/// Makes a sandbox. On error, and when nobody waits, what was made ends in the background; on
/// error it is gone when the error is seen.
pub(super) async fn start(
    host: &Arc<Host>,
    spec: SandboxSpec,
    waiting: &Waiting,
) -> Result<Live<DockerLife>, SandboxError> {
    let begun = Instant::now();
    let serial = host.serial.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{}-{serial}", spec.run, host.owner.pid);
    let (den, binds) = den(host, &name, &spec).await?;
    let den = Arc::new(den);
    let container = create(host, &name, &spec, binds).await?;
    let held = Held::begin(host.daemon.api.clone(), container.clone(), Arc::clone(&den));
    let made = match waiting.is_closed() {
        true => Err(SandboxError::Gone("nobody waits for it any more".to_owned())),
        false => run(host, &container, &held).await,
    };
    let started = match made {
        Ok(started) => started,
        Err(error) => {
            held.cut();
            held.gone().await;
            return Err(error);
        }
    };
    // Unmounted before anything of the agent's can run: from now on the tree is the container's.
    let freed = tokio::task::spawn_blocking(move || den.let_go()).await;
    if let Ok(Err(error)) = freed {
        tracing::warn!(container, %error, "a sandbox's tree stays mounted on the host until its end");
    }
    let start_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Live {
        boundary: Some(started.boundary),
        evidence: evidence(host, &spec, start_ms),
        client: match &spec.rootfs {
            stockade_ports::sandbox::RootFs::Image(tree) => started.client.with_environment(&tree.env),
            stockade_ports::sandbox::RootFs::Host => started.client,
        },
        limits: spec.limits,
        enforced: host.enforced(),
        life: Arc::new(DockerLife {
            api: host.daemon.api.clone(),
            container,
            groups: started.groups,
            held,
        }),
    })
}

async fn den(host: &Arc<Host>, name: &str, spec: &SandboxSpec) -> Result<(Den, Vec<(PathBuf, String)>), SandboxError> {
    let (host, name, spec) = (Arc::clone(host), name.to_owned(), spec.clone());
    let made = tokio::task::spawn_blocking(move || Den::make(&host.files, &name, &host.owner, &spec));
    made.await
        .step("make the sandbox's tree")
        .and_then(|made| made)
        .map_err(error)
}

/// Has the daemon make the container, and the image first if it does not know that.
async fn create(
    host: &Host,
    name: &str,
    spec: &SandboxSpec,
    binds: Vec<(PathBuf, String)>,
) -> Result<String, SandboxError> {
    let disks = disks(host, spec);
    let order = Order {
        image: import::reference(&spec.rootfs),
        binds,
        limits: &spec.limits,
        disks: &disks,
        owner: serde_json::to_string(&host.owner).unwrap_or_default(),
        state: host.state_dir.display().to_string(),
    };
    let body = order.body();
    let ask = |body: ContainerCreateBody| {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        host.daemon.api.create_container(Some(options), body)
    };
    let mut made = ask(body.clone()).await;
    if made.as_ref().is_err_and(is_unknown) {
        let scratch = host.files.sandboxes.join(name);
        import::import(&host.daemon.api, &spec.rootfs, &scratch).await?;
        made = ask(body).await;
    }
    made.map(|made| made.id).map_err(|error| match error {
        Error::DockerResponseServerError { ref message, .. } if message.contains("bind source path does not exist") => {
            elsewhere("the Docker daemon does not see this host's files")
        }
        error => step("have the Docker daemon make the container")(error),
    })
}

fn elsewhere(what: &str) -> SandboxError {
    unsupported(
        what,
        "use a Docker daemon on this very host, and run stockade outside of containers",
    )
}

struct Started {
    client: Client,
    boundary: Boundary,
    groups: Vec<cgroup::CgroupDir>,
}

/// Starts a container that was made, prepares its network and has its Guest confine itself.
async fn run(host: &Host, container: &str, held: &Held) -> Result<Started, SandboxError> {
    let api = &host.daemon.api;
    let options = AttachContainerOptionsBuilder::new();
    let options = options.stream(true).stdin(true).stdout(true).build();
    let attached = api.attach_container(container, Some(options)).await;
    let attached = attached.map_err(step("attach to the container"))?;
    let (cut, mut gone) = (held.cutter(), held.gone.clone());
    let (client, hello) = Client::start(attached.input, Printed::new(attached.output), move |fault| async move {
        // The daemon knows how the Guest ended, a moment after its output has.
        if fault.is_none() {
            let _ = timeout(DEATH_NOTICE, gone.wait_for(Option::is_some)).await;
        }
        cut.notify_one();
        let ended = gone.wait_for(Option::is_some).await;
        let ended = ended.ok().and_then(|reason| reason.clone());
        fault.or(ended).unwrap_or_else(|| "unknown".to_owned())
    });
    api.start_container(container, None::<StartContainerOptions>)
        .await
        .map_err(step("start the container"))?;
    let state = api.inspect_container(container, None).await;
    let state = state.map_err(step("look at the container"))?.state.unwrap_or_default();
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let Some(pid) = pid else {
        let code = state.exit_code.unwrap_or_default();
        return Err(setup("start the Guest", &format!("it ended at once with code {code}")));
    };
    let id = container.to_owned();
    let entered = tokio::task::spawn_blocking(move || enter(pid, &id)).await;
    let entered = entered.map_err(|e| setup("prepare the container's network", &e.to_string()))?;
    let (boundary, groups) = entered?;
    held.runs_in(groups.clone());
    if timeout(HELLO, hello).await.is_ok_and(|heard| heard.is_ok()) {
        let filters = filter::compile().map_err(error)?;
        client.confine(filter::words(&filters)).await?;
        return Ok(Started {
            client,
            boundary,
            groups,
        });
    }
    Err(setup("hear from the Guest", "it says nothing"))
}

fn setup(step: &str, cause: &str) -> SandboxError {
    SandboxError::Setup {
        step: step.to_owned(),
        cause: cause.to_owned(),
    }
}

/// Prepares the network namespace of the container's first process, once it is certain that this
/// is the process meant. Blocking.
fn enter(pid: i32, container: &str) -> Result<(Boundary, Vec<cgroup::CgroupDir>), SandboxError> {
    // Opened first: what is found out below about the process is then true of the namespace.
    let namespace = File::open(format!("/proc/{pid}/ns/net"));
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if !own.contains(container) {
        return Err(elsewhere("the Docker daemon's containers are not on this host"));
    }
    let prepared = (|| -> Result<_, Failure> {
        let step = "open the container's network namespace";
        let namespace = namespace.step(step)?;
        let ours = fs::metadata("/proc/self/ns/net").step(step)?;
        let theirs = namespace.metadata().step(step)?;
        if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) {
            return Err(Failure::new(step, "it is the host's own"));
        }
        boundary::prepare_in(namespace.into())
    })();
    Ok((prepared.map_err(error)?, cgroup::of_process(pid)))
}

fn evidence(host: &Host, spec: &SandboxSpec, start_ms: u64) -> SandboxEvidence {
    let limits = &spec.limits;
    let values = [
        ("memory", Some(limits.memory_bytes)),
        ("pids", Some(limits.pids)),
        ("cpu", Some(limits.cpu_millis)),
        ("io", limits.io_bytes_per_second),
        ("disk", Some(limits.disk_bytes)),
    ];
    let enforced = host.enforced();
    let values = values
        .into_iter()
        .filter(|(name, _)| enforced.iter().any(|e| e == name));
    SandboxEvidence {
        backend: BACKEND.to_owned(),
        mode: "root".to_owned(),
        image: spec.rootfs.label().to_owned(),
        limits: values
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
            .collect(),
        start_ms,
        warm: false,
    }
}

/// The disks behind what a sandbox reads, as the daemon wants them named.
fn disks(host: &Host, spec: &SandboxSpec) -> Vec<String> {
    if spec.limits.io_bytes_per_second.is_none() {
        return Vec::new();
    }
    let given = [&spec.workspace, &spec.base_git, &spec.agents_dir];
    let given = given.into_iter().filter_map(|path| path.as_deref());
    let all = given.chain([Path::new("/usr"), &host.state_dir]);
    let paths = cgroup::disk_paths(all).into_iter();
    paths.map(|path| path.to_string_lossy().into_owned()).collect()
}
