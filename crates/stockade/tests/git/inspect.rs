//! What is looked into before a push goes on: every file of every commit.

use stockade_domain::{Environment, FileRules, NetworkLevel, RuleVerdict, Verdict};

use crate::world::{Wish, World, commit, fails, git, ok, own, text};

fn with_files(files: FileRules) -> Wish {
    let environment = Environment {
        files,
        ..Environment::named("test", NetworkLevel::None)
    };
    Wish {
        environment,
        ..Wish::default()
    }
}

fn denying() -> Wish {
    with_files(FileRules {
        deny: vec!["*.pem".parse().unwrap()],
        sensitive: RuleVerdict::Deny,
        outside_links: RuleVerdict::Deny,
        submodules: RuleVerdict::Deny,
        executables: RuleVerdict::Deny,
        max_file_bytes: std::num::NonZeroU64::new(10_000),
        ..FileRules::default()
    })
}

fn spec() -> String {
    format!("HEAD:{}", own(""))
}

async fn refused(world: &World, work: &std::path::Path, rule: &str, words: &str) {
    let said = fails(work, &["push", "origin", &spec()]).await;
    assert!(said.contains(words), "{words}: {said}");
    let (_, verdict, by) = world.gate.last();
    assert_eq!(verdict, Verdict::Deny);
    assert!(by.starts_with(rule), "{by}");
    assert!(world.pushed().is_empty());
}

#[tokio::test]
async fn a_file_that_a_later_commit_takes_back_has_left_all_the_same() {
    let (world, work) = World::cloned(denying()).await;
    commit(&work, "deploy/key.pem", "secret\n", "oops").await;
    std::fs::remove_file(work.join("deploy/key.pem")).unwrap();
    commit(&work, "after", "x", "took it back").await;
    assert!(
        !ok(&work, &["ls-tree", "-r", "--name-only", "HEAD"])
            .await
            .contains("key.pem")
    );
    refused(&world, &work, "env.files.deny", "deploy/key.pem").await;
    // The control: the same tree in one commit passes.
    ok(&work, &["reset", "--quiet", "--soft", "origin/main"]).await;
    ok(&work, &["commit", "--quiet", "-m", "all in one"]).await;
    ok(&work, &["push", "origin", &spec()]).await;
}

#[tokio::test]
async fn a_file_that_comes_with_a_merge_is_seen() {
    let (world, work) = World::cloned(denying()).await;
    ok(&work, &["checkout", "--quiet", "-b", "side", "origin/other"]).await;
    commit(&work, "side.txt", "side\n", "side").await;
    ok(&work, &["checkout", "--quiet", "work"]).await;
    ok(&work, &["merge", "--quiet", "--no-ff", "--no-commit", "side"]).await;
    std::fs::write(work.join("evil.pem"), "secret\n").unwrap();
    ok(&work, &["add", "--all"]).await;
    ok(&work, &["commit", "--quiet", "-m", "a merge that brings its own file"]).await;
    refused(&world, &work, "env.files.deny", "evil.pem").await;
    ok(&work, &["reset", "--quiet", "--hard", "HEAD~1"]).await;
    ok(&work, &["merge", "--quiet", "--no-ff", "-m", "an honest merge", "side"]).await;
    ok(&work, &["push", "origin", &spec()]).await;
    let (action, ..) = world.gate.last();
    assert_eq!(action.args["files"], serde_json::json!(["side.txt", "src/new.rs"]));
    assert_eq!(action.args["commits"], 3);
    let subjects: Vec<_> = action.args["log"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["subject"].clone())
        .collect();
    assert_eq!(subjects[0], "an honest merge");
}

#[tokio::test]
async fn links_submodules_programs_and_sizes_are_judged() {
    for (name, rule) in [
        ("link", "env.files.outside_links"),
        ("submodule", "env.files.submodules"),
        ("program", "env.files.executables"),
        ("large", "env.files.max_file_bytes"),
        ("workflow", "env.files.sensitive"),
    ] {
        let (world, work) = World::cloned(denying()).await;
        match name {
            "link" => std::os::unix::fs::symlink("/etc/passwd", work.join("link")).unwrap(),
            "submodule" => {
                let id = ok(&work, &["rev-parse", "HEAD"]).await;
                let entry = format!("160000,{id},submodule");
                ok(&work, &["update-index", "--add", "--cacheinfo", &entry]).await;
                std::fs::create_dir(work.join("submodule")).unwrap();
            }
            "program" => {
                std::fs::write(work.join("program"), "#!/bin/sh\n").unwrap();
                ok(&work, &["add", "program"]).await;
                ok(&work, &["update-index", "--chmod=+x", "program"]).await;
            }
            "large" => std::fs::write(work.join("large"), vec![b'x'; 10_001]).unwrap(),
            _ => {
                std::fs::create_dir_all(work.join(".github/workflows")).unwrap();
                std::fs::write(work.join(".github/workflows/x.yml"), "on: push\n").unwrap();
            }
        }
        if !matches!(name, "submodule" | "program") {
            ok(&work, &["add", "--all"]).await;
        }
        ok(&work, &["commit", "--quiet", "-m", name]).await;
        refused(&world, &work, rule, "may not leave the sandbox").await;
    }
}

#[tokio::test]
async fn the_default_rules_ask_about_sensitive_files() {
    let (world, work) = World::cloned(Wish {
        person: true,
        ..with_files(FileRules::default())
    })
    .await;
    commit(&work, ".github/workflows/ci.yml", "on: push\n", "ci").await;
    ok(&work, &["push", "origin", &spec()]).await;
    let (_, verdict, rule) = world.gate.last();
    assert_eq!(verdict, Verdict::Hold);
    assert!(rule.starts_with("env.files.sensitive"), "{rule}");
}

#[tokio::test]
async fn more_commits_than_allowed_are_refused_without_reading_them() {
    let rules = stockade_domain::RefRules {
        max_commits: std::num::NonZeroU32::new(2).unwrap(),
        ..stockade_domain::RefRules::default()
    };
    let (world, work) = World::cloned(Wish {
        rules,
        ..Wish::default()
    })
    .await;
    ok(&work, &["push", "origin", &spec()]).await;
    for n in 0..4 {
        commit(&work, "n", n.to_string(), "n").await;
    }
    let words = fails(&work, &["push", "origin", &spec()]).await;
    assert!(words.contains("3 commits; the environment allows 2"), "{words}");
    assert_eq!(world.pushed().len(), 1);
}

/// A commit of the base that the server does not have is part of the push like any other.
#[tokio::test]
async fn commits_that_only_the_host_has_count() {
    let (world, work) = World::cloned(denying()).await;
    let base = world.path("base.git");
    ok(
        &base,
        &["fetch", "--quiet", work.to_str().unwrap(), "work:refs/heads/private"],
    )
    .await;
    commit(&work, "more", "x", "four").await;
    ok(&work, &["push", "origin", &spec()]).await;
    assert_eq!(world.gate.last().0.args["commits"], 2);
}

/// Nothing of the repository's own configuration, hooks or attributes runs on the host.
#[tokio::test]
async fn what_the_pushed_commits_say_about_git_itself_means_nothing_here() {
    let (world, work) = World::cloned(with_files(FileRules {
        sensitive: RuleVerdict::Allow,
        ..FileRules::default()
    }))
    .await;
    let mark = world.path("mark");
    let program = format!("touch {}", mark.display());
    commit(&work, ".gitattributes", "* filter=x diff=x merge=x\n", "attributes").await;
    commit(
        &work,
        "config",
        format!("[diff \"x\"]\n\ttextconv = {program}\n"),
        "a file called config",
    )
    .await;
    let output = git(&work, &["push", "origin", &spec()]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!mark.exists());
    assert_eq!(world.pushed().len(), 1);
}
