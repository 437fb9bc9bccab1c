//! File rules: what tools may write, and what may leave.

use std::fs;

use serde_json::{Value, json};
use stockade_api::{domain::RunId, v1::DecideApproval};

use crate::support::{
    installation::Installation,
    receipt,
    repository::Repository,
    server::{Server, task},
    story::{Story, text},
};

/// A turn in which the model calls these tools.
fn calls(calls: &[(&str, Value)]) -> Value {
    let calls: Vec<Value> = calls
        .iter()
        .map(|(tool, input)| json!({ "tool": tool, "input": input }))
        .collect();
    json!({ "say": "I work.", "call": calls })
}

fn bash(command: &str) -> Value {
    calls(&[("bash", json!({ "command": command }))])
}

fn writes(path: &str, content: &str) -> (&'static str, Value) {
    ("write_file", json!({ "path": path, "content": content }))
}

/// What a run under these rules left behind.
struct Scene {
    installation: Installation,
    server: Server,
    run: RunId,
    story: Story,
}

impl Scene {
    /// Starts a run of these turns under these rules.
    async fn begin(rules: Value, turns: Vec<Value>) -> Self {
        let mut turns = turns;
        turns.push(json!({ "say": "Done." }));
        let mut installation = Installation::scripted(Value::Array(turns));
        installation.configure(
            "environments",
            json!([{ "name": "default", "network": "none", "files": rules }]),
        );
        let files = [
            ("a.txt", "one\ntwo\n"),
            (".github/workflows/ci.yml", "on: push\n"),
            ("keys/old.txt", "old\n"),
        ];
        let repo = Repository::with(&installation, &files);
        let server = Server::up(&installation).await;
        let run = server.create(&task(&repo, json!("builtin"))).await;
        let story = server.story(run);
        Self {
            installation,
            server,
            run,
            story,
        }
    }

    async fn files(&self) -> Vec<String> {
        let result = self.server.look(self.run).await.result.unwrap();
        result.files.into_iter().map(|file| file.path).collect()
    }

    /// Reads to a refused export, checks that nothing of it was kept, and gives rule and reason.
    async fn refused(&mut self) -> (String, String) {
        let end = self.story.to("run.failed").await;
        assert_eq!(end.data["failure"]["code"], "refused", "{}", self.story);
        let denied = self.story.with("action.denied", "kind", "export");
        assert_eq!(denied.len(), 1, "{}", self.story);
        let answer = (text(denied[0], "rule").to_owned(), text(denied[0], "reason").to_owned());
        let message = end.data["failure"]["message"].as_str().unwrap();
        assert!(message.contains(&answer.1), "{message}");
        assert!(
            self.server.client.diff(self.run).await.is_err(),
            "a refused change was kept"
        );
        assert!(self.story.all("export.diff").is_empty() && self.story.all("export.branch").is_empty());
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_write_is_a_denied_action_and_its_allowed_twin_is_written() {
    let rules = json!({ "deny": ["*.pem", "/.github/"], "max_file_bytes": 1000 });
    let turns = vec![
        calls(&[
            writes("key.pem", "secret"),
            writes("sub/../Other.PEM", "secret"),
            writes("/workspace/.github/workflows/ci.yml", "on: pull_request\n"),
            writes("large.txt", &"x".repeat(1001)),
            writes("key.txt", "fine"),
            (
                "edit_file",
                json!({ "path": ".github/workflows/ci.yml", "old_string": "push", "new_string": "issues" }),
            ),
            (
                "edit_file",
                json!({ "path": "a.txt", "old_string": "two", "new_string": "y".repeat(999) }),
            ),
        ]),
        bash("find . -path ./.git -prune -o -type f -print | sort; cat .github/workflows/ci.yml a.txt"),
    ];
    let mut scene = Scene::begin(rules, turns).await;
    scene.story.to("run.completed").await;
    let story = &scene.story;
    let denied: Vec<(&str, &str)> = story
        .all("action.denied")
        .into_iter()
        .map(|event| (text(event, "target"), text(event, "rule")))
        .collect();
    let expected = [
        ("key.pem", "env.files.deny:*.pem"),
        ("Other.PEM", "env.files.deny:*.pem"),
        (".github/workflows/ci.yml", "env.files.deny:/.github/"),
        ("large.txt", "env.files.max_file_bytes"),
        (".github/workflows/ci.yml", "env.files.deny:/.github/"),
        ("a.txt", "env.files.max_file_bytes"),
    ];
    assert_eq!(denied, expected, "{story}");
    let seen = story.outputs();
    assert!(
        seen.contains("./key.txt") && seen.contains("on: push") && seen.contains("two"),
        "{story}"
    );
    assert!(
        !seen.contains("./key.pem") && !seen.contains("./Other.PEM") && !seen.contains("./large.txt"),
        "{story}"
    );
    assert!(
        seen.contains("the environment denies *.pem"),
        "the model does not learn why:\n{story}"
    );
    assert_eq!(scene.files().await, ["key.txt"]);
    let predicate = receipt::verified(&scene.installation, scene.run).await;
    let actions = predicate["actions"].as_array().unwrap();
    let told = |target: &str| {
        actions
            .iter()
            .find(|a| a["action"]["target"] == target && a["verdict"] == "deny")
    };
    assert_eq!(told("key.pem").unwrap()["rule"], "env.files.deny:*.pem");
    assert_eq!(told("large.txt").unwrap()["rule"], "env.files.max_file_bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_wrote_is_caught_when_it_leaves_and_all_of_it_is_named() {
    let rules = json!({ "deny": ["*.pem", "keys/"] });
    let turn = bash("echo s > key.pem; mkdir -p deep/er; echo s > deep/er/b.pem; echo fine > fine.txt");
    let mut scene = Scene::begin(rules.clone(), vec![turn]).await;
    let (rule, reason) = scene.refused().await;
    assert_eq!(rule, "env.files.deny:*.pem");
    assert!(
        reason.contains("'key.pem'") && reason.contains("'deep/er/b.pem'"),
        "{reason}"
    );
    assert!(!reason.contains("fine.txt"), "{reason}");
    let predicate = receipt::verified(&scene.installation, scene.run).await;
    let last = predicate["actions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["verdict"], &last["rule"]),
        (&json!("deny"), &json!("env.files.deny:*.pem"))
    );
    assert!(predicate["files"].as_array().unwrap().is_empty());

    let mut twin = Scene::begin(
        rules,
        vec![bash("echo fine > key.txt; mkdir deep; echo fine > deep/b.txt")],
    )
    .await;
    twin.story.to("run.completed").await;
    assert_eq!(twin.files().await, ["deep/b.txt", "key.txt"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renames_removals_links_and_modes_do_not_slip_past() {
    for (rules, command, rule, words) in [
        (
            json!({ "deny": ["keys/"] }),
            "git mv keys/old.txt open.txt",
            "env.files.deny:keys/",
            "'keys/old.txt'",
        ),
        (
            json!({ "deny": ["*.pem"] }),
            "git mv a.txt a.pem",
            "env.files.deny:*.pem",
            "'a.pem'",
        ),
        (
            json!({ "deny": ["keys/"] }),
            "rm -r keys",
            "env.files.deny:keys/",
            "'keys/old.txt'",
        ),
        (
            json!({ "deny": ["/.github/workflows/"] }),
            "mkdir w; mv .github/workflows/ci.yml w/; rmdir .github/workflows; rmdir .github; ln -s w .github",
            "env.files.deny:/.github/workflows/",
            "'.github'",
        ),
        (
            json!({ "outside_links": "deny" }),
            "ln -s /etc/passwd l",
            "env.files.outside_links",
            "/etc/passwd",
        ),
        (
            json!({ "outside_links": "deny" }),
            "ln -s .git/hooks l",
            "env.files.outside_links",
            ".git/hooks",
        ),
        (
            json!({ "executables": "deny" }),
            "chmod +x a.txt",
            "env.files.executables",
            "'a.txt'",
        ),
        (
            json!({ "allow": ["src/"] }),
            "mkdir src; echo x > src/x; echo y > y",
            "env.files.allow",
            "'y'",
        ),
        (
            json!({ "max_files": 2 }),
            "touch 1; echo 2 > 2; echo 3 > 3",
            "env.files.max_files",
            "3 files",
        ),
        (
            json!({ "max_total_bytes": 5000 }),
            "for i in 1 2 3; do head -c 2000 /dev/zero > $i; done",
            "env.files.max_total_bytes",
            "6000 bytes",
        ),
        (
            json!({ "max_file_bytes": 5000 }),
            "head -c 5001 /dev/zero > big",
            "env.files.max_file_bytes",
            "'big'",
        ),
    ] {
        let mut scene = Scene::begin(rules, vec![bash(command)]).await;
        let (found, reason) = scene.refused().await;
        assert_eq!(found, rule, "{command}");
        assert!(reason.contains(words), "{command}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_within_every_rule_leaves() {
    let rules = json!({
        "allow": ["src/", "a.txt", "link"], "deny": ["*.pem"], "outside_links": "deny", "executables": "deny",
        "max_files": 4, "max_file_bytes": 2000, "max_total_bytes": 5000,
    });
    let turn = bash(
        "mkdir src; head -c 2000 /dev/zero > src/x; head -c 2000 /dev/zero > src/y; ln -s src/x link; echo 3 >> a.txt",
    );
    let mut scene = Scene::begin(rules, vec![turn]).await;
    scene.story.to("run.completed").await;
    assert_eq!(scene.files().await, ["a.txt", "link", "src/x", "src/y"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_judged_where_its_links_lead() {
    let rules = json!({ "deny": ["/.github/", "*.pem"] });
    let turns = vec![
        bash(
            "ln -s .github/workflows shortcut; ln -s .github/workflows/ci.yml innocent.txt; ln -s ../workspace/shortcut far; mkdir real; ln -s real near",
        ),
        calls(&[
            writes("shortcut/evil.yml", "on: push\n"),
            writes("far/evil.yml", "on: push\n"),
            writes("innocent.txt", "on: push\n"),
            (
                "edit_file",
                json!({ "path": "shortcut/ci.yml", "old_string": "push", "new_string": "issues" }),
            ),
            writes("near/fine.txt", "fine\n"),
        ]),
        bash(
            "ls .github/workflows; cat .github/workflows/ci.yml; rm shortcut innocent.txt far near; cat real/fine.txt",
        ),
    ];
    let mut scene = Scene::begin(rules, turns).await;
    scene.story.to("run.completed").await;
    let story = &scene.story;
    let denied = story.with("action.denied", "rule", "env.files.deny:/.github/");
    let targets: Vec<&str> = denied.iter().map(|event| text(event, "target")).collect();
    let (evil, ci) = (".github/workflows/evil.yml", ".github/workflows/ci.yml");
    assert_eq!(targets, [evil, evil, ci, ci], "{story}");
    assert_eq!(denied[0].data["args"]["through"], "shortcut/evil.yml", "{story}");
    let last = story.all("tool.result").last().unwrap().data["output"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(last.trim(), "ci.yml\non: push\nfine", "{story}");
    assert_eq!(scene.files().await, ["real/fine.txt"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_write_so_much_in_a_run_and_no_more() {
    let rules = json!({ "max_files": 2, "max_total_bytes": 100 });
    let turns = vec![calls(&[
        writes("1", "one"),
        writes("2", "two"),
        writes("3", "three"),
        writes("2", &"x".repeat(98)),
        writes("2", &"y".repeat(97)),
    ])];
    let mut scene = Scene::begin(rules, turns).await;
    scene.story.to("run.completed").await;
    let story = &scene.story;
    let denied: Vec<(&str, &str)> = story
        .all("action.denied")
        .into_iter()
        .map(|event| (text(event, "target"), text(event, "rule")))
        .collect();
    assert_eq!(
        denied,
        [("3", "env.files.max_files"), ("2", "env.files.max_total_bytes")],
        "{story}"
    );
    assert_eq!(
        scene.files().await,
        ["1", "2"],
        "a file written again is no further file"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_programs_outside_obey_leaves_after_a_yes_and_only_that_change() {
    for (decision, end) in [
        (DecideApproval::approve(), "run.completed"),
        (DecideApproval::reject(), "run.failed"),
    ] {
        let turns = vec![
            calls(&[writes(".mcp.json", "{}\n"), writes("plain.txt", "plain\n")]),
            bash(
                "mkdir -p .claude .vscode; echo '{}' > .claude/settings.json; echo '{}' > .vscode/tasks.json; ln -s /etc l",
            ),
        ];
        let mut scene = Scene::begin(json!({}), turns).await;
        let question = scene.story.question().await;
        let approval = scene.server.client.approval(question).await.unwrap();
        assert_eq!(approval.action.kind.as_str(), "export", "{}", scene.story);
        assert!(approval.rule.starts_with("env.files.sensitive:"), "{}", approval.rule);
        for path in [
            "'.mcp.json'",
            "'.claude/settings.json'",
            "'.vscode/tasks.json'",
            "link to '/etc'",
        ] {
            assert!(approval.reason.contains(path), "{path}: {}", approval.reason);
        }
        assert!(!approval.reason.contains("plain.txt"), "{}", approval.reason);
        assert!(
            scene.server.client.diff(scene.run).await.is_err(),
            "it left before the answer"
        );
        scene.server.client.decide(question, &decision).await.unwrap();
        scene.story.to(end).await;
        let patch = scene.server.client.diff(scene.run).await;
        assert_eq!(patch.is_ok(), end == "run.completed", "{}", scene.story);
        let admitted = scene.story.with("action.admitted", "approval", &question.to_string());
        assert_eq!(admitted.len(), usize::from(patch.is_ok()));
        if let Some(admitted) = admitted.first() {
            assert_eq!(text(admitted, "digest"), approval.digest.to_string());
            assert_eq!(
                admitted.data["args"]["patch_digest"],
                approval.action.args["patch_digest"]
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_edits_a_call_stays_within_the_rules_too() {
    let agent = json!({
        "name": "careful", "kind": { "builtin": {} },
        "rules": [{ "id": "look", "match": { "tool": "write_file" }, "verdict": "ask" }],
    });
    let turns = json!([calls(&[writes("a.md", "a")]), bash("ls"), { "say": "Done." }]);
    let mut installation = Installation::scripted(turns);
    let files = json!({ "deny": ["*.pem"] });
    installation.configure(
        "environments",
        json!([{ "name": "default", "network": "none", "files": files }]),
    );
    let repo = Repository::with(&installation, &[("a.txt", "one\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, agent).await;
    let mut story = server.story(run);
    let question = story.question().await;
    let decision = DecideApproval {
        edited_args: Some(json!({ "path": "b.pem", "content": "b" })),
        ..DecideApproval::approve()
    };
    server.client.decide(question, &decision).await.unwrap();
    story.to("run.completed").await;
    let denied = story.with("action.denied", "rule", "env.files.deny:*.pem");
    assert_eq!(denied.len(), 1, "{story}");
    assert!(server.look(run).await.result.unwrap().files.is_empty(), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_mean_nothing_are_named_with_their_place_and_the_rest_is_listed() {
    let installation = Installation::bare();
    let config = installation.state().join("stockade.yaml");
    let check = async |files: &str| {
        fs::write(
            &config,
            format!("environments:\n  - name: default\n    files:\n{files}"),
        )
        .unwrap();
        installation.run(&["config", "check"]).await
    };
    for (files, place, words) in [
        ("      deny: ['*.pem', 'a//b']\n", "stockade.yaml:4:23", "write one"),
        ("      ask:\n        - ../x\n", "stockade.yaml:5:11", "'..' is no name"),
        (
            "      allow: ['*.{rs,toml}']\n",
            "stockade.yaml:4:15",
            "one pattern for each case",
        ),
        (
            "      deny: [/workspace/x]\n",
            "stockade.yaml:4:14",
            "leave '/workspace' out",
        ),
        ("      max_files: 0\n", "stockade.yaml:4:", "nonzero"),
        ("      sensitive: maybe\n", "stockade.yaml:4:18", "allow"),
        ("      forbid: []\n", "stockade.yaml:4:7", "deny"),
    ] {
        check(files).await.expect(2).says(place).says(words);
    }
    installation.assert_untouched();
    let listed = check("      deny: ['*.pem']\n      max_files: 7\n")
        .await
        .expect(0)
        .stdout;
    for line in ["deny   *.pem", "at most 7 files", "ask    the curated list"] {
        assert!(listed.contains(line), "{listed}");
    }
}
