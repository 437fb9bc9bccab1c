//! What of the host can be seen from inside.

use std::time::Duration;

use crate::bed::{Bed, CANARY, Mode, cases, descendants, names, run, sh};

cases!(
    no_secret_of_the_host_is_inside,
    no_host_path_is_inside,
    the_guest_is_closed,
    nobody_speaks_for_the_guest,
    sandboxes_do_not_see_each_other,
    no_descriptor_leaks,
);

/// All there is in the environment of the Guest and its keepers where gVisor shows it: gVisor puts
/// it there itself.
const GUESTS_ENVIRONMENT: &str = "HOME=/home/agent\0";

async fn no_secret_of_the_host_is_inside(bed: Bed) {
    assert!(
        std::env::vars().any(|(_, value)| value == CANARY),
        "it is in our environment"
    );
    let handle = bed.create().await;
    let search = format!(
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | grep -c {CANARY}; \
         grep -rsl --exclude-dir=proc --exclude-dir=usr {CANARY} / 2>/dev/null | grep -v '^/proc'; true"
    );
    // The search itself carries the word on its command line.
    let planted = sh(&*handle, &format!("echo {CANARY} > /workspace/planted; {search}"))
        .await
        .ok();
    assert!(planted.contains("/workspace/planted"), "the search works: {planted}");
    let found = sh(&*handle, &format!("rm /workspace/planted; {search}")).await.ok();
    assert!(!found.contains('/'), "{found}");
    let environ = sh(&*handle, "cat /proc/[0-9]*/environ 2>/dev/null; true").await.ok();
    assert!(environ.contains("HOME=/home/agent") && !environ.contains(CANARY));
    // gVisor has a /sys of its own making.
    let sys = bed.mode.shares_the_kernel().then_some("/sys");
    for empty in ["/root", "/home/agent", "/srv", "/mnt", "/var/lib"]
        .into_iter()
        .chain(sys)
    {
        assert_eq!(names(&*handle, empty).await, "", "{empty}");
    }
    for absent in [
        "/etc/shadow",
        "/etc/ssh",
        "/boot",
        "/media",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/dev/kmsg",
        "/dev/mem",
        "/dev/fuse",
        "/dev/net",
    ] {
        // These two are gVisor's own there and lead no further than its kernel.
        if !bed.mode.shares_the_kernel() && ["/dev/fuse", "/dev/net"].contains(&absent) {
            continue;
        }
        let ran = run(&*handle, &["find", absent, "-maxdepth", "0"]).await;
        assert!(ran.err.contains("No such file"), "{absent}: {ran:?}");
    }
}

async fn no_host_path_is_inside(bed: Bed) {
    let handle = bed.create().await;
    let own = bed.dir.to_str().expect("text").to_owned();
    let name = bed.dir.file_name().and_then(|n| n.to_str()).expect("text").to_owned();
    let seen = sh(
        &*handle,
        "cat /proc/self/mountinfo /proc/self/mounts /proc/self/cgroup /proc/1/mountinfo \
         /proc/1/cmdline /proc/net/unix /proc/cmdline /proc/self/maps; find /proc/self/fd -ls",
    )
    .await
    .out;
    // To gVisor what is read-only is one file system, and there are no cgroups.
    let shared = [" /run/stockade/base.git ", " /opt/agents ", "0::/"];
    let shared = shared.into_iter().filter(|_| bed.mode.shares_the_kernel());
    for there in shared.chain([" /workspace "]) {
        assert!(seen.contains(there), "{there} in {seen}");
    }
    for leak in [own.as_str(), name.as_str(), "state/", "sandboxes"] {
        assert!(!seen.contains(leak), "{leak} in {seen}");
    }
    assert_eq!(run(&*handle, &["hostname"]).await.ok(), "sandbox\n");
}

async fn the_guest_is_closed(bed: Bed) {
    let handle = bed.create().await;
    let mut open = Vec::new();
    for path in [
        "environ",
        "fd",
        "mem",
        "exe",
        "root",
        "cwd",
        "maps",
        "auxv",
        "map_files",
    ] {
        let script = format!("cd /proc/1/{path}/ 2>/dev/null && echo open; head -c 1 /proc/1/{path} 2>&1");
        let ran = sh(&*handle, &script).await;
        if !ran.out.contains("ermission denied") {
            open.push((path, ran.out));
        }
    }
    if bed.mode.shares_the_kernel() {
        assert_eq!(open, []);
    } else {
        // gVisor shows more of a process of the same user, none of which is worth hiding in a Guest;
        // what leads into it (its memory, its program, its files) is closed.
        let shown: Vec<_> = open.iter().map(|(path, _)| *path).collect();
        assert_eq!(shown, ["environ", "fd", "maps", "auxv", "map_files"]);
        let environ = run(&*handle, &["cat", "/proc/1/environ"]).await.ok();
        assert_eq!(environ, GUESTS_ENVIRONMENT);
    }
    for stream in 0..3 {
        for mode in ["<", ">", "<>"] {
            let ran = sh(&*handle, &format!("exec 9{mode}/proc/1/fd/{stream} && echo open")).await;
            assert!(!ran.out.contains("open"), "{mode} {stream}: {ran:?}");
        }
    }
    // The keeper of this very command is closed as well, the command itself is not.
    let ran = sh(
        &*handle,
        "cat /proc/$PPID/environ 2>&1; cat /proc/self/environ >/dev/null && echo own",
    )
    .await;
    let seen = ran.out.strip_suffix("own\n").unwrap_or_else(|| panic!("{ran:?}"));
    if bed.mode.shares_the_kernel() {
        assert!(seen.contains("ermission denied"), "{ran:?}");
    } else {
        assert_eq!(seen, GUESTS_ENVIRONMENT);
    }
    let ran = sh(&*handle, "echo x > /proc/1/oom_score_adj").await;
    assert!(ran.err.contains("ermission denied"), "{ran:?}");
}

/// A command's keeper tells the Guest of its end, nine bytes at a time: who could write there could
/// invent an end.
async fn nobody_speaks_for_the_guest(bed: Bed) {
    let handle = bed.create().await;
    // The control: a process's own pipe can be opened and written to through /proc.
    let own = "sleep 1 | cat & p=$!; sleep 0.1; echo through > /proc/$p/fd/0; wait";
    assert_eq!(sh(&*handle, own).await.ok(), "through\n");
    // What opens of the Guest's and the keeper's is this command's own output, and no device of harm.
    let others = "set -- $(readlink /proc/$$/fd/1 /proc/$$/fd/2)
        for f in /proc/1/fd/* /proc/$PPID/fd/*; do
            (exec 9<>$f) 2>/dev/null || continue
            case $(readlink $f) in \"$1\"|\"$2\"|/dev/null) ;; *) echo $f $(readlink $f);; esac
        done";
    assert_eq!(sh(&*handle, others).await.ok(), "");
    let lies = "for f in /proc/1/fd/* /proc/$PPID/fd/*; do
            { printf '\\003\\000\\000\\000\\000\\000\\000\\000\\000' 1<>$f; } 2>/dev/null
        done; sleep 0.2; exit 7";
    assert_eq!(sh(&*handle, lies).await.exit, stockade_ports::sandbox::Exit::Code(7));
}

async fn sandboxes_do_not_see_each_other(bed: Bed) {
    let (one, two) = (bed.create().await, bed.create().await);
    sh(
        &*one,
        "echo mine > /tmp/mark; echo mine > /workspace/mark; echo mine > /dev/shm/mark",
    )
    .await
    .ok();
    let sleeping = one.exec(crate::bed::request(&["sleep", "8765"])).await.expect("starts");
    assert_eq!(crate::bed::count(&*one, "8765").await, 1);
    assert_eq!(crate::bed::count(&*two, "8765").await, 0);
    assert_eq!(
        sh(&*two, "cat /tmp/mark /workspace/mark /dev/shm/mark 2>/dev/null")
            .await
            .out,
        ""
    );
    let own = i32::try_from(std::process::id()).expect("pid");
    let mut uids: Vec<_> = descendants(own)
        .into_iter()
        .filter(|p| p.name == "stockade-guest" || p.name == "sleep")
        .map(|p| p.uid)
        .collect();
    uids.sort_unstable();
    uids.dedup();
    let me = nix::unistd::geteuid().as_raw();
    match bed.mode {
        // One uid of its own for each, and none of them root.
        Mode::Root | Mode::Runc | Mode::Crun => {
            assert!(uids.len() == 2 && uids.iter().all(|u| *u >= 1_879_100_000), "{uids:?}")
        }
        Mode::Rootless => assert_eq!(uids, [me]),
        // The daemon gives no user namespaces: all are the one uid there is inside.
        Mode::Docker => assert_eq!(uids, [1000]),
        // gVisor's processes are its own; on the host there is its kernel, in a user namespace
        // of its own, and no `sleep`.
        Mode::Runsc => assert!(uids.is_empty(), "{uids:?}"),
    }
    drop(sleeping);
    one.destroy().await.expect("destroys");
    assert_eq!(run(&*two, &["echo", "well"]).await.ok(), "well\n");
}

async fn no_descriptor_leaks(bed: Bed) {
    let facts = bed.sandbox.check().await.expect("works here");
    assert_eq!(facts.mode, bed.mode.rights());
    let open = || std::fs::read_dir("/proc/self/fd").expect("fds").count();
    let before = open();
    for _ in 0..3 {
        let handle = bed.create().await;
        // Only what a command should have: three streams and ls's own directory.
        let fds = sh(&*handle, "cd /proc/self/fd && echo *").await.ok();
        assert!(["0 1 2\n", "0 1 2 3\n"].contains(&fds.as_str()), "{fds}");
        handle.destroy().await.expect("destroys");
    }
    for _ in 0..100 {
        if open() <= before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} descriptors before, {} after", before, open());
}
