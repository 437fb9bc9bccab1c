//! `kill -9` of the server: what was asked stays asked, what was running is gone, nothing is lost or doubled.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::json;
use stockade_api::{
    domain::{RunId, RunState},
    v1::DecideApproval,
};

use crate::support::{
    installation::Installation,
    names::Names,
    receipt,
    repository::Repository,
    server::Server,
    story::text,
    web::{Answer, Web},
};

/// A process, told apart from a later one with its number by its start time.
type Process = (u32, String);

/// Every process below this one.
fn descendants(root: u32) -> BTreeSet<Process> {
    let stats: Vec<(u32, u32, String)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some((pid, fields.get(1)?.parse().ok()?, (*fields.get(19)?).to_owned()))
        })
        .collect();
    let (mut found, mut todo) = (BTreeSet::new(), vec![root]);
    while let Some(parent) = todo.pop() {
        for (pid, _, start) in stats.iter().filter(|(_, of, _)| *of == parent) {
            if found.insert((*pid, start.clone())) {
                todo.push(*pid);
            }
        }
    }
    found
}

fn is_alive((pid, start): &Process) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    fields.get(19) == Some(&start.as_str()) && fields.first() != Some(&"Z")
}

/// Control groups that carry a run's name.
fn cgroups(run: RunId) -> Vec<PathBuf> {
    fn walk(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(name) {
                    found.push(path.clone());
                }
                walk(&path, name, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &run.to_string(), &mut found);
    found
}

/// Fails the test unless nothing of a killed server's sandboxes is left.
fn assert_gone(processes: &BTreeSet<Process>, run: RunId, installation: &Installation) {
    // The kernel takes down a process tree in its own time.
    let deadline = Instant::now() + Duration::from_secs(10);
    let left = || processes.iter().filter(|process| is_alive(process)).collect::<Vec<_>>();
    while (!left().is_empty() || !cgroups(run).is_empty()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(left().is_empty(), "processes of the sandbox live on: {:?}", left());
    assert_eq!(cgroups(run), Vec::<PathBuf>::new());
    installation.assert_untouched();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(installation.state().to_str().unwrap()),
        "a mount is left:\n{mounts}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_approval_survives_and_its_action_happens_once() {
    let web = Web::plain(|_, _| Answer::text("published")).await;
    let names = Names::serve(&["publish.example.com"]).await;
    let port = web.port();
    let publish = format!(
        "bash -c 'exec 3<>/dev/tcp/publish.example.com/{port} && printf \"GET /once HTTP/1.0\\r\\nHost: publish.example.com:{port}\\r\\n\\r\\n\" >&3 && cat <&3'"
    );
    let mut installation = Installation::scripted(json!([
        { "say": "I write.", "call": [{ "tool": "write_file", "input": { "path": "new.txt", "content": "new\n" } }] },
        { "say": "I publish.", "call": [{ "tool": "bash", "input": { "command": publish } }] },
        { "say": "Done." },
    ]));
    installation.reach(names.address, &[format!("publish.example.com:{port}")]);
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let agent = json!({
        "name": "careful", "kind": { "builtin": {} },
        "rules": [{ "id": "publish", "match": { "tool": "bash", "command": "*publish*" }, "verdict": "ask", "reason": "a person decides" }],
    });

    let server = Server::up(&installation).await;
    let run = server.run(&repo, agent).await;
    let mut story = server.story(run);
    let question = story.question().await;
    story.until_type("run.waiting").await;
    let before = story.events;
    let processes = descendants(server.pid());
    assert!(
        !processes.is_empty() && processes.iter().all(is_alive),
        "no sandbox runs"
    );
    let limits = before
        .iter()
        .find(|event| event.kind.as_str() == "sandbox.ready")
        .unwrap()
        .data["limits"]
        .to_string();
    assert_eq!(limits.contains("memory"), !cgroups(run).is_empty(), "{limits}");
    server.kill().await;

    let server = Server::up(&installation).await;
    assert_gone(&processes, run, &installation);
    let waiting = server.look(run).await;
    assert_eq!((waiting.state, waiting.attempt), (RunState::Waiting, 1));
    assert_eq!(waiting.open_approvals, [question]);
    assert_eq!(server.approvals(run).await.len(), 1);
    assert_eq!(
        server.client.approval(question).await.unwrap().state.as_str(),
        "pending"
    );
    assert_eq!(web.connections(), 0, "the held action happened");

    installation
        .run(&["approvals", "approve", &question.to_string()])
        .await
        .expect(0);
    let mut story = server.story(run);
    story.to("run.completed").await;
    story.assert_dense();
    assert_eq!(
        story.events[..before.len()],
        before[..],
        "the story before the crash changed"
    );
    assert_eq!(web.seen().len(), 1, "{story}");
    assert_eq!(story.all("approval.requested").len(), 1, "{story}");
    assert_eq!(story.all("approval.decided").len(), 1, "{story}");
    let attempts: Vec<_> = story
        .all("run.provisioning")
        .iter()
        .map(|event| event.data["attempt"].clone())
        .collect();
    assert_eq!(attempts, [json!(1), json!(2)]);
    let used: Vec<_> = story.with("action.admitted", "approval", &question.to_string());
    assert_eq!(used.len(), 1, "{story}");
    assert!(text(used[0], "target").contains("publish"), "{story}");
    let predicate = receipt::verified(&installation, run).await;
    assert_eq!(predicate["approvals"].as_array().unwrap().len(), 1);
    assert_eq!(predicate["run"]["machine"]["attempt"], 2);
    assert!(server.stop().await.success());
    installation.assert_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_was_cut_off_is_interrupted_and_its_action_unknown() {
    let installation = Installation::scripted(json!([
        { "say": "This takes long.", "call": [{ "tool": "bash", "input": { "command": "echo started; sleep 31415" } }] },
        { "say": "Done." },
    ]));
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, json!("builtin")).await;
    let mut story = server.story(run);
    story
        .until("the tool's admission", |event| {
            event.kind.as_str() == "action.admitted" && text(event, "kind") == "tool"
        })
        .await;
    let before = story.events;
    let processes = descendants(server.pid());
    assert!(!processes.is_empty());
    server.kill().await;

    let server = Server::up(&installation).await;
    let mut story = server.story(run);
    let end = story.to("run.failed").await;
    assert_gone(&processes, run, &installation);
    assert_eq!(end.data["failure"]["code"], "interrupted", "{end:?}");
    story.assert_dense();
    assert_eq!(story.events[..before.len()], before[..]);
    assert_eq!(
        story.all("run.provisioning").len(),
        1,
        "the work was silently repeated:\n{story}"
    );
    let predicate = receipt::verified(&installation, run).await;
    let actions = predicate["actions"].as_array().unwrap();
    let tool: Vec<_> = actions
        .iter()
        .filter(|action| action["action"]["kind"] == "tool")
        .collect();
    assert_eq!(tool.len(), 1);
    assert_eq!(tool[0]["outcome"]["result"], "unknown", "{}", tool[0]);
    let shown = installation.run(&["runs", "show", &run.to_string()]).await.expect(0);
    assert!(shown.stdout.contains("interrupted"), "{}", shown.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_in_good_order_keeps_the_question() {
    let installation = Installation::scripted(json!([
        { "say": "I ask.", "call": [{ "tool": "bash", "input": { "command": "echo ASK > asked.txt" } }] },
        { "say": "Done." },
    ]));
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, asking()).await;
    let mut story = server.story(run);
    let question = story.question().await;
    assert!(server.stop().await.success());
    installation.assert_untouched();

    let server = Server::up(&installation).await;
    assert_eq!(server.look(run).await.open_approvals, [question]);
    server
        .client
        .decide(question, &DecideApproval::approve())
        .await
        .unwrap();
    let mut story = server.story(run);
    story.to("run.completed").await;
    story.assert_dense();
    assert_eq!(story.all("approval.requested").len(), 1, "{story}");
    assert_eq!(server.look(run).await.result.unwrap().files.len(), 1);
}

fn asking() -> serde_json::Value {
    json!({
        "name": "careful", "kind": { "builtin": {} },
        "rules": [{ "id": "ask", "match": { "tool": "bash", "command": "*ASK*" }, "verdict": "ask" }],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_while_the_server_is_down_is_honoured_when_it_is_back() {
    let installation = Installation::scripted(json!([
        { "say": "I ask.", "call": [{ "tool": "bash", "input": { "command": "echo ASK > asked.txt" } }] },
        { "say": "Done." },
    ]));
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, asking()).await;
    let mut story = server.story(run);
    let question = story.question().await;
    server.kill().await;
    // No server runs: the command line answers from the store itself.
    installation
        .run(&["approvals", "reject", &question.to_string(), "--reason", "not today"])
        .await
        .expect(0);
    let ran = installation
        .run(&["approvals", "approve", &question.to_string()])
        .await
        .expect(2);
    assert!(ran.stderr.contains("rejected"), "{}", ran.stderr);

    let server = Server::up(&installation).await;
    let mut story = server.story(run);
    story.to("run.completed").await;
    let denied = story.with("action.denied", "approval", &question.to_string());
    assert_eq!(denied.len(), 1, "{story}");
    assert!(text(denied[0], "reason").contains("not today"), "{story}");
    assert!(server.look(run).await.result.unwrap().files.is_empty());
    let _ = server
        .client
        .decide(question, &DecideApproval::approve())
        .await
        .expect_err("it is decided");
}
