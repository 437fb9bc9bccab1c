use std::{path::Path, process::Command};

use stockade_origins::{Credential, GitServer};
use stockade_ports::SecretValue;

use super::*;

const TOKEN: &str = "canary-push-token-0417";

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.invalid"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

struct World {
    root: tempfile::TempDir,
    server: GitServer,
    config: RunnerConfig,
    commit: String,
}

impl World {
    /// A server with `o/r.git`, and a git directory with one commit more.
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join("work");
        std::fs::create_dir(&work).unwrap();
        git(&work, &["init", "--quiet", "--initial-branch=main"]);
        git(&work, &["commit", "--quiet", "--allow-empty", "-m", "one"]);
        git(root.path(), &["clone", "--quiet", "--bare", "work", "origin/o/r.git"]);
        git(&work, &["commit", "--quiet", "--allow-empty", "-m", "two"]);
        git(root.path(), &["clone", "--quiet", "--bare", "work", GIT_DIR]);
        let credential = Credential {
            user: "bot".to_owned(),
            password: TOKEN.to_owned(),
        };
        Self {
            server: GitServer::start(&root.path().join("origin"), Some(credential))
                .await
                .unwrap(),
            config: RunnerConfig::new(root.path().join("state")),
            commit: git(&work, &["rev-parse", "HEAD"]),
            root,
        }
    }

    fn login(password: &str) -> GitLogin {
        let header = Credential {
            user: "bot".to_owned(),
            password: password.to_owned(),
        };
        GitLogin::new(SecretValue::new(header.header().into_bytes()), |text| {
            text.replace(TOKEN, "[redacted]")
        })
    }

    async fn push(&self, branch: &str, login: Option<&GitLogin>) -> Result<(), Failure> {
        let push = Push {
            config: &self.config,
            git_dir: self.root.path().join(GIT_DIR),
            remote: format!("{}/o/r.git", self.server.origin()),
            branch,
            commit: &self.commit,
        };
        push.send(login, Duration::from_millis(1)).await
    }

    fn there(&self, branch: &str) -> String {
        git(
            &self.root.path().join("origin/o/r.git"),
            &["rev-parse", &format!("refs/heads/{branch}")],
        )
    }

    fn hook(&self, script: &str) {
        let hook = self.root.path().join("origin/o/r.git/hooks/pre-receive");
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&hook, mode).unwrap();
    }
}

#[tokio::test]
async fn a_branch_is_made_once_and_found_again() {
    let world = World::new().await;
    let login = World::login(TOKEN);
    world.push("stockade/run_1", Some(&login)).await.unwrap();
    assert_eq!(world.there("stockade/run_1"), world.commit);
    world.push("stockade/run_1", Some(&login)).await.unwrap();
    assert_eq!(world.there("stockade/run_1"), world.commit);
}

#[tokio::test]
async fn a_branch_of_somebody_else_stays_as_it_is() {
    let world = World::new().await;
    let before = world.there("main");
    for branch in ["main", "main/below"] {
        let failure = world.push(branch, Some(&World::login(TOKEN))).await.unwrap_err();
        assert!(
            ["branch_exists", "push_refused"].contains(&failure.code.as_str()),
            "{failure}"
        );
    }
    assert_eq!(world.there("main"), before);
}

#[tokio::test]
async fn what_a_server_says_no_with_is_told_without_the_token() {
    let world = World::new().await;
    world.hook(&format!("echo 'you are {TOKEN}' >&2; exit 1"));
    let failure = world.push("x", Some(&World::login(TOKEN))).await.unwrap_err();
    assert_eq!(failure.code, "push_refused", "{failure}");
    assert!(failure.message.contains("you are [redacted]"), "{failure}");
    for login in [None, Some(World::login("wrong"))] {
        let failure = world.push("x", login.as_ref()).await.unwrap_err();
        assert_eq!(failure.code, "unauthorized", "{failure}");
    }
    let World {
        root,
        server,
        config,
        commit,
    } = world;
    let remote = format!("{}/o/r.git", server.origin());
    drop(server);
    let (git_dir, branch) = (root.path().join(GIT_DIR), "x");
    let push = Push {
        config: &config,
        git_dir,
        remote,
        branch,
        commit: &commit,
    };
    let failure = push.send(None, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(failure.code, "repo_unreachable", "{failure}");
}
