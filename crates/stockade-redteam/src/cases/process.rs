//! Other processes, and rights.

use std::time::Duration;

use stockade_ports::sandbox::AGENTS_DIR;

use super::{Case, ROOT_OR_KERNEL, against, trial};
use crate::{
    field::Field,
    host,
    inside::{Call, Inside},
    judge::{Excuse, Sighting, Trial},
    report::Group::Process,
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
        tried: "run a planted set-user-ID program of root's",
        expected: "it runs as the plain user or not at all",
        run: |field, target| Box::pin(setuid(field, target)),
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
    let call = Call::new("setuid").with("path", format!("{AGENTS_DIR}/suid"));
    let inside = target.run(&call).await;
    if !field.root {
        // A set-user-ID program of one's own gives nothing one does not have.
        let mut trial = trial(inside, crate::told::Told::default());
        trial.excuse = Some(Excuse::NeedsRoot);
        return trial;
    }
    let suid = field.plants.public_suid();
    let mut control = Call::new("setuid").with("path", suid.display());
    // Nobody, by the number most systems have for him.
    control.user = Some(65_534);
    let dir = suid.parent().unwrap_or(&suid);
    let control = crate::outside::run(&suid, dir, &control).await;
    trial(inside, control)
}

async fn tty(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("tty");
    let mut trial = against(field, target, &call, &call).await;
    trial.excusable = ROOT_OR_KERNEL;
    trial
}
