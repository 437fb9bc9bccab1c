//! The HTTP interface with a run behind it: pages, streams, messages, cancelling, results.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use stockade_api::{
    ProblemCode,
    domain::{Event, RunId},
    v1::DecideApproval,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    installation::Installation,
    repository::Repository,
    server::{Server, announced, first_run, task},
    story::{Story, text},
};

fn asking() -> Value {
    json!({
        "name": "careful", "kind": { "builtin": {} },
        "rules": [{ "id": "ask", "match": { "tool": "bash", "command": "*ASK*" }, "verdict": "ask", "reason": "a person decides" }],
    })
}

fn ask() -> Value {
    json!({ "say": "I ask.", "call": [{ "tool": "bash", "input": { "command": "echo ASK > asked.txt" } }] })
}

async fn begin(turns: Value) -> (Installation, Server, RunId) {
    let installation = Installation::scripted(turns);
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, asking()).await;
    (installation, server, run)
}

/// Reads an event stream as it comes over the wire until it has so many events or ends. The
/// connection is dropped then, wherever it stands.
async fn wire(server: &Server, run: RunId, last: Option<&str>, enough: usize) -> Vec<Event> {
    let mut stream = TcpStream::connect(server.authority()).await.unwrap();
    let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    // HTTP/1.0, so that the body comes as it is, without chunks.
    let request = format!(
        "GET /v1/runs/{run}/events HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\n{last}\r\n",
        server.authority(),
        server.token
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = timeout(Duration::from_secs(60), stream.read(&mut chunk))
            .await
            .expect("events within a minute");
        let size = read.unwrap();
        bytes.extend_from_slice(&chunk[..size]);
        let told = events(&String::from_utf8_lossy(&bytes));
        if told.len() >= enough || size == 0 {
            return told;
        }
    }
}

/// The whole events of a stream's text; an event without its empty line was not told.
fn events(text: &str) -> Vec<Event> {
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let whole = body.rfind("\n\n").map_or("", |end| &body[..end]);
    let field = |block: &str, name: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(name).map(|v| v.trim().to_owned()))
    };
    whole
        .split("\n\n")
        .filter_map(|block| {
            let event: Event = serde_json::from_str(&field(block, "data:")?).unwrap();
            assert_eq!(field(block, "id:").as_deref(), Some(event.id.as_str()));
            Some(event)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_stream_goes_on_where_it_was() {
    let (_installation, server, run) = begin(json!([ask(), { "say": "Done." }])).await;
    let first = wire(&server, run, None, 3).await;
    assert!(first.len() >= 3);
    // Everything up to the question is there now; the run waits, and nobody listens.
    let mut story = server.story(run);
    let question = story.question().await;
    let second = wire(&server, run, Some(&first.last().unwrap().id), 2).await;
    server
        .client
        .decide(question, &DecideApproval::approve())
        .await
        .unwrap();
    story.to("run.completed").await;
    let third = wire(&server, run, Some(&second.last().unwrap().id), usize::MAX).await;
    let told: Vec<Event> = [first, second, third].concat();
    assert_eq!(told, story.events, "something is missing or twice");
    story.assert_dense();

    // The pages tell the same.
    let (mut paged, mut after) = (Vec::new(), 0);
    loop {
        let page = server.client.events_page(run, after, Some(4)).await.unwrap();
        assert!(page.items.len() <= 4);
        let Some(last) = page.items.last() else { break };
        after = last.seq;
        paged.extend(page.items);
    }
    assert_eq!(paged, story.events);
    let foreign = server.client.events_page(run, 9999, None).await;
    assert!(foreign.is_ok_and(|page| page.items.is_empty()) || foreign_is_refused(&server, run).await);
    assert!(
        wire(&server, run, Some(&story.events.last().unwrap().id), 1)
            .await
            .is_empty()
    );
}

async fn foreign_is_refused(server: &Server, run: RunId) -> bool {
    let refused = server.client.events_page(run, 9999, None).await;
    refused.is_err_and(|error| error.code() == Some(ProblemCode::InvalidEventId))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_the_agent_that_works() {
    let turns = json!([
        ask(),
        { "when": { "request": "*paint it blue*" }, "say": "It is blue now." },
        { "say": "It is grey." },
        { "when": { "request": "*paint it blue*" }, "say": "It is blue now." },
    ]);
    let (installation, server, run) = begin(turns).await;
    let mut story = server.story(run);
    let question = story.question().await;
    installation
        .run(&["send", &run.to_string(), "Please paint it blue."])
        .await
        .expect(0);
    server
        .client
        .decide(question, &DecideApproval::approve())
        .await
        .unwrap();
    let end = story.to("run.completed").await;
    let said = story.with("message.user", "text", "Please paint it blue.");
    assert_eq!(said.len(), 1, "{story}");
    assert_eq!(text(&end, "summary"), "It is blue now.", "{story}");
    installation
        .run(&["send", &run.to_string(), "too late"])
        .await
        .expect(2)
        .says("ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_steers_interrupts_what_goes_on() {
    let call = |command: &str| json!({ "tool": "bash", "input": { "command": command } });
    let turns = json!([
        { "say": "This takes long.", "call": [call("sleep 1000"), call("touch second.txt")] },
        { "when": { "request": "*paint it blue*" }, "say": "It is blue now." },
        { "say": "It is grey." },
    ]);
    let (installation, server, run) = begin(turns).await;
    let mut story = server.story(run);
    story.until("the tool's admission", is_tool_admitted).await;
    let send = ["send", &run.to_string(), "Stop that and paint it blue.", "--steer"];
    installation.run(&send).await.expect(0);
    let end = story.to("run.completed").await;
    assert_eq!(text(&end, "summary"), "It is blue now.", "{story}");
    let files = server.look(run).await.result.unwrap().files;
    assert!(files.is_empty(), "the second tool was used all the same:\n{story}");
}

fn is_tool_admitted(event: &Event) -> bool {
    event.kind.as_str() == "action.admitted" && text(event, "kind") == "tool"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_cancelled_while_it_waits_and_while_it_works() {
    let (installation, server, run) = begin(json!([ask(), { "say": "Done." }])).await;
    let mut story = server.story(run);
    let question = story.question().await;
    installation
        .run(&["runs", "cancel", &run.to_string(), "--reason", "changed my mind"])
        .await
        .expect(0);
    let end = story.to("run.cancelled").await;
    assert_eq!((text(&end, "by"), text(&end, "reason")), ("tester", "changed my mind"));
    assert_eq!(
        server.client.approval(question).await.unwrap().state.as_str(),
        "cancelled"
    );
    let again = server.client.cancel_run(run, None).await;
    assert!(again.is_err_and(|error| error.code() == Some(ProblemCode::RunEnded)));
    // A cancelled run has its receipt too.
    assert_eq!(
        crate::support::receipt::verified(&installation, run).await["run"]["machine"]["state"],
        "cancelled"
    );

    installation_that_works_is_cancelled().await;
}

async fn installation_that_works_is_cancelled() {
    let sleep = json!({ "say": "I sleep.", "call": [{ "tool": "bash", "input": { "command": "sleep 1000" } }] });
    let (installation, server, run) = begin(json!([sleep, { "say": "Done." }])).await;
    let mut story = server.story(run);
    story.until("the tool's admission", is_tool_admitted).await;
    server.client.cancel_run(run, None).await.unwrap();
    story.to("run.cancelled").await;
    assert!(server.stop().await.success());
    installation.assert_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_leaves_its_change_and_its_receipt() {
    let write = json!({ "say": "I write.", "call": [{ "tool": "write_file", "input": { "path": "docs/new.md", "content": "new\n" } }] });
    let (installation, server, run) = begin(json!([write, { "say": "Written." }])).await;
    let mut story = server.story(run);
    story.to("run.completed").await;
    let detail = server.look(run).await;
    let result = detail.result.unwrap();
    assert_eq!(result.summary, "Written.");
    assert_eq!(result.files.len(), 1);
    assert_eq!(
        (
            result.files[0].path.as_str(),
            result.files[0].change.as_str(),
            result.files[0].added
        ),
        ("docs/new.md", "added", Some(1))
    );
    assert!(result.branch.is_some() && result.commit.is_some());
    assert_eq!(detail.last_seq, story.events.len() as u64);
    crate::support::receipt::verified(&installation, run).await;
    let artifacts = server.client.artifacts(run).await.unwrap().items;
    let names: Vec<_> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(names, ["patch", "bundle", "receipt"]);
    let patch = server.client.artifact(run, "patch").await.unwrap();
    assert_eq!(patch, server.client.diff(run).await.unwrap());
    let shown = installation.run(&["runs", "diff", &run.to_string()]).await.expect(0);
    assert_eq!(shown.stdout.as_bytes(), &patch[..]);
    let told = installation.run(&["runs", "events", &run.to_string()]).await.expect(0);
    assert!(
        told.stderr.contains("Written.") || told.stdout.contains("Written."),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_creates_once_and_another_body_is_refused() {
    let installation = Installation::scripted(json!([{ "say": "Done." }]));
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let request = task(&repo, json!("builtin"));
    let one = server.client.create_task(&request, Some("key-1")).await.unwrap();
    let two = server.client.create_task(&request, Some("key-1")).await.unwrap();
    let (first, second) = (one.run.unwrap().id, two.run.unwrap().id);
    assert_eq!(first, second);
    assert!(two.replayed && !one.replayed);
    let mut other = request.clone();
    other.prompt.push_str(" Differently.");
    let refused = server.client.create_task(&other, Some("key-1")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ProblemCode::IdempotencyKeyReused), "{refused}");
    let third = server.create(&request).await;
    assert_ne!(first, third);
    server.story(first).to("run.completed").await;
    Story::of(&server.client, third).to("run.completed").await;
    assert_eq!(
        server
            .client
            .runs(&stockade_api::ListRuns::default())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_run_goes_on_without_its_command() {
    let installation = Installation::scripted(json!([ask(), { "say": "Done." }]));
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let file = installation.path("asking.yaml");
    std::fs::write(&file, asking().to_string()).unwrap();
    let server = Server::up(&installation).await;
    let run = [
        "run",
        "go",
        "--repo",
        repo.source(),
        "--agent",
        file.to_str().unwrap(),
        "--detach",
    ];
    let ran = installation.run(&run).await.expect(0);
    let id: RunId = ran.stdout.trim().parse().unwrap();
    let mut story = server.story(id);
    let question = story.question().await;
    installation
        .run(&["approvals", "approve", &question.to_string()])
        .await
        .expect(0);
    story.to("run.completed").await;
}

/// A run that lives in its command ends with it, however politely that is asked to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_terminated_cancels_its_run() {
    for signal in ["-TERM", "-INT"] {
        let sleep = json!({ "say": "I sleep.", "call": [{ "tool": "bash", "input": { "command": "sleep 1000" } }] });
        let installation = Installation::scripted(json!([sleep, { "say": "Done." }]));
        let repo = Repository::with(&installation, &[("a", "a\n")]);
        let mut command = installation.command(&["run", "go", "--repo", repo.source()]);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = quiet.kill_on_drop(true).spawn().unwrap();
        let client = announced(&installation).await;
        let run = first_run(&client).await;
        Story::of(&client, run)
            .until("the tool's admission", is_tool_admitted)
            .await;
        let pid = child.id().unwrap().to_string();
        assert!(
            std::process::Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let ended = timeout(Duration::from_secs(60), child.wait())
            .await
            .expect("it ends")
            .unwrap();
        assert_eq!(ended.code(), Some(3), "{signal}");
        assert!(
            !installation.state().join("server.json").exists(),
            "a server is announced that is gone"
        );
        installation.assert_untouched();
        let listed = installation.run(&["runs", "list", "--json"]).await.expect(0).json();
        assert_eq!(listed[0]["state"], "cancelled", "{signal}: {listed}");
    }
}
