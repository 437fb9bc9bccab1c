//! Other processes, and rights.

use std::time::Duration;

use stockade_ports::sandbox::{AGENTS_DIR, Kernel, WORKSPACE};

use super::{Case, ROOT_OR_KERNEL, against, trial};
use crate::{
    field::Field,
    host,
    inside::{Call, Inside},
    judge::{Excuse, Sighting, Trial},
    outside,
    report::Group::Process,
    told::Told,
};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-FS-07",
        group: Process,
        tried: "find a process of the host's in /proc and read its environment and command line",
        expected: "it does not show",
        run: |field, target| Box::pin(scan(field, target)),
    },
    Case {
        id: "A-PR-02",
        group: Process,
        tried: "make namespaces with unshare, clone and clone3",
        expected: "refused, each kind and each call",
        run: |field, target| Box::pin(namespaces(field, target)),
    },
    Case {
        id: "A-PR-02s",
        group: Process,
        tried: "enter namespaces with setns, by /proc/*/ns and by process descriptor",
        expected: "refused",
        run: |field, target| Box::pin(setns(field, target)),
    },
    Case {
        id: "A-PR-03",
        group: Process,
        tried: "ptrace, process_vm_readv/writev, /proc/*/mem, pidfd_getfd, kcmp and prlimit on pid 1 and a host process",
        expected: "refused",
        run: |field, target| Box::pin(meddle(field, target)),
    },
    Case {
        id: "A-PR-06",
        group: Process,
        tried: "stop and kill pid 1 and a process of the host's",
        expected: "both live; the sandbox works",
        run: |field, target| Box::pin(kill(field, target)),
    },
    Case {
        id: "A-PR-09",
        group: Process,
        tried: "have capabilities, be the superuser, be without no_new_privs or without a filter",
        expected: "every set empty, no_new_privs and the filter on",
        run: |field, target| Box::pin(sets(field, target)),
    },
    Case {
        id: "A-PR-09r",
        group: Process,
        tried: "setuid, setgid, capset, ambient capabilities, bounding set, chroot, higher and real-time priority",
        expected: "refused",
        run: |field, target| Box::pin(raise(field, target)),
    },
    Case {
        id: "A-PR-10",
        group: Process,
        tried: "run a planted set-user-ID program of root's, and one with file capabilities",
        expected: "they run as the plain user or not at all",
        run: |field, target| Box::pin(setuid(field, target)),
    },
    Case {
        id: "A-PR-10o",
        group: Process,
        tried: "make a set-user-ID program of root's and run it",
        expected: "it runs as the plain user or not at all",
        run: |field, target| Box::pin(own_setuid(field, target)),
    },
    Case {
        id: "A-PR-08",
        group: Process,
        tried: "crash with the highest limit on core dumps that can be had, and with the lowest, which starts a \
                core_pattern program of the host's",
        expected: "no dump inside or outside",
        run: |field, target| Box::pin(core(field, target)),
    },
    Case {
        id: "A-PR-13",
        group: Process,
        tried: "fork twice, leave the session and go on in the background",
        expected: "still in the control groups of the sandbox, by the host's account",
        run: |field, target| Box::pin(background(field, target)),
    },
    Case {
        id: "A-PR-15",
        group: Process,
        tried: "type into a terminal with TIOCSTI, paste with TIOCLINUX, open the host's terminal",
        expected: "refused; there is none",
        run: |field, target| Box::pin(tty(field, target)),
    },
];

/// Namespaces of the control's own for what needs rights: as root none is needed.
pub(super) fn staged(field: &Field, call: Call, kinds: &str) -> Call {
    if field.root { call } else { call.with("stage", kinds) }
}

async fn scan(field: &Field, target: &Inside) -> Trial {
    let token = field.victim_token();
    let (half, rest) = token.split_at(token.len() / 2);
    let call = Call::new("scan")
        .with("token", half)
        .with("rest", rest)
        .with("pid", field.victim_pid());
    against(field, target, &call, &call).await
}

async fn namespaces(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("namespaces");
    let control = staged(field, call.clone(), "user");
    let mut trial = against(field, target, &call, &control).await;
    trial.excusable = ROOT_OR_KERNEL;
    trial
}

async fn setns(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("setns");
    let control = call.clone().with("stage", "user,net,mount,uts,ipc,cgroup");
    against(field, target, &call, &control).await
}

async fn meddle(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("meddle").with("pid", 1).with("pid", field.victim_pid());
    against(field, target, &call, &Call::new("meddle").with("pid", "child")).await
}

async fn kill(field: &Field, target: &Inside) -> Trial {
    let pid = field.victim_pid();
    let before = host::is_alive(pid);
    let call = Call::new("kill").with("pid", 1).with("pid", pid);
    let mut trial = against(field, target, &call, &Call::new("kill").with("pid", "child")).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let after = host::is_alive(pid);
    let word = |alive: bool| if alive { "it lives" } else { "it is stopped or dead" };
    trial
        .host
        .push(Sighting::new("the host's process", "it lives", word(after), after));
    if !before {
        trial.no_control = Some("the host's process was dead already".to_owned());
    }
    trial
}

async fn sets(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("sets");
    against(field, target, &call, &call.clone().with("stage", "user")).await
}

async fn raise(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("raise");
    let control = staged(field, call.clone(), "user");
    against(field, target, &field.to_kernel(call), &control).await
}

async fn setuid(field: &Field, target: &Inside) -> Trial {
    let rights = |call: Call, dir: &str| {
        let call = call.with("path", format!("{dir}/suid"));
        call.with("capable", format!("{dir}/capable"))
    };
    let inside = target.run(&rights(Call::new("setuid"), AGENTS_DIR)).await;
    if !field.root {
        // A set-user-ID program of one's own gives nothing one does not have.
        let mut trial = trial(inside, Told::default());
        trial.excuse = Some(Excuse::NeedsRoot);
        return trial;
    }
    let mut control = Told::fault("there is no directory every user can reach");
    // Some hosts mount one or the other without such rights.
    for dir in field.plants.shared() {
        let mut call = rights(Call::new("setuid"), &dir.display().to_string());
        // Nobody, by the number most systems have for him.
        call.user = Some(65_534);
        control = outside::run(&dir.join("attacker"), &dir, &call).await;
        if control.attempts.iter().filter(|attempt| attempt.got).count() == 2 {
            break;
        }
    }
    trial(inside, control)
}

async fn own_setuid(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("own-setuid").each("dir", ["/tmp", WORKSPACE, "/dev/shm", "/home/agent"]);
    let control = Call::new("own-setuid").with("dir", field.plants.outside().display());
    against(field, target, &call, &staged(field, control, "user")).await
}

async fn core(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("core");
    against(field, target, &call, &call).await
}

async fn background(field: &Field, target: &Inside) -> Trial {
    let token = format!("background-{}", field.token());
    let told = target.run(&Call::new("stay").with("token", &token)).await;
    let mut found = Trial {
        not_tried: told.complete().err(),
        ..Trial::default()
    };
    let seen = host::eventually(field.showing(), || !host::processes_with(&token).is_empty()).await;
    let pids = host::processes_with(&token);
    if !seen && field.parts.sandbox.capabilities().kernel == Kernel::Own {
        found.excuse = Some(Excuse::OwnKernel);
        return found;
    }
    if !field.enforces("memory") && !field.enforces("cpu") {
        // Without control groups there is none to leave.
        found.excuse = Some(Excuse::NotEnforced);
    }
    let own = host::groups_of(std::process::id().cast_signed());
    let strays = pids.iter().filter(|pid| match host::first_beside(**pid) {
        Some(first) => host::groups_of(first) != host::groups_of(**pid),
        None => true,
    });
    let shown = format!("{} of {} elsewhere", strays.clone().count(), pids.len());
    found.host.push(Sighting::new(
        "in the groups of the sandbox's first process",
        "all",
        shown,
        strays.count() == 0,
    ));
    let apart = pids.iter().filter(|pid| host::groups_of(**pid) != own).count();
    let shown = format!("{apart} of {}", pids.len());
    let seen = Sighting::new("in other groups than the red team", "1 or more", shown, apart > 0);
    found.control_host.push(seen);
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    field
        .outside(&Call::new("signal").each("pid", pids).with("number", 9))
        .await;
    found
}

async fn tty(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("tty");
    let mut trial = against(field, target, &call, &call).await;
    trial.excusable = ROOT_OR_KERNEL;
    trial
}
