//! A sandbox ends with its run and leaves nothing, however its owner ended.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stockade_ports::sandbox::{Exit, Reaped, SandboxError};
use tokio::time::timeout;

use crate::bed::{
    Bed, HostProcess, Mode, cases, cgroups_of, collect, descendants, eventually, processes, refused, request, run,
    test_command,
};
use crate::docker_bed;

cases!(
    destroy_leaves_nothing,
    drop_leaves_nothing,
    a_cancelled_create_leaves_nothing,
    a_dead_guest_ends_the_sandbox,
    a_killed_owner_leaves_nothing,
    the_reaper_finishes_what_nobody_could,
    many_at_once,
    helper_that_waits_to_be_killed,
);

/// What `ps` calls the launcher of one sandbox, and the process that makes launchers.
const LAUNCHER: &str = "stockade-launch";
const ZYGOTE: &str = "stockade-zygote";

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("pid")
}

fn sandboxes(bed: &Bed) -> usize {
    fs::read_dir(bed.dir.join("state/sandboxes")).map_or(0, Iterator::count)
}

/// Processes of this process's sandboxes. The zygote is none: it holds no sandbox.
fn of_sandboxes() -> Vec<HostProcess> {
    let mut all = descendants(own_pid());
    all.retain(|process| process.name != ZYGOTE);
    all
}

/// Processes, directories and cgroups of this process's sandboxes.
fn traces(bed: &Bed) -> usize {
    of_sandboxes().len() + sandboxes(bed) + cgroups_of(std::process::id()).len()
}

async fn destroy_leaves_nothing(bed: Bed) {
    let handle = bed.create().await;
    let process = handle
        .exec(request(&["sh", "-c", "setsid sleep 99 & sleep 99"]))
        .await
        .expect("starts");
    assert!(traces(&bed) >= 4);
    handle.destroy().await.expect("destroys");
    assert_eq!(traces(&bed), 0, "at once, not soon: {:?}", of_sandboxes());
    handle.destroy().await.expect("again is fine");
    assert_eq!(collect(process).await.exit, Exit::SandboxGone);
    assert_eq!(handle.ended().await, "it was destroyed");
}

async fn drop_leaves_nothing(bed: Bed) {
    let handle = bed.create().await;
    assert!(traces(&bed) >= 2);
    drop(handle);
    eventually("all traces are gone", || traces(&bed) == 0);
}

async fn a_cancelled_create_leaves_nothing(bed: Bed) {
    bed.create().await.destroy().await.expect("warm");
    for microseconds in [0, 100, 500, 1000, 2000, 4000, 6000, 9000] {
        let patience = Duration::from_micros(microseconds);
        let _ = timeout(patience, bed.sandbox.create(bed.spec())).await;
    }
    eventually("all traces are gone", || traces(&bed) == 0);
}

async fn a_dead_guest_ends_the_sandbox(bed: Bed) {
    let handle = bed.create().await;
    let process = handle.exec(request(&["sleep", "99"])).await.expect("starts");
    let guest = descendants(own_pid())
        .into_iter()
        // Where the Guest is gVisor's it is a part of gVisor's kernel, the last of three to start.
        .filter(|p| p.name == "stockade-guest" || (p.name == "exe" && !bed.mode.shares_the_kernel()))
        .map(|p| p.pid)
        .min()
        .expect("a guest");
    kill(Pid::from_raw(guest), Signal::SIGKILL).expect("from outside it can be killed");
    let reason = timeout(Duration::from_secs(5), handle.ended()).await.expect("notices");
    assert!(reason.contains("SIGKILL"), "{reason}");
    assert_eq!(collect(process).await.exit, Exit::SandboxGone);
    let error = refused(handle.read_file("/etc/passwd", 1000).await);
    assert!(matches!(error, SandboxError::Gone(_)), "{error}");
    handle.destroy().await.expect("destroys");
    assert_eq!(traces(&bed), 0);
}

/// Not a case of its own: the process that the next two kill. Alone it does nothing.
async fn helper_that_waits_to_be_killed(bed: Bed) {
    if std::env::var_os("STOCKADE_TEST_VICTIM").is_none() {
        return;
    }
    let handle = bed.create().await;
    let _process = handle
        .exec(request(&["sh", "-c", "setsid sleep 99 & sleep 99"]))
        .await
        .expect("starts");
    while run(&*handle, &["pgrep", "-c", "sleep"]).await.out.trim() != "2" {}
    println!("victim is ready");
    std::future::pending::<()>().await;
}

/// Killed at the latest when the case ends, also when it fails.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn victim(bed: &Bed) -> Victim {
    let path = format!("leftovers::{}::helper_that_waits_to_be_killed", bed.mode.name());
    let mut child = test_command(&bed.dir, &path)
        .env("STOCKADE_TEST_VICTIM", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stdout.as_mut().expect("piped")).lines();
    let ready = lines
        .map_while(Result::ok)
        .any(|line| line.ends_with("victim is ready"));
    assert!(ready, "the victim has its sandbox");
    Victim(child)
}

async fn a_killed_owner_leaves_nothing(bed: Bed) {
    let mut victim = victim(&bed);
    let pid = i32::try_from(victim.0.id()).expect("pid");
    let before = descendants(pid);
    let has = |name: &str| before.iter().any(|p| p.name.starts_with(name));
    let held = !bed.mode.is_native() || (has(ZYGOTE) && has(LAUNCHER));
    // On the host gVisor's processes are its kernel's, whatever they are inside.
    let inside = !bed.mode.shares_the_kernel() || (has("stockade-guest") && has("sleep"));
    assert!(held && inside && !before.is_empty(), "{before:?}");
    assert_eq!(sandboxes(&bed), 1);
    assert_eq!(
        cgroups_of(victim.0.id()).is_empty(),
        matches!(bed.mode, Mode::Rootless | Mode::Docker)
    );
    victim.0.kill().expect("kill -9");
    victim.0.wait().expect("ended");
    eventually("its processes are gone", || {
        let now = processes();
        before.iter().all(|p| now.iter().all(|n| n.pid != p.pid))
    });
    if bed.mode == Mode::Docker {
        // The daemon removes the container although nobody asks it to; its directory, in which
        // nothing is mounted, is the reaper's.
        eventually("its container is gone", || {
            docker_bed::containers_of(victim.0.id()).is_empty()
        });
        assert_eq!(bed.sandbox.reap().await.expect("reaps"), Reaped { sandboxes: 1 });
    }
    if matches!(bed.mode, Mode::Runc | Mode::Crun | Mode::Runsc) {
        // Its mounts and its network went with its processes; the rest is the reaper's.
        assert_eq!(bed.sandbox.reap().await.expect("reaps"), Reaped { sandboxes: 1 });
    }
    // The launcher cleans up although nobody asks it to.
    eventually("its files are gone", || sandboxes(&bed) == 0);
    eventually("its cgroups are gone", || cgroups_of(victim.0.id()).is_empty());
    assert_eq!(bed.sandbox.reap().await.expect("reaps"), Reaped { sandboxes: 0 });
}

async fn the_reaper_finishes_what_nobody_could(bed: Bed) {
    let mine = bed.create().await;
    let mut victim = victim(&bed);
    let pid = i32::try_from(victim.0.id()).expect("pid");
    let before = descendants(pid);
    // Owner and launcher at once, as when a service is killed as a whole.
    let launcher = before.iter().find(|p| p.name == LAUNCHER).map(|p| p.pid);
    assert_eq!(launcher.is_some(), bed.mode.is_native(), "{before:?}");
    let holders = [Some(pid), launcher].into_iter().flatten();
    for pid in holders.clone() {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("stops");
    }
    for pid in holders {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kills");
    }
    victim.0.wait().expect("ended");
    eventually("its processes are gone", || {
        let now = processes();
        before.iter().all(|p| now.iter().all(|n| n.pid != p.pid))
    });
    assert_eq!(sandboxes(&bed), 2, "its directory is still there, beside mine");
    assert_eq!(bed.sandbox.reap().await.expect("reaps"), Reaped { sandboxes: 1 });
    assert_eq!(sandboxes(&bed), 1);
    assert!(cgroups_of(victim.0.id()).is_empty());
    assert_eq!(bed.sandbox.reap().await.expect("reaps"), Reaped { sandboxes: 0 });
    assert_eq!(run(&*mine, &["echo", "untouched"]).await.ok(), "untouched\n");
    mine.destroy().await.expect("destroys");
}

async fn many_at_once(bed: Bed) {
    let creations = (0..8).map(|_| bed.create_with_boundary(bed.spec()));
    let mut handles = Vec::new();
    for created in futures_join(creations).await {
        handles.push(created);
    }
    for (handle, _) in &handles {
        assert_eq!(run(&**handle, &["echo", "here"]).await.ok(), "here\n");
    }
    drop(handles);
    eventually("all traces are gone", || traces(&bed) == 0);
}

/// Polls all to the end, in order of completion that nobody cares about.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|context| {
        let mut done = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => done = false,
                }
            }
        }
        if done {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}
