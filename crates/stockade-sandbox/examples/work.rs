//! Times the same work inside a native sandbox and outside: `git clone`, a parallel build of a C program, its test.
//!
//! `cargo run --release -p stockade-sandbox --example work -- LAUNCHER ROUNDS`
//!
//! Both sides work on a file system in memory, as the sandbox's own is, and take turns. Prints one
//! JSON object for `cargo xtask bench sandbox` (xtask/README.md).
#![allow(clippy::print_stdout)]

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use stockade_domain::{RunId, SandboxLimits};
use stockade_ports::{
    sandbox::{ExecRequest, Exit, Output, ProbePlan, Sandbox, SandboxHandle, SandboxSpec, prove},
    sim::ClosedDoor,
};
use stockade_sandbox::{NativeConfig, NativeSandbox, original_destination};

type Failure = Box<dyn std::error::Error>;

/// Source files of the program that is built.
const FILES: usize = 12;
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

fn main() -> Result<(), Failure> {
    let mut args = std::env::args_os().skip(1);
    let launcher = args.next().ok_or("LAUNCHER ROUNDS")?;
    let rounds: usize = args.next().ok_or("LAUNCHER ROUNDS")?.to_string_lossy().parse()?;
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let origin = memory.path().join("origin");
    make_repository(&origin)?;
    let sandbox = NativeSandbox::new(NativeConfig {
        launcher: vec![launcher],
        state_dir: memory.path().join("state"),
        copy_workspace: false,
        warm: 0,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let handle = runtime.block_on(start(&sandbox, &origin))?;
    let outside_dir = memory.path().join("outside");
    fs::create_dir(&outside_dir)?;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    // The first of each fills caches and does not count.
    for round in 0..=rounds {
        let begun = Instant::now();
        runtime.block_on(work_inside(&*handle))?;
        let took_inside = begun.elapsed();
        let begun = Instant::now();
        work_outside(&outside_dir, &origin)?;
        let took_outside = begun.elapsed();
        if round > 0 {
            inside.push(took_inside);
            outside.push(took_outside);
        }
    }
    runtime.block_on(handle.destroy())?;
    let ms = |times: &[Duration]| times.iter().map(|time| time.as_secs_f64() * 1e3).collect::<Vec<_>>();
    println!(
        "{}",
        serde_json::json!({"samples": {"inside": ms(&inside), "outside": ms(&outside)}})
    );
    Ok(())
}

fn make_repository(at: &Path) -> Result<(), Failure> {
    fs::create_dir(at)?;
    let mut header = String::new();
    let mut calls = String::new();
    for number in 0..FILES {
        let body: String = (0..60)
            .map(|part| {
                format!(
                    "static unsigned step{part}(unsigned x) {{ for (unsigned i = 0; i < {}; i++) x = x * 1664525u + i; return x; }}\n",
                    500 + part
                )
            })
            .collect();
        let sum: String = (0..60).map(|part| format!(" x = step{part}(x);")).collect();
        let source = format!("{body}unsigned part{number}(unsigned x) {{{sum} return x; }}\n");
        fs::write(at.join(format!("part{number}.c")), source)?;
        header += &format!("unsigned part{number}(unsigned);\n");
        calls += &format!(" x = part{number}(x);");
    }
    fs::write(at.join("parts.h"), header)?;
    let main = format!(
        "#include \"parts.h\"\n#include <stdio.h>\nint main(void) {{ unsigned x = 1; for (int i = 0; i < 20; i++) {{{calls} }} \
         printf(\"%u\\n\", x); return 0; }}\n"
    );
    fs::write(at.join("main.c"), main)?;
    let makefile = "OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\nCFLAGS := -O2\nprogram: $(OBJECTS)\n\t$(CC) -o $@ $^\n\
                    test: program\n\tfor i in 1 2 3 4 5 6 7 8; do ./program > result$$i; cmp result1 result$$i || exit 1; done\n";
    fs::write(at.join("Makefile"), makefile)?;
    let identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"];
    for step in [&["init", "-q"][..], &["add", "."], &["commit", "-q", "-m", "bench"]] {
        let mut git = Command::new("git");
        if !git.args(identity).args(step).current_dir(at).status()?.success() {
            return Err(format!("git {step:?} failed").into());
        }
    }
    Ok(())
}

/// The work itself, in the directory it is started in.
fn script(origin: &str) -> String {
    format!("set -e; rm -rf w; git clone -q {origin} w; cd w; make -s -j2 program; make -s test; cd ..; rm -rf w")
}

async fn start(sandbox: &NativeSandbox, origin: &Path) -> Result<std::sync::Arc<dyn SandboxHandle>, Failure> {
    let spec = SandboxSpec {
        workspace: Some(origin.to_owned()),
        limits: SandboxLimits {
            // As much as there is: what is measured is the tax, not a limit.
            cpu_millis: 1000 * u64::try_from(std::thread::available_parallelism()?.get())?,
            ..SandboxLimits::default()
        },
        ..SandboxSpec::plain(RunId::from_uuid(uuid::Uuid::from_u128(1)))
    };
    let mut fresh = sandbox.create(spec).await?;
    let door = ClosedDoor::serve(fresh.take_boundary().ok_or("no boundary")?, original_destination);
    let (handle, _) = prove(fresh, &ProbePlan::standard(None), &door).await?;
    Ok(handle)
}

async fn work_inside(handle: &dyn SandboxHandle) -> Result<(), Failure> {
    let request = ExecRequest {
        argv: ["sh", "-c", &script("/workspace")].map(str::to_owned).to_vec(),
        env: [("PATH".to_owned(), PATH.to_owned())].into(),
        cwd: Some("/tmp".to_owned()),
        ..ExecRequest::default()
    };
    let mut process = handle.exec(request).await?;
    let mut said = String::new();
    while let Some(output) = process.output.recv().await {
        match output {
            Output::Exited(Exit::Code(0)) => return Ok(()),
            Output::Exited(how) => return Err(format!("the work inside ended with {how:?}: {said}").into()),
            Output::Stdout(bytes) | Output::Stderr(bytes) => said += &String::from_utf8_lossy(&bytes),
        }
    }
    Err("the work inside never ended".into())
}

fn work_outside(dir: &Path, origin: &Path) -> Result<(), Failure> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script(&origin.display().to_string())])
        .current_dir(dir);
    shell
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", dir);
    // The owner of the origin may be another user for git's taste.
    shell.envs([
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
    ]);
    let output = shell.output()?;
    if !output.status.success() {
        return Err(format!("the work outside failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}
