//! Publishing when the git host, its API, or Stockade itself does not do what it should: the change is kept, the end
//! is clear, and nothing happens twice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stockade_api::{
    domain::{Publication, PublishPlan, RunId, RunState},
    v1::{CreateTask, DecideApproval, RepoInput},
};
use stockade_origins::GitServer;

use crate::support::{
    forge::{Forge, TOKEN, branch_of},
    receipt,
    server::Server,
    web::{Answer, Web},
};

fn turns() -> Value {
    json!([
        { "say": "I write.", "call": [{ "tool": "write_file", "input": { "path": "new.txt", "content": "new\n" } }] },
        { "say": "Done." },
    ])
}

/// Runs a task to its end, which must be a completed run with its change kept.
async fn completed(server: &Server, task: &CreateTask) -> (RunId, Publication) {
    let run = server.create(task).await;
    server.story(run).to("run.completed").await;
    let patch = server.client.diff(run).await.unwrap();
    assert!(
        String::from_utf8_lossy(&patch).contains("b/new.txt"),
        "the change is not kept"
    );
    let result = server.look(run).await.result.unwrap();
    (run, *result.publication.expect("told what became of it"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_says_no_ends_clearly_with_the_change_kept() {
    let mut forge = Forge::new(turns()).await;
    forge.nobody_is_asked();
    let server = forge.up().await;
    let far = || ("retry-after", "7200".to_owned());
    let message = |words: &str| json!({ "message": words }).to_string();
    let echo = format!("you are {TOKEN}");
    for (status, headers, words, times, code) in [
        (401, vec![], "Bad credentials", 1, "unauthorized"),
        (403, vec![], "Resource not accessible by integration", 1, "unauthorized"),
        (
            403,
            vec![far()],
            "You have exceeded a secondary rate limit",
            1,
            "rate_limited",
        ),
        (404, vec![], "Not Found", 1, "repo_not_found"),
        (422, vec![], "Validation Failed", 1, "pull_request_refused"),
        (429, vec![far()], "Too many requests", 1, "rate_limited"),
        (500, vec![], echo.as_str(), 3, "forge_unreachable"),
    ] {
        (0..times).for_each(|_| forge.api.says(status, &headers, &message(words)));
        let before = forge.asked();
        let (run, publication) = completed(&server, &forge.task()).await;
        let failure = publication.failure.expect("a failure");
        assert_eq!(
            (failure.code.as_str(), forge.asked() - before),
            (code, times),
            "{status}: {failure}"
        );
        assert!(failure.message.contains(&status.to_string()), "{failure}");
        assert!(!failure.message.contains(TOKEN), "{failure}");
        assert_eq!(publication.branch, Some(branch_of(run)), "the branch is there");
        assert!(forge.branch(&branch_of(run)).is_some() && publication.pull_request.is_none());
    }
    assert!(forge.api.pulls().is_empty());

    // A short limit and a server that stumbles are waited for; an answer that was lost is not opened twice.
    forge.api.says(429, &[("retry-after", "1".to_owned())], "");
    forge.api.says(502, &[], "");
    let (_, publication) = completed(&server, &forge.task()).await;
    assert_eq!(publication.failure, None);
    assert_eq!(
        publication.pull_request.map(|pull| (pull.number, pull.existed)),
        Some((1, false))
    );
    forge.api.loses_an_answer();
    let (_, publication) = completed(&server, &forge.task()).await;
    assert_eq!(
        publication.pull_request.map(|pull| (pull.number, pull.existed)),
        Some((2, true))
    );
    assert_eq!(forge.api.pulls().len(), 2);

    let gone = forge.api.origin();
    forge.api = stockade_origins::GitHubServer::start(forge.git.root(), TOKEN)
        .await
        .unwrap();
    let (run, publication) = completed(&server, &forge.task()).await;
    let failure = publication.failure.expect("a failure");
    assert_eq!(failure.code, "forge_unreachable", "{gone}: {failure}");
    let predicate = receipt::verified(&forge.installation, run).await;
    assert!(predicate.to_string().contains("could not be reached"), "{predicate}");
    assert!(!server.log().contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_take_the_branch_ends_clearly_with_the_change_kept() {
    let mut forge = Forge::new(turns()).await;
    forge.nobody_is_asked();
    let server = forge.up().await;
    // A hook of the server's, as a protected branch would answer.
    let hook = forge.git.root().join("octo/hello.git/hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho 'frozen until monday' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (run, publication) = completed(&server, &forge.task()).await;
    let failure = publication.failure.unwrap();
    assert_eq!(failure.code, "push_refused", "{failure}");
    assert!(failure.message.contains("frozen until monday"), "{failure}");
    assert_eq!(
        (publication.branch, forge.branch(&branch_of(run)), forge.asked()),
        (None, None, 0)
    );
    std::fs::remove_file(&hook).unwrap();

    // A token that stopped working between the clone and the push.
    let mut task = forge.task();
    task.prompt = "Wait for me.".to_owned();
    forge.installation.script(turns());
    forge.set_token("another-token-0000").await;
    let run = server.create(&task).await;
    let failed = server.story(run).to("run.failed").await;
    assert_eq!(failed.data["failure"]["code"], "unauthorized", "{failed:?}");
    forge.set_token(TOKEN).await;

    // The rules of the environment count here too.
    forge.installation.configure(
        "environments",
        json!([{ "name": "default", "network": "none", "git": { "push": [], "pull_requests": "allow" } }]),
    );
    assert!(server.stop().await.success());
    let server = Server::up(&forge.installation).await;
    let (run, publication) = completed(&server, &forge.task()).await;
    let failure = publication.failure.unwrap();
    assert_eq!(failure.code, "refused", "{failure}");
    assert!(failure.message.contains("env.git.elsewhere"), "{failure}");
    assert_eq!((forge.branch(&branch_of(run)), forge.asked()), (None, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_outlives_the_server_and_its_answer_counts_once() {
    let forge = Forge::new(turns()).await;
    let server = forge.up().await;
    let run = server.create(&forge.task()).await;
    let mut story = server.story(run);
    let question = story.question().await;
    story.until_type("run.waiting").await;
    let patch = server.client.diff(run).await.unwrap();
    server.kill().await;

    // Another script would make another change: what was asked about is what is published.
    let mut forge = forge;
    forge.installation.script(json!([
        { "say": "I write.", "call": [{ "tool": "write_file", "input": { "path": "other.txt", "content": "x\n" } }] },
        { "say": "Done differently." },
    ]));
    let server = Server::up(&forge.installation).await;
    assert_eq!(server.look(run).await.state, RunState::Waiting);
    assert_eq!(forge.pushes(), 0);
    server
        .client
        .decide(question, &DecideApproval::approve())
        .await
        .unwrap();
    let mut story = server.story(run);
    story.to("run.completed").await;
    story.assert_dense();
    assert_eq!(story.all("approval.requested").len(), 1, "asked once:\n{story}");
    assert_eq!(story.all("turn.started").len(), 2, "the agent went once:\n{story}");
    assert_eq!(server.client.diff(run).await.unwrap(), patch);
    let result = server.look(run).await.result.unwrap();
    assert_eq!(forge.branch(&branch_of(run)), result.commit);
    assert_eq!((forge.pushes(), forge.asked(), forge.api.pulls().len()), (1, 1, 1));
    assert_eq!(result.publication.unwrap().failure, None);
    assert!(forge.api.pulls()[0]["body"].as_str().unwrap().contains("Done."));
    receipt::verified(&forge.installation, run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_push_and_pull_request_repeats_neither() {
    let mut forge = Forge::new(turns()).await;
    forge.nobody_is_asked();
    let server = forge.up().await;
    forge.api.falls_silent();
    let run = server.create(&forge.task()).await;
    let mut story = server.story(run);
    story
        .until("the pushed branch", |event| event.data["pushed"] == true)
        .await;
    wait_for(|| forge.asked() == 1 || forge.pushes() == 1).await;
    server.kill().await;

    let server = Server::up(&forge.installation).await;
    let mut story = server.story(run);
    story.to("run.failed").await;
    let ended = server.look(run).await;
    assert_eq!(ended.failure.unwrap().code, "interrupted");
    let predicate = receipt::verified(&forge.installation, run).await;
    let outcome = |operation: &str| {
        let actions = predicate["actions"].as_array().unwrap();
        let found = actions.iter().find(|action| action["action"]["operation"] == operation);
        found.unwrap()["outcome"]["result"].clone()
    };
    assert_eq!(
        (outcome("push"), outcome("pull_request")),
        (json!("done"), json!("unknown"))
    );
    assert_eq!((forge.pushes(), forge.api.pulls().len()), (1, 0));
    assert!(forge.branch(&branch_of(run)).is_some());
    let patch = server.client.diff(run).await.unwrap();
    assert!(
        String::from_utf8_lossy(&patch).contains("b/new.txt"),
        "the change is kept"
    );
    // The control: another run of the task gets through.
    let (_, publication) = completed(&server, &forge.task()).await;
    assert_eq!(
        (publication.failure, forge.pushes(), forge.api.pulls().len()),
        (None, 2, 1)
    );
}

async fn wait_for(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "it did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_does_not_take_the_token_elsewhere() {
    let mut forge = Forge::new(turns()).await;
    let elsewhere = Web::plain(|_, _| Answer::text("caught")).await;
    let target = format!("http://{}", elsewhere.address);
    let front = Web::plain(move |seen, _| {
        let mut answer = Answer::new(302, "text/plain", "");
        answer.headers.push(("location", format!("{target}{}", seen.path)));
        answer
    })
    .await;
    let origin = format!("http://{}", front.address);
    forge.host(json!({ "name": "front", "url": origin, "credential": "BOT" }));
    let server = forge.up().await;
    let mut task = forge.task();
    task.repo = Some(RepoInput::from(format!("{origin}/octo/hello.git").as_str()));
    task.publish = None;
    let run = server.create(&task).await;
    let failed = server.story(run).to("run.failed").await;
    assert_eq!(failed.data["failure"]["code"], "repo_moved", "{failed:?}");
    assert!(
        front.seen()[0].header("authorization").starts_with("Basic "),
        "the control"
    );
    assert_eq!(elsewhere.connections(), 0, "the redirect was followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_server_takes_a_branch_by_url_without_an_api() {
    let forge = Forge::new(turns()).await;
    let repo = forge.installation.path("repo");
    let root = forge.installation.path("open");
    let bare = root.join("deep/er/hello.git");
    let git = |args: &[&str]| assert!(std::process::Command::new("git").args(args).status().unwrap().success());
    git(&[
        "clone",
        "--quiet",
        "--bare",
        repo.to_str().unwrap(),
        bare.to_str().unwrap(),
    ]);
    git(&[
        "--git-dir",
        bare.to_str().unwrap(),
        "config",
        "http.receivepack",
        "true",
    ]);
    let open = GitServer::start(&root, None).await.unwrap();
    let server = Server::up(&forge.installation).await;
    let mut task = CreateTask::new("Add a file.");
    task.repo = Some(RepoInput::from(format!("{}/deep/er/hello.git", open.origin()).as_str()));
    task.publish = Some(PublishPlan::default());
    let (run, publication) = completed(&server, &task).await;
    assert_eq!((publication.failure, publication.branch), (None, Some(branch_of(run))));
    let seen = open.seen();
    assert!(
        seen.iter().all(|seen| !seen.headers.contains_key("authorization")),
        "{seen:?}"
    );
    git(&[
        "--git-dir",
        bare.to_str().unwrap(),
        "rev-parse",
        "--verify",
        "--quiet",
        &branch_of(run),
    ]);
}
