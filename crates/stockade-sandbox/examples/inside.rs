//! Runs one command in a fresh native sandbox whose boundary nobody serves.
//!
//! `cargo run -p stockade-sandbox --example inside -- LAUNCHER WORKSPACE|- AGENTS|- COMMAND…`
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{io::Write, path::PathBuf, time::Duration};

use stockade_domain::RunId;
use stockade_ports::{
    sandbox::{ExecRequest, Exit, Output, ProbePlan, Sandbox, SandboxSpec, prove},
    sim::ClosedDoor,
};
use stockade_sandbox::{NativeConfig, NativeSandbox, original_destination};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let mut next = || {
        args.next()
            .ok_or("usage: inside LAUNCHER WORKSPACE|- AGENTS|- COMMAND…")
    };
    let launcher = next()?;
    let directory = |text: String| (text != "-").then(|| PathBuf::from(text));
    let (workspace, agents_dir) = (directory(next()?), directory(next()?));
    let state = tempfile::tempdir()?;
    let sandbox = NativeSandbox::new(NativeConfig {
        launcher: vec![launcher.into()],
        state_dir: state.path().to_owned(),
        copy_workspace: false,
        warm: 0,
    });
    let mut fresh = sandbox
        .create(SandboxSpec {
            workspace,
            agents_dir,
            ..SandboxSpec::plain(RunId::from_uuid(uuid::Uuid::new_v4()))
        })
        .await?;
    let door = ClosedDoor::serve(fresh.take_boundary().ok_or("no boundary")?, original_destination);
    let (handle, _) = prove(fresh, &ProbePlan::standard(None), &door).await?;
    eprintln!("{:?}", handle.evidence());
    let request = ExecRequest {
        argv: args.collect(),
        timeout: Some(Duration::from_secs(60)),
        ..ExecRequest::default()
    };
    let mut process = handle.exec(request).await?;
    let mut code = 0;
    while let Some(output) = process.output.recv().await {
        match output {
            Output::Stdout(bytes) => std::io::stdout().write_all(&bytes)?,
            Output::Stderr(bytes) => std::io::stderr().write_all(&bytes)?,
            Output::Exited(Exit::Code(exit)) => code = exit,
            Output::Exited(exit) => {
                eprintln!("{exit:?}");
                code = 1;
            }
        }
    }
    handle.destroy().await?;
    drop((handle, sandbox, state));
    std::process::exit(code)
}
