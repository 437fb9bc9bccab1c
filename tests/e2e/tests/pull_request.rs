//! `stockade run --repo owner/name --pr`: from a private repository to a pull request, past an agent that never holds
//! the credential.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use stockade_api::{domain::run::RunResult, v1::DecideApproval};

use crate::support::{
    forge::{Forge, TOKEN, branch_of},
    program, receipt,
    server::{Server, announced, first_run},
    story::Story,
};

fn write(say: &str) -> Value {
    json!([
        { "say": "I write.", "call": [{ "tool": "write_file", "input": { "path": "new.txt", "content": "new\n" } }] },
        { "say": say },
    ])
}

/// The token in the forms in which it travels.
fn forms() -> [String; 3] {
    let pair = STANDARD.encode(format!("x-access-token:{TOKEN}"));
    [TOKEN.to_owned(), STANDARD.encode(TOKEN), pair]
}

#[track_caller]
fn assert_silent(place: &str, text: &str) {
    for form in forms() {
        assert!(!text.contains(&form), "{place} holds the token:\n{text}");
    }
}

/// Every command line of the machine, looked at again and again.
struct Processes(Arc<AtomicBool>, std::thread::JoinHandle<BTreeSet<String>>);

impl Processes {
    fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&stop);
        let seen = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !own.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    seen.insert(String::from_utf8_lossy(&line).replace('\0', " "));
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            seen
        });
        Self(stop, seen)
    }

    fn seen(self) -> String {
        self.0.store(true, Ordering::Relaxed);
        let seen = self.1.join().unwrap();
        seen.into_iter().collect::<Vec<_>>().join("\n")
    }
}

async fn result(server: &Server, story: &mut Story, run: stockade_api::domain::RunId) -> RunResult {
    story.to("run.completed").await;
    server.look(run).await.result.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_repository_ends_as_a_pull_request() {
    // The pattern finds the token and not itself; the second one is the token in base64.
    let look = "cat README; git config --list --local
        seek() { echo \"$1 $(tr '\\0' '\\n' | grep -a -c -e 'canary-for[g]e-token' -e 'Y2FuYXJ5LWZvcmdlLXRva2V[u]')\"; }
        cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | seek processes
        find /workspace /tmp /home /root /etc /run /var -type f -exec cat {} + 2>/dev/null | seek files
        printf %s%s canary-forge -token | seek control";
    let forge = Forge::new(json!([
        { "say": "I look.", "call": [{ "tool": "bash", "input": { "command": look } }] },
        { "say": "I write.", "call": [{ "tool": "write_file", "input": { "path": "new.txt", "content": "new\n" } }] },
        { "say": "Done, @bob. Fixes #2." },
    ]))
    .await;
    let server = forge.up().await;
    let processes = Processes::watch();
    let mut command = forge.installation.command(&[
        "run",
        "Add a file for @alice, fixes #1",
        "--repo",
        "octo/hello",
        "--pr",
        "--pr-draft",
        "--json",
    ]);
    command.kill_on_drop(true);
    let person = async {
        let run = first_run(&server.client).await;
        let mut story = server.story(run);
        let question = story.question().await;
        assert_eq!(
            (forge.branch(&branch_of(run)), forge.asked()),
            (None, 0),
            "before a person has said yes"
        );
        let approval = server.client.approval(question).await.unwrap();
        assert_eq!(
            (approval.action.operation.as_str(), approval.rule.as_str()),
            ("pull_request", "env.git.pull_requests")
        );
        let shown = forge
            .installation
            .run(&["approvals", "show", &question.to_string()])
            .await
            .expect(0);
        for words in [
            "Add a file for alice, fixes 1",
            "into     main",
            "a draft",
            &branch_of(run),
            "added new.txt",
            "│ Done, @bob",
        ] {
            assert!(shown.stderr.contains(words), "'{words}' is not in:\n{}", shown.stderr);
        }
        server
            .client
            .decide(question, &DecideApproval::approve())
            .await
            .unwrap();
        (run, story, approval)
    };
    let (ran, (run, mut story, approval)) = tokio::join!(program::run(command), person);
    let ran = ran.expect(0);
    let processes = processes.seen();
    let result = result(&server, &mut story, run).await;
    let commit = result.commit.clone().unwrap();
    assert_eq!(forge.branch(&branch_of(run)), Some(commit.clone()));

    // What was approved is what the server got.
    let pulls = forge.api.pulls();
    assert_eq!(pulls.len(), 1, "{pulls:?}");
    let asked = &approval.action.args["pull_request"];
    for key in ["title", "body", "draft"] {
        assert_eq!(pulls[0][key], asked[key], "{key}");
    }
    assert_eq!(
        (&pulls[0]["head"]["ref"], &pulls[0]["base"]["ref"]),
        (&asked["head"], &asked["base"])
    );
    assert_eq!(approval.action.args["change"]["commit"], json!(commit));
    assert_eq!(approval.action.args["change"]["files"][0]["path"], "new.txt");
    assert_eq!(pulls[0]["title"], "Add a file for alice, fixes 1");
    let body = pulls[0]["body"].as_str().unwrap();
    assert!(
        body.contains(&run.to_string()) && body.contains("```text\nDone, @bob. Fixes #2.\n```"),
        "{body}"
    );

    // The address is where people look.
    let url = "https://github.example/octo/hello/pull/1";
    let opened = result.publication.clone().unwrap().pull_request.unwrap();
    assert_eq!((opened.number, opened.url.as_str(), opened.existed), (1, url, false));
    assert_eq!(ran.json()["result"]["publication"]["pull_request"]["url"], url);
    assert!(ran.stderr.contains(url), "{}", ran.stderr);
    let event = &story.all("export.pull_request")[0].data;
    assert_eq!((&event["url"], &event["number"]), (&json!(url), &json!(1)));
    assert_eq!(story.all("export.branch").len(), 2, "kept, and pushed:\n{story}");
    let show = forge
        .installation
        .run(&["runs", "show", &run.to_string()])
        .await
        .expect(0);
    assert!(
        show.stdout.contains(url) && show.stdout.contains("pushed to"),
        "{}",
        show.stdout
    );
    let predicate = receipt::verified(&forge.installation, run).await;
    let done: Vec<(&str, &str)> = predicate["actions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|action| action["outcome"]["result"] == "done")
        .map(|action| {
            (
                action["action"]["kind"].as_str().unwrap(),
                action["action"]["operation"].as_str().unwrap(),
            )
        })
        .filter(|(kind, _)| matches!(*kind, "export" | "credential"))
        .collect();
    let credential = ("credential", "git_host");
    assert_eq!(
        done,
        [
            credential,
            ("export", "diff"),
            ("export", "pull_request"),
            ("export", "push"),
            credential,
            credential
        ]
    );

    // The token went to its server and nowhere else.
    let seen = forge.git.seen();
    let authorized = seen.iter().filter(|seen| seen.headers.contains_key("authorization"));
    assert!(authorized.count() >= 4, "the control: {seen:?}");
    assert!(
        processes.contains("ls-remote") && processes.contains(&forge.url()),
        "the control"
    );
    assert_silent("a command line", &processes);
    let output = story.outputs();
    for words in ["hello", "processes 0", "files 0", "control 1"] {
        assert!(output.contains(words), "'{words}' is not in: {output}");
    }
    assert_silent("the sandbox", &output);
    for (place, text) in [
        ("the story", story.to_string()),
        ("the receipt", predicate.to_string()),
        ("the log", server.log()),
        ("the command", ran.stdout + &ran.stderr + &show.stdout),
    ] {
        assert_silent(place, &text);
    }
    for form in forms() {
        assert_eq!(forge.installation.files_with(&form), Vec::<String>::new());
    }
    assert!(!forge.installation.files_with(url).is_empty(), "the control");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_says_no_keeps_everything_here() {
    let forge = Forge::new(write("Done.")).await;
    forge.set_token(TOKEN).await;
    let command = forge
        .installation
        .command(&["run", "Add a file", "--repo", "octo/hello", "--pr"]);
    let person = async {
        let client = announced(&forge.installation).await;
        let run = first_run(&client).await;
        let mut story = Story::of(&client, run);
        let no = DecideApproval {
            reason: Some("not like this".to_owned()),
            ..DecideApproval::reject()
        };
        client.decide(story.question().await, &no).await.unwrap();
        run
    };
    let (ran, run) = tokio::join!(program::run(command), person);
    let ran = ran.expect(3).says("the change was not pushed").says("not like this");
    assert!(ran.stderr.contains("added"), "the change is told: {}", ran.stderr);
    assert_eq!(
        (forge.branch(&branch_of(run)), forge.pushes(), forge.asked()),
        (None, 0, 0)
    );
    let diff = forge
        .installation
        .run(&["runs", "diff", &run.to_string()])
        .await
        .expect(0);
    assert!(diff.stdout.contains("b/new.txt"), "{}", diff.stdout);
    let shown = forge
        .installation
        .run(&["runs", "show", &run.to_string()])
        .await
        .expect(0);
    assert!(
        shown.stdout.contains("completed") && shown.stdout.contains("unpublished"),
        "{}",
        shown.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_published_is_refused_before_anything_begins() {
    let forge = Forge::new(write("Done.")).await;
    forge.set_token(TOKEN).await;
    for (args, words) in [
        (vec!["--repo", "repo", "--pr"], "not a repository on a server"),
        (vec!["--repo", "repo", "--push"], "not a repository on a server"),
        (vec!["--pr"], "a change without a repository"),
        (
            vec!["--repo", "https://elsewhere.example/o/r", "--pr"],
            "at no git host",
        ),
        (vec!["--repo", "octo/hello", "--pr", "--pr-base=-x"], "base"),
        (vec!["--repo", "octo/hello", "--pr-title", "x"], "--pr"),
    ] {
        let mut all = vec!["run", "x"];
        all.extend(&args);
        forge.installation.run(&all).await.expect(2).says(words);
    }
    forge.installation.assert_untouched();
    assert!(forge.git.seen().is_empty());
    // A base that is not there shows before the agent has cost anything.
    let base = ["run", "x", "--repo", "octo/hello", "--pr", "--pr-base", "nowhere"];
    forge
        .installation
        .run(&base)
        .await
        .expect(1)
        .says("no branch 'nowhere'");
}
