//! The backend `docker` for the bed, and what only it promises.
//!
//! The daemon is `cargo xtask test`'s, or that of `cargo xtask docker COMMAND`; its socket comes in
//! the environment.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use stockade_ports::sandbox::{ImageTree, RootFs, Sandbox as _, SandboxError};
use stockade_sandbox::{DockerConfig, DockerSandbox};

use crate::bed::{Bed, HostProcess, below, eventually, processes, refused, sh};

/// Names the daemon's socket; the bed hands it on to the process of a case.
pub(crate) const SOCKET: &str = "STOCKADE_TEST_DOCKER";

/// The daemon's socket.
pub(crate) fn socket() -> PathBuf {
    let Some(socket) = env::var_os(SOCKET) else {
        panic!("no Docker daemon for the tests: run them with `cargo xtask test`, or as `cargo xtask docker COMMAND`");
    };
    socket.into()
}

/// The backend on a bed's directory.
pub(crate) fn sandbox(dir: &Path) -> DockerSandbox {
    DockerSandbox::new(DockerConfig {
        socket: socket(),
        state_dir: dir.join("state"),
    })
}

/// A container of a process's sandboxes.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) name: String,
    /// Its first process, if it runs.
    pub(crate) pid: Option<i32>,
}

/// Containers that a process made, whatever became of it.
pub(crate) fn containers_of(owner: u32) -> Vec<Container> {
    let mark = format!("-{owner}-");
    let all = get("/containers/json?all=1");
    let all = all.as_array().expect("a list").iter();
    let named = all.filter_map(|container| {
        let name = container["Names"][0].as_str()?.trim_start_matches('/').to_owned();
        let id = container["Id"].as_str()?;
        (name.starts_with("run_") && name.contains(&mark)).then(|| Container {
            pid: first_process(id),
            name,
        })
    });
    named.collect()
}

fn first_process(id: &str) -> Option<i32> {
    let pid = get(&format!("/containers/{id}/json"))["State"]["Pid"].as_i64()?;
    i32::try_from(pid).ok().filter(|pid| *pid > 0)
}

/// Processes in a process's containers.
pub(crate) fn processes_of(owner: i32) -> Vec<HostProcess> {
    let all = processes();
    let mut found = Vec::new();
    for first in containers_of(owner.unsigned_abs())
        .into_iter()
        .filter_map(|container| container.pid)
    {
        found.extend(all.iter().filter(|process| process.pid == first).cloned());
        found.extend(below(first));
    }
    found
}

/// Asks the daemon, in the plainest HTTP there is. `null` for what it does not know.
fn get(path: &str) -> Value {
    let mut stream = UnixStream::connect(socket()).expect("the daemon listens");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    match head.split(' ').nth(1) {
        Some("200") => serde_json::from_str(body).expect("JSON"),
        Some("404") => Value::Null,
        _ => panic!("{path}: {head}\n{body}"),
    }
}

macro_rules! docker_cases {
    ($($name:ident),+ $(,)?) => {
        mod docker { $crate::modes::tests!(Docker: $($name)+); }
    };
}

docker_cases!(
    the_daemon_says_what_is_wrong_with_it,
    an_image_is_given_to_the_daemon_once,
    a_frozen_sandbox_stands_still,
    memory_that_runs_out_ends_it_by_name,
    the_tree_is_off_the_host_once_the_container_has_it,
    nothing_of_the_daemons_network_is_inside,
);

async fn the_daemon_says_what_is_wrong_with_it(bed: Bed) {
    let absent = DockerSandbox::new(DockerConfig {
        socket: bed.dir.join("absent.sock"),
        state_dir: bed.dir.join("state"),
    });
    for error in [refused(absent.check().await), refused(absent.create(bed.spec()).await)] {
        assert!(
            matches!(error, SandboxError::Unsupported { backend: "docker", .. }),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("absent.sock") && text.contains("start the Docker daemon"),
            "{text}"
        );
    }
    let facts = bed.sandbox.check().await.expect("this one works");
    assert!(facts.notes.iter().any(|note| note.contains("API 1.")), "{facts:?}");
    let mut spec = bed.spec();
    spec.restore = Some(bed.dir.join("archive"));
    let error = refused(bed.sandbox.create(spec).await);
    assert!(matches!(error, SandboxError::Incapable { .. }), "{error}");
}

/// A layer with a shell of the host's and what that needs.
fn shell_layer(dir: &Path) {
    let shell = fs::canonicalize("/bin/sh").expect("a shell");
    fs::create_dir_all(dir.join("bin")).expect("mkdir");
    fs::copy(&shell, dir.join("bin/sh")).expect("copies");
    for program in ["cat", "ls", "id"] {
        fs::copy(format!("/usr/bin/{program}"), dir.join("bin").join(program)).expect("copies");
    }
    let mut needed = std::process::Command::new("ldd");
    needed.args(["/usr/bin/ls", "/usr/bin/id", "/bin/sh"]);
    let listed = String::from_utf8(needed.output().expect("ldd").stdout).expect("text");
    let paths = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'));
    for path in paths {
        let to = dir.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("parent")).expect("mkdir");
        fs::copy(path, to).expect("copies");
    }
}

fn image(bed: &Bed, digest: &str) -> RootFs {
    let layers = ["top", "bottom"].map(|name| bed.dir.join("layers").join(name));
    RootFs::Image(Arc::new(ImageTree {
        pinned: format!("registry/test@{digest}"),
        digest: digest.to_owned(),
        layers: layers.to_vec(),
        env: vec![("FROM_IMAGE".to_owned(), "yes".to_owned())],
        keep: Box::new(()),
    }))
}

async fn an_image_is_given_to_the_daemon_once(bed: Bed) {
    let layers = bed.dir.join("layers");
    shell_layer(&layers.join("bottom"));
    fs::create_dir_all(layers.join("bottom/etc")).expect("mkdir");
    fs::write(layers.join("bottom/etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("writes");
    fs::write(layers.join("bottom/etc/motd"), "below").expect("writes");
    fs::create_dir_all(layers.join("top/etc")).expect("mkdir");
    fs::write(layers.join("top/etc/motd"), "above").expect("writes");
    let digest = format!("sha256:{}", uuid::Uuid::new_v4().simple());
    let copies = || {
        let list = get("/images/json");
        let list = list.as_array().expect("a list").clone();
        list.iter()
            .filter(|image| image["Labels"]["dev.stockade.image"] == digest.as_str())
            .count()
    };
    assert_eq!(copies(), 0);
    for _ in 0..2 {
        let mut spec = bed.spec();
        spec.rootfs = image(&bed, &digest);
        let handle = bed.create_from(spec).await;
        assert_eq!(handle.evidence().image, format!("registry/test@{digest}"));
        let seen = sh(
            &*handle,
            "cat /etc/motd; echo; id; echo $FROM_IMAGE; cat /workspace/README; ls /usr/bin 2>&1",
        )
        .await;
        for expected in ["above\n", "uid=1000(agent)", "yes\n", "original"] {
            assert!(seen.out.contains(expected), "{expected}: {seen:?}");
        }
        assert!(
            !seen.out.contains("dpkg"),
            "the host's programs are not there: {seen:?}"
        );
        let ran = sh(&*handle, "echo x > /etc/motd").await;
        assert!(ran.err.contains("Read-only"), "{ran:?}");
        handle.destroy().await.expect("destroys");
        assert_eq!(copies(), 1);
    }
    // It is of use and new: the reaper leaves it. The next test run's daemon knows nothing of it.
    bed.sandbox.reap().await.expect("reaps");
    assert_eq!(copies(), 1);
}

async fn a_frozen_sandbox_stands_still(bed: Bed) {
    let handle = bed.create().await;
    let count = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done";
    let _counting = handle
        .exec(crate::bed::request(&["sh", "-c", count]))
        .await
        .expect("starts");
    let at = || async {
        let bytes = handle.read_file("/tmp/count", 100).await.unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().parse::<u64>().unwrap_or(0)
    };
    while at().await == 0 {}
    let own = i32::try_from(std::process::id()).expect("pid");
    let used = || {
        let ticks = |process: &HostProcess| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
            let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
            let field = |n: usize| {
                rest.split_whitespace()
                    .nth(n)
                    .and_then(|f| f.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            field(11) + field(12)
        };
        processes_of(own).iter().map(ticks).sum::<u64>()
    };
    let before = used();
    eventually("the control: it works hard", || used() > before + 5);
    handle.pause().await.expect("pauses");
    handle.pause().await.expect("twice is fine");
    let frozen = used();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(used(), frozen, "it stands still");
    handle.resume().await.expect("goes on");
    handle.resume().await.expect("twice is fine");
    let resumed = used();
    eventually("it goes on", || used() > resumed + 5);
    handle.pause().await.expect("pauses");
    handle.destroy().await.expect("also a frozen one ends");
    let left: Vec<_> = containers_of(std::process::id())
        .into_iter()
        .map(|left| left.name)
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn memory_that_runs_out_ends_it_by_name(bed: Bed) {
    let mut spec = bed.spec();
    spec.limits.memory_bytes = 64 << 20;
    let handle = bed.create_from(spec).await;
    let neighbour = bed.create().await;
    let _ = crate::bed::probe(&*handle, &["eat", "256"]).await;
    let reason = tokio::time::timeout(Duration::from_secs(20), handle.ended()).await;
    let reason = reason.expect("it ends");
    assert!(reason.contains("memory"), "{reason}");
    assert_eq!(sh(&*neighbour, "echo well").await.ok(), "well\n");
}

async fn the_tree_is_off_the_host_once_the_container_has_it(bed: Bed) {
    let handle = bed.create().await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(bed.dir.to_str().expect("text")), "{mounts}");
    assert_eq!(
        sh(&*handle, "echo kept > /tmp/x && cat /tmp/x /workspace/README")
            .await
            .ok(),
        "kept\noriginal"
    );
    handle.destroy().await.expect("destroys");
    eventually("its directory is gone", || {
        fs::read_dir(bed.dir.join("state/sandboxes")).map_or(0, Iterator::count) == 0
    });
}

async fn nothing_of_the_daemons_network_is_inside(bed: Bed) {
    let handle = bed.create().await;
    let devices = sh(&*handle, "cat /proc/net/dev | tail -n +3 | cut -d: -f1").await.ok();
    assert_eq!(devices.trim(), "lo");
    let names = sh(&*handle, "cat /etc/hosts /etc/hostname /etc/resolv.conf").await.ok();
    assert!(
        names.contains("localhost sandbox") && names.contains("nameserver"),
        "{names}"
    );
    let daemon = socket().parent().expect("a directory").display().to_string();
    let files = sh(&*handle, "grep -v ' / / ' /proc/self/mountinfo").await.ok();
    assert!(
        !files.contains(&daemon),
        "only the root itself is the daemon's: {files}"
    );
}
