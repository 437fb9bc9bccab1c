//! The way to a real provider: keys, failures and how they are told apart.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::{
    anthropic,
    installation::Installation,
    repository::Repository,
    server::Server,
    story::{Story, text},
    web::{Answer, Seen, Web},
};

const KEY: &str = "sk-ant-e2e-upstream-key";

/// Tells a run against a provider that answers like this.
async fn told(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> (Installation, Web, Story) {
    told_by(json!("builtin"), answer).await
}

/// Tells a run of this agent against a provider that answers like this.
async fn told_by(
    agent: Value,
    answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
) -> (Installation, Web, Story) {
    let web = Web::plain(answer).await;
    let mut installation = Installation::bare();
    installation.configure("provider", json!(format!("anthropic:http://{}", web.address)));
    installation.set("ANTHROPIC_API_KEY", KEY);
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, agent).await;
    let story = server.told(run).await;
    (installation, web, story)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_asked_with_the_key_and_its_usage_is_counted() {
    let (_installation, web, story) = told(|request, before| match before {
        0 => anthropic::calls(
            request,
            "toolu_1",
            "write_file",
            json!({ "path": "b", "content": "b\n" }),
        ),
        _ => anthropic::says(request, "Written."),
    })
    .await;
    let end = story.events.last().unwrap();
    assert_eq!(
        (end.kind.as_str(), text(end, "summary")),
        ("run.completed", "Written."),
        "{story}"
    );
    let seen = web.seen();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/v1/messages")
        );
        assert_eq!(request.header("x-api-key"), KEY);
        assert!(!request.header("anthropic-version").is_empty());
        assert!(!String::from_utf8_lossy(&request.body).contains(KEY));
    }
    assert!(seen[1].json()["messages"].to_string().contains("toolu_1"));
    let calls = story.all("model.call");
    assert_eq!(
        calls
            .iter()
            .map(|call| call.data["spent"]["tokens"].as_u64().unwrap())
            .sum::<u64>(),
        2 * 1050,
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_stops_at_once_with_one_request() {
    let (_installation, web, story) = told(|_, _| anthropic::fails(401, "authentication_error")).await;
    let end = story.events.last().unwrap();
    assert_eq!(end.kind.as_str(), "run.failed", "{story}");
    assert_eq!(end.data["failure"]["class"], "terminal", "{story}");
    assert_eq!(end.data["failure"]["code"], "unauthorized", "{story}");
    assert_eq!(web.seen().len(), 1, "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_provider_is_asked_again_and_then_answers() {
    let (_installation, web, story) = told(|request, before| match before {
        0 | 1 => anthropic::fails(529, "overloaded_error"),
        _ => anthropic::says(request, "At last."),
    })
    .await;
    let end = story.events.last().unwrap();
    assert_eq!(
        (end.kind.as_str(), text(end, "summary")),
        ("run.completed", "At last."),
        "{story}"
    );
    assert_eq!(web.seen().len(), 3, "{story}");
    // Each attempt is an action of its own in the story, with a pause before the next.
    let calls = story.all("model.call");
    assert_eq!(calls.len(), 3, "{story}");
    let pause = calls[1].time.as_millisecond() - calls[0].time.as_millisecond();
    assert!(pause >= 200, "asked again after {pause} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_stays_overloaded_fails_the_run_in_the_end() {
    let (_installation, web, story) = told(|_, _| {
        let mut answer = anthropic::fails(529, "overloaded_error");
        answer.headers.push(("retry-after", "0".to_owned()));
        answer
    })
    .await;
    let end = story.events.last().unwrap();
    assert_eq!(end.kind.as_str(), "run.failed", "{story}");
    assert_eq!(end.data["failure"]["class"], "transient", "{story}");
    assert!((2..=12).contains(&web.seen().len()), "{} requests", web.seen().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_runs_out_before_it_is_spent() {
    let agent = |cost: u64| {
        json!({
            "name": "frugal", "kind": { "builtin": {} }, "model": "claude-sonnet-4-5",
            "limits": { "budget": { "cost_micro_usd": cost } },
        })
    };
    let answer = |request: &Seen, _: usize| anthropic::says(request, "Cheap.");
    // Less than the dearest answer could cost: the provider is not even asked.
    let (_installation, web, story) = told_by(agent(1000), answer).await;
    let end = story.events.last().unwrap();
    assert_eq!(end.data["failure"]["code"], "budget_exhausted", "{story}");
    assert_eq!(
        text(story.all("budget.exhausted")[0], "resource"),
        "cost_micro_usd",
        "{story}"
    );
    assert_eq!(web.connections(), 0, "{story}");

    let (_installation, web, story) = told_by(agent(2_000_000), answer).await;
    assert_eq!(story.events.last().unwrap().kind.as_str(), "run.completed", "{story}");
    assert_eq!(web.connections(), 1);
    // 1000 tokens in for 3 dollars a million and 50 out for 15.
    let spent = &story.all("model.call")[0].data["spent"];
    assert_eq!(spent["cost_micro_usd"], 1000 * 3 + 50 * 15, "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_is_replayed_without_a_provider() {
    let web = Web::plain(|request, before| match before {
        0 => anthropic::calls(
            request,
            "toolu_1",
            "write_file",
            json!({ "path": "b", "content": "b\n" }),
        ),
        _ => anthropic::says(request, "Written."),
    })
    .await;
    let mut installation = Installation::bare();
    installation.configure("provider", json!(format!("anthropic:http://{}", web.address)));
    installation.configure("record", json!("recordings"));
    installation.set("ANTHROPIC_API_KEY", KEY);
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let run = ["run", "x", "--repo", repo.source(), "--json"];
    let first = installation.run(&run).await.expect(0).json();
    assert_eq!(web.connections(), 2);
    let recordings = installation.state().join("recordings");
    let mut files = 0;
    for file in std::fs::read_dir(&recordings).unwrap().flatten() {
        let content = std::fs::read(file.path()).unwrap();
        assert!(
            !String::from_utf8_lossy(&content).contains(KEY),
            "{} holds the key",
            file.path().display()
        );
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        files += 1;
    }
    assert!(files >= 1);

    let mut other = Installation::bare();
    other.configure("provider", json!(format!("replay:{}", recordings.display())));
    other.configure("model", first["spec"]["model"].clone());
    let second = other.run(&run).await.expect(0).json();
    assert_eq!(second["result"]["patch_digest"], first["result"]["patch_digest"]);
    assert_eq!(second["result"]["summary"], "Written.");
    assert_eq!(web.connections(), 2, "a provider was asked");
    // What was never asked has no answer.
    let unknown = ["run", "something else", "--repo", repo.source()];
    other.run(&unknown).await.expect(1);
}
