//! More than its share. Each attack has a sandbox of its own with tight limits; the target is
//! the neighbour, and is asked meanwhile whether it notices.

use std::{thread::available_parallelism, time::Duration};

use stockade_domain::SandboxLimits;
use stockade_ports::{Exit, sandbox::Kernel};

use super::{
    Case,
    bomb::{Blast, Bomb, Control, TRIES, no_sandbox},
    trial,
};
use crate::{
    field::{Field, TIGHT},
    host,
    inside::{Call, Inside, finish},
    judge::{Attempt, Sighting, Trial},
    neighbour::beside,
    outside,
    report::Group::Resources,
    told::Told,
};

/// How long a bomb that has reached its limit goes on trying, in milliseconds: so long that the
/// neighbour can be measured meanwhile.
const HOLD: u64 = 300;
pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-RX-01",
        group: Resources,
        tried: "a fork bomb: four times as many processes as allowed",
        expected: "EAGAIN at the limit; the sandbox works; the neighbour notices nothing",
        run: |field, target| Box::pin(counted(field, target, "forks")),
    },
    Case {
        id: "A-RX-01t",
        group: Resources,
        tried: "a thread bomb: four times as many threads as allowed",
        expected: "EAGAIN at the limit; the sandbox works; the neighbour notices nothing",
        run: |field, target| Box::pin(counted(field, target, "threads")),
    },
    Case {
        id: "A-RX-01z",
        group: Resources,
        tried: "a zombie storm: four times as many dead processes nobody waits for as allowed",
        expected: "EAGAIN at the limit; the sandbox works; the neighbour notices nothing",
        run: |field, target| Box::pin(counted(field, target, "zombies")),
    },
    Case {
        id: "A-RX-02",
        group: Resources,
        tried: "a memory hog: twice as much memory as allowed",
        expected: "ended by the memory limit; the neighbour notices nothing",
        run: |field, target| Box::pin(memory(field, target)),
    },
    Case {
        id: "A-RX-02t",
        group: Resources,
        tried: "a memory hog by way of files in memory, where there is more disk than memory",
        expected: "ended by the memory limit, or ENOMEM; the neighbour notices nothing",
        run: |field, target| Box::pin(memory_files(field, target)),
    },
    Case {
        id: "A-RX-03",
        group: Resources,
        tried: "a busy loop on four threads",
        expected: "no more than its share of the processor",
        run: |field, target| Box::pin(processor(field, target)),
    },
    Case {
        id: "A-RX-03n",
        group: Resources,
        tried: "64 busy threads for each processor, to starve a neighbour",
        expected: "the neighbour notices nothing; the same outside starves it",
        run: |field, target| Box::pin(starve(field, target)),
    },
    Case {
        id: "A-RX-04",
        group: Resources,
        tried: "a disk filler in the workspace, /tmp, /dev/shm, /var/tmp and the home",
        expected: "ENOSPC at the limit; the host and the neighbour notice nothing",
        run: |field, target| Box::pin(disk(field, target)),
    },
    Case {
        id: "A-RX-04i",
        group: Resources,
        tried: "as many empty files as fit in no quota",
        expected: "ENOSPC at the limit",
        run: |field, target| Box::pin(inodes(field, target)),
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

async fn counted(field: &Field, target: &Inside, attack: &'static str) -> Trial {
    let call = Call::new(attack).with("number", TIGHT.pids * 4);
    let bomb = Bomb::new("pids", call.clone().with("hold", HOLD), call);
    bomb.contain(field, target).await
}

async fn disk(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("fill").with("bytes", TIGHT.disk_bytes * 4);
    let places = ["/workspace", "/tmp", "/dev/shm", "/var/tmp", "/home/agent"];
    // They are one disk, and are filled one after the other.
    let inside = call.clone().with("hold", HOLD / 4).each("dir", places);
    let control = call.with("dir", field.plants.quick().display());
    Bomb::new("disk", inside, control).contain(field, target).await
}

async fn inodes(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("inodes").with("number", 5000);
    let inside = call.clone().with("hold", HOLD).with("dir", "/tmp");
    let control = call.with("dir", field.plants.quick().display());
    // A small disk has few files to give.
    let limits = SandboxLimits {
        disk_bytes: TIGHT.disk_bytes / 3,
        ..TIGHT
    };
    let bomb = Bomb {
        limits,
        ..Bomb::new("disk", inside, control)
    };
    bomb.contain(field, target).await
}

async fn descriptors(field: &Field, target: &Inside) -> Trial {
    let bomb = Bomb {
        needs: None,
        limits: TIGHT,
        inside: Call::new("hog").with("number", 70_000).with("hold", HOLD),
        control: Control::Inside(Call::new("hog").with("number", 500)),
    };
    bomb.contain(field, target).await
}

async fn memory(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("memory").with("bytes", TIGHT.memory_bytes * 2);
    let inside = call.clone().with("hold", HOLD).with("at", TIGHT.memory_bytes / 2);
    starved(field, target, Bomb::new("memory", inside, call)).await
}

/// What is written to a file system in memory is memory.
async fn memory_files(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("fill").with("bytes", TIGHT.memory_bytes + (32 << 20));
    let control = call.clone().with("dir", field.plants.outside().display());
    let bomb = Bomb {
        limits: SandboxLimits {
            disk_bytes: TIGHT.memory_bytes * 4,
            ..TIGHT
        },
        ..Bomb::new("memory", call.with("dir", "/dev/shm"), control)
    };
    starved(field, target, bomb).await
}

/// One that memory runs out for.
async fn starved(field: &Field, target: &Inside, bomb: Bomb) -> Trial {
    let Blast { own, inside, pace } = match bomb.set_off(field, target).await {
        Ok(blast) => blast,
        Err(trial) => return trial,
    };
    let exit = inside.exit;
    let mut found = trial(inside, bomb.control(field, &own).await);
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
    let ok = killed || refused;
    found
        .host
        .push(Sighting::new("the hog", "ended by the memory limit", seen, ok));
    found.host.push(pace.sighting());
    own.end().await;
    found
}

async fn processor(field: &Field, target: &Inside) -> Trial {
    let limits = SandboxLimits {
        cpu_millis: 100,
        ..TIGHT
    };
    let call = Call::new("spin")
        .with("number", 4)
        .with("ms", 400)
        .with("over", limits.cpu_millis * 2);
    let bomb = Bomb {
        limits,
        ..Bomb::new("cpu", call.clone(), call)
    };
    let Blast { own, inside, pace } = match bomb.set_off(field, target).await {
        Ok(blast) => blast,
        Err(trial) => return trial,
    };
    let mut control = bomb.control(field, &own).await;
    // On a busy host the control gets little as well; it is asked again.
    for _ in 0..4 {
        if control.attempts.iter().any(|attempt| attempt.got) {
            break;
        }
        control = bomb.control(field, &own).await;
    }
    let work = |told: &Told| told.counts.get("rounds").copied().unwrap_or(0);
    let (done, free) = (work(&inside), work(&control));
    let mut found = trial(inside, control);
    if field.parts.sandbox.capabilities().kernel == Kernel::Own {
        // A kernel of its own counts processor time by its own clock; work is work.
        for attempt in &mut found.inside {
            attempt.got = done.saturating_mul(2) > free;
            attempt.why = format!("{done} rounds of work, {free} outside");
        }
    }
    found.host.push(pace.sighting());
    own.end().await;
    found
}

/// Also the control of every other measure of a neighbour: it shows that one can be starved, and
/// that it would be noticed.
async fn starve(field: &Field, target: &Inside) -> Trial {
    let threads = available_parallelism().map_or(2, usize::from) * 64;
    // What they use is not the question here. A red team that runs at a low priority must not give
    // it to them: they would starve nobody anywhere.
    let call = Call::new("spin")
        .with("number", threads)
        .with("ms", 500)
        .with("over", u64::MAX)
        .with("ordinary", "yes");
    let limits = SandboxLimits {
        pids: TIGHT.pids + threads as u64,
        ..TIGHT
    };
    let bomb = Bomb {
        limits,
        ..Bomb::new("cpu", call.clone(), call.clone())
    };
    let Blast { own, inside, pace } = match bomb.set_off(field, target).await {
        Ok(blast) => blast,
        Err(trial) => return trial,
    };
    own.end().await;
    let mut found = Trial {
        not_tried: inside.complete().err(),
        ..Trial::default()
    };
    found.host.push(pace.sighting());
    let mut starved = beside(target, field.outside(&call)).await.1;
    for _ in 1..TRIES {
        if !starved.holds() {
            break;
        }
        starved = beside(target, field.outside(&call)).await.1;
    }
    let seen = Sighting::new(
        "the same outside",
        "the neighbour starves",
        starved.words(),
        !starved.holds(),
    );
    found.control_host.push(seen);
    found
}

async fn flood(field: &Field, target: &Inside) -> Trial {
    const LIMIT: u64 = 8 << 20;
    let call = |bytes: u64| {
        let mut call = Call::new("flood").with("bytes", bytes);
        call.max_output = LIMIT;
        call
    };
    let bomb = Bomb {
        needs: None,
        limits: TIGHT,
        inside: call(LIMIT * 16),
        control: Control::Inside(call(LIMIT / 2)),
    };
    let Blast { own, inside, pace } = match bomb.set_off(field, target).await {
        Ok(blast) => blast,
        Err(trial) => return trial,
    };
    let (exit, bytes) = (inside.exit, inside.bytes);
    let mut found = trial(inside, bomb.control(field, &own).await);
    found.not_tried = None;
    let ok = exit == Some(Exit::OutputLimit) && bytes <= LIMIT;
    let seen = format!("{exit:?} after {bytes} bytes");
    let expected = format!("OutputLimit within {LIMIT} bytes");
    found.host.push(Sighting::new("the flood", expected, seen, ok));
    found.host.push(pace.sighting());
    own.end().await;
    found
}

async fn stubborn(field: &Field, target: &Inside) -> Trial {
    let (own_token, control_token) = (format!("stay-{}", field.token()), format!("rest-{}", field.token()));
    let mut call = Call::new("stay").with("parent", "stays").with("token", &own_token);
    call.timeout = Duration::from_millis(1000);
    let mut found = Trial::default();
    match target.start(&call).await {
        Ok(process) => {
            let there = || !host::processes_with(&own_token).is_empty();
            let seen = host::eventually(Duration::from_millis(500), there).await;
            let ended = finish(process, Duration::from_secs(10));
            let (told, pace) = beside(&field.neighbour, ended).await;
            found.host.push(pace.sighting());
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
