//! What stays when a sandbox is gone.

use std::{collections::BTreeSet, path::Path, time::Duration};

use stockade_ports::{ExecRequest, sandbox::Kernel};

use super::Case;
use crate::{
    field::Field,
    host,
    inside::{Call, Inside},
    judge::{Excuse, Sighting, Trial},
    report::Group::Leftovers,
};

/// Longest anything may stay behind a sandbox.
const SOON: Duration = Duration::from_secs(5);

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-PR-07",
        group: Leftovers,
        tried: "fork twice, leave the session, ignore every signal; then the sandbox is destroyed",
        expected: "no process of it is left on the host, and none of its namespaces",
        run: |field, target| Box::pin(daemons(field, target)),
    },
    Case {
        id: "A-LO-01",
        group: Leftovers,
        tried: "destroy a sandbox and look for its files, control groups, mounts and processes by its name",
        expected: "none is left",
        run: |field, target| Box::pin(traces(field, target, End::Destroy)),
    },
    Case {
        id: "A-LO-02",
        group: Leftovers,
        tried: "let go of a sandbox without a word and look for the same",
        expected: "none is left",
        run: |field, target| Box::pin(traces(field, target, End::Drop)),
    },
    Case {
        id: "A-LO-03",
        group: Leftovers,
        tried: "use a sandbox that is destroyed: run, read and write in it",
        expected: "refused",
        run: |field, target| Box::pin(ghosts(field, target)),
    },
];

#[derive(Clone, Copy)]
enum End {
    Destroy,
    Drop,
}

async fn own_sandbox(field: &Field) -> Result<Inside, Trial> {
    let limits = field.parts.spec.environment.limits;
    field.sandbox(limits).await.map_err(|error| Trial {
        not_tried: Some(error.to_string()),
        ..Trial::default()
    })
}

async fn daemons(field: &Field, _: &Inside) -> Trial {
    let own = match own_sandbox(field).await {
        Ok(own) => own,
        Err(trial) => return trial,
    };
    let token = format!("daemon-{}", field.token());
    let stays = Call::new("stay").with("parent", "stays").with("token", &token);
    let leaves = Call::new("stay").with("token", &token);
    let mut trial = Trial::default();
    let first = own.start(&stays).await;
    let second = own.run(&leaves).await;
    trial.not_tried = first
        .as_ref()
        .err()
        .map(ToString::to_string)
        .or(second.complete().err());
    let seen = host::eventually(field.showing(), || !host::processes_with(&token).is_empty()).await;
    let pids = host::processes_with(&token);
    let mine = host::namespaces(&[std::process::id().cast_signed()]);
    let namespaces: BTreeSet<String> = host::namespaces(&pids).difference(&mine).cloned().collect();
    let shown = format!(
        "{} processes in {} namespaces of their own",
        pids.len(),
        namespaces.len()
    );
    own.end().await;
    let gone = host::eventually(SOON, || host::processes_with(&token).is_empty()).await;
    let left = host::processes_with(&token).len();
    trial
        .host
        .push(Sighting::new("processes afterwards", "0", left.to_string(), gone));
    let _ = host::eventually(SOON, || host::still_used(&namespaces).is_empty()).await;
    let used = host::still_used(&namespaces);
    trial.host.push(Sighting::new(
        "its namespaces afterwards",
        "unused",
        used.join(", "),
        used.is_empty(),
    ));
    if !seen && field.parts.sandbox.capabilities().kernel == Kernel::Own {
        trial.excuse = Some(Excuse::OwnKernel);
    }
    trial
        .control_host
        .push(Sighting::new("the host while it lives", "sees them", shown, seen));
    trial
}

/// Everything on the host whose name holds a run's.
fn named_after(run: &str, state_dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let files = host::below(state_dir, 3, run);
    found.extend(files.iter().map(|path| path.display().to_string()));
    let files = host::below(Path::new("/run"), 4, run);
    found.extend(files.iter().map(|path| path.display().to_string()));
    found.extend(host::cgroups_with(run).iter().map(|path| path.display().to_string()));
    found.extend(host::mounts_with(run));
    found.extend(host::processes_with(run).iter().map(|pid| format!("process {pid}")));
    found
}

async fn traces(field: &Field, _: &Inside, end: End) -> Trial {
    let own = match own_sandbox(field).await {
        Ok(own) => own,
        Err(trial) => return trial,
    };
    let mut trial = Trial::default();
    let work = own
        .run(
            &Call::new("drop")
                .with("token", "file")
                .each("dir", ["/tmp", "/workspace"]),
        )
        .await;
    trial.not_tried = work.complete().err();
    let run = own.run.to_string();
    let state = field.parts.state_dir.clone();
    let alive = named_after(&run, &state);
    let seen = format!("{} things", alive.len());
    trial.control_host.push(Sighting::new(
        "the host while it lives",
        "1 thing or more",
        seen,
        !alive.is_empty(),
    ));
    match end {
        End::Destroy => own.end().await,
        End::Drop => drop(own),
    }
    let gone = host::eventually(SOON, || named_after(&run, &state).is_empty()).await;
    let left = named_after(&run, &state);
    let seen = if left.is_empty() {
        "nothing".to_owned()
    } else {
        left.join(", ")
    };
    trial
        .host
        .push(Sighting::new("afterwards", "nothing", seen, gone && left.is_empty()));
    trial
}

async fn ghosts(field: &Field, _: &Inside) -> Trial {
    let own = match own_sandbox(field).await {
        Ok(own) => own,
        Err(trial) => return trial,
    };
    let mut trial = Trial::default();
    let well = own.is_healthy().await;
    trial
        .control_host
        .push(Sighting::new("the sandbox before", "works", well.to_string(), well));
    own.end().await;
    let request = ExecRequest {
        argv: vec!["true".to_owned()],
        ..ExecRequest::default()
    };
    let started = match own.handle.exec(request).await {
        Ok(process) => crate::inside::finish(process, SOON).await.exit,
        Err(_) => None,
    };
    let ran = matches!(started, Some(stockade_ports::Exit::Code(_)));
    trial
        .host
        .push(Sighting::new("a command", "refused", format!("{started:?}"), !ran));
    let read = own.handle.read_file("/etc/passwd", 1 << 20).await;
    trial
        .host
        .push(Sighting::new("a file read", "refused", word(&read), read.is_err()));
    let content = bytes::Bytes::from_static(b"x");
    let wrote = own.handle.write_file("/workspace/x", content, 0o644).await;
    trial
        .host
        .push(Sighting::new("a file written", "refused", word(&wrote), wrote.is_err()));
    trial
}

fn word<T>(result: &Result<T, stockade_ports::SandboxError>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => error.to_string(),
    }
}
