//! What a process inside may ask of the kernel.

use std::{collections::HashMap, process::Command, sync::Arc};

use stockade_ports::{
    sandbox::{Exit, FreshSandbox, ProbePlan, SandboxHandle, prove},
    sim::ClosedDoor,
};
use stockade_sandbox::original_destination;

use crate::bed::{Bed, CANARY, Mode, cases, probe, sh};

cases!(
    there_is_no_privilege_to_gain,
    dangerous_calls_are_refused,
    proc_is_read_only_where_it_matters,
    devices_are_the_harmless_ones,
    the_hosts_keyrings_are_out_of_reach,
    a_foreign_abi_leads_nowhere,
    the_second_lock_is_in_force_where_the_kernel_has_one,
);

async fn there_is_no_privilege_to_gain(bed: Bed) {
    let handle = bed.create().await;
    let status = sh(&*handle, "cat /proc/self/status").await.ok();
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).expect("field");
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("Seccomp:"), "2");
    // gVisor has all of these, and leaves them out of this file.
    if bed.mode.shares_the_kernel() {
        assert_eq!(field("CapAmb:"), "0000000000000000");
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Uid:"), "1000 1000 1000 1000");
        assert_eq!(field("Gid:"), "1000 1000 1000 1000");
    }
    assert_eq!(
        sh(&*handle, "id -u; id -ru; id -g; id -rg; id -G").await.ok(),
        "1000\n".repeat(5)
    );
    let map = sh(&*handle, "cat /proc/self/uid_map; wc -l < /proc/self/uid_map")
        .await
        .ok();
    let words: Vec<_> = map.split_whitespace().collect();
    // The daemon gives no user namespace to map ids in; without capabilities and set-uid programs
    // there is still no way to another id.
    // OCI runtimes set a container up as its superuser, which is an id of the host's that nobody has.
    if matches!(bed.mode, Mode::Runc | Mode::Crun) {
        assert_eq!(
            (words[0], words[2], words[3], words[5], words[6]),
            ("0", "1", "1000", "1", "2"),
            "{map}"
        );
        assert!(words[1] != "0" && words[4] != "0", "never to root: {map}");
    }
    if bed.mode.is_native() {
        assert_eq!(
            (words[0], words[2], words[3]),
            ("1000", "1", "1"),
            "one id is mapped: {map}"
        );
        assert_ne!(words[1], "0", "never to root");
    }
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
        let socket = name.starts_with("socket") && matches!(*errno, libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT);
        assert!(
            socket || matches!(*errno, libc::EPERM | libc::ENOSYS),
            "{name}: {errno}"
        );
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

async fn a_foreign_abi_leads_nowhere(bed: Bed) {
    let handle = bed.create().await;
    let ran = probe(&*handle, &["foreign-abi"]).await;
    if !bed.mode.shares_the_kernel() {
        // In gVisor that gate leads to the same calls as the other, under the same filters: what is
        // asked for is not getpid, whose number it is there, and fails.
        assert!(ran.out.starts_with("survived -"), "{ran:?}");
        return;
    }
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
    for hidden in [
        "interrupts",
        "kcore",
        "keys",
        "kallsyms",
        "timer_list",
        "sysrq-trigger",
        "cmdline",
    ] {
        // gVisor's is the same words everywhere.
        if hidden == "cmdline" && !bed.mode.shares_the_kernel() {
            continue;
        }
        assert_eq!(
            sh(&*handle, &format!("head -c 100 /proc/{hidden} 2>/dev/null; true"))
                .await
                .ok(),
            "",
            "{hidden}"
        );
    }
    for hidden in ["acpi", "scsi", "irq", "fs", "pressure"] {
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

async fn devices_are_the_harmless_ones(bed: Bed) {
    let handle = bed.create().await;
    let found = sh(&*handle, "find /dev -not -type d -not -path '/dev/pts/*' | sort")
        .await
        .ok();
    let known = [
        "/dev/console",
        "/dev/core",
        "/dev/fd",
        "/dev/full",
        "/dev/null",
        "/dev/ptmx",
        "/dev/random",
        "/dev/stderr",
        "/dev/stdin",
        "/dev/stdout",
        "/dev/tty",
        "/dev/urandom",
        "/dev/zero",
    ];
    for device in found.lines() {
        // Made by gVisor, for its own kernel.
        if !bed.mode.shares_the_kernel() && ["/dev/fuse", "/dev/net/tun"].contains(&device) {
            continue;
        }
        assert!(known.contains(&device), "{device} in {found}");
    }
    for device in ["null", "zero", "full", "random", "urandom"] {
        let script = format!("head -c 0 /dev/{device} && test -c /dev/{device}");
        sh(&*handle, &script).await.ok();
    }
    // Shared memory is its own, and not for programs.
    let ran = sh(&*handle, "ls -A /dev/shm; cp /bin/true /dev/shm/t && /dev/shm/t").await;
    assert!(ran.out.is_empty() && ran.err.contains("ermission denied"), "{ran:?}");
    let ran = sh(&*handle, "mknod /tmp/disk b 8 0; mknod /tmp/mem c 1 1; ls /tmp").await;
    assert_eq!(ran.out, "", "{ran:?}");
}

/// Adds a key to the calling process's session keyring (add_key(2)); its number.
fn key(name: &str) -> i64 {
    const SESSION: libc::c_long = -3;
    let name = std::ffi::CString::new(name).expect("a name");
    let (kind, secret) = (c"user".as_ptr(), CANARY);
    #[allow(unsafe_code)]
    // SAFETY: both texts end with NUL, and pointer and length describe the secret.
    unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind,
            name.as_ptr(),
            secret.as_ptr(),
            secret.len(),
            SESSION,
        )
    }
}

async fn the_hosts_keyrings_are_out_of_reach(bed: Bed) {
    let name = format!("stockade-test-{}", std::process::id());
    assert!(key(&name) > 0, "{}", std::io::Error::last_os_error());
    let handle = bed.create().await;
    let inside = outcomes(&probe(&*handle, &["keyring", &name]).await.ok());
    assert_eq!(inside.len(), 5, "{inside:?}");
    for (way, errno) in inside {
        assert!(matches!(errno, libc::EPERM | libc::ENOSYS), "{way}: {errno}");
    }
    let listed = sh(&*handle, "cat /proc/keys /proc/key-users 2>/dev/null; true")
        .await
        .ok();
    assert_eq!(listed, "");
    // The same program outside, started with the same keyring, finds it.
    let mut outside = Command::new(bed.dir.join("agents/probe"));
    let output = outside.args(["keyring", &name]).output().expect("runs");
    let outside = outcomes(&String::from_utf8_lossy(&output.stdout));
    for way in ["session", "request", "id"] {
        assert_eq!(outside[way], 0, "{way} outside");
    }
    assert_eq!(outside["user"], libc::ENOKEY, "looked for and not found there");
    assert!(std::fs::read_to_string("/proc/keys").expect("keys").contains(&name));
}

/// What the kernel of this host has, asked as any program asks.
fn landlock() -> i64 {
    const ASK_VERSION: libc::c_ulong = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    #[allow(unsafe_code)]
    // SAFETY: with this flag the kernel reads nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, ASK_VERSION) };
    version
}

async fn the_second_lock_is_in_force_where_the_kernel_has_one(bed: Bed) {
    let version = landlock();
    let fresh = bed.sandbox.create(bed.spec()).await.unwrap_or_else(|e| panic!("{e}"));
    let (handle, seen) = measured(fresh).await;
    let facts = bed.sandbox.check().await.expect("works here");
    if version <= 0 || !bed.mode.shares_the_kernel() {
        assert_eq!(seen, "the kernel has none");
        assert!(!facts.defences.iter().any(|d| d.starts_with("landlock")), "{facts:?}");
        return;
    }
    assert_eq!(seen, format!("version {version}"));
    assert!(
        !bed.mode.is_native() || facts.defences.contains(&format!("landlock={version}")),
        "{facts:?}"
    );
    // A whiteout (mknod(2)) needs no privilege: nothing but Landlock forbids one.
    std::fs::create_dir_all(bed.dir.join("state/control")).expect("mkdir");
    let control = bed.dir.join("state/control/whiteout");
    let made = Command::new("mknod").arg(&control).args(["c", "0", "0"]).status();
    assert!(made.expect("runs").success(), "outside it can be made");
    std::fs::remove_dir_all(bed.dir.join("state/control")).expect("removes");
    let ran = sh(&*handle, "mknod /tmp/whiteout c 0 0").await;
    assert!(ran.err.contains("ermission denied"), "{ran:?}");
    // What is mounted to be written can be, in every way, and commands can signal each other.
    let script = "set -e; for d in /tmp /var/tmp /home/agent /workspace /dev/shm; do cd $d; mkdir -p a/b c; \
        echo x > a/b/f; mv a/b/f c/g; ln c/g a/h; ln -s c/g a/s; mkfifo c/p; : > c/g; rm -r a c; done; \
        echo x > /dev/null; echo ok > /proc/self/comm";
    sh(&*handle, script).await.ok();
    let sleeper = handle
        .exec(crate::bed::request(&["sleep", "4321"]))
        .await
        .expect("starts");
    sh(&*handle, "kill -9 $(pgrep -x sleep)").await.ok();
    assert_eq!(crate::bed::collect(sleeper).await.exit, Exit::Signal(9));
}

/// Proves a sandbox; what was seen of Landlock.
async fn measured(mut fresh: Box<dyn FreshSandbox>) -> (Arc<dyn SandboxHandle>, String) {
    let boundary = fresh.take_boundary().expect("a boundary");
    let door = ClosedDoor::serve(boundary, original_destination);
    let proved = prove(fresh, &ProbePlan::standard(None), &door).await;
    let (handle, measurement) = proved.unwrap_or_else(|e| panic!("{e}"));
    let check = measurement
        .checks
        .into_iter()
        .find(|check| check.name == "landlock.in_force");
    (handle, check.expect("measured").seen)
}
