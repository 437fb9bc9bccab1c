//! Many native sandboxes: claims from the warm pool, a burst, a steady rate, and idle ones.
//!
//! `cargo run --release -p stockade-sandbox --example load -- MODE LAUNCHER COUNT`
//!
//! | Mode | What it measures |
//! |---|---|
//! | `warm` | COUNT claims, one at a time, each from a full pool |
//! | `burst` | COUNT sandboxes asked for at once: when each ran its first program |
//! | `rate` | COUNT created, proved, used and destroyed, eight at a time |
//! | `bare` | COUNT created and destroyed, eight at a time: no probe, no program |
//! | `idle` | COUNT proved and left alone: what each costs in memory (PSS, proc(5)) |
//!
//! Prints one JSON object for `cargo xtask bench sandbox` (xtask/README.md).
#![allow(clippy::print_stdout)]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use stockade_domain::RunId;
use stockade_ports::{
    sandbox::{ExecRequest, Exit, Output, ProbePlan, Sandbox, SandboxHandle, SandboxSpec, prove},
    sim::ClosedDoor,
};
use stockade_sandbox::{NativeConfig, NativeSandbox, original_destination};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sandboxes the rate is measured with at a time.
const AT_ONCE: usize = 8;
/// Sandboxes the pool holds for the claims.
const POOL: u32 = 4;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args_os().skip(1);
    let usage = "MODE LAUNCHER COUNT";
    let mode = args.next().ok_or(usage)?;
    let launcher = args.next().ok_or(usage)?;
    let count: usize = args.next().ok_or(usage)?.to_string_lossy().parse()?;
    let state = tempfile::tempdir()?;
    let sandbox = Arc::new(NativeSandbox::new(NativeConfig {
        launcher: vec![launcher],
        state_dir: state.path().to_owned(),
        copy_workspace: false,
        warm: if mode == "warm" { POOL } else { 0 },
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(async {
        sandbox.check().await?;
        match mode.to_str() {
            Some("warm") => warm(&sandbox, count).await,
            Some("burst") => burst(&sandbox, count).await,
            Some("rate") => rate(&sandbox, count, true).await,
            Some("bare") => rate(&sandbox, count, false).await,
            Some("idle") => idle(&sandbox, count).await,
            _ => Err("an unknown mode".into()),
        }
    })?;
    println!("{figures}");
    Ok(())
}

fn spec() -> SandboxSpec {
    SandboxSpec::plain(RunId::from_uuid(uuid::Uuid::from_u128(1)))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A sandbox behind a closed door, proved.
async fn proved(sandbox: &NativeSandbox) -> Result<Arc<dyn SandboxHandle>, Failure> {
    let mut fresh = sandbox.create(spec()).await?;
    let door = ClosedDoor::serve(fresh.take_boundary().ok_or("no boundary")?, original_destination);
    let (handle, _) = prove(fresh, &ProbePlan::standard(None), &door).await?;
    Ok(handle)
}

async fn run_true(handle: &dyn SandboxHandle) -> Result<(), Failure> {
    let argv = vec!["/bin/true".to_owned()];
    let mut process = handle
        .exec(ExecRequest {
            argv,
            ..ExecRequest::default()
        })
        .await?;
    while let Some(output) = process.output.recv().await {
        match output {
            Output::Exited(Exit::Code(0)) => return Ok(()),
            Output::Exited(other) => return Err(format!("/bin/true: {other:?}").into()),
            _ => {}
        }
    }
    Err("/bin/true never ended".into())
}

async fn warm(sandbox: &NativeSandbox, count: usize) -> Result<serde_json::Value, Failure> {
    let (mut claims, mut firsts) = (Vec::new(), Vec::new());
    while claims.len() < count {
        // A claim from a pool that is being refilled would measure the refilling.
        while sandbox.warm() < POOL as usize {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let begun = Instant::now();
        let mut fresh = sandbox.create(spec()).await?;
        claims.push(ms(begun.elapsed()));
        if !fresh.evidence().warm {
            return Err("a full pool had nothing".into());
        }
        let door = ClosedDoor::serve(fresh.take_boundary().ok_or("no boundary")?, original_destination);
        let (handle, _) = prove(fresh, &ProbePlan::standard(None), &door).await?;
        run_true(&*handle).await?;
        firsts.push(ms(begun.elapsed()));
        handle.destroy().await?;
    }
    Ok(json!({"samples": {"claim": claims, "claim_and_true": firsts}}))
}

async fn burst(sandbox: &Arc<NativeSandbox>, count: usize) -> Result<serde_json::Value, Failure> {
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..count {
        let sandbox = Arc::clone(sandbox);
        tasks.push(tokio::spawn(async move {
            let handle = proved(&sandbox).await?;
            run_true(&*handle).await?;
            let done = ms(begun.elapsed());
            Ok::<_, Failure>((handle, done))
        }));
    }
    let (mut times, mut handles) = (Vec::new(), Vec::new());
    for task in tasks {
        let (handle, time) = task.await??;
        times.push(time);
        handles.push(handle);
    }
    for handle in handles {
        handle.destroy().await?;
    }
    Ok(json!({"samples": {"burst": times}}))
}

async fn rate(sandbox: &Arc<NativeSandbox>, count: usize, whole: bool) -> Result<serde_json::Value, Failure> {
    let begun = Instant::now();
    let taken = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..AT_ONCE {
        let (sandbox, taken) = (Arc::clone(sandbox), Arc::clone(&taken));
        workers.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while taken.fetch_add(1, Ordering::Relaxed) < count {
                let begun = Instant::now();
                if whole {
                    let handle = proved(&sandbox).await?;
                    run_true(&*handle).await?;
                    handle.destroy().await?;
                } else {
                    sandbox.create(spec()).await?.destroy().await?;
                }
                times.push(ms(begun.elapsed()));
            }
            Ok::<_, Failure>(times)
        }));
    }
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await??);
    }
    #[expect(clippy::cast_precision_loss)]
    let per_second = count as f64 / begun.elapsed().as_secs_f64();
    Ok(json!({"samples": {"life": times}, "rates": {"lives": per_second}}))
}

async fn idle(sandbox: &NativeSandbox, count: usize) -> Result<serde_json::Value, Failure> {
    let before = memory_used()?;
    let own = process_pss("self")?;
    let mut handles = Vec::new();
    while handles.len() < count {
        let handle = proved(sandbox).await?;
        run_true(&*handle).await?;
        handles.push(handle);
    }
    #[expect(clippy::cast_precision_loss)]
    let each = |kib: u64| kib as f64 / 1024.0 / count as f64;
    let supervisor = process_pss("self")?.saturating_sub(own);
    let (mut guests, mut launchers) = (0, 0);
    for (name, pss) in children_pss()? {
        match name.as_str() {
            "stockade-guest" => guests += pss,
            "stockade-launch" => launchers += pss,
            _ => {}
        }
    }
    let kernel = memory_used()?.saturating_sub(before);
    for handle in handles {
        handle.destroy().await?;
    }
    let samples = json!({
        "idle_pss_mib": [each(guests + launchers + supervisor)],
        "idle_guest_mib": [each(guests)],
        "idle_launcher_mib": [each(launchers)],
        "idle_supervisor_mib": [each(supervisor)],
        "idle_whole_machine_mib": [each(kernel)],
    });
    Ok(json!({"samples": samples}))
}

/// KiB the machine has given out, the kernel's own included.
fn memory_used() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let total = field("MemTotal:").ok_or("no MemTotal")?;
    Ok(total - field("MemAvailable:").ok_or("no MemAvailable")?)
}

fn process_pss(pid: &str) -> Result<u64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find(|line| line.starts_with("Pss:")).ok_or("no Pss")?;
    Ok(line.split_whitespace().nth(1).ok_or("no Pss")?.parse()?)
}

/// Name and KiB of every process below this one.
fn children_pss() -> Result<Vec<(String, u64)>, Failure> {
    let mut parents = std::collections::HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((before, after)) = stat.rsplit_once(')') else {
            continue;
        };
        let name = before.split_once('(').map_or("", |(_, name)| name).to_owned();
        let parent = after
            .split_whitespace()
            .nth(1)
            .and_then(|field| field.parse::<u32>().ok());
        parents.insert(pid, (name, parent.unwrap_or(0)));
    }
    let is_below = |mut pid: u32| {
        while let Some((_, parent)) = parents.get(&pid) {
            if *parent == std::process::id() {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let below = parents.iter().filter(|(pid, _)| is_below(**pid));
    below
        .map(|(pid, (name, _))| Ok((name.clone(), process_pss(&pid.to_string())?)))
        .collect()
}
