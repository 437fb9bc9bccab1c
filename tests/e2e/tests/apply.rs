//! `runs apply`: a change comes into a working tree whole, after a yes, or not at all.

use serde_json::{Value, json};

use crate::support::{installation::Installation, repository::Repository};

const BEFORE: &str = "one\ntwo\nthree\n";
const AFTER: &str = "one\n2\nthree\n";

/// A run that changes one file and adds another, and its id.
async fn changed() -> (Installation, Repository, String) {
    let write =
        |path: &str, content: &str| json!({ "tool": "write_file", "input": { "path": path, "content": content } });
    let turns: Value = json!([{ "say": "I write.", "call": [write("list.txt", AFTER), write("new/file.txt", "new\n")] }, { "say": "Done." }]);
    let installation = Installation::scripted(turns);
    let repo = Repository::with(&installation, &[("list.txt", BEFORE), ("other.txt", "other\n")]);
    let ran = installation
        .run(&["run", "x", "--repo", repo.source(), "--json"])
        .await
        .expect(0);
    assert_eq!(
        repo.git(&["status", "--porcelain"]),
        "",
        "the run touched the user's repository"
    );
    let id = ran.json()["id"].as_str().unwrap().to_owned();
    (installation, repo, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_applied_after_a_yes_and_only_then() {
    let (installation, repo, id) = changed().await;
    installation.run(&["runs", "apply", &id]).await.expect(2).says("--yes");
    assert_eq!(repo.git(&["status", "--porcelain"]), "");
    installation.run(&["runs", "apply", &id, "--yes"]).await.expect(0);
    assert_eq!(repo.read("list.txt"), AFTER);
    assert_eq!(repo.read("new/file.txt"), "new\n");
    assert_eq!(
        repo.git(&["diff", "--cached", "--name-only"]),
        "",
        "the index was touched"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_does_not_fit_is_refused_whole() {
    let (installation, repo, id) = changed().await;
    repo.write("list.txt", "one\nsomebody was here\nthree\n");
    let ran = installation.run(&["runs", "apply", &id, "--yes"]).await.expect(1);
    assert!(ran.stderr.contains("list.txt"), "{}", ran.stderr);
    assert_eq!(repo.read("list.txt"), "one\nsomebody was here\nthree\n");
    assert!(!repo.path.join("new").exists(), "half of the change was applied");
    // Work that is not in the way stays.
    repo.write("list.txt", BEFORE);
    repo.write("other.txt", "mine\n");
    installation.run(&["runs", "apply", &id, "--yes"]).await.expect(0);
    assert_eq!(
        (repo.read("list.txt").as_str(), repo.read("other.txt").as_str()),
        (AFTER, "mine\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_becomes_a_branch() {
    let (installation, repo, id) = changed().await;
    repo.write("list.txt", "mine\n");
    installation
        .run(&["runs", "apply", &id, "--branch", "--yes"])
        .await
        .expect(0);
    let branches = repo.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
    let branch = branches
        .lines()
        .find(|name| *name != "main")
        .unwrap_or_else(|| panic!("no branch: {branches}"));
    assert_eq!(repo.git(&["show", &format!("{branch}:list.txt")]) + "\n", AFTER);
    assert_eq!(
        repo.git(&["rev-parse", &format!("{branch}^")]),
        repo.git(&["rev-parse", "main"])
    );
    assert_eq!(repo.git(&["symbolic-ref", "--short", "HEAD"]), "main");
    assert_eq!(repo.read("list.txt"), "mine\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_goes_into_the_tree_that_was_named() {
    let (installation, repo, id) = changed().await;
    let other = installation.path("clone");
    repo.git(&["clone", "--quiet", repo.source(), other.to_str().unwrap()]);
    installation
        .run(&["runs", "apply", &id, "--yes", "--repo", other.to_str().unwrap()])
        .await
        .expect(0);
    assert_eq!(std::fs::read_to_string(other.join("list.txt")).unwrap(), AFTER);
    assert_eq!(repo.git(&["status", "--porcelain"]), "");
    let nowhere = installation.path("nowhere");
    let ran = installation
        .run(&["runs", "apply", &id, "--yes", "--repo", nowhere.to_str().unwrap()])
        .await;
    assert!(ran.code == 1 || ran.code == 2, "{ran:?}");
}
