//! Tasks and runs: what is frozen, what is refused before anything exists.

use serde_json::{Value, json};
use stockade_api::v1::{CreateRun, CreateTask, NameOr};
use stockade_domain::{LimitsPatch, NetworkLevel, RepoSpec};
use stockade_gateway::HttpLimits;
use stockade_policy::Policy;
use stockade_ports::{Store, Topic};

use crate::{
    harness::{Harness, catalog},
    raw::Call,
};

#[tokio::test]
async fn a_run_is_frozen_with_names_resolved_and_limits_laid_over_each_other() {
    let harness = Harness::start().await;
    let task = CreateTask {
        repo: Some(NameOr::Name("some/path".to_owned())),
        agent: Some(NameOr::from("careful")),
        environment: Some("open".to_owned()),
        backend: Some("runc".to_owned()),
        limits: Some(LimitsPatch {
            wall_clock_seconds: Some(5),
            ..LimitsPatch::default()
        }),
        ..CreateTask::new("do it")
    };
    let created = harness.client().create_task(&task, None).await.unwrap();
    let run = created.run.unwrap();
    let spec = &run.spec;
    assert_eq!(spec.agent, catalog().agents["careful"]);
    assert_eq!(spec.environment.network, NetworkLevel::Trusted);
    assert_eq!((spec.model.as_str(), spec.backend.as_str()), ("careful-model", "runc"));
    assert_eq!(spec.repo.as_ref().unwrap().source, "some/path");
    // The request over the agent over the installation.
    assert_eq!(spec.limits.wall_clock_seconds, 5);
    assert_eq!(spec.limits.inactivity_seconds, 77);
    assert_eq!(spec.limits.approval_timeout_seconds, 3600);
    let policy = Policy::compile(&spec.agent, &spec.environment).unwrap();
    assert_eq!(spec.policy_version, policy.version());
    // Everybody who should know knows.
    assert_eq!(harness.engine.woken(), vec![run.id]);
    assert_eq!(harness.bus.said(), vec![Topic::Queue, Topic::Run(run.id)]);
    assert_eq!(harness.client().run(run.id).await.unwrap(), run);
    assert_eq!(harness.client().task(created.task.id).await.unwrap(), created.task);
}

#[tokio::test]
async fn defaults_inline_agents_and_repositories_with_a_reference() {
    let harness = Harness::start().await;
    let (_, run) = harness.queued().await;
    let run = harness.client().run(run).await.unwrap();
    let of = (
        run.spec.agent.name.as_str(),
        run.spec.environment.name.as_str(),
        run.spec.model.as_str(),
        run.spec.backend.as_str(),
    );
    assert_eq!(of, ("builtin", "default", "model-1", "native"));

    let mut agent = catalog().agents["builtin"].clone();
    agent.name = "mine".to_owned();
    let repo = RepoSpec {
        source: "https://example.com/r.git".to_owned(),
        reference: Some("main".to_owned()),
    };
    let task = CreateTask {
        agent: Some(NameOr::Inline(Box::new(agent.clone()))),
        repo: Some(NameOr::Inline(Box::new(repo.clone()))),
        model: Some("other".to_owned()),
        ..CreateTask::new("do it")
    };
    let created = harness.client().create_task(&task, None).await.unwrap();
    let run = created.run.unwrap();
    assert_eq!(
        (run.spec.agent, run.spec.repo, run.spec.model),
        (agent, Some(repo), "other".to_owned())
    );
}

#[tokio::test]
async fn a_task_without_a_run_and_runs_made_of_it() {
    let harness = Harness::start().await;
    let client = harness.client();
    let task = CreateTask {
        run: false,
        ..CreateTask::new("later")
    };
    let created = client.create_task(&task, None).await.unwrap();
    assert_eq!(created.run, None);
    assert!(harness.engine.woken().is_empty());
    let wanted = CreateRun {
        model: Some("m2".to_owned()),
        ..CreateRun::default()
    };
    let run = client
        .create_run(created.task.id, &wanted, None)
        .await
        .unwrap()
        .run
        .unwrap();
    assert_eq!((run.spec.prompt.as_str(), run.spec.model.as_str()), ("later", "m2"));
    // The body of this one may be left out.
    let path = format!("/v1/tasks/{}/runs", created.task.id);
    let answer = harness.call(Call::new("POST", &path)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(
        answer.header("location"),
        format!("/v1/runs/{}", answer.json()["run"]["id"].as_str().unwrap())
    );
    // Options of a run where there is none would be forgotten, so they are refused.
    let answer = harness
        .post("/v1/tasks", json!({ "prompt": "x", "run": false, "model": "m" }))
        .await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_body"));
}

#[tokio::test]
async fn the_same_key_creates_once() {
    let harness = Harness::start().await;
    let client = harness.client();
    let task = CreateTask::new("once");
    let first = client.create_task(&task, Some("key-1")).await.unwrap();
    let again = client.create_task(&task, Some("key-1")).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(
        (first.task.id, first.run.unwrap().id),
        (again.task.id, again.run.unwrap().id)
    );
    // Another team's keys are other keys.
    let theirs = harness
        .client_of_other_team()
        .create_task(&task, Some("key-1"))
        .await
        .unwrap();
    assert_ne!(theirs.task.id, first.task.id);
    assert_eq!(client.tasks(None, None).await.unwrap().items.len(), 1);
    // Many at once create once too.
    let many = futures::future::join_all((0..16).map(|_| client.create_task(&task, Some("key-2")))).await;
    let fresh = many.iter().filter(|created| !created.as_ref().unwrap().replayed);
    assert_eq!(fresh.count(), 1);
}

#[tokio::test]
async fn refusals_create_nothing_and_wake_nobody() {
    let limits = HttpLimits {
        text_bytes: 100,
        ..HttpLimits::default()
    };
    let harness = Harness::with(catalog(), limits).await;
    let long = "x".repeat(101);
    let rule = json!({ "name": "a", "kind": { "builtin": {} }, "rules": [{ "id": "stockade.mine", "match": { "tool": "x" }, "verdict": "allow" }] });
    let cases: Vec<(Value, &str)> = vec![
        (json!({ "prompt": " \n" }), "empty_text"),
        (json!({ "prompt": long }), "text_too_long"),
        (json!({}), "invalid_body"),
        (json!({ "prompt": "x", "promt": "y" }), "invalid_body"),
        (json!({ "prompt": "x", "agent": "nobody" }), "unknown_agent"),
        (json!({ "prompt": "x", "agent": "broken" }), "agent_unavailable"),
        (json!({ "prompt": "x", "agent": rule }), "invalid_policy"),
        (
            json!({ "prompt": "x", "environment": "nowhere" }),
            "unknown_environment",
        ),
        (
            json!({ "prompt": "x", "environment": { "name": "mine", "network": "full" } }),
            "invalid_body",
        ),
        (json!({ "prompt": "x", "backend": "cloud" }), "unknown_backend"),
        (json!({ "prompt": "x", "model": "" }), "invalid_body"),
        (
            json!({ "prompt": "x", "limits": { "wall_clock_seconds": 0 } }),
            "invalid_limits",
        ),
        (
            json!({ "prompt": "x", "limits": { "inactivity_seconds": u64::MAX } }),
            "invalid_limits",
        ),
        (
            json!({ "prompt": "x", "limits": { "repeat_limit": 1 } }),
            "invalid_limits",
        ),
        (
            json!({ "prompt": "x", "limits": { "budget": { "token": 1 } } }),
            "invalid_body",
        ),
        (json!({ "prompt": "x", "repo": "missing" }), "repository"),
        (json!({ "prompt": "x", "repo": "--upload-pack=evil" }), "repository"),
        (
            json!({ "prompt": "x", "repo": { "source": "a", "reference": "-x" } }),
            "repository",
        ),
    ];
    for (body, code) in cases {
        let answer = harness.post("/v1/tasks", body.clone()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (422, code),
            "{body}: {}",
            answer.text()
        );
    }
    assert!(harness.client().tasks(None, None).await.unwrap().items.is_empty());
    assert!(harness.engine.woken().is_empty() && harness.bus.said().is_empty());
    assert!(harness.store.runs(None, &[], None, 10).await.unwrap().is_empty());
    // The control: the same harness takes a good one.
    assert_eq!(harness.post("/v1/tasks", json!({ "prompt": "x" })).await.status, 201);
}

#[tokio::test]
async fn errors_say_where_and_what_there_is_instead() {
    let harness = Harness::start().await;
    let answer = harness
        .post("/v1/tasks", json!({ "prompt": "x", "agent": "nobody" }))
        .await
        .json();
    assert_eq!(answer["known"], json!(["broken", "builtin", "careful"]));
    let answer = harness
        .post("/v1/tasks", json!({ "prompt": "x", "agent": "broken" }))
        .await
        .json();
    assert_eq!(
        (&answer["cause"], &answer["hint"]),
        (&json!("not_installed"), &json!("npm install it"))
    );
    let nested = json!({ "prompt": "x", "agent": { "name": "a", "kind": { "builtin": {} }, "limits": { "budget": { "token": 1 } } } });
    let answer = harness.post("/v1/tasks", nested).await.json();
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("unknown field `token`"), "{detail}");
    assert_eq!(answer["line"], 1);
    let answer = harness
        .call(
            Call::new("POST", "/v1/tasks")
                .header("Content-Type", "application/json")
                .bytes(b"{\n  \"prompt\": \"x\",\n}"),
        )
        .await;
    assert_eq!(answer.code(), "malformed_json");
    assert_eq!(
        (&answer.json()["line"], &answer.json()["column"]),
        (&json!(3), &json!(1))
    );
    let trailing = Call::new("POST", "/v1/tasks")
        .header("Content-Type", "application/json; charset=UTF-8")
        .bytes(b"{\"prompt\":\"x\"} {}");
    assert_eq!(harness.call(trailing).await.code(), "malformed_json");
}

#[tokio::test]
async fn without_a_provider_tasks_exist_and_runs_do_not() {
    let mut catalog = catalog();
    catalog.provider = None;
    let harness = Harness::with(catalog, HttpLimits::default()).await;
    let answer = harness.post("/v1/tasks", json!({ "prompt": "x" })).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_model"));
    assert!(answer.json()["hint"].as_str().unwrap().contains("provider"));
    let answer = harness.post("/v1/tasks", json!({ "prompt": "x", "run": false })).await;
    assert_eq!(answer.status, 201);
    let path = format!("/v1/tasks/{}/runs", answer.json()["task"]["id"].as_str().unwrap());
    assert_eq!(harness.post(&path, json!({})).await.code(), "no_model");
}

#[tokio::test]
async fn pages_cover_a_list_once() {
    let harness = Harness::start().await;
    let client = harness.client();
    for n in 0..7 {
        client
            .create_task(&CreateTask::new(format!("task {n}")), None)
            .await
            .unwrap();
    }
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = client.tasks(cursor.as_deref(), Some(3)).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|task| task.prompt));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let newest_first: Vec<_> = (0..7).rev().map(|n| format!("task {n}")).collect();
    assert_eq!(seen, newest_first);
    for wrong in [
        "limit=0",
        "limit=201",
        "limit=x",
        "cursor=x",
        "page=2",
        "limit=1&limit=2",
    ] {
        let answer = harness.get(&format!("/v1/tasks?{wrong}")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_query"),
            "{wrong}"
        );
    }
}
