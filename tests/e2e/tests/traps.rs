//! What an agent leaves for programs outside to run: git settings, hooks, filters. Stockade's own git
//! and the person's git, which look at the change and take it over, run none of it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use serde_json::json;

use crate::support::{
    installation::Installation,
    repository::Repository,
    server::{Server, task},
    story::Story,
};

/// Sets every trap a repository can hold, each of which makes a file at `mark`. In the working tree, in the
/// repository's own settings, and in one repository inside the other.
fn traps(mark: &Path) -> String {
    let mark = mark.display();
    format!(
        "lay() {{ printf '#!/bin/sh\\ntouch {mark}\\ncat\\n' > $1; chmod 755 $1; }}; mkdir -p hooks .git/hooks; \
         for h in pre-commit post-checkout post-index-change reference-transaction pre-applypatch; do \
         lay hooks/$h; lay .git/hooks/$h; done; lay run.sh; \
         git config core.hooksPath $PWD/hooks; git config core.fsmonitor $PWD/run.sh; git config core.pager $PWD/run.sh; \
         git config core.sshCommand $PWD/run.sh; git config filter.x.clean $PWD/run.sh; git config filter.x.smudge $PWD/run.sh; \
         git config filter.x.required true; git config diff.x.textconv $PWD/run.sh; git config diff.external $PWD/run.sh; \
         git config include.path $PWD/more; printf '[core]\\nfsmonitor = %s\\n' $PWD/run.sh > more; \
         echo '* filter=x diff=x' > .gitattributes; echo changed > a"
    )
}

/// Whether git runs what the traps name, in the repository they were set in.
fn goes_off(repo: &Path, mark: &Path) -> bool {
    for args in [
        &["status"][..],
        &["diff"],
        &["add", "-A"],
        &["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"],
    ] {
        let _ = Command::new("git").current_dir(repo).args(args).output();
    }
    mark.exists()
}

/// The control: where the same script ran outside, the same commands of git make the file.
#[test]
fn the_traps_work() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, mark) = (dir.path().join("repo"), dir.path().join("mark"));
    fs::create_dir(&repo).unwrap();
    let script = format!("git init -q; echo old > a; git add a; {}", traps(&mark));
    let ran = Command::new("sh")
        .current_dir(&repo)
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let _ = fs::remove_file(&mark);
    assert!(goes_off(&repo, &mark), "these traps catch nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_git_outside_runs_what_an_agent_left() {
    let outside = tempfile::tempdir().unwrap();
    // Another user's git, should one run, could make the file as well.
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mark = outside.path().join("mark");
    let turns = json!([
        { "say": "I set traps.", "call": [{ "tool": "bash", "input": { "command": traps(&mark) } }] },
        { "say": "Done." },
    ]);
    let installation = Installation::scripted(turns);
    let repo = Repository::with(&installation, &[("a", "old\n")]);
    let server = Server::up(&installation).await;
    let run = server
        .create(&task(&repo, json!({ "name": "trapper", "kind": { "builtin": {} } })))
        .await;
    let story: Story = server.told(run).await;
    assert_eq!(story.events.last().unwrap().kind.as_str(), "run.completed", "{story}");
    let id = run.to_string();
    let diff = installation.run(&["runs", "diff", &id]).await.expect(0);
    assert!(diff.stdout.contains("+changed"), "{}", diff.stdout);
    assert!(
        !diff.stdout.contains(".git/"),
        "settings and hooks stay inside: {}",
        diff.stdout
    );
    let mut apply = installation.command(&["runs", "apply", &id, "--yes"]);
    apply.current_dir(repo.source());
    crate::support::program::run(apply).await.expect(0);
    assert!(!mark.exists(), "something the agent left was run");
    // What arrived is the change alone: the person's own git does not run it either.
    assert!(
        !goes_off(Path::new(repo.source()), &mark),
        "a trap went along with the change"
    );
    assert_eq!(
        fs::read_to_string(Path::new(repo.source()).join("a")).unwrap(),
        "changed\n"
    );
}
