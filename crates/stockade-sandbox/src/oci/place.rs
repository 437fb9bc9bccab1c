//! The namespaces of one sandbox, and its runtime started in them.
#![allow(unsafe_code)]

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use stockade_domain::SandboxLimits;
use stockade_ports::sandbox::Boundary;
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

use super::{
    life::{OciLife, Remains},
    runtime::{PATH, Runtime},
    spec,
};
use crate::{
    boundary,
    failure::{Failure, Step},
    tree::{TreePlan, is_place},
};

/// Where the tree is mounted: a directory everybody may pass through, for the runtime sets the
/// container up as a user without rights on the host. The mount is seen by the runtime alone.
const PLACES: [&str; 5] = ["/mnt", "/media", "/srv", "/tmp", "/var/tmp"];
/// Where hosts with both versions of cgroups have the second one.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
const NONE: Option<&str> = None;

/// One sandbox to be made.
pub(super) struct Order {
    pub(super) runtime: Runtime,
    pub(super) program: PathBuf,
    pub(super) limits: SandboxLimits,
    pub(super) tree: TreePlan,
    /// What is there already and what will have to be removed, on whatever path this is left.
    pub(super) remains: Remains,
}

/// A sandbox whose runtime runs.
pub(super) struct Placed {
    pub(super) boundary: Boundary,
    pub(super) input: UnixStream,
    pub(super) output: UnixStream,
    pub(super) life: OciLife,
}

/// Chooses where to mount a tree without hiding any of these paths.
pub(super) fn base(needed: &[&Path]) -> Result<PathBuf, Failure> {
    let free = |place: &&&str| is_place(Path::new(place)) && !needed.iter().any(|path| path.starts_with(place));
    let place = PLACES.iter().find(free);
    place.map(PathBuf::from).ok_or_else(|| {
        Failure::new(
            "find a place for the sandbox's root",
            "none of them is a free directory",
        )
        .with_fix(format!("make one of {}", PLACES.join(", ")))
    })
}

/// Makes the namespaces and starts the runtime. On error, and when the future is dropped,
/// nothing is left.
pub(super) async fn start(order: Order) -> Result<Placed, Failure> {
    let step = "start a thread";
    let (tell, told) = oneshot::channel();
    let runtime = Handle::current();
    // A thread that has namespaces of its own cannot go back to a pool.
    let work = move || {
        let _context = runtime.enter();
        // Nobody waits any more: what comes back is dropped here, and so is the sandbox.
        let _ = tell.send(place(order));
    };
    thread::Builder::new()
        .name("stockade-oci".to_owned())
        .spawn(work)
        .step(step)?;
    told.await.map_err(|_| Failure::new(step, "it panicked"))?
}

fn place(order: Order) -> Result<Placed, Failure> {
    let Order {
        runtime,
        program,
        limits,
        tree,
        remains,
    } = order;
    remains.groups().create()?;
    let doors = remains.groups().doors()?;
    own_namespaces(runtime)?;
    let boundary = boundary::prepare()?.into();
    let tree = tree.build()?;
    let parts = spec::Parts {
        runtime,
        tree: &tree,
        limits: &limits,
        uid: remains.uid(),
        cgroup: remains.groups().runtime_path(),
    };
    let config = serde_json::to_vec(&spec::write(&parts)?).step("write the container's specification")?;
    fs::write(remains.dir().join("config.json"), config).step("write the container's specification")?;

    let (input, input_read) = line()?;
    let (output, output_write) = line()?;
    let (complaints, complaints_write) = line()?;
    let child = spawn(
        runtime,
        &program,
        &remains,
        doors,
        [input_read, output_write, complaints_write],
    )?;
    Ok(Placed {
        boundary,
        input,
        output,
        life: OciLife::watch(runtime, child, complaints, remains),
    })
}

/// Our end and the runtime's of what becomes a standard stream of the Guest.
///
/// A socket, because nobody can open one through `/proc/1/fd`: gVisor would let the agent open the
/// Guest's pipes there.
fn line() -> Result<(UnixStream, OwnedFd), Failure> {
    let step = "make the Guest's lines";
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).step(step)?;
    let ours = std::os::unix::net::UnixStream::from(ours);
    ours.set_nonblocking(true).step(step)?;
    Ok((UnixStream::from_std(ours).step(step)?, theirs))
}

/// Gives the calling thread a network, mounts and a working directory of its own.
fn own_namespaces(runtime: Runtime) -> Result<(), Failure> {
    let flags = CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    unshare(flags).step("make the sandbox's namespaces")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).step("make the mounts private")?;
    if runtime == Runtime::Crun && Path::new(UNIFIED).is_dir() {
        // It gives up when both versions have controllers, also when told to leave them alone.
        umount2(UNIFIED, MntFlags::MNT_DETACH).step("hide one of two versions of cgroups")?;
    }
    Ok(())
}

fn spawn(
    runtime: Runtime,
    program: &Path,
    remains: &Remains,
    doors: Vec<OwnedFd>,
    [input, output, complaints]: [OwnedFd; 3],
) -> Result<Child, Failure> {
    let mut command = Command::new(program);
    command
        .args(runtime.run(remains.dir(), remains.name()))
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(complaints))
        .kill_on_drop(true);
    let enter = move || {
        // Away from the terminal's signals: the host process decides when a sandbox ends.
        nix::unistd::setsid()?;
        doors.iter().try_for_each(|door| {
            // 0 is whoever writes.
            let written = nix::unistd::write(door, b"0")?;
            (written == 1)
                .then_some(())
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))
        })
    };
    // SAFETY: between fork and exec it makes system calls on descriptors that are open and
    // allocates nothing.
    unsafe { command.pre_exec(enter) };
    command.spawn().step(format!("start {}", program.display()))
}
