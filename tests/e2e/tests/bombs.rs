//! Bombs: whatever an agent lets loose, the run comes to an end that names the limit.

use serde_json::{Value, json};

use crate::support::{
    installation::{Installation, is_root},
    program,
    repository::Repository,
    server::{Server, task},
    story::{Story, text},
};

fn bash(command: &str, seconds: u64) -> Value {
    let input = json!({ "command": command, "timeout_seconds": seconds });
    json!({ "say": "I run it.", "call": [{ "tool": "bash", "input": input }] })
}

/// Four times as many processes as allowed, which stay for so many seconds. This shell gives up
/// at the first refusal; bash tries again until there is room.
fn forks(seconds: u32) -> String {
    format!("sh -c 'i=0; while [ $i -lt 256 ]; do sleep {seconds} & i=$((i+1)); done; wait'")
}

/// Fills the disk, and leaves it full for as long as it takes to be seen.
const FILL: &str = "head -c 256M /dev/zero > /tmp/fill; sleep 3; rm /tmp/fill";

struct Bomb {
    backend: &'static str,
    turns: Vec<Value>,
    limits: Value,
}

impl Bomb {
    fn new(turns: impl Into<Vec<Value>>) -> Self {
        Self {
            backend: "native",
            turns: turns.into(),
            limits: json!({}),
        }
    }

    fn on(self, backend: &'static str) -> Self {
        Self { backend, ..self }
    }

    fn within(self, limits: Value) -> Self {
        Self { limits, ..self }
    }

    /// Lets it loose in a run, and then the agent says that it is done.
    async fn told(mut self) -> (Installation, Server, Story) {
        self.turns.push(json!({ "say": "Done." }));
        let mut installation = Installation::scripted(self.turns.into());
        let mut sandbox = json!({ "backends": [self.backend] });
        if self.backend == "docker" {
            sandbox["docker_socket"] = json!(program::docker());
        }
        installation.configure("sandbox", sandbox);
        let limits = json!({ "memory_bytes": 192 << 20, "pids": 64, "cpu_millis": 1000, "disk_bytes": 24 << 20 });
        let environment = json!({ "name": "default", "network": "none", "limits": limits });
        installation.configure("environments", json!([environment]));
        let repo = Repository::with(&installation, &[("a", "a\n")]);
        let server = Server::up(&installation).await;
        let agent = json!({ "name": "bomber", "kind": { "builtin": {} }, "limits": self.limits });
        let mut task = task(&repo, agent);
        task.backend = Some(self.backend.to_owned());
        let run = server.create(&task).await;
        let story = server.told(run).await;
        (installation, server, story)
    }
}

/// Limits the run was told of, by name.
fn told_of(story: &Story) -> Vec<&str> {
    let events = story.all("sandbox.limit");
    events.into_iter().map(|event| text(event, "limit")).collect()
}

/// The limits the result names.
async fn result_names(server: &Server, story: &Story) -> Vec<String> {
    let end = story.events.last().unwrap();
    assert_eq!(end.kind.as_str(), "run.completed", "{story}");
    server.look(end.run).await.result.expect("a result").limits_hit
}

fn failure(story: &Story) -> Value {
    let end = story.events.last().unwrap();
    assert_eq!(end.kind.as_str(), "run.failed", "{story}");
    end.data["failure"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_bomb_is_named_and_the_run_goes_on() {
    let bomb = Bomb::new([bash(&format!("{}; sleep 3", forks(2)), 20), bash("echo still here", 5)]);
    let (_installation, server, story) = bomb.told().await;
    if !is_root() {
        return; // Without cgroups nobody counts.
    }
    assert_eq!(result_names(&server, &story).await, ["pids=64"], "{story}");
    assert_eq!(told_of(&story), ["pids"], "once: {story}");
    assert!(story.outputs().contains("still here"), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_fails_after_a_fork_bomb_names_it() {
    let command = format!("{} & sleep 60", forks(60));
    let bomb = Bomb::new([bash(&command, 100)]).within(json!({ "inactivity_seconds": 3 }));
    let (_installation, _server, story) = bomb.told().await;
    let failure = failure(&story);
    assert_eq!(failure["code"], "inactive", "{story}");
    if is_root() {
        assert!(failure["message"].as_str().unwrap().contains("pids=64"), "{story}");
        assert!(failure["hint"].as_str().unwrap().contains("limits.pids"), "{story}");
    }
}

/// Nothing can be started in such a sandbox any more, not even what takes the change out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_bomb_that_stays_ends_the_run_by_name() {
    let (_installation, _server, story) = Bomb::new([bash(&forks(60), 5)]).told().await;
    let failure = failure(&story);
    if is_root() {
        assert!(failure["message"].as_str().unwrap().contains("pids=64"), "{story}");
        assert!(failure["hint"].as_str().unwrap().contains("limits.pids"), "{story}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_hog_ends_the_run_by_its_limit() {
    if !is_root() {
        return; // Without cgroups memory is not limited.
    }
    let bomb = Bomb::new([bash("head -c 1G /dev/zero | tail", 60)]);
    let (_installation, _server, story) = bomb.told().await;
    let failure = failure(&story);
    assert_eq!(
        (&failure["code"], &failure["class"]),
        (&json!("memory_limit"), &json!("terminal")),
        "{story}"
    );
    assert!(failure["message"].as_str().unwrap().contains("201326592"), "{story}");
    assert_eq!(told_of(&story), ["memory"], "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_filler_is_named() {
    let (_installation, server, story) = Bomb::new([bash(FILL, 20)]).told().await;
    assert!(story.outputs().contains("No space left on device"), "{story}");
    assert_eq!(result_names(&server, &story).await, ["disk=25165824"], "{story}");
    assert_eq!(told_of(&story), ["disk"], "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_stays_full_ends_the_run_by_name() {
    let bomb = Bomb::new([bash("head -c 256M /dev/zero > /tmp/fill", 20)]);
    let (_installation, _server, story) = bomb.told().await;
    let failure = failure(&story);
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("disk=25165824"), "{story}");
    assert!(
        failure["hint"].as_str().unwrap().contains("limits.disk_bytes"),
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_descriptor_hog_a_flooder_and_a_deaf_process_are_ended_by_name() {
    let bomb = Bomb::new([
        bash("while exec {fd}</dev/null; do :; done; echo over", 60),
        bash("yes full", 60),
        bash("trap '' TERM INT HUP; while :; do sleep 1; done", 2),
    ]);
    let (_installation, server, story) = bomb.told().await;
    assert!(result_names(&server, &story).await.is_empty(), "{story}");
    let outputs = story.outputs();
    for words in ["Too many open files", "ended after 2 seconds"] {
        assert!(outputs.contains(words), "{words}: {story}");
    }
    let details: Vec<_> = story
        .all("action.settled")
        .iter()
        .map(|event| &event.data["details"])
        .collect();
    assert!(details.iter().any(|d| d["output_limit"] == json!(64 << 20)), "{story}");
    assert!(details.iter().any(|d| d["timed_out"] == json!(true)), "{story}");
    assert!(told_of(&story).is_empty(), "no limit of the sandbox: {story}");
}

/// The control: what stays below every limit meets none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_run_meets_no_limit() {
    let work = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; head -c 8M /dev/zero > /tmp/some; head -c 32M /dev/zero | tail | wc -c; wait";
    let (_installation, server, story) = Bomb::new([bash(work, 20)]).told().await;
    assert!(result_names(&server, &story).await.is_empty(), "{story}");
    assert!(told_of(&story).is_empty(), "{story}");
}

/// Every backend tells the same, except gVisor, whose own kernel counts processes for nobody.
async fn is_told_on(backend: &'static str) {
    if !is_root() {
        return;
    }
    let bomb = Bomb::new([bash(&format!("{}; sleep 3", forks(2)), 20), bash(FILL, 20)]).on(backend);
    let (_installation, server, story) = bomb.told().await;
    let mut named = result_names(&server, &story).await;
    named.sort();
    match backend {
        "runsc" => assert_eq!(named, ["disk=25165824"], "{story}"),
        _ => assert_eq!(named, ["disk=25165824", "pids=64"], "{story}"),
    }
    let bomb = Bomb::new([bash("head -c 1G /dev/zero | tail", 60)]).on(backend);
    let (_installation, _server, story) = bomb.told().await;
    assert_eq!(failure(&story)["code"], "memory_limit", "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_told_on_runc() {
    is_told_on("runc").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_told_on_runsc() {
    is_told_on("runsc").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_told_on_docker() {
    is_told_on("docker").await;
}
