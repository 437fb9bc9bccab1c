//! What of the host can be seen from inside.

use std::time::Duration;

use stockade_ports::sandbox::Sandbox;

use crate::bed::{Bed, CANARY, Mode, cases, descendants, run, sh};

cases!(
    no_secret_of_the_host_is_inside,
    no_host_path_is_inside,
    the_guest_is_closed,
    sandboxes_do_not_see_each_other,
    no_descriptor_leaks,
);

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
    for empty in ["/root", "/home/agent", "/srv", "/mnt", "/sys", "/var/lib"] {
        assert_eq!(run(&*handle, &["ls", "-A", empty]).await.ok(), "", "{empty}");
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
        let ran = run(&*handle, &["ls", absent]).await;
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
         /proc/1/cmdline /proc/net/unix /proc/cmdline /proc/self/maps; ls -l /proc/self/fd",
    )
    .await
    .ok();
    for there in [" /workspace ", " /run/stockade/base.git ", " /opt/agents ", "0::/"] {
        assert!(seen.contains(there), "{there} in {seen}");
    }
    for leak in [own.as_str(), name.as_str(), "state/", "sandboxes"] {
        assert!(!seen.contains(leak), "{leak} in {seen}");
    }
    assert_eq!(run(&*handle, &["hostname"]).await.ok(), "sandbox\n");
}

async fn the_guest_is_closed(bed: Bed) {
    let handle = bed.create().await;
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
        let script = format!("ls /proc/1/{path}/ 2>&1 || head -c 1 /proc/1/{path} 2>&1");
        let ran = sh(&*handle, &script).await;
        assert!(ran.out.contains("ermission denied"), "{path}: {ran:?}");
    }
    // The keeper of this very command is closed as well, the command itself is not.
    let ran = sh(
        &*handle,
        "cat /proc/$PPID/environ 2>&1; cat /proc/self/environ >/dev/null && echo own",
    )
    .await;
    assert!(
        ran.out.contains("ermission denied") && ran.out.ends_with("own\n"),
        "{ran:?}"
    );
    let ran = sh(&*handle, "echo x > /proc/1/oom_score_adj").await;
    assert!(ran.err.contains("ermission denied"), "{ran:?}");
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
        Mode::Root => assert!(uids.len() == 2 && uids.iter().all(|u| *u >= 1_879_100_000), "{uids:?}"),
        Mode::Rootless => assert_eq!(uids, [me]),
    }
    drop(sleeping);
    one.destroy().await.expect("destroys");
    assert_eq!(run(&*two, &["echo", "well"]).await.ok(), "well\n");
}

async fn no_descriptor_leaks(bed: Bed) {
    let facts = bed.sandbox.check().await.expect("works here");
    assert_eq!(facts.mode, if bed.mode == Mode::Root { "root" } else { "rootless" });
    let open = || std::fs::read_dir("/proc/self/fd").expect("fds").count();
    let before = open();
    for _ in 0..3 {
        let handle = bed.create().await;
        // Only what a command should have: three streams and ls's own directory.
        let fds = sh(&*handle, "ls /proc/self/fd").await.ok();
        assert_eq!(fds.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
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
