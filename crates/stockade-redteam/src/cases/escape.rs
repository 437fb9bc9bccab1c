//! Ways out of containers that have worked before.

use stockade_ports::sandbox::{AGENTS_DIR, BASE_GIT_DIR, WORKSPACE};

use super::{Case, ROOT_OR_KERNEL, against, process::staged, trial};
use crate::{
    field::Field,
    inside::{Call, Inside},
    judge::{Attempt, Trial},
    report::Group::Escape,
    told::Told,
};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-FS-09",
        group: Escape,
        tried: "mount tmpfs, host directories, proc, sysfs, overlay, cgroup, fuse; the new mount calls; other roots",
        expected: "refused, each",
        run: |field, target| Box::pin(mounts(field, target)),
    },
    Case {
        id: "A-PR-01",
        group: Escape,
        tried: "get a userfaultfd, an io_uring, a BPF map and program, a perf event, fanotify, another personality",
        expected: "refused, each",
        run: |field, target| Box::pin(primitives(field, target)),
    },
    Case {
        id: "A-PR-14",
        group: Escape,
        tried: "write release_agent, notify_on_release, cgroup.procs, devices.allow and limits; mount cgroup file systems",
        expected: "refused or absent",
        run: |field, target| Box::pin(cgroups(field, target)),
    },
    Case {
        id: "A-EX-01",
        group: Escape,
        tried: "open for writing: core_pattern, modprobe, binfmt_misc, sysrq-trigger, uevent_helper and other switches",
        expected: "refused or absent",
        run: |field, target| Box::pin(sysctls(field, target)),
    },
    Case {
        id: "A-EX-02",
        group: Escape,
        tried: "kernel keyrings: add, describe and request keys, which are not namespaced",
        expected: "refused",
        run: |field, target| Box::pin(keys(field, target)),
    },
    Case {
        id: "A-EX-03",
        group: Escape,
        tried: "open_by_handle_at on every mount that comes from the host (shocker)",
        expected: "refused",
        run: |field, target| Box::pin(handles(field, target)),
    },
    Case {
        id: "A-EX-04",
        group: Escape,
        tried: "overwrite running programs through /proc/*/exe (CVE-2019-5736)",
        expected: "not even busy: refused",
        run: |field, target| Box::pin(exe(field, target)),
    },
    Case {
        id: "A-EX-05",
        group: Escape,
        tried: "use descriptors left open, and working directories through them (CVE-2024-21626)",
        expected: "none is open; the working directory is inside",
        run: |field, target| Box::pin(descriptors(field, target)),
    },
    Case {
        id: "A-EX-06",
        group: Escape,
        tried: "make device nodes for memory and disks and open them",
        expected: "refused",
        run: |field, target| Box::pin(nodes(field, target)),
    },
    Case {
        id: "A-EX-07",
        group: Escape,
        tried: "call the kernel by the 32-bit gate and under x32 numbers",
        expected: "refused or ended",
        run: |field, target| Box::pin(abis(field, target)),
    },
];

async fn mounts(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("mounts");
    against(field, target, &call, &staged(field, call.clone(), "user,mount")).await
}

async fn primitives(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("primitives");
    against(
        field,
        target,
        &call,
        &call.clone().with("stage", if field.root { "" } else { "user,uts" }),
    )
    .await
}

async fn cgroups(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("cgroups");
    let control = staged(field, call.clone(), "user,cgroup,mount");
    let mut trial = against(field, target, &call, &control).await;
    trial.excusable = ROOT_OR_KERNEL;
    trial
}

async fn sysctls(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("sysctls");
    let mut trial = against(field, target, &call, &call).await;
    trial.excusable = ROOT_OR_KERNEL;
    trial
}

async fn keys(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("keys").with("token", field.token());
    let mut trial = against(field, target, &call, &call).await;
    trial.excusable = ROOT_OR_KERNEL;
    trial
}

async fn handles(field: &Field, target: &Inside) -> Trial {
    let mounts = [
        "/",
        "/usr",
        "/etc",
        "/proc",
        "/tmp",
        "/dev",
        WORKSPACE,
        AGENTS_DIR,
        BASE_GIT_DIR,
        "/etc/hosts",
    ];
    let call = Call::new("handle")
        .with("token", field.token())
        .each("path", field.plants.canaries().chain([format!("{AGENTS_DIR}/canary")]))
        .each("mount", mounts);
    let dir = field.plants.scratch.display().to_string();
    let control = Call::new("handle")
        .with("token", field.token())
        .each("path", field.plants.canaries())
        .each("mount", [dir.as_str(), "/tmp", "/var/tmp"]);
    let mut trial = against(field, target, &call, &control).await;
    trial.excusable = ROOT_OR_KERNEL;
    trial
}

async fn exe(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("exe").with("pid", 1).with("pid", field.victim_pid());
    against(field, target, &call, &Call::new("exe").with("pid", field.victim_pid())).await
}

async fn descriptors(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("descriptors")
        .with("token", field.token())
        .each("path", field.plants.canaries());
    // Outside, the directory of the canaries is left open on purpose.
    let control = call.clone().with("leak", field.plants.scratch.join("host").display());
    let mut trial = against(field, target, &call, &control).await;
    // A working directory below a descriptor of whoever starts the command.
    for fd in 3..12 {
        let mut call = call.clone();
        call.cwd = Some(format!("/proc/self/fd/{fd}"));
        let told = target.run(&call).await;
        let Told { attempts, fault, .. } = told;
        let got = attempts.iter().any(|attempt| attempt.got);
        trial.inside.push(Attempt {
            name: "cwd.read".to_owned(),
            got,
            why: fault.unwrap_or_else(|| format!("started in /proc/self/fd/{fd}")),
            errno: None,
        });
    }
    trial
}

async fn nodes(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("mknod").each("dir", [WORKSPACE, "/tmp", "/dev/shm", "/dev"]);
    let control = Call::new("mknod").with("dir", field.plants.outside().display());
    let mut trial = against(field, target, &call, &control).await;
    trial.excusable = ROOT_OR_KERNEL;
    trial
}

async fn abis(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("abis");
    let mut trial = trial(target.run(&call).await, field.outside(&call).await);
    trial.excusable = ROOT_OR_KERNEL;
    trial
}
