//! What a process inside may ask of the kernel.

use std::{collections::HashMap, process::Command};

use stockade_ports::sandbox::Exit;

use crate::bed::{Bed, cases, probe, sh};

cases!(
    there_is_no_privilege_to_gain,
    dangerous_calls_are_refused,
    a_foreign_abi_ends_the_process,
    proc_is_read_only_where_it_matters,
);

async fn there_is_no_privilege_to_gain(bed: Bed) {
    let handle = bed.create().await;
    let status = sh(&*handle, "cat /proc/self/status").await.ok();
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).expect("field");
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("Uid:"), "1000 1000 1000 1000");
    assert_eq!(field("Gid:"), "1000 1000 1000 1000");
    let map = sh(&*handle, "cat /proc/self/uid_map; wc -l < /proc/self/uid_map")
        .await
        .ok();
    let words: Vec<_> = map.split_whitespace().collect();
    assert_eq!(
        (words[0], words[2], words[3]),
        ("1000", "1", "1"),
        "one id is mapped: {map}"
    );
    assert_ne!(words[1], "0", "never to root");
    // A set-uid program of the host's is just a program here.
    let ran = sh(&*handle, "for p in su mount passwd; do p=$(command -v $p) && [ -u $p ] && $p --version; done; grep CapEff /proc/self/status").await;
    assert!(ran.out.contains("0000000000000000"), "{ran:?}");
}

fn outcomes(text: &str) -> HashMap<String, i32> {
    text.lines()
        .filter_map(|line| {
            let (name, errno) = line.split_once(' ')?;
            Some((name.to_owned(), errno.parse().ok()?))
        })
        .collect()
}

async fn dangerous_calls_are_refused(bed: Bed) {
    let handle = bed.create().await;
    let inside = outcomes(&probe(&*handle, &["calls"]).await.ok());
    let allowed = [
        "unshare-files",
        "clone-plain",
        "socket-unix",
        "socket-inet",
        "socket-inet6",
        "socket-route",
        "getpid",
        "prlimit-own",
    ];
    for name in allowed {
        assert_eq!(inside[name], 0, "{name} must work");
    }
    assert!(inside.len() > 40, "{inside:?}");
    for (name, errno) in inside.iter().filter(|(name, _)| !allowed.contains(&name.as_str())) {
        assert!(matches!(*errno, libc::EPERM | libc::ENOSYS), "{name}: {errno}");
    }
    // The same probe outside shows that it is the sandbox that refuses.
    let output = Command::new(bed.dir.join("agents/probe"))
        .arg("harmless-calls")
        .output()
        .expect("runs");
    let outside = outcomes(&String::from_utf8_lossy(&output.stdout));
    for name in [
        "unshare-newuser",
        "clone-newuser",
        "process_vm_readv",
        "clone3",
        "clone-plain",
    ] {
        let refused = matches!(outside[name], libc::ENOSYS | libc::EPERM);
        assert!(!refused, "{name} outside: {}", outside[name]);
    }
}

async fn a_foreign_abi_ends_the_process(bed: Bed) {
    let handle = bed.create().await;
    let ran = probe(&*handle, &["foreign-abi"]).await;
    assert!(
        matches!(ran.exit, Exit::Signal(libc::SIGSYS | libc::SIGSEGV)),
        "{ran:?}"
    );
}

async fn proc_is_read_only_where_it_matters(bed: Bed) {
    let handle = bed.create().await;
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
    ] {
        let ran = sh(&*handle, &format!("echo 1 > {path}")).await;
        let harmless = ran.exit != Exit::Code(0) || path == "/proc/sysrq-trigger";
        assert!(harmless, "{path}: {ran:?}");
    }
    for hidden in ["kcore", "keys", "kallsyms", "timer_list", "sysrq-trigger", "cmdline"] {
        assert_eq!(
            sh(&*handle, &format!("head -c 100 /proc/{hidden} 2>/dev/null; true"))
                .await
                .ok(),
            "",
            "{hidden}"
        );
    }
    for hidden in ["acpi", "scsi", "irq", "fs"] {
        assert_eq!(
            sh(&*handle, &format!("ls -A /proc/{hidden} 2>/dev/null; true"))
                .await
                .ok(),
            "",
            "{hidden}"
        );
    }
    assert_ne!(
        sh(&*handle, "head -c 10 /proc/cpuinfo").await.ok(),
        "",
        "what programs need is there"
    );
}
