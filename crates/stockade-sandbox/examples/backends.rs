//! Times a sandbox of another backend than the native one, from the request until `/bin/true` in it
//! has ended: created, proved, used; destruction apart.
//!
//! `cargo run --release -p stockade-sandbox --example backends -- BACKEND COUNT [SOCKET]`
//!
//! `BACKEND` is `runc`, `crun`, `runsc` or `docker`, which wants its daemon's socket. Prints one
//! JSON object for `cargo xtask bench sandbox` (xtask/README.md), which alternates with the peer.
//! The first sandbox, which also prepares the host, is not counted.
#![allow(clippy::print_stdout)]

use std::{path::PathBuf, sync::Arc, time::Instant};

use serde_json::json;
use stockade_domain::RunId;
use stockade_ports::{
    sandbox::{ExecRequest, Exit, Output, ProbePlan, Sandbox, SandboxSpec, prove},
    sim::ClosedDoor,
};
use stockade_sandbox::{DockerConfig, DockerSandbox, OciConfig, OciSandbox, Runtime, original_destination};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let usage = "BACKEND COUNT [SOCKET]";
    let backend = args.next().ok_or(usage)?;
    let count: usize = args.next().ok_or(usage)?.parse()?;
    let state = tempfile::tempdir()?;
    let state_dir = state.path().to_owned();
    let oci = |runtime| -> Arc<dyn Sandbox> {
        Arc::new(OciSandbox::new(OciConfig {
            runtime,
            program: PathBuf::from(&backend),
            state_dir: state_dir.clone(),
        }))
    };
    let sandbox = match backend.as_str() {
        "runc" => oci(Runtime::Runc),
        "crun" => oci(Runtime::Crun),
        "runsc" => oci(Runtime::Runsc),
        "docker" => Arc::new(DockerSandbox::new(DockerConfig {
            socket: args.next().ok_or(usage)?.into(),
            state_dir: state_dir.clone(),
        })),
        other => return Err(format!("{other} is no backend; {usage}").into()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let times = runtime.block_on(runtime.spawn(async move {
        let (mut used, mut destroyed) = (Vec::new(), Vec::new());
        for turn in 0..=count {
            let (first, last) = one(&*sandbox).await?;
            if turn > 0 {
                used.push(first);
                destroyed.push(last);
            }
        }
        Ok::<_, Failure>((used, destroyed))
    }))?;
    let (used, destroyed) = times?;
    println!(
        "{}",
        json!({"samples": {"create_and_true": used, "destroy": destroyed}})
    );
    Ok(())
}

async fn one(sandbox: &dyn Sandbox) -> Result<(f64, f64), Failure> {
    let begun = Instant::now();
    let spec = SandboxSpec::plain(RunId::from_uuid(uuid::Uuid::from_u128(1)));
    let mut fresh = sandbox.create(spec).await?;
    let door = ClosedDoor::serve(fresh.take_boundary().ok_or("no boundary")?, original_destination);
    let (handle, _) = prove(fresh, &ProbePlan::standard(None), &door).await?;
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
    let used = begun.elapsed();
    let begun = Instant::now();
    handle.destroy().await?;
    Ok((used.as_secs_f64() * 1e3, begun.elapsed().as_secs_f64() * 1e3))
}
