//! Questions to people: asked, answered from elsewhere, once, and in time.

use std::fs;

use futures::future::join_all;
use serde_json::{Value, json};
use stockade_api::{
    ProblemCode,
    domain::{ApprovalState, RunId},
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

/// The built-in loop that asks before every command with ASK in it.
fn careful(limits: Value) -> Value {
    json!({
        "name": "careful", "kind": { "builtin": {} }, "limits": limits,
        "rules": [{ "id": "ask", "match": { "tool": "bash", "command": "*ASK*" }, "verdict": "ask", "reason": "a person decides" }],
    })
}

fn bash(command: &str) -> Value {
    json!({ "say": "I run it.", "call": [{ "tool": "bash", "input": { "command": command } }] })
}

async fn begin(turns: Value, limits: Value) -> (Installation, Server, RunId) {
    let installation = Installation::scripted(turns);
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, careful(limits)).await;
    (installation, server, run)
}

async fn patch(server: &Server, run: RunId) -> String {
    String::from_utf8(server.client.diff(run).await.unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_approves_and_http_rejects() {
    let turns = json!([bash("echo ASK > one.txt"), bash("echo ASK > two.txt"), { "say": "Done." }]);
    let (installation, server, run) = begin(turns, json!({})).await;
    let mut story = server.story(run);
    let first = story.question().await.to_string();
    assert_eq!(server.look(run).await.state.as_str(), "waiting");
    let listed = installation.run(&["approvals", "list"]).await.expect(0);
    assert!(
        listed.stdout.contains(&first) && listed.stdout.contains("one.txt"),
        "{}",
        listed.stdout
    );
    let shown = installation
        .run(&["approvals", "show", &first, "--json"])
        .await
        .expect(0)
        .json();
    assert_eq!(shown["action"]["args"]["command"], "echo ASK > one.txt");
    assert_eq!(shown["rule"], "ask");
    installation
        .run(&["approvals", "approve", &first, "--reason", "looks fine"])
        .await
        .expect(0);

    let second = story.question().await;
    let decision = DecideApproval {
        reason: Some("not this one".to_owned()),
        ..DecideApproval::reject()
    };
    server.client.decide(second, &decision).await.unwrap();
    story.to("run.completed").await;
    let files = server.look(run).await.result.unwrap().files;
    assert_eq!(
        files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(),
        ["one.txt"]
    );
    assert!(
        story.outputs().contains("not this one"),
        "the agent does not learn why:\n{story}"
    );
    let waits = story.all("run.waiting").len();
    assert_eq!(waits, 2, "{story}");

    let predicate = receipt::verified(&installation, run).await;
    let decided = predicate["approvals"].as_array().unwrap();
    assert_eq!(decided[0]["state"], "approved");
    assert_eq!(decided[0]["decision_reason"], "looks fine");
    assert!(!decided[0]["used_at"].is_null());
    assert_eq!(decided[1]["state"], "rejected");
    assert!(
        decided.iter().all(|approval| approval["decided_by"] == "tester"),
        "{decided:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_answers_and_the_answer_is_no() {
    let turns = json!([bash("echo ASK > one.txt"), { "say": "Done." }]);
    let (_installation, server, run) = begin(turns, json!({ "approval_timeout_seconds": 1 })).await;
    let mut story = server.story(run);
    let question = story.question().await;
    story.until_type("approval.expired").await;
    story.to("run.completed").await;
    assert_eq!(
        server.client.approval(question).await.unwrap().state,
        ApprovalState::Expired
    );
    assert!(server.look(run).await.result.unwrap().files.is_empty());
    assert_eq!(
        story.with("action.denied", "approval", &question.to_string()).len(),
        1,
        "{story}"
    );
    let late = server
        .client
        .decide(question, &DecideApproval::approve())
        .await
        .unwrap_err();
    assert_eq!(late.code(), Some(ProblemCode::ApprovalClosed), "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yes_is_used_once() {
    let turns = json!([bash("echo ASK >> one.txt"), bash("echo ASK >> one.txt"), { "say": "Done." }]);
    let (_installation, server, run) = begin(turns, json!({})).await;
    let mut story = server.story(run);
    let first = story.question().await;
    server.client.decide(first, &DecideApproval::approve()).await.unwrap();
    let second = story.question().await;
    assert_ne!(first, second);
    let (one, two) = (
        server.client.approval(first).await.unwrap(),
        server.client.approval(second).await.unwrap(),
    );
    assert_eq!(one.digest, two.digest, "the same action");
    server.client.decide(second, &DecideApproval::reject()).await.unwrap();
    story.to("run.completed").await;
    assert_eq!(patch(&server, run).await.matches("+ASK").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_edited_is_what_runs() {
    let turns = json!([bash("echo ASK > original.txt"), { "say": "Done." }]);
    let (installation, server, run) = begin(turns, json!({})).await;
    let mut story = server.story(run);
    let question = story.question().await.to_string();
    let file = installation.path("edit.json");
    let edit = ["approvals", "approve", &question, "--edit", file.to_str().unwrap()];
    fs::write(&file, "{\n  \"command\": oops\n}").unwrap();
    installation.run(&edit).await.expect(2).says("edit.json:2:");
    fs::write(&file, json!({ "command": "echo edited > edited.txt" }).to_string()).unwrap();
    installation.run(&edit).await.expect(0);
    story.to("run.completed").await;
    let patch = patch(&server, run).await;
    assert!(
        patch.contains("b/edited.txt") && !patch.contains("original.txt"),
        "{patch}"
    );
    let admitted = story.with("action.admitted", "approval", &question);
    assert_eq!(
        admitted[0].data["args"]["command"], "echo edited > edited.txt",
        "{story}"
    );
    let predicate = receipt::verified(&installation, run).await;
    let approval = &predicate["approvals"][0];
    assert_eq!(approval["action"]["args"]["command"], "echo ASK > original.txt");
    assert_eq!(approval["edited"]["args"]["command"], "echo edited > edited.txt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_decisions_at_the_same_time_one_counts() {
    let turns = json!([bash("echo ASK > one.txt"), { "say": "Done." }]);
    let (_installation, server, run) = begin(turns, json!({})).await;
    let mut story = server.story(run);
    let question = story.question().await;
    let decisions = (0..12).map(|n| {
        let client = server.client.clone();
        async move {
            let decision = if n % 2 == 0 {
                DecideApproval::approve()
            } else {
                DecideApproval::reject()
            };
            client.decide(question, &decision).await.map(|approval| approval.state)
        }
    });
    let answers = join_all(decisions).await;
    let taken: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!(taken.len(), 1, "{answers:?}");
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(refused.code(), Some(ProblemCode::ApprovalClosed), "{refused}");
    }
    story.to("run.completed").await;
    let decided = story.all("approval.decided");
    assert_eq!(decided.len(), 1, "{story}");
    let written = !server.look(run).await.result.unwrap().files.is_empty();
    assert_eq!(written, *taken[0] == ApprovalState::Approved, "{story}");
    assert_eq!(text(decided[0], "decision") == "approve", written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_leaves_only_after_a_yes_where_a_rule_asks() {
    for (decision, end) in [
        (DecideApproval::approve(), "run.completed"),
        (DecideApproval::reject(), "run.failed"),
    ] {
        let installation = Installation::scripted(json!([bash("echo new > new.txt"), { "say": "Done." }]));
        let repo = Repository::with(&installation, &[("a", "a\n")]);
        let server = Server::up(&installation).await;
        let agent = json!({
            "name": "careful", "kind": { "builtin": {} },
            "rules": [{ "id": "review", "match": { "kind": "export" }, "verdict": "ask", "reason": "read it first" }],
        });
        let run = server.run(&repo, agent).await;
        let mut story = server.story(run);
        let question = story.question().await;
        let asked = server.client.approval(question).await.unwrap();
        assert_eq!(asked.action.args["files"], json!(["new.txt"]));
        assert!(
            server.client.diff(run).await.is_err(),
            "the change left before the answer"
        );
        server.client.decide(question, &decision).await.unwrap();
        let end = story.to(end).await;
        let left = server.client.diff(run).await.is_ok();
        assert_eq!(left, end.kind.as_str() == "run.completed", "{story}");
        if !left {
            assert_eq!(end.data["failure"]["code"], "refused", "{story}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_waits_for_a_yes_where_a_rule_asks() {
    let web = Web::plain(|_, _| Answer::text("REACHED")).await;
    let names = Names::serve(&["files.example.com"]).await;
    let host = format!("files.example.com:{}", web.port());
    let get = |path: &str| {
        let line = format!("GET /{path} HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n");
        let place = host.replace(':', "/");
        bash(&format!(
            "timeout 60 bash -c 'exec 3<>/dev/tcp/{place} && printf \"{line}\" >&3 && cat <&3' # {path}"
        ))
    };
    let mut installation = Installation::scripted(json!([get("first"), get("second"), { "say": "Done." }]));
    installation.reach(names.address, std::slice::from_ref(&host));
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let agent = json!({
        "name": "careful", "kind": { "builtin": {} },
        "rules": [{ "id": "files", "match": { "kind": "egress", "host": "files.example.com" }, "verdict": "ask" }],
    });
    let run = server.run(&repo, agent).await;
    let mut story = server.story(run);
    let mut answers = Vec::new();
    loop {
        let event = story
            .until("a question or the end", |e| {
                matches!(e.kind.as_str(), "approval.requested" | "run.completed")
            })
            .await;
        if event.kind.as_str() == "run.completed" {
            break;
        }
        // The first one and whatever belongs to it is allowed, then nothing.
        let question = text(&event, "approval").parse().unwrap();
        let decision = if web.connections() == 0 {
            DecideApproval::approve()
        } else {
            DecideApproval::reject()
        };
        assert_eq!(text(&event, "kind"), "egress", "{story}");
        answers.push(decision.decision);
        server.client.decide(question, &decision).await.unwrap();
    }
    let seen: Vec<_> = web.seen().into_iter().map(|request| request.path).collect();
    assert_eq!(seen, ["/first"], "{answers:?}\n{story}");
    assert_eq!(story.outputs().matches("REACHED").count(), 1, "{story}");
}
