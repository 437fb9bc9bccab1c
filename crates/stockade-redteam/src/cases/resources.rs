//! More than its share. Each attack has a sandbox of its own with tight limits; the target is
//! the neighbour, and is asked meanwhile whether it notices.

use std::time::{Duration, Instant};

use stockade_domain::SandboxLimits;
use stockade_ports::{Exit, sandbox::Kernel};

use super::{Case, trial};
use crate::{
    field::{Field, TIGHT},
    host,
    inside::{Call, Inside, finish},
    judge::{Attempt, Excuse, Sighting, Trial},
    outside,
    report::Group::Resources,
};

/// EAGAIN, ENOSPC, EDQUOT, ENOMEM, EMFILE, EFBIG: the kernel's names for limits.
const LIMITS: [i32; 6] = [11, 28, 122, 12, 24, 27];
/// Longest a neighbour may take to run a command while somebody else misbehaves.
const NEIGHBOUR: Duration = Duration::from_secs(2);

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-RX-01",
        group: Resources,
        tried: "a fork bomb: four times as many processes as allowed",
        expected: "EAGAIN at the limit; the sandbox and its neighbour work",
        run: |field, target| Box::pin(counted(field, target, "pids", Call::new("forks").with("number", 256))),
    },
    Case {
        id: "A-RX-01t",
        group: Resources,
        tried: "a thread bomb: four times as many threads as allowed",
        expected: "EAGAIN at the limit; the sandbox and its neighbour work",
        run: |field, target| Box::pin(counted(field, target, "pids", Call::new("threads").with("number", 256))),
    },
    Case {
        id: "A-RX-02",
        group: Resources,
        tried: "a memory hog: twice as much memory as allowed",
        expected: "ended by the memory limit; the neighbour works",
        run: |field, target| Box::pin(memory(field, target)),
    },
    Case {
        id: "A-RX-03",
        group: Resources,
        tried: "a busy loop on four threads",
        expected: "no more than its share of the processor",
        run: |field, target| Box::pin(processor(field, target)),
    },
    Case {
        id: "A-RX-04",
        group: Resources,
        tried: "a disk filler in the workspace, /tmp, /dev/shm, /var/tmp and the home",
        expected: "ENOSPC at the limit; the host and the neighbour work",
        run: |field, target| Box::pin(disk(field, target)),
    },
    Case {
        id: "A-RX-04i",
        group: Resources,
        tried: "as many empty files as fit in no quota",
        expected: "ENOSPC at the limit",
        run: |field, target| {
            let call = Call::new("inodes").with("number", 8000);
            Box::pin(inodes(field, target, call))
        },
    },
    Case {
        id: "A-RX-10",
        group: Resources,
        tried: "a descriptor hog",
        expected: "EMFILE at the limit; an ordinary number works",
        run: |field, target| Box::pin(descriptors(field, target)),
    },
    Case {
        id: "A-RX-11",
        group: Resources,
        tried: "a log flood: sixteen times the output limit",
        expected: "ended at the limit, which is named; below it everything arrives",
        run: |field, target| Box::pin(flood(field, target)),
    },
    Case {
        id: "A-RX-12",
        group: Resources,
        tried: "a process tree that ignores SIGTERM and its time limit",
        expected: "ended as timed out; the whole tree is gone on the host",
        run: |field, target| Box::pin(stubborn(field, target)),
    },
];

/// Runs a command in the neighbour while something else goes on, and says how long it took.
async fn noticed<T>(neighbour: &Inside, doing: impl Future<Output = T>) -> (T, Sighting) {
    let answers = async {
        // In the midst of it, not before it.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let begun = Instant::now();
        (neighbour.is_healthy().await, begun.elapsed())
    };
    let (done, (well, took)) = tokio::join!(doing, answers);
    let seen = format!(
        "{} after {} ms",
        if well { "works" } else { "does not work" },
        took.as_millis()
    );
    let ok = well && took < NEIGHBOUR;
    (done, Sighting::new("the neighbour meanwhile", "works", seen, ok))
}

fn not_enforced() -> Trial {
    Trial {
        excuse: Some(Excuse::NotEnforced),
        ..Trial::default()
    }
}

fn no_sandbox(error: impl std::fmt::Display) -> Trial {
    Trial {
        not_tried: Some(error.to_string()),
        ..Trial::default()
    }
}

/// The last refusal has to be a limit's, and the sandbox has to outlive it.
async fn named(own: &Inside, trial: &mut Trial) {
    let refused: Vec<_> = trial.inside.iter().filter(|attempt| !attempt.got).collect();
    let ok = refused
        .iter()
        .all(|attempt| attempt.errno.is_some_and(|errno| LIMITS.contains(&errno)));
    let seen = refused
        .iter()
        .map(|attempt| attempt.why.clone())
        .collect::<Vec<_>>()
        .join("; ");
    trial
        .host
        .push(Sighting::new("the limit", "named by the kernel", seen, ok));
    let well = own.is_healthy().await;
    let seen = if well { "works".to_owned() } else { own.ailment().await };
    trial
        .host
        .push(Sighting::new("the sandbox afterwards", "works", seen, well));
}

async fn counted(field: &Field, target: &Inside, limit: &str, call: Call) -> Trial {
    if !field.enforces(limit) {
        return not_enforced();
    }
    let own = match field.sandbox(TIGHT).await {
        Ok(own) => own,
        Err(error) => return no_sandbox(error),
    };
    let (inside, neighbour) = noticed(target, own.run(&call)).await;
    let mut found = trial(inside, field.outside(&call).await);
    found.host.push(neighbour);
    named(&own, &mut found).await;
    own.end().await;
    found
}

async fn memory(field: &Field, target: &Inside) -> Trial {
    if !field.enforces("memory") {
        return not_enforced();
    }
    let own = match field.sandbox(TIGHT).await {
        Ok(own) => own,
        Err(error) => return no_sandbox(error),
    };
    let call = Call::new("memory").with("bytes", TIGHT.memory_bytes * 2);
    let (inside, neighbour) = noticed(target, own.run(&call)).await;
    let exit = inside.exit;
    let mut found = trial(inside, field.outside(&call).await);
    // Ended by force is how a memory limit is told; the sandbox may have gone with it.
    let killed = matches!(exit, Some(Exit::Signal(9) | Exit::Code(137) | Exit::SandboxGone));
    let refused = found
        .inside
        .iter()
        .any(|attempt| !attempt.got && attempt.errno == Some(12));
    if killed {
        found.not_tried = None;
        found.inside.push(Attempt {
            name: "memory".to_owned(),
            got: false,
            why: format!("{exit:?}"),
            errno: None,
        });
    }
    let seen = match exit {
        Some(Exit::SandboxGone) => own.ailment().await,
        other => format!("{other:?}"),
    };
    found.host.push(Sighting::new(
        "the hog",
        "ended by the memory limit",
        seen,
        killed || refused,
    ));
    found.host.push(neighbour);
    own.end().await;
    found
}

async fn processor(field: &Field, target: &Inside) -> Trial {
    if !field.enforces("cpu") {
        return not_enforced();
    }
    let limits = SandboxLimits {
        cpu_millis: 100,
        ..TIGHT
    };
    let own = match field.sandbox(limits).await {
        Ok(own) => own,
        Err(error) => return no_sandbox(error),
    };
    let call = Call::new("spin")
        .with("number", 4)
        .with("ms", 600)
        .with("over", limits.cpu_millis * 2);
    let (inside, neighbour) = noticed(target, own.run(&call)).await;
    let mut control = field.outside(&call).await;
    // On a busy host the control gets little as well; it is asked again.
    for _ in 0..4 {
        if control.attempts.iter().any(|attempt| attempt.got) {
            break;
        }
        control = field.outside(&call).await;
    }
    let work = |told: &crate::told::Told| told.counts.get("rounds").copied().unwrap_or(0);
    let (done, free) = (work(&inside), work(&control));
    let mut found = trial(inside, control);
    if field.parts.sandbox.capabilities().kernel == Kernel::Own {
        // A kernel of its own counts processor time by its own clock; work is work.
        for attempt in &mut found.inside {
            attempt.got = done.saturating_mul(2) > free;
            attempt.why = format!("{done} rounds of work, {free} outside");
        }
    }
    found.host.push(neighbour);
    own.end().await;
    found
}

async fn disk(field: &Field, target: &Inside) -> Trial {
    if !field.enforces("disk") {
        return not_enforced();
    }
    let own = match field.sandbox(TIGHT).await {
        Ok(own) => own,
        Err(error) => return no_sandbox(error),
    };
    let bytes = TIGHT.disk_bytes * 4;
    let call = Call::new("fill").with("bytes", bytes);
    let places = ["/workspace", "/tmp", "/dev/shm", "/var/tmp", "/home/agent"];
    let everywhere = call.clone().each("dir", places);
    let (inside, neighbour) = noticed(target, own.run(&everywhere)).await;
    let control = call.with("dir", field.plants.quick().display());
    let mut found = trial(inside, field.outside(&control).await);
    found.host.push(neighbour);
    named(&own, &mut found).await;
    own.end().await;
    found
}

async fn inodes(field: &Field, target: &Inside, call: Call) -> Trial {
    if !field.enforces("disk") {
        return not_enforced();
    }
    let own = match field.sandbox(TIGHT).await {
        Ok(own) => own,
        Err(error) => return no_sandbox(error),
    };
    let inside = call.clone().with("dir", "/tmp");
    let (inside, neighbour) = noticed(target, own.run(&inside)).await;
    let control = call.with("dir", field.plants.quick().display());
    let mut found = trial(inside, field.outside(&control).await);
    found.host.push(neighbour);
    named(&own, &mut found).await;
    own.end().await;
    found
}

async fn descriptors(field: &Field, target: &Inside) -> Trial {
    let own = match field.sandbox(TIGHT).await {
        Ok(own) => own,
        Err(error) => return no_sandbox(error),
    };
    let call = Call::new("hog").with("number", 70_000);
    let (inside, neighbour) = noticed(target, own.run(&call)).await;
    let twin = own.run(&Call::new("hog").with("number", 500)).await;
    let mut found = trial(inside, twin);
    found.host.push(neighbour);
    named(&own, &mut found).await;
    own.end().await;
    found
}

async fn flood(field: &Field, target: &Inside) -> Trial {
    let own = match field.sandbox(TIGHT).await {
        Ok(own) => own,
        Err(error) => return no_sandbox(error),
    };
    let mut call = Call::new("flood").with("bytes", 16 << 20);
    call.max_output = 1 << 20;
    let (inside, neighbour) = noticed(target, own.run(&call)).await;
    let (exit, bytes) = (inside.exit, inside.bytes);
    call.max_output = 32 << 20;
    let mut found = trial(inside, own.run(&call).await);
    found.not_tried = None;
    let ok = exit == Some(Exit::OutputLimit) && bytes <= 1 << 20;
    let seen = format!("{exit:?} after {bytes} bytes");
    found
        .host
        .push(Sighting::new("the flood", "OutputLimit within 1048576 bytes", seen, ok));
    found.host.push(neighbour);
    own.end().await;
    found
}

async fn stubborn(field: &Field, target: &Inside) -> Trial {
    let (own_token, control_token) = (format!("stay-{}", field.token()), format!("rest-{}", field.token()));
    let mut call = Call::new("stay").with("parent", "stays").with("token", &own_token);
    call.timeout = Duration::from_millis(700);
    let mut found = Trial::default();
    match target.start(&call).await {
        Ok(process) => {
            let seen = host::eventually(Duration::from_millis(500), || {
                !host::processes_with(&own_token).is_empty()
            })
            .await;
            let told = finish(process, Duration::from_secs(10)).await;
            let ok = told.exit == Some(Exit::TimedOut);
            let shown = format!("{:?}", told.exit);
            found.host.push(Sighting::new("the command", "TimedOut", shown, ok));
            let gone = host::eventually(Duration::from_secs(3), || host::processes_with(&own_token).is_empty()).await;
            let word = match (seen, gone) {
                (true, true) => "seen, then gone",
                (false, true) => "never seen from the host",
                (_, false) => "still there",
            };
            found
                .host
                .push(Sighting::new("its tree on the host", "gone", word, gone));
        }
        Err(error) => return no_sandbox(error),
    }
    found.control_host.push(survives(field, &control_token).await);
    found
}

/// Outside nobody ends it: it lives through SIGTERM.
async fn survives(field: &Field, token: &str) -> Sighting {
    let call = Call::new("stay").with("parent", "stays").with("token", token);
    let (attacker, dir) = (field.plants.attacker(), field.plants.outside());
    let child = outside::start(&attacker, &dir, &call, ("STOCKADE_REDTEAM", "1")).await;
    let pids = host::processes_with(token);
    let signal = |pids: &[i32], number: i32| Call::new("signal").each("pid", pids).with("number", number);
    field.outside(&signal(&pids, 15)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let left = host::processes_with(token);
    let after = left.len();
    field.outside(&signal(&left, 9)).await;
    drop(child);
    let gone = host::eventually(Duration::from_secs(3), || host::processes_with(token).is_empty()).await;
    let seen = format!(
        "{} started, {after} after SIGTERM, gone after SIGKILL: {gone}",
        pids.len()
    );
    Sighting::new(
        "the same tree outside",
        "2 live through SIGTERM",
        seen,
        pids.len() >= 2 && after >= 2 && gone,
    )
}
