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
use stockade_ports::sandbox::{Exit, Reaped, Sandbox, SandboxError};
use tokio::time::timeout;

use crate::bed::{
    Bed, Mode, cases, cgroups_of, collect, descendants, eventually, processes, refused, request, run, test_command,
};

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

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("pid")
}

fn sandboxes(bed: &Bed) -> usize {
    fs::read_dir(bed.dir.join("state/sandboxes")).map_or(0, Iterator::count)
}

/// Processes, directories and cgroups of this process's sandboxes.
fn traces(bed: &Bed) -> usize {
    descendants(own_pid()).len() + sandboxes(bed) + cgroups_of(std::process::id()).len()
}

async fn destroy_leaves_nothing(bed: Bed) {
    let handle = bed.create().await;
    let process = handle
        .exec(request(&["sh", "-c", "setsid sleep 99 & sleep 99"]))
        .await
        .expect("starts");
    assert!(traces(&bed) >= 4);
    handle.destroy().await.expect("destroys");
    assert_eq!(traces(&bed), 0, "at once, not soon: {:?}", descendants(own_pid()));
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
        .filter(|p| p.name == "stockade-guest")
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
    let mode = match bed.mode {
        Mode::Root => "root",
        Mode::Rootless => "rootless",
    };
    let path = format!("leftovers::{mode}::helper_that_waits_to_be_killed");
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
    assert!(has("launcher") && has("stockade-guest") && has("sleep"), "{before:?}");
    assert_eq!(sandboxes(&bed), 1);
    assert_eq!(cgroups_of(victim.0.id()).is_empty(), bed.mode == Mode::Rootless);
    victim.0.kill().expect("kill -9");
    victim.0.wait().expect("ended");
    eventually("its processes are gone", || {
        let now = processes();
        before.iter().all(|p| now.iter().all(|n| n.pid != p.pid))
    });
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
    let launcher = before
        .iter()
        .find(|p| p.name.starts_with("launcher"))
        .expect("a launcher");
    for pid in [pid, launcher.pid] {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("stops");
    }
    for pid in [pid, launcher.pid] {
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
    let creations = (0..8).map(|_| bed.sandbox.create(bed.spec()));
    let mut handles = Vec::new();
    for created in futures_join(creations).await {
        handles.push(created.expect("creates"));
    }
    for handle in &handles {
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
