//! The host's files.

use std::time::Duration;

use bytes::Bytes;
use stockade_ports::sandbox::{AGENTS_DIR, BASE_GIT_DIR, WORKSPACE};

use super::{Case, ROOT_OR_KERNEL, against, beside, trial};
use crate::{
    field::Field,
    host,
    inside::{Call, Inside},
    judge::{Attempt, Sighting, Trial},
    plant::Plants,
    report::Group::Filesystem,
};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-FS-01",
        group: Filesystem,
        tried: "read planted host files by path, symbolic link, /proc/*/root, /proc/*/cwd and descriptors",
        expected: "none is found",
        run: |field, target| Box::pin(read(field, target)),
    },
    Case {
        id: "A-FS-01w",
        group: Filesystem,
        tried: "write to planted host files in the same ways",
        expected: "none is found; all are unchanged on the host",
        run: |field, target| Box::pin(write(field, target)),
    },
    Case {
        id: "A-FS-02",
        group: Filesystem,
        tried: "hard-link host files and read-only files into the workspace and write through the link",
        expected: "the link or the write is refused; the host's files are unchanged",
        run: |field, target| Box::pin(hardlink(field, target)),
    },
    Case {
        id: "A-FS-03",
        group: Filesystem,
        tried: "make files that programs outside run or obey: settings and hooks of agents, editors, shells and git, in \
                the host's directories, also in the one the workspace was made of",
        expected: "refused, or made inside alone; ordinary files in the workspace work",
        run: |field, target| Box::pin(traps(field, target)),
    },
    Case {
        id: "A-FS-05",
        group: Filesystem,
        tried: "create, open, chmod, touch and tag files of the system, the agents and the pristine repository",
        expected: "refused; the same in the workspace works",
        run: |field, target| Box::pin(tamper(field, target)),
    },
    Case {
        id: "A-FS-06",
        group: Filesystem,
        tried: "reopen read-only descriptors for writing through /proc/self/fd and /dev/fd",
        expected: "refused; the file is unchanged",
        run: |field, target| Box::pin(reopen(field, target)),
    },
    Case {
        id: "A-FS-08",
        group: Filesystem,
        tried: "read what tells about the host: kcore, keys, kallsyms, kmsg, timers, firmware, /sys",
        expected: "absent or empty",
        run: |field, target| Box::pin(masked(field, target)),
    },
    Case {
        id: "A-FS-10",
        group: Filesystem,
        tried: "open devices: kvm, fuse, tun, vhost, memory, disks, consoles",
        expected: "absent; null, zero and urandom work",
        run: |field, target| Box::pin(devices(field, target)),
    },
    Case {
        id: "A-FS-11",
        group: Filesystem,
        tried: "connect by path to sockets of docker, containerd, dbus, systemd and to planted ones",
        expected: "absent; no connection at the planted ones",
        run: |field, target| Box::pin(sockets(field, target)),
    },
    Case {
        id: "A-FS-12",
        group: Filesystem,
        tried: "plant a link to a host file and let the host read and write it through the files interface",
        expected: "the host's file is neither read nor changed; a plain file round-trips",
        run: |field, target| Box::pin(files_interface(field, target)),
    },
    Case {
        id: "A-FS-16",
        group: Filesystem,
        tried: "leave files in /tmp, /var/tmp, /dev/shm, /run and the workspace",
        expected: "none of them is on the host",
        run: |field, target| Box::pin(dropped(field, target)),
    },
];

async fn read(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("read")
        .with("token", field.token())
        .each("path", field.plants.canaries());
    against(field, target, &call, &call).await
}

async fn write(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("write").each("path", field.plants.canaries());
    let control = Call::new("write").with("path", field.plants.control("append"));
    against(field, target, &call, &control).await
}

async fn hardlink(field: &Field, target: &Inside) -> Trial {
    let given = [format!("{AGENTS_DIR}/canary"), format!("{BASE_GIT_DIR}/HEAD")];
    let call = Call::new("hardlink").each("path", field.plants.canaries().chain(given));
    let control = Call::new("hardlink").with("path", field.plants.control("link"));
    against(field, target, &call, &control).await
}

async fn traps(field: &Field, target: &Inside) -> Trial {
    let source = field.plants.scratch.join("workspace");
    let dirs = field
        .plants
        .public
        .iter()
        .chain([&source])
        .map(|dir| dir.display().to_string());
    // Below the workspace they are made, and are for the export to judge (docs/configuration.md, "sensitive").
    let lay = Call::new("traps").with("dir", WORKSPACE).with("dir", "/home/agent");
    let laid = target.run(&lay).await;
    let call = Call::new("traps").each("dir", dirs);
    let control = Call::new("traps").with("dir", field.plants.outside().display());
    let mut trial = against(field, target, &call, &control).await;
    let made = laid.attempts.iter().filter(|attempt| attempt.got).count();
    let seen = format!("{made} of {}", laid.attempts.len());
    let all = made > 0 && made == laid.attempts.len();
    if !all {
        trial.no_control = Some(format!("made in the workspace: {seen}"));
    }
    trial
}

async fn tamper(_: &Field, target: &Inside) -> Trial {
    let dirs = [
        "/",
        "/usr",
        "/usr/bin",
        "/bin",
        "/lib",
        "/etc",
        "/dev",
        "/proc",
        "/sys",
        "/opt",
        "/run",
        AGENTS_DIR,
        BASE_GIT_DIR,
    ];
    let files = [
        "/etc/passwd".to_owned(),
        "/etc/hosts".to_owned(),
        "/etc/resolv.conf".to_owned(),
        "/usr/bin/env".to_owned(),
    ];
    let planted = [format!("{AGENTS_DIR}/canary"), format!("{BASE_GIT_DIR}/HEAD")];
    let call = Call::new("tamper")
        .each("dir", dirs)
        .each("file", files)
        .each("planted", planted);
    let twin = Call::new("tamper")
        .each("dir", [WORKSPACE, "/tmp"])
        .with("file", format!("{WORKSPACE}/README"))
        .with("planted", format!("{WORKSPACE}/README"));
    beside(target, &call, &twin).await
}

async fn reopen(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("reopen").each("path", [format!("{AGENTS_DIR}/canary"), format!("{BASE_GIT_DIR}/HEAD")]);
    let control = Call::new("reopen").with("path", field.plants.control("reopen"));
    against(field, target, &call, &control).await
}

async fn masked(field: &Field, target: &Inside) -> Trial {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let call = Call::new("masked").with("line", line.trim());
    against(field, target, &call, &call).await
}

async fn devices(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("devices");
    let mut trial = against(field, target, &field.to_kernel(call.clone()), &call).await;
    trial.excusable = ROOT_OR_KERNEL;
    let twin = Call::new("devices").each("allowed", ["/dev/null", "/dev/zero", "/dev/urandom"]);
    let twin = target.run(&twin).await;
    let works = twin.attempts.len() == 3 && twin.attempts.iter().all(|attempt| attempt.got);
    let seen = twin
        .attempts
        .iter()
        .map(|attempt| attempt.why.clone())
        .collect::<Vec<_>>();
    let allowed = Sighting::new("ordinary devices inside", "they open", seen.join(", "), works);
    // The control is the devices outside; that the ordinary ones work inside comes on top.
    if !works {
        trial.control_host.push(allowed);
    }
    trial
}

async fn sockets(field: &Field, target: &Inside) -> Trial {
    let paths: Vec<_> = field.plants.sockets().map(|path| path.display().to_string()).collect();
    let call = Call::new("sockets").each("path", &paths);
    let before = field.parts.canaries.seen().unix;
    let inside = target.run(&call).await;
    let reached = field.parts.canaries.seen().unix - before;
    let control = field.outside(&call).await;
    let mut trial = trial(inside, control);
    trial.host.push(Sighting::new(
        "connections at planted sockets",
        "0",
        reached.to_string(),
        reached == 0,
    ));
    let canaries = &field.parts.canaries;
    host::eventually(Duration::from_secs(1), || canaries.seen().unix > before + reached).await;
    let heard = canaries.seen().unix - before - reached;
    trial.control_host.push(Sighting::new(
        "connections of the control",
        "1 or more",
        heard.to_string(),
        heard > 0,
    ));
    trial
}

/// What the agent leaves is a trap for whoever reads it from outside.
async fn files_interface(field: &Field, target: &Inside) -> Trial {
    let mut trial = Trial::default();
    // The attacker's own ways of spelling leave links in the workspace.
    let canaries: Vec<_> = field.plants.canaries().collect();
    let lay = Call::new("read").with("token", field.token()).each("path", &canaries);
    let laid = target.run(&lay).await;
    trial.not_tried = laid.complete().err();
    for path in &canaries {
        let link = format!("{WORKSPACE}/link-{}", path.replace('/', "_"));
        for spelled in [link.clone(), path.clone(), format!("{WORKSPACE}/../../..{path}")] {
            let read = target.handle.read_file(&spelled, 1 << 20).await;
            let got = read.as_ref().is_ok_and(|bytes| contains(bytes, field.token()));
            let why = match read {
                Ok(bytes) => format!("{} bytes", bytes.len()),
                Err(error) => error.to_string(),
            };
            trial.inside.push(Attempt {
                name: "interface.read".to_owned(),
                got,
                why,
                errno: None,
            });
        }
        // Judged by the host's file, which is looked at after every case.
        let _ = target
            .handle
            .write_file(&link, Bytes::from_static(b"attacked"), 0o644)
            .await;
    }
    let place = format!("{WORKSPACE}/plain");
    let content = Bytes::from(field.token().to_owned());
    let wrote = target.handle.write_file(&place, content.clone(), 0o644).await;
    let read = target.handle.read_file(&place, 1 << 20).await;
    let got = wrote.is_ok() && read.is_ok_and(|bytes| bytes == content);
    trial.control.push(Attempt {
        name: "interface.read".to_owned(),
        got,
        why: "a plain file, written and read back".to_owned(),
        errno: None,
    });
    trial
}

fn contains(bytes: &[u8], token: &str) -> bool {
    bytes.windows(token.len()).any(|window| window == token.as_bytes())
}

async fn dropped(field: &Field, target: &Inside) -> Trial {
    let (name, control) = (format!("drop-{}", field.token()), format!("kept-{}", field.token()));
    let places = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/home/agent", WORKSPACE, "/"];
    let inside = Call::new("drop").with("token", &name).each("dir", places);
    let outside = Call::new("drop")
        .with("token", &control)
        .each("dir", ["/tmp", "/var/tmp", "/dev/shm"]);
    let mut trial = against(field, target, &inside, &outside).await;
    let found = Plants::dropped(&name);
    let kept = Plants::dropped(&control);
    for path in found.iter().chain(&kept) {
        let _ = std::fs::remove_file(path);
    }
    let list = |paths: &[std::path::PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let wrote = trial
        .inside
        .iter()
        .filter(|attempt| attempt.why.starts_with("wrote"))
        .count();
    let seen = format!("{wrote} written inside, on the host: [{}]", list(&found).join(", "));
    trial.host.push(Sighting::new(
        "files left inside",
        "none on the host",
        seen,
        found.is_empty(),
    ));
    let seen = list(&kept).join(", ");
    trial.control_host.push(Sighting::new(
        "files left by the control",
        "they are there",
        seen,
        !kept.is_empty(),
    ));
    trial.control_host.push(Sighting::new(
        "files written inside",
        "1 or more",
        wrote.to_string(),
        wrote > 0,
    ));
    trial
}
