//! Git from inside a sandbox: cloned, fetched and pushed through the Guard with a credential that
//! never comes in, as far as the environment's rules go.

use std::fs;

use serde_json::{Value, json};
use stockade_api::v1::DecideApproval;
use stockade_origins::{Credential, GitServer};

use crate::support::{
    installation::Installation, names::Names, program, receipt, repository::Repository, server::Server, story::Story,
    web::tls_before,
};

const TOKEN: &str = "canary-git-token-e2e-77ab";
const HOST: &str = "git.example.com";

/// A git server that wants a credential, behind TLS, and an installation whose runs may go there.
struct World {
    installation: Installation,
    git: GitServer,
    /// What the run is about: the bare repository itself.
    repo: Repository,
    _names: Names,
    url: String,
}

impl World {
    /// `rules` is what the environment says about git; `files` what it says about files.
    async fn new(rules: Value, files: Value) -> Self {
        let mut installation = Installation::bare();
        let seed = Repository::with(
            &installation,
            &[("README", "hello\n"), ("src/lib.rs", "pub fn one() {}\n")],
        );
        let bare = installation.path("served/octo/hello.git");
        fs::create_dir_all(bare.parent().unwrap()).unwrap();
        seed.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
        let credential = Credential {
            user: "bot".to_owned(),
            password: TOKEN.to_owned(),
        };
        let git = GitServer::start(&installation.path("served"), Some(credential))
            .await
            .unwrap();
        let plain = git.origin().trim_start_matches("http://").parse().unwrap();
        let (port, certificate) = tls_before(HOST, plain).await;
        let names = Names::serve(&[HOST]).await;
        let authority = installation.path("authority.pem");
        fs::write(&authority, certificate).unwrap();
        installation.configure("nameservers", json!([names.address]));
        installation.configure("certificate_authorities", json!([authority]));
        installation.configure(
            "environments",
            json!([{
                "name": "default", "network": "custom", "git": rules, "files": files,
                "egress": [{ "verdict": "allow", "hosts": [HOST], "ports": [port], "protocols": ["https"] }],
                "address_exceptions": [{ "cidr": "127.0.0.0/8", "reason": "the git server of this test" }],
                "credentials": [{
                    "secret": "GIT", "kind": { "basic": { "username": "bot" } }, "hosts": [format!("{HOST}:{port}")],
                }],
            }]),
        );
        Self {
            installation,
            git,
            repo: Repository { path: bare },
            _names: names,
            url: format!("https://{HOST}:{port}/octo/hello.git"),
        }
    }

    /// A run whose agent does these things one after the other, in a clone of its own.
    async fn begin(&mut self, steps: &[&str]) -> (Server, stockade_api::domain::RunId) {
        let clone = format!(
            "git clone -q {} /tmp/w 2>&1 && cd /tmp/w && git config user.name A && git config user.email a@example.com; \
             git push origin HEAD:refs/heads/main HEAD:refs/heads/nowhere > /tmp/told 2>&1; \
             grep -o 'refs/heads/stockade/run_[0-9a-f]*' /tmp/told | head -1 > /tmp/own; cat /tmp/own",
            self.url
        );
        let all = std::iter::once(clone).chain(
            steps
                .iter()
                .map(|step| format!("cd /tmp/w; own=$(cat /tmp/own); url={}; {step}", self.url)),
        );
        let call =
            |command: String| json!({ "say": "Next.", "call": [{ "tool": "bash", "input": { "command": command } }] });
        let turns: Vec<Value> = all.map(call).chain([json!({ "say": "Done." })]).collect();
        self.installation.script(json!(turns));
        let server = Server::up(&self.installation).await;
        let set = program::run_with(self.installation.command(&["secret", "set", "GIT"]), TOKEN.as_bytes());
        set.await.expect(0);
        let run = server.run(&self.repo, json!("builtin")).await;
        (server, run)
    }

    async fn told(&mut self, steps: &[&str]) -> (Server, Story) {
        let (server, run) = self.begin(steps).await;
        let story = server.told(run).await;
        (server, story)
    }

    /// Every reference of the server, with what stands there.
    fn refs(&self) -> String {
        self.repo.git(&["for-each-ref", "--format=%(refname) %(subject)"])
    }
}

/// What the last steps of these tests try, each with how it ended.
const TRIES: [&str; 7] = [
    "echo one > one; git add -A; git commit -qm one; git push -q origin HEAD:$own/fix 2>&1; echo \"own $?\"",
    "git push origin HEAD:refs/heads/main 2>&1; echo \"main $?\"",
    "git push origin HEAD:refs/tags/v9 2>&1; echo \"tag $?\"",
    "git commit -q --amend -m other; git push -f origin HEAD:$own/fix 2>&1; echo \"force $?\"",
    "git push origin :$own/fix 2>&1; echo \"delete $?\"",
    "git reset -q --hard origin/main; mkdir private; echo x > private/key; git add -A; git commit -qm key; \
     git rm -q private/key; git commit -qm 'no key'; git push origin HEAD:$own/key 2>&1; echo \"files $?\"",
    "git reset -q --hard origin/main; git fetch -q origin 2>&1; echo \"fetch $?\"",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_only_the_runs_own_branch_is_pushed() {
    let mut world = World::new(json!({}), json!({ "deny": ["private/"] })).await;
    let before = world.refs();
    let (server, story) = world.told(&TRIES).await;
    let output = story.outputs();
    for (ended, words) in [
        ("own 0", ""),
        (
            "main 1",
            "refs/heads/main is not this run's branch; this run may push to refs/heads/stockade/run_",
        ),
        ("tag 1", "refs/tags/v9 is a tag"),
        ("force 1", "would lose commits (not a fast-forward)"),
        ("delete 1", "would be removed"),
        ("files 1", "private/key"),
        ("fetch 0", ""),
    ] {
        assert!(
            output.contains(ended) && output.contains(words),
            "{ended}: {story}\n{output}"
        );
    }
    let after = world.refs();
    let run = story.events[0].run;
    let new: Vec<&str> = after.lines().filter(|line| !before.contains(line)).collect();
    assert_eq!(new, [format!("refs/heads/stockade/{run}/fix one")], "{story}\n{output}");

    // Who was let in, and by whom.
    let seen = world.git.seen();
    assert!(seen.iter().all(|seen| seen.status != 401), "{:?}", seen.len());
    // What went through is written down with what moved where.
    let settled = |operation: &str| {
        let all = story.with("action.settled", "operation", operation);
        all.into_iter()
            .filter(|event| event.data["outcome"]["result"] == "done")
            .count()
    };
    assert_eq!(settled("push"), 1, "{story}");
    assert!(settled("fetch") >= 1, "{story}");
    let predicate = receipt::verified(&world.installation, run).await;
    let actions = predicate["actions"].as_array().unwrap();
    let of = |operation: &str, verdict: &str| {
        let mut found = actions
            .iter()
            .filter(|record| record["action"]["operation"] == operation && record["verdict"] == verdict);
        found
            .next()
            .cloned()
            .unwrap_or_else(|| panic!("no {operation} {verdict}: {predicate}"))
    };
    let push = of("push", "allow");
    let tip = world
        .repo
        .git(&["rev-parse", &format!("refs/heads/stockade/{run}/fix")]);
    let moved = &push["action"]["args"]["refs"][0];
    assert_eq!(moved["ref"], format!("refs/heads/stockade/{run}/fix"));
    assert_eq!((&moved["old"], &moved["new"]), (&json!("0".repeat(40)), &json!(tip)));
    assert_eq!(push["action"]["args"]["repository"], world.url.as_str());
    let fetch = of("fetch", "allow");
    assert_eq!(fetch["action"]["args"]["repository"], world.url.as_str());
    assert!(
        fetch["action"]["args"]["refs"]
            .as_array()
            .unwrap()
            .contains(&json!("refs/heads/main")),
        "{fetch}"
    );
    of("push", "deny");
    let told = [story.to_string(), output, predicate.to_string(), server.log()].join("\n");
    assert!(!told.contains(TOKEN), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rules_allow_passes_and_the_token_is_nowhere_inside() {
    let all = json!({
        "push": ["refs/heads/stockade/{run}"],
        "elsewhere": "allow", "tags": "allow", "force": "allow", "delete": "allow",
    });
    let mut world = World::new(all, json!({})).await;
    // The pattern is put together inside, or the search would find itself.
    let search = "{ env; git config -l; cat ~/.git-credentials ~/.netrc; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; } \
                  2>/dev/null > /tmp/env.txt; \
                  token=$(printf '%s-%s-token' canary git); coded=$(printf 'bot:%s' $token | base64 | cut -c1-20); \
                  search() { grep -rlaF -e $token -e $coded /tmp /home /workspace /etc /run /var 2>/dev/null; }; \
                  search; echo searched; echo $coded > /tmp/planted; search";
    // Without a refusal nobody says where the run's own branch is.
    let named = "echo refs/heads/stockade/x > /tmp/own";
    let steps: Vec<&str> = [named].into_iter().chain(TRIES).chain([search]).collect();
    let (_server, story) = world.told(&steps).await;
    let output = story.outputs();
    for ended in ["own 0", "main 0", "tag 0", "force 0", "delete 0", "files 0", "fetch 0"] {
        assert!(output.contains(ended), "{ended}: {story}\n{output}");
    }
    let refs = world.refs();
    assert!(
        refs.contains("refs/tags/v9") && refs.contains("stockade/x/key"),
        "{refs}"
    );
    assert!(!refs.contains("stockade/x/fix"), "{refs}");
    let (before, found) = output.split_once("searched").unwrap();
    assert_eq!(found.trim(), "/tmp/planted", "the control: {output}");
    for place in ["/tmp/", "/home/", "/workspace/", "/etc/", "/run/", "/var/"] {
        assert!(!before.lines().any(|line| line.starts_with(place)), "{place}: {output}");
    }
    assert!(!output.contains(TOKEN), "{output}");
    let pushes = world
        .git
        .seen()
        .into_iter()
        .filter(|seen| seen.uri.path().ends_with("git-receive-pack"));
    assert!(
        pushes.count() > 3,
        "the control: the server was told the token each time"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_elsewhere_waits_for_a_person() {
    let mut world = World::new(json!({ "elsewhere": "ask" }), json!({})).await;
    let steps = [
        "echo two > two; git add -A; git commit -qm two; git push origin HEAD:refs/heads/yes 2>&1; echo \"yes $?\"",
        "git push origin HEAD:refs/heads/no 2>&1; echo \"no $?\"",
    ];
    let (server, run) = world.begin(&steps).await;
    let mut story = server.story(run);
    // The first push of all is the one that asks for where it may.
    for (name, approve) in [
        ("refs/heads/nowhere", false),
        ("refs/heads/yes", true),
        ("refs/heads/no", false),
    ] {
        let question = story.question().await;
        let asked = server
            .approvals(run)
            .await
            .into_iter()
            .find(|asked| asked.id == question)
            .unwrap();
        let refs = &asked.action.args["refs"];
        assert_eq!(refs[0]["ref"], name, "{story}");
        assert!(
            !world.refs().contains("refs/heads/yes"),
            "nothing goes on before somebody decided"
        );
        let decision = if approve {
            assert_eq!(asked.action.args["log"][0]["subject"], "two");
            assert_eq!(asked.action.args["files"], json!(["two"]));
            DecideApproval::approve()
        } else {
            DecideApproval::reject()
        };
        server.client.decide(question, &decision).await.unwrap();
        if approve {
            // The next question comes when this push is over.
            story
                .until("the push", |event| event.data["details"]["pack_objects"].is_number())
                .await;
            assert!(world.refs().contains("refs/heads/yes two"), "{}", world.refs());
            break;
        }
    }
    let question = story.question().await;
    server.client.decide(question, &DecideApproval::reject()).await.unwrap();
    story.to("run.completed").await;
    let output = story.outputs();
    assert!(output.contains("yes 0") && output.contains("no 1"), "{story}\n{output}");
    let refs = world.refs();
    assert!(
        !refs.contains("refs/heads/no") && !refs.contains("refs/heads/nowhere"),
        "{refs}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_protocol_and_lfs_are_refused_in_words_that_git_prints() {
    let mut world = World::new(json!({}), json!({})).await;
    let lfs =
        "curl -sS -X POST -H 'content-type: application/vnd.git-lfs+json' -d '{}' $url/info/lfs/objects/batch; echo";
    let steps = [
        "GIT_SMART_HTTP=0 git ls-remote $url 2>&1; echo \"dumb $?\"",
        lfs,
        "git ls-remote $url refs/heads/main 2>&1; echo \"smart $?\"",
        "git -c protocol.version=0 ls-remote $url refs/heads/main 2>&1; echo \"old $?\"",
    ];
    let (_server, story) = world.told(&steps).await;
    let output = story.outputs();
    assert!(
        output.contains("remote: stockade: git's protocol without a server program is not spoken"),
        "{output}"
    );
    assert!(output.contains("dumb 128"), "{output}");
    assert!(
        output.contains("{\"message\":\"stockade: Git LFS is not spoken through the Guard\"}"),
        "{output}"
    );
    assert!(
        output.contains("smart 0") && output.contains("old 0"),
        "the control: {output}"
    );
    let reached = world.git.seen();
    assert!(
        !reached.iter().any(|seen| seen.uri.path().contains("lfs")),
        "nothing of it reached the server"
    );
}
