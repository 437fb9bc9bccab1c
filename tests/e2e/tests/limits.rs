//! Two in the morning: nobody watches, and everything that never ends comes to an end.

use serde_json::{Value, json};
use stockade_api::v1::DecideApproval;

use crate::support::{
    installation::Installation,
    program::{self, Ran},
    repository::Repository,
    server::{Server, first_run},
    story::{Story, text},
};

fn agent(limits: Value) -> Value {
    json!({ "name": "limited", "kind": { "builtin": {} }, "limits": limits })
}

fn bash(command: &str) -> Value {
    json!({ "say": "I run it.", "call": [{ "tool": "bash", "input": { "command": command } }] })
}

/// Tells a run with these limits to its end.
async fn told(turns: Value, limits: Value) -> (Installation, Server, Story) {
    let installation = Installation::scripted(turns);
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, agent(limits)).await;
    let story = server.told(run).await;
    (installation, server, story)
}

#[track_caller]
fn assert_failed(story: &Story, code: &str) -> Value {
    let end = story.events.last().unwrap();
    assert_eq!(
        (end.kind.as_str(), end.data["failure"]["code"].as_str()),
        ("run.failed", Some(code)),
        "{story}"
    );
    assert_eq!(
        story.all("sandbox.ready").len(),
        story.all("sandbox.ended").len(),
        "{story}"
    );
    end.data["failure"].clone()
}

/// Six commands, each different, then an end.
fn busy() -> Value {
    let mut turns: Vec<Value> = (0..6).map(|n| bash(&format!("echo {n}"))).collect();
    for turn in &mut turns {
        turn["usage"] = json!({ "input": 30_000, "output": 2_000 });
    }
    turns.push(json!({ "say": "Done.", "usage": { "input": 30_000, "output": 2_000 } }));
    Value::from(turns)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_limit_in_its_way_the_busy_agent_finishes() {
    let (_installation, _server, story) = told(busy(), json!({})).await;
    assert_eq!(story.events.last().unwrap().kind.as_str(), "run.completed", "{story}");
    assert_eq!(story.all("model.call").len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model_requests_run_out() {
    let (_installation, server, story) = told(busy(), json!({ "budget": { "model_requests": 3 } })).await;
    assert_failed(&story, "budget_exhausted");
    assert_eq!(story.all("model.call").len(), 3, "{story}");
    let exhausted = story.all("budget.exhausted");
    assert_eq!(text(exhausted[0], "resource"), "model_requests", "{story}");
    assert_eq!(server.look(story.events[0].run).await.used.model_requests, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_run_out() {
    let (_installation, server, story) = told(busy(), json!({ "budget": { "tokens": 130_000 } })).await;
    assert_failed(&story, "budget_exhausted");
    assert_eq!(text(story.all("budget.exhausted")[0], "resource"), "tokens", "{story}");
    let calls = story.all("model.call").len();
    assert!((1..=4).contains(&calls), "{calls} calls of 32000 tokens each:\n{story}");
    let run = server.look(story.events[0].run).await;
    assert_eq!(run.used.tokens, calls as u64 * 32_000);
    assert_eq!(run.reserved.tokens, 0, "a reservation is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_run_out() {
    let (_installation, server, story) = told(busy(), json!({ "budget": { "turns": 2 } })).await;
    assert_failed(&story, "budget_exhausted");
    assert_eq!(text(story.all("budget.exhausted")[0], "resource"), "turns", "{story}");
    assert_eq!(story.all("turn.started").len(), 2, "{story}");
    assert_eq!(server.look(story.events[0].run).await.used.turns, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wall_clock_ends_a_run_that_shows_life() {
    let turns = json!([bash("for n in $(seq 1000); do echo $n; sleep 0.2; done"), { "say": "Done." }]);
    let (_installation, _server, story) = told(turns, json!({ "wall_clock_seconds": 6 })).await;
    assert_failed(&story, "wall_clock");
    assert!(
        story.outputs().is_empty() && !story.all("agent.ready").is_empty(),
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_a_run() {
    let turns = json!([bash("sleep 1000"), { "say": "Done." }]);
    let (_installation, _server, story) = told(turns, json!({ "inactivity_seconds": 2 })).await;
    assert_failed(&story, "inactive");
}

/// The same command again and again, from the command line; the answer to the question decides.
async fn looping(limits: Value, answer: Option<DecideApproval>) -> (Story, Ran) {
    let turns = Value::from([vec![bash("cat a"); 3], vec![bash("ls"), json!({ "say": "Done." })]].concat());
    let installation = Installation::scripted(turns);
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let file = installation.path("agent.yaml");
    std::fs::write(&file, agent(limits).to_string()).unwrap();
    let server = Server::up(&installation).await;
    let command = installation.command(&["run", "go", "--repo", repo.source(), "--agent", file.to_str().unwrap()]);
    let watched = tokio::spawn(program::run(command));
    let run = first_run(&server.client).await;
    let mut story = server.story(run);
    let question = story.question().await;
    assert!(server.client.approval(question).await.unwrap().repetition);
    if let Some(answer) = answer {
        server.client.decide(question, &answer).await.unwrap();
    }
    story.finish().await;
    assert_eq!(story.all("action.stopped").len(), 1, "{story}");
    (story, watched.await.unwrap())
}

/// How often the repeated command ran.
fn repeated(story: &Story) -> usize {
    story
        .all("action.settled")
        .iter()
        .filter(|event| text(event, "target") == "cat a")
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_command_three_times_ends_the_run_when_nobody_answers() {
    let (story, ran) = looping(json!({ "approval_timeout_seconds": 1 }), None).await;
    assert_failed(&story, "loop");
    assert_eq!(repeated(&story), 2, "{story}");
    ran.expect(3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_command_three_times_goes_on_after_a_yes() {
    let (story, ran) = looping(json!({}), Some(DecideApproval::approve())).await;
    assert_eq!(story.events.last().unwrap().kind.as_str(), "run.completed", "{story}");
    assert_eq!(repeated(&story), 3, "{story}");
    ran.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_command_three_times_is_not_run_after_a_no() {
    let (story, _) = looping(json!({}), Some(DecideApproval::reject())).await;
    assert_eq!(repeated(&story), 2, "{story}");
    assert!(story.outputs().contains("rejected by tester"), "{story}");
}
