//! Times a native sandbox from the request to the first byte of a program inside, beside
//! `bwrap --unshare-all` doing as much as it can of the same.
//!
//! `cargo run --release -p stockade-sandbox --example cold_start -- [--json] LAUNCHER [RUNS]`
//!
//! With `--json` it measures only our side and prints it for `cargo xtask bench sandbox`, which alternates.
#![allow(clippy::print_stdout)]

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use stockade_domain::{RunId, SandboxLimits};
use stockade_ports::sandbox::{ExecRequest, Output, Sandbox, SandboxSpec};
use stockade_sandbox::{NativeConfig, NativeSandbox};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args_os().skip(1).peekable();
    let json = args.next_if(|arg| arg == "--json").is_some();
    let launcher = args.next().ok_or("name the launcher binary")?;
    let runs = args.next().map_or(Ok(30), |n| n.to_string_lossy().parse())?;
    let state = tempfile::tempdir()?;
    let sandbox = NativeSandbox::new(NativeConfig {
        launcher: vec![launcher],
        state_dir: state.path().to_owned(),
        copy_workspace: false,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let facts = runtime.block_on(sandbox.check())?;
    let about = format!(
        "mode {}, limits {:?}, notes {:?}",
        facts.mode, facts.enforced_limits, facts.notes
    );
    if !json {
        println!("{about}");
    }
    let mut ours = Vec::new();
    let mut ready = Vec::new();
    let mut ends = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..runs {
        let [start, whole, end] = runtime.block_on(one(&sandbox))?;
        ready.push(start);
        ours.push(whole);
        ends.push(end);
        if json {
            continue;
        }
        let begun = Instant::now();
        let mut bwrap = Command::new("bwrap");
        bwrap.args(["--unshare-all", "--ro-bind", "/", "/", "/bin/true"]);
        if bwrap.stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
            theirs.push(begun.elapsed());
        }
    }
    if json {
        let ms = |times: &[Duration]| times.iter().map(|time| time.as_secs_f64() * 1e3).collect::<Vec<_>>();
        let samples = serde_json::json!({"create": ms(&ready), "create_and_true": ms(&ours), "destroy": ms(&ends)});
        println!("{}", serde_json::json!({"samples": samples, "notes": [about]}));
        return Ok(());
    }
    report("create (Guest answers)", &mut ready);
    report("create + /bin/true ended", &mut ours);
    report("destroy", &mut ends);
    report("bwrap --unshare-all /bin/true", &mut theirs);
    Ok(())
}

async fn one(sandbox: &NativeSandbox) -> Result<[Duration; 3], Failure> {
    let begun = Instant::now();
    let handle = sandbox
        .create(SandboxSpec {
            run: RunId::from_uuid(uuid::Uuid::from_u128(1)),
            image: "host".to_owned(),
            limits: SandboxLimits::default(),
            workspace: None,
            base_git: None,
            agents_dir: None,
        })
        .await?;
    let ready = begun.elapsed();
    let request = ExecRequest {
        argv: vec!["/bin/true".to_owned()],
        ..ExecRequest::default()
    };
    let mut process = handle.exec(request).await?;
    while let Some(output) = process.output.recv().await {
        if let Output::Exited(exit) = output
            && exit != stockade_ports::sandbox::Exit::Code(0)
        {
            return Err(format!("/bin/true: {exit:?}").into());
        }
    }
    let whole = begun.elapsed();
    let begun = Instant::now();
    handle.destroy().await?;
    Ok([ready, whole, begun.elapsed()])
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let index = ((times.len() as f64 - 1.0) * part) as usize;
        times.get(index).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    println!(
        "{name:32} n={} min {:.2} ms, median {:.2} ms, p90 {:.2} ms, max {:.2} ms",
        times.len(),
        at(0.0),
        at(0.5),
        at(0.9),
        at(1.0)
    );
}
