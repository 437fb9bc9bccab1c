use std::{path::Path, process::Command};

use stockade_domain::RepoSpec;

use super::{
    bring::{Head, bring},
    check_repo,
};
use crate::RunnerConfig;

fn git(dir: &Path, args: &[&str]) {
    let status = Command::new("git")
        .current_dir(dir)
        .args([
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@example.invalid",
            "-c",
            "init.defaultBranch=trunk",
        ])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        status.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&status.stderr)
    );
}

/// A repository with two commits, a tag, a branch, and uncommitted changes.
fn sample(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    git(dir, &["init", "-q"]);
    std::fs::write(dir.join("a.txt"), "one\n").unwrap();
    git(dir, &["add", "."]);
    git(dir, &["commit", "-qm", "first"]);
    git(dir, &["tag", "v1"]);
    git(dir, &["branch", "side"]);
    std::fs::write(dir.join("a.txt"), "two\n").unwrap();
    git(dir, &["commit", "-qam", "second"]);
    git(
        dir,
        &["remote", "add", "origin", "https://user:hunter2@example.invalid/x.git"],
    );
}

fn spec(source: &Path, reference: Option<&str>) -> RepoSpec {
    RepoSpec {
        source: source.to_string_lossy().into_owned(),
        reference: reference.map(str::to_owned),
    }
}

#[tokio::test]
async fn brings_the_committed_state_and_says_what_stays_behind() {
    let root = tempfile::tempdir().unwrap();
    let (source, run) = (root.path().join("source-place"), root.path().join("run"));
    sample(&source);
    std::fs::create_dir(&run).unwrap();
    let config = RunnerConfig::new(root.path().to_owned());
    let clean = bring(&config, Some(&spec(&source, None)), None, &run).await.unwrap();
    assert_eq!((clean.branch.as_deref(), clean.files), (Some("trunk"), 1));
    assert!(clean.notes.is_empty(), "{:?}", clean.notes);
    assert_eq!(std::fs::read_to_string(clean.tree.join("a.txt")).unwrap(), "two\n");

    std::fs::write(source.join("a.txt"), "three\n").unwrap();
    let again = root.path().join("again");
    std::fs::create_dir(&again).unwrap();
    let dirty = bring(&config, Some(&spec(&source, None)), None, &again).await.unwrap();
    assert!(dirty.notes[0].contains("uncommitted"), "{:?}", dirty.notes);
    assert_eq!(std::fs::read_to_string(dirty.tree.join("a.txt")).unwrap(), "two\n");
}

#[tokio::test]
async fn the_copies_name_neither_the_host_nor_the_source() {
    let root = tempfile::tempdir().unwrap();
    let (source, run) = (root.path().join("source-place"), root.path().join("run"));
    sample(&source);
    std::fs::create_dir(&run).unwrap();
    let config = RunnerConfig::new(root.path().to_owned());
    let brought = bring(&config, Some(&spec(&source, None)), None, &run).await.unwrap();
    let looked_at = std::cell::Cell::new(0);
    for dir in [&brought.tree, &brought.base_git] {
        walk(dir, &|path| {
            let bytes = std::fs::read(path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            for secret in [root.path().to_str().unwrap(), "hunter2", "source-place"] {
                assert!(!text.contains(secret), "{} holds {secret}", path.display());
            }
            looked_at.set(looked_at.get() + 1);
        });
    }
    assert!(looked_at.get() > 5, "the walk found nothing to look at");
}

fn walk(dir: &Path, look: &dyn Fn(&Path)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => walk(&entry.path(), look),
            kind if kind.is_file() => look(&entry.path()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn references_are_branches_tags_or_commits() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    sample(&source);
    let config = RunnerConfig::new(root.path().to_owned());
    for (reference, branch) in [("side", Some("side")), ("v1", None), ("HEAD~1", None)] {
        let run = root.path().join(reference);
        std::fs::create_dir(&run).unwrap();
        if reference == "HEAD~1" {
            // Only meaningful in the source, where HEAD is; names the same commit everywhere.
            let id = Command::new("git")
                .current_dir(&source)
                .args(["rev-parse", "HEAD~1"])
                .output()
                .unwrap();
            let id = String::from_utf8(id.stdout).unwrap();
            let brought = bring(&config, Some(&spec(&source, Some(id.trim()))), None, &run)
                .await
                .unwrap();
            assert_eq!(std::fs::read_to_string(brought.tree.join("a.txt")).unwrap(), "one\n");
            continue;
        }
        let brought = bring(&config, Some(&spec(&source, Some(reference))), None, &run)
            .await
            .unwrap();
        assert_eq!(brought.branch.as_deref(), branch);
        assert_eq!(std::fs::read_to_string(brought.tree.join("a.txt")).unwrap(), "one\n");
    }
}

#[tokio::test]
async fn what_is_no_repository_is_refused_with_a_reason() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    sample(&path("good"));
    std::fs::create_dir(path("good/sub")).unwrap();
    std::fs::create_dir(path("plain")).unwrap();
    std::fs::write(path("file"), "x").unwrap();
    std::fs::create_dir(path("empty")).unwrap();
    git(&path("empty"), &["init", "-q"]);
    let config = RunnerConfig::new(root.path().to_owned());
    for good in [
        spec(&path("good"), None),
        spec(&path("good"), Some("v1")),
        spec(&path("good/.git"), None),
    ] {
        check_repo(&config, &good).await.unwrap();
    }
    for (wrong, code, word) in [
        (spec(&path("missing"), None), "repo_not_found", "cannot be opened"),
        (spec(&path("file"), None), "repo_invalid", "is a file"),
        (spec(&path("plain"), None), "repo_invalid", "is not a git repository"),
        (
            spec(&path("good/sub"), None),
            "repo_invalid",
            "is inside the repository",
        ),
        (spec(&path("empty"), None), "repo_empty", "no commit"),
        (spec(&path("good"), Some("nope")), "repo_reference", "'nope'"),
        (spec(&path("good"), Some("--all")), "repo_reference", "'--all'"),
        (
            spec(Path::new("git@example.invalid:x/y"), None),
            "repo_unsupported",
            "ssh",
        ),
        (spec(Path::new("ext::sh -c id"), None), "repo_unsupported", "ssh"),
        (
            spec(Path::new("ftp://example.invalid/x"), None),
            "repo_unsupported",
            "ftp",
        ),
        (
            spec(Path::new("https://me:pw@example.invalid/x"), None),
            "repo_unsupported",
            "credentials",
        ),
        (spec(Path::new(""), None), "repo_not_found", "no usable name"),
    ] {
        let failure = check_repo(&config, &wrong).await.unwrap_err();
        assert_eq!(failure.code, code, "{} / {failure}", wrong.source);
        assert!(failure.message.contains(word), "{failure}");
        assert!(!failure.message.contains("pw"), "{failure}");
        assert!(failure.hint.is_some(), "{failure} has no hint");
    }
}

#[tokio::test]
async fn nothing_of_the_source_s_configuration_runs() {
    let root = tempfile::tempdir().unwrap();
    let (source, run, trace) = (
        root.path().join("s"),
        root.path().join("run"),
        root.path().join("trace"),
    );
    sample(&source);
    std::fs::create_dir(&run).unwrap();
    let touch = format!("touch {}", trace.display());
    std::fs::write(source.join(".gitattributes"), "* filter=evil\n").unwrap();
    git(&source, &["add", "."]);
    git(&source, &["commit", "-qm", "attributes"]);
    for key in [
        "filter.evil.clean",
        "filter.evil.smudge",
        "core.fsmonitor",
        "uploadpack.packObjectsHook",
    ] {
        git(&source, &["config", key, &touch]);
    }
    std::fs::write(source.join("a.txt"), "tw0\n").unwrap();
    let config = RunnerConfig::new(root.path().to_owned());
    let brought = bring(&config, Some(&spec(&source, None)), None, &run).await.unwrap();
    assert_eq!(brought.notes.len(), 1, "{:?}", brought.notes);
    assert!(!trace.exists(), "the source's configuration ran a program");
    // The control: an ordinary git runs the filter.
    git(&source, &["status"]);
    assert!(trace.exists(), "the trap does not work");
}

#[tokio::test]
async fn without_a_repository_there_is_one_empty_commit_always_the_same() {
    let root = tempfile::tempdir().unwrap();
    let config = RunnerConfig::new(root.path().to_owned());
    let mut commits = Vec::new();
    for name in ["one", "two"] {
        let run = root.path().join(name);
        std::fs::create_dir(&run).unwrap();
        let brought = bring(&config, None, None, &run).await.unwrap();
        assert_eq!((brought.files, brought.given), (0, false));
        commits.push(brought.base_commit);
    }
    assert_eq!(commits[0], commits[1]);
}

#[test]
fn reads_what_ls_remote_says() {
    let id = "a".repeat(40);
    let head = Head::read(&format!("ref: refs/heads/main\tHEAD\n{id}\tHEAD"));
    assert_eq!(head.branch.as_deref(), Some("main"));
    assert_eq!(head.commit, Some(id));
    assert_eq!(Head::read(""), Head::default());
}
