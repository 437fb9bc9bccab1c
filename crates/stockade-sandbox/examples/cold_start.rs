//! Times a native sandbox from the request to the first byte of a program inside, beside
//! `bwrap --unshare-all` doing as much as it can of the same, and beside the floor: a clone
//! into the same namespaces, the few mounts without which no program starts, and the exec.
//!
//! `cargo run --release -p stockade-sandbox --example cold_start -- [--json] LAUNCHER [RUNS]`
//!
//! With `--json` it measures only our side and the floor, and prints them for
//! `cargo xtask bench sandbox`, which alternates.
#![allow(clippy::print_stdout, unsafe_code)]

use std::{
    ffi::CStr,
    process::{Command, Stdio},
    ptr::null,
    sync::Arc,
    time::{Duration, Instant},
};

use stockade_domain::RunId;
use stockade_ports::{
    sandbox::{ExecRequest, Exit, Output, ProbePlan, Sandbox, SandboxSpec, prove},
    sim::ClosedDoor,
};
use stockade_sandbox::{NativeConfig, NativeSandbox, original_destination};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is timed of one sandbox: until its Guest answers, until it is proved, until `/bin/true` in
/// it has ended, and how long its destruction takes.
const NAMES: [&str; 5] = ["create", "prove", "create_and_true", "destroy", "floor"];

fn main() -> Result<(), Failure> {
    let mut args = std::env::args_os().skip(1).peekable();
    let json = args.next_if(|arg| arg == "--json").is_some();
    let launcher = args.next().ok_or("name the launcher binary")?;
    let runs = args.next().map_or(Ok(30), |n| n.to_string_lossy().parse())?;
    let state = tempfile::tempdir()?;
    let sandbox = Arc::new(NativeSandbox::new(NativeConfig {
        launcher: vec![launcher],
        state_dir: state.path().to_owned(),
        copy_workspace: false,
        warm: 0,
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let facts = runtime.block_on(sandbox.check())?;
    let about = format!("mode {}, limits {}", facts.mode, facts.enforced_limits.join(" "));
    let mut samples: [Vec<Duration>; 5] = Default::default();
    let mut theirs = Vec::new();
    for _ in 0..runs {
        // As a task, which is how a run has its sandbox: what the caller of `block_on` waits for
        // crosses threads at every step.
        let sandbox = Arc::clone(&sandbox);
        let times = runtime.block_on(runtime.spawn(async move { one(&sandbox).await }))??;
        for (all, time) in samples.iter_mut().zip(times) {
            all.push(time);
        }
        samples[4].push(floor()?);
        if json {
            continue;
        }
        let begun = Instant::now();
        let mut bwrap = Command::new("bwrap");
        bwrap.args([
            "--unshare-all",
            "--ro-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "/bin/true",
        ]);
        if bwrap.stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
            theirs.push(begun.elapsed());
        }
    }
    if json {
        let ms = |times: &[Duration]| times.iter().map(|time| time.as_secs_f64() * 1e3).collect::<Vec<_>>();
        let named = NAMES
            .iter()
            .zip(&samples)
            .map(|(name, times)| ((*name).to_owned(), ms(times).into()));
        let named: serde_json::Map<String, serde_json::Value> = named.collect();
        println!("{}", serde_json::json!({"samples": named, "notes": [about]}));
        return Ok(());
    }
    println!("{about}");
    for (name, times) in NAMES.iter().zip(&mut samples) {
        report(name, times);
    }
    report("bwrap --unshare-all /bin/true", &mut theirs);
    Ok(())
}

async fn one(sandbox: &NativeSandbox) -> Result<[Duration; 4], Failure> {
    let begun = Instant::now();
    let spec = SandboxSpec::plain(RunId::from_uuid(uuid::Uuid::from_u128(1)));
    let mut fresh = sandbox.create(spec).await?;
    let created = begun.elapsed();
    let door = ClosedDoor::serve(fresh.take_boundary().ok_or("no boundary")?, original_destination);
    let (handle, _) = prove(fresh, &ProbePlan::standard(None), &door).await?;
    let proved = begun.elapsed();
    let request = ExecRequest {
        argv: vec!["/bin/true".to_owned()],
        ..ExecRequest::default()
    };
    let mut process = handle.exec(request).await?;
    while let Some(output) = process.output.recv().await {
        if let Output::Exited(exit) = output
            && exit != Exit::Code(0)
        {
            return Err(format!("/bin/true: {exit:?}").into());
        }
    }
    let whole = begun.elapsed();
    let begun = Instant::now();
    handle.destroy().await?;
    Ok([created, proved - created, whole, begun.elapsed()])
}

/// A process in namespaces like a sandbox's, on the host's files, that becomes `/bin/true`.
fn floor() -> Result<Duration, Failure> {
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let begun = Instant::now();
    // SAFETY: without CLONE_VM and a stack this is fork(2); the child makes only system calls on
    // static text.
    let pid = unsafe {
        let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
        match libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) {
            0 => become_true(),
            pid => i32::try_from(pid)?,
        }
    };
    let mut status = 0;
    // SAFETY: waits for the child made above.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if waited != pid || status != 0 {
        return Err(format!("the floor could not be measured: status {status}").into());
    }
    Ok(begun.elapsed())
}

/// # Safety
///
/// For the child of a fork only: it never returns.
unsafe fn become_true() -> ! {
    let none = null::<libc::c_char>();
    let mount = |from: *const libc::c_char, to: &CStr, kind: *const libc::c_char, flags| {
        // SAFETY: all texts are NUL-terminated and static, or null where the kernel takes null.
        if unsafe { libc::mount(from, to.as_ptr(), kind, flags, null()) } < 0 {
            // SAFETY: ends the child.
            unsafe { libc::_exit(2) };
        }
    };
    mount(none, c"/", none, libc::MS_REC | libc::MS_PRIVATE);
    mount(c"tmpfs".as_ptr(), c"/tmp", c"tmpfs".as_ptr(), libc::MS_NOSUID);
    mount(c"/".as_ptr(), c"/mnt", none, libc::MS_BIND | libc::MS_REC);
    mount(c"proc".as_ptr(), c"/mnt/proc", c"proc".as_ptr(), libc::MS_NOSUID);
    let argv = [c"true".as_ptr(), null()];
    // SAFETY: as above; the arrays end with null.
    unsafe {
        if libc::chdir(c"/mnt".as_ptr()) < 0
            || libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) < 0
            || libc::umount2(c".".as_ptr(), libc::MNT_DETACH) < 0
        {
            libc::_exit(3);
        }
        libc::execve(c"/bin/true".as_ptr(), argv.as_ptr(), [null()].as_ptr());
        libc::_exit(4)
    }
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    println!(
        "{name:32} n={} min {:.2} ms, median {:.2} ms, p90 {:.2} ms, max {:.2} ms",
        times.len(),
        at(0),
        at(50),
        at(90),
        at(100)
    );
}
