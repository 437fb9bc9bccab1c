//! File rules in the runner: what is asked of the gate about writes and exports, and what a no means.

use std::num::NonZeroU64;

use serde_json::{Value, json};
use stockade_domain::{
    ActionKind, ActionRecord, Decision, EventType, FileRules, Outcome, PathPattern, RuleVerdict, Verdict,
};
use stockade_ports::Store as _;

use crate::support::{
    Wish, World,
    agent::with_files,
    git,
    model::{Answer, Answers},
    repository, rule,
};

fn patterns(texts: &[&str]) -> Vec<PathPattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn denying(texts: &[&str]) -> FileRules {
    FileRules {
        deny: patterns(texts),
        ..FileRules::default()
    }
}

fn wish(files: FileRules, calls: Vec<(&'static str, Value)>) -> Wish {
    Wish {
        files,
        answers: Answers::of(vec![Answer::Says("", calls), Answer::Says("Done.", vec![])]),
        ..Wish::default()
    }
}

fn bash(command: &str) -> (&'static str, Value) {
    ("bash", json!({ "command": command }))
}

fn writes(path: &str, content: &str) -> (&'static str, Value) {
    ("write_file", json!({ "path": path, "content": content }))
}

async fn tools(world: &World) -> Vec<ActionRecord> {
    let mut actions = world.store.actions(world.id).await.unwrap();
    actions.retain(|record| record.action.kind == ActionKind::Tool);
    actions
}

async fn exported(world: &World) -> ActionRecord {
    let actions = world.store.actions(world.id).await.unwrap();
    let export = actions
        .into_iter()
        .find(|record| record.action.kind == ActionKind::Export);
    export.expect("an export was asked for")
}

#[tokio::test]
async fn the_gate_is_told_every_path_with_its_size_and_what_becomes_of_it() {
    let (source, repo) = repository();
    std::fs::write(source.path().join("gone.txt"), "gone\n").unwrap();
    std::fs::write(source.path().join("tool.sh"), "#!/bin/sh\n").unwrap();
    git(source.path(), &["add", "."]);
    git(source.path(), &["update-index", "--chmod=+x", "tool.sh"]);
    git(source.path(), &["commit", "-qm", "more"]);
    let command = "printf 12345 > 'a \"b\"\n.txt'; : > empty; chmod +x hello.txt; echo more >> tool.sh; rm gone.txt; \
        ln -s hello.txt in; ln -s /etc/passwd out; printf x > \"$(printf 'odd\\377')\"; git mv .gitignore ignore";
    let world = World::new(Wish {
        repo: Some(repo),
        ..wish(
            FileRules {
                outside_links: RuleVerdict::Allow,
                ..FileRules::default()
            },
            vec![bash(command)],
        )
    })
    .await;
    world.work().await.unwrap();
    world.export().await.unwrap();
    let args = exported(&world).await.action.args;
    let rows: Vec<(&str, Option<u64>)> = args["files"]
        .as_array()
        .unwrap()
        .iter()
        .zip(args["sizes"].as_array().unwrap())
        .map(|(path, size)| (path.as_str().unwrap(), size.as_u64()))
        .collect();
    let expected = [
        (".gitignore", None),
        ("a \"b\"\n.txt", Some(5)),
        ("empty", Some(0)),
        ("gone.txt", None),
        ("hello.txt", Some(11)),
        ("ignore", Some(9)),
        ("in", Some(9)),
        ("odd\u{fffd}", Some(1)),
        ("out", Some(11)),
        ("tool.sh", Some(15)),
    ];
    assert_eq!(rows, expected);
    assert_eq!(
        args["special"],
        json!([
            { "path": ".gitignore", "kind": "removed" },
            { "path": "gone.txt", "kind": "removed" },
            { "path": "hello.txt", "kind": "executable" },
            { "path": "in", "kind": "link", "target": "hello.txt" },
            { "path": "out", "kind": "link", "target": "/etc/passwd" },
        ])
    );
}

#[tokio::test]
async fn one_denied_file_keeps_the_whole_change_inside() {
    for (command, files, names) in [
        (
            "echo x > fine; mkdir k; echo x > k/a.pem",
            denying(&["*.pem"]),
            "'k/a.pem'",
        ),
        ("git mv hello.txt a.pem", denying(&["*.pem"]), "'a.pem'"),
        ("git mv hello.txt other.txt", denying(&["hello.txt"]), "'hello.txt'"),
        (
            "mkdir w; ln -s w .github",
            denying(&["/.github/workflows/"]),
            "'.github'",
        ),
        (
            "printf '%08d' 1 > eight",
            limited(|rules| rules.max_file_bytes = NonZeroU64::new(7)),
            "'eight'",
        ),
    ] {
        let (_keep, repo) = repository();
        let world = World::new(Wish {
            repo: Some(repo),
            ..wish(files, vec![bash(command)])
        })
        .await;
        world.work().await.unwrap();
        let failure = world.export().await.unwrap_err();
        assert_eq!(failure.code, "refused", "{command}");
        assert!(failure.message.contains(names) && failure.hint.is_some(), "{failure}");
        for artifact in ["patch", "bundle"] {
            assert!(
                world.store.artifact(world.id, artifact).await.is_err(),
                "{command}: kept the {artifact}"
            );
        }
        let denied = world.told(EventType::ActionDenied).await;
        assert_eq!((denied.len(), &denied[0]["kind"]), (1, &json!("export")), "{command}");
        assert!(world.told(EventType::ExportDiff).await.is_empty());
    }
}

fn limited(change: fn(&mut FileRules)) -> FileRules {
    let mut rules = FileRules::default();
    change(&mut rules);
    rules
}

#[tokio::test]
async fn what_a_hidden_tree_says_does_not_count() {
    // The index and the objects of the agent's own git say one thing, the workspace another.
    let (_keep, repo) = repository();
    let command = "echo x > a.pem; git add a.pem; git commit -qm x 2>/dev/null; echo '*.pem' >> .git/info/exclude; \
        git update-index --assume-unchanged a.pem";
    let world = World::new(Wish {
        repo: Some(repo),
        ..wish(denying(&["*.pem"]), vec![bash(command)])
    })
    .await;
    world.work().await.unwrap();
    assert!(world.export().await.unwrap_err().message.contains("'a.pem'"));
}

#[tokio::test]
async fn an_approval_releases_the_change_it_was_asked_for() {
    for decision in [Decision::Approve, Decision::Reject] {
        let world = World::new(wish(FileRules::default(), vec![writes(".envrc", "export A=1\n")])).await;
        world.work().await.unwrap();
        let person = async {
            let question = world.question().await;
            assert_eq!(question.rule, "env.files.sensitive:.envrc");
            assert!(
                world.store.artifact(world.id, "patch").await.is_err(),
                "it left before the answer"
            );
            world.decide(question.id, decision, None).await;
            question
        };
        let (left, question) = tokio::join!(world.export(), person);
        assert_eq!(left.is_ok(), decision == Decision::Approve);
        assert_eq!(world.store.artifact(world.id, "patch").await.is_ok(), left.is_ok());
        let record = exported(&world).await;
        assert_eq!((record.digest, record.approval), (question.digest, Some(question.id)));
        if let Ok(result) = left {
            assert_eq!(record.action.args["patch_digest"], json!(result.patch_digest));
        }
    }
}

#[tokio::test]
async fn a_denied_write_does_not_happen_and_the_model_learns_why() {
    let (_keep, repo) = repository();
    let world = World::new(Wish {
        repo: Some(repo),
        ..wish(
            denying(&["*.pem", "hello.txt"]),
            vec![
                writes("a.pem", "x"),
                writes("./x/../B.PEM", "x"),
                (
                    "edit_file",
                    json!({ "path": "hello.txt", "old_string": "Helo", "new_string": "Hello" }),
                ),
                writes("fine.txt", "x"),
            ],
        )
    })
    .await;
    world.work().await.unwrap();
    assert!(!world.workspace("a.pem").exists() && !world.workspace("B.PEM").exists());
    assert_eq!(
        std::fs::read_to_string(world.workspace("hello.txt")).unwrap(),
        "Helo\nworld\n"
    );
    assert!(
        world.workspace("fine.txt").exists(),
        "the control: another file is written"
    );
    let verdicts: Vec<Verdict> = tools(&world).await.iter().map(|record| record.verdict).collect();
    assert_eq!(verdicts, [Verdict::Deny, Verdict::Deny, Verdict::Deny, Verdict::Allow]);
    let told = world.answers.asked()[1]["messages"][2]["content"][0]["content"].clone();
    assert!(
        told.as_str().unwrap().contains("the environment denies *.pem"),
        "{told}"
    );
}

#[tokio::test]
async fn a_write_through_a_link_is_judged_where_it_lands() {
    let command = "mkdir guarded open; ln -s guarded d; ln -s d dd; ln -s guarded/x.txt f; ln -s open ok; ln -s loop loop; \
        ln -s ../open/y guarded/out";
    let world = World::new(wish(
        denying(&["/guarded/"]),
        vec![
            bash(command),
            writes("d/x.txt", "x"),
            writes("dd/new/x.txt", "x"),
            writes("f", "x"),
            writes("open/../dd/x.txt", "x"),
            // What is replaced is the link, which is in the guarded directory.
            writes("d/out", "x"),
            writes("loop/x.txt", "x"),
            writes("ok/x.txt", "x"),
        ],
    ))
    .await;
    world.work().await.unwrap();
    assert_eq!(std::fs::read_dir(world.workspace("guarded")).unwrap().count(), 1);
    assert!(world.workspace("guarded/out").is_symlink() && !world.workspace("open/y").exists());
    assert!(world.workspace("f").is_symlink(), "the link is as it was");
    assert_eq!(std::fs::read_to_string(world.workspace("open/x.txt")).unwrap(), "x");
    let actions = tools(&world).await;
    let denied: Vec<(&str, &str)> = actions
        .iter()
        .filter(|record| record.verdict == Verdict::Deny)
        .map(|record| {
            (
                record.action.target.as_str(),
                record.action.args["through"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("guarded/x.txt", "d/x.txt"),
        ("guarded/new/x.txt", "dd/new/x.txt"),
        ("guarded/x.txt", "f"),
        ("guarded/x.txt", "dd/x.txt"),
        ("guarded/out", "d/out"),
    ];
    assert_eq!(denied, expected);
    let failed = actions
        .iter()
        .filter(|record| record.verdict == Verdict::Allow && matches!(record.outcome, Some(Outcome::Failed { .. })));
    assert_eq!(failed.count(), 6, "what was refused on the second look was not done");
}

#[tokio::test]
async fn limits_count_what_an_edit_comes_to_and_every_file_once() {
    let rules = FileRules {
        max_file_bytes: NonZeroU64::new(20),
        max_files: NonZeroU64::new(2),
        max_total_bytes: NonZeroU64::new(30),
        ..FileRules::default()
    };
    let world = World::new(wish(
        rules,
        vec![
            writes("a", "aaaa"),
            (
                "edit_file",
                json!({ "path": "a", "old_string": "a", "new_string": "bbbbbb", "replace_all": true }),
            ),
            (
                "edit_file",
                json!({ "path": "a", "old_string": "a", "new_string": "bbbbb", "replace_all": true }),
            ),
            writes("b", "0123456789"),
            writes("c", ""),
            writes("b", "01234567890"),
            writes("b", "9876543210"),
        ],
    ))
    .await;
    world.work().await.unwrap();
    let asked = tools(&world).await.len();
    assert_eq!(asked, 8, "only what an edit comes to is asked about twice");
    let denied: Vec<(String, String)> = tools(&world)
        .await
        .into_iter()
        .filter(|record| record.verdict == Verdict::Deny)
        .map(|record| (record.action.target, record.rule))
        .collect();
    let expected = [
        ("a", "env.files.max_file_bytes"),
        ("c", "env.files.max_files"),
        ("b", "env.files.max_total_bytes"),
    ];
    assert_eq!(
        denied.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(
        std::fs::read_to_string(world.workspace("a")).unwrap(),
        "bbbbb".repeat(4)
    );
    assert_eq!(std::fs::read_to_string(world.workspace("b")).unwrap(), "9876543210");
    assert!(!world.workspace("c").exists());
}

#[tokio::test]
async fn edited_arguments_stay_within_the_rules() {
    let world = World::new(Wish {
        rules: vec![rule("write_file", RuleVerdict::Ask)],
        ..wish(denying(&["*.pem"]), vec![writes("a.txt", "x")])
    })
    .await;
    let person = async {
        let question = world.question().await;
        let edited = json!({ "path": "a.pem", "content": "x" });
        world
            .decide_edited(question.id, Decision::Approve, None, Some(edited))
            .await;
    };
    let (worked, ()) = tokio::join!(world.work(), person);
    worked.unwrap();
    assert!(!world.workspace("a.pem").exists() && !world.workspace("a.txt").exists());
    let denied = world.told(EventType::ActionDenied).await;
    assert_eq!((denied.len(), &denied[0]["rule"]), (1, &json!("env.files.deny:*.pem")));
}

#[tokio::test]
async fn a_harness_s_files_obey_the_same_rules() {
    let write = |id: &str, path: &str| {
        format!(
            "say '{{\"jsonrpc\":\"2.0\",\"id\":\"{id}\",\"method\":\"fs/write_text_file\",\"params\":{{\"sessionId\":\"s1\",\"path\":\"{path}\",\"content\":\"hi\"}}}}'; hear; "
        )
    };
    let script = format!(
        "mkdir guarded; ln -s guarded d; open; {} case $line in *'env.files.deny:/guarded/'*) touch refused;; esac; {} \
         case $line in *error*) touch refused-too;; esac; {} finish; hear",
        write("a", "/workspace/guarded/x"),
        write("b", "/workspace/d/x"),
        write("c", "/workspace/fine"),
    );
    let world = World::new(Wish {
        kind: with_files(&script, true),
        files: denying(&["/guarded/"]),
        ..Wish::default()
    })
    .await;
    world.work().await.unwrap();
    for file in ["refused", "refused-too", "fine"] {
        assert!(world.workspace(file).exists(), "{file}");
    }
    assert!(!world.workspace("guarded/x").exists());
    let denied = world.told(EventType::ActionDenied).await;
    let targets: Vec<&Value> = denied.iter().map(|event| &event["target"]).collect();
    assert_eq!(targets, ["guarded/x", "guarded/x"]);
}
