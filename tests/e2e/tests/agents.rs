//! Claude Code, Codex and OpenCode, the real ones, inside the sandbox, with a scripted model.
//! `cargo xtask test --quick` leaves out this module, by its name.

use serde_json::{Value, json};
use stockade_api::{domain::RunId, v1::DecideApproval};

use crate::support::{
    installation::Installation,
    names::Names,
    program::agents_dir,
    receipt,
    repository::Repository,
    server::{Server, task},
    story::{Story, text},
    turns::heavy,
};

/// Everything processes of the agent have in their environment, and what is mounted, into a file.
const ENVIRONMENT: &str =
    "(env; cat /proc/[0-9]*/environ | tr '\\0' '\\n'; cat /proc/self/mountinfo) > env.txt 2>/dev/null";

/// One script for all three: the model speaks the script's words, each agent its own tools.
fn script() -> Value {
    json!([
        { "say": "I write the file.", "call": [{ "tool": "write", "input": { "path": "/workspace/hello.txt", "content": "hello from the agent\n" } }] },
        { "say": "I try the network.", "call": [{
            "tool": "bash", "escalate": "It needs the network.",
            "input": { "command": format!("{ENVIRONMENT}; bash -c 'exec 3<>/dev/tcp/telemetry.example.net/443'; echo tried-it > tried.txt") },
        }] },
        { "say": "This needs a yes.", "call": [{ "tool": "bash", "escalate": "It is outside of my sandbox.", "input": { "command": "echo yes > approved.txt" } }] },
        { "say": "This will get a no.", "call": [{ "tool": "bash", "escalate": "It is outside of my sandbox.", "input": { "command": "echo no > rejected.txt" } }] },
        { "say": "All done." },
        // The words of the person who said no may come in a turn of their own.
        { "say": "Understood." },
    ])
}

/// Answers every question of a run: no to `rejected.txt`, yes to everything else; in turns
/// over HTTP and with the command line of another process.
async fn decide_all(installation: &Installation, server: &Server, run: RunId) -> Story {
    let mut story = server.story(run);
    let mut asked = 0;
    loop {
        let event = story
            .until("a question or the end", |event| {
                matches!(
                    event.kind.as_str(),
                    "approval.requested" | "run.completed" | "run.failed" | "run.cancelled"
                )
            })
            .await;
        if event.kind.as_str() != "approval.requested" {
            return story;
        }
        let id = text(&event, "approval");
        let approval = server.client.approval(id.parse().unwrap()).await.unwrap();
        let is_wanted = !serde_json::to_string(&approval.action)
            .unwrap()
            .contains("rejected.txt");
        asked += 1;
        if asked % 2 == 0 {
            let decision = if is_wanted {
                DecideApproval::approve()
            } else {
                DecideApproval::reject()
            };
            server.client.decide(approval.id, &decision).await.unwrap();
        } else {
            let word = if is_wanted { "approve" } else { "reject" };
            installation
                .run(&["approvals", word, id, "--reason", "the test says so"])
                .await
                .expect(0);
        }
    }
}

async fn whole_story_of(agent: &str) {
    let _turn = heavy().await;
    let names = Names::serve(&[]).await;
    let mut installation = Installation::scripted(script());
    installation.set("STOCKADE_AGENTS_DIR", agents_dir().to_str().unwrap());
    for name in ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "E2E_VARIABLE"] {
        installation.set(name, "canary-of-the-server");
    }
    installation.reach(names.address, &[]);
    let repo = Repository::with(&installation, &[("README.md", "A repository.\n"), ("src/a.txt", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.create(&task(&repo, json!(agent))).await;
    let story = decide_all(&installation, &server, run).await;
    assert_eq!(
        story.events.last().unwrap().kind.as_str(),
        "run.completed",
        "{story}\n{}",
        server.log()
    );
    assert_story(&story);

    // The agent's own tools wrote inside the sandbox, and the change came out; nothing else did.
    let diff = String::from_utf8(server.client.diff(run).await.unwrap().to_vec()).unwrap();
    assert!(diff.contains("+hello from the agent"), "{diff}");
    assert!(diff.contains("+tried-it"), "{diff}");
    assert!(diff.contains("+HOME="), "{diff}");
    for secret in [
        "canary-of-the-server",
        &server.token,
        installation.path("").to_str().unwrap(),
    ] {
        assert!(
            !diff.contains(secret),
            "the agent's environment holds '{secret}':\n{diff}"
        );
    }
    assert!(diff.contains("b/approved.txt"), "{diff}");
    assert!(!diff.contains("rejected.txt"), "{diff}\n{story}");
    assert_eq!(
        repo.git(&["status", "--porcelain"]),
        "",
        "the user's repository was touched"
    );

    // Every model call was metered, and nothing but the model was reached or even looked up.
    let spent = server.look(run).await.used;
    assert_eq!(spent.model_requests, story.all("model.call").len() as u64);
    assert!(spent.tokens > 0 && spent.model_requests >= 5, "{spent:?}");
    assert_eq!(names.asked(), Vec::<String>::new());
    let reached: Vec<_> = story
        .all("egress.allowed")
        .into_iter()
        .filter(|e| !text(e, "target").starts_with("llm.stockade.internal"))
        .collect();
    assert!(reached.is_empty(), "{reached:?}");

    let predicate = receipt::verified(&installation, run).await;
    assert_eq!(predicate["run"]["spec"]["agent"]["name"], agent);
    let decided: Vec<&str> = predicate["approvals"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|a| a["state"].as_str())
        .collect();
    assert!(
        decided.contains(&"approved") && decided.contains(&"rejected"),
        "{decided:?}"
    );
    assert!(
        predicate["destinations"].as_array().unwrap().iter().any(|d| d["target"]
            .as_str()
            .unwrap()
            .starts_with("telemetry.example.net")
            && d["verdict"] == "deny")
    );
    assert!(server.stop().await.success());
    installation.assert_untouched();
}

fn assert_story(story: &Story) {
    story.assert_dense();
    let refused = story.all("egress.denied");
    assert!(
        refused
            .iter()
            .any(|event| text(event, "target").starts_with("telemetry.example.net")),
        "{story}"
    );
    // A question of the harness was held, answered yes, and only then admitted.
    let held = story.with("action.held", "kind", "permission");
    let decisions = |word: &str| story.with("approval.decided", "decision", word).len();
    assert!(held.len() >= 2, "{story}");
    assert_eq!(decisions("reject"), 1, "{story}");
    assert_eq!(decisions("approve"), held.len() - 1, "{story}");
    let admitted = story.with("action.admitted", "kind", "permission");
    let asked = admitted
        .iter()
        .filter(|event| event.data["approval"].is_string())
        .count();
    assert_eq!(asked, decisions("approve"), "{story}");
    let denied = story.with("action.denied", "kind", "permission");
    assert!(
        denied
            .iter()
            .any(|event| event.data.to_string().contains("rejected.txt")),
        "{story}"
    );
    for kind in [
        "sandbox.ready",
        "repo.ready",
        "agent.ready",
        "turn.started",
        "tool.call",
        "export.diff",
        "sandbox.ended",
    ] {
        assert!(!story.all(kind).is_empty(), "no {kind}:\n{story}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claude_code_works_under_the_gate() {
    whole_story_of("claude").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codex_works_under_the_gate() {
    whole_story_of("codex").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opencode_works_under_the_gate() {
    whole_story_of("opencode").await;
}
