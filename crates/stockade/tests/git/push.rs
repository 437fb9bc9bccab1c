//! Writing: what passes, what is refused, and what git prints then.

use std::{sync::Arc, time::Duration};

use stockade_domain::{Outcome, RefRules, RuleVerdict, Verdict};
use tokio::sync::Notify;

use crate::world::{Wish, World, commit, fails, git, kill, ok, own, spawn, text};

fn asking() -> RefRules {
    RefRules {
        elsewhere: RuleVerdict::Ask,
        tags: RuleVerdict::Ask,
        delete: RuleVerdict::Ask,
        force: RuleVerdict::Ask,
        ..RefRules::default()
    }
}

fn spec(to: &str) -> String {
    format!("HEAD:{to}")
}

/// Bytes that do not compress (xorshift64).
fn noise(length: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(length + 8);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    while noise.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(length);
    noise
}

#[tokio::test]
async fn the_runs_own_branch_is_pushed_in_every_version_and_again() {
    let (world, work) = World::cloned(Wish::default()).await;
    for (n, version) in ["0", "1", "2"].into_iter().enumerate() {
        let tip = commit(&work, "count", n.to_string(), "more").await;
        let setting = format!("protocol.version={version}");
        let output = git(&work, &["-c", &setting, "push", "origin", &spec(&own(""))]).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(world.on_server(&own("")).await, Some(tip), "version {version}");
    }
    let settled = world.gate.settled.lock().unwrap().clone();
    assert_eq!(settled.len(), 3);
    assert!(
        settled.iter().all(|(outcome, _)| *outcome == Outcome::Done),
        "{settled:?}"
    );
    let (action, verdict, _) = world.gate.last();
    assert_eq!(verdict, Verdict::Allow);
    // The second and third push build on the first, which the base does not have.
    assert_eq!(action.args["refs"][0]["history"], "fast_forward");
    assert_eq!(action.args["commits"], 1);
    assert_eq!(action.args["files"], serde_json::json!(["count"]));
    assert_eq!(world.left_behind(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn another_branch_is_refused_with_the_reason_and_nothing_gets_there() {
    let (world, work) = World::cloned(Wish::default()).await;
    let before = world.server_refs().await;
    for to in [
        "refs/heads/main",
        "refs/heads/stockade/other",
        &own("2"),
        "refs/tags/v2",
        "refs/notes/x",
    ] {
        let words = fails(&work, &["push", "origin", &spec(to)]).await;
        assert!(words.contains("[remote rejected]"), "{to}: {words}");
        let reason = if to.contains("tags") {
            "is a tag"
        } else {
            "is not this run's branch"
        };
        assert!(words.contains(reason), "{to}: {words}");
    }
    assert_eq!(world.server_refs().await, before);
    assert!(world.pushed().is_empty(), "no byte of a refused push went on");
    ok(&work, &["push", "origin", &spec(&own("/a"))]).await;
    assert_eq!(world.pushed().len(), 1, "the control");
}

#[tokio::test]
async fn one_refused_reference_refuses_them_all_and_each_has_its_reason() {
    let (world, work) = World::cloned(Wish::default()).await;
    let words = fails(&work, &["push", "origin", &spec(&own("")), &spec("refs/heads/main")]).await;
    assert!(words.contains("not this run's branch"), "{words}");
    assert!(words.contains("another reference of this push was refused"), "{words}");
    let words = fails(
        &work,
        &["push", "--atomic", "origin", &spec(&own("")), &spec("refs/heads/main")],
    )
    .await;
    assert!(words.contains("not this run's branch"), "{words}");
    assert!(world.pushed().is_empty());
}

#[tokio::test]
async fn a_force_push_is_seen_by_its_history() {
    let (world, work) = World::cloned(Wish::default()).await;
    ok(&work, &["push", "origin", &spec(&own(""))]).await;
    let before = world.on_server(&own("")).await;
    ok(&work, &["commit", "--quiet", "--amend", "-m", "rewritten"]).await;
    let words = fails(&work, &["push", "--force", "origin", &spec(&own(""))]).await;
    assert!(words.contains("would lose commits (not a fast-forward)"), "{words}");
    assert_eq!(world.on_server(&own("")).await, before);
    let (action, verdict, rule) = world.gate.last();
    assert_eq!((verdict, rule.as_str()), (Verdict::Deny, "env.git.force"));
    assert_eq!(action.args["refs"][0]["history"], "rewritten");
}

/// Somebody else moved the branch to a commit that nobody here knows.
#[tokio::test]
async fn an_unknown_commit_counts_as_one_that_could_be_lost() {
    let (world, work) = World::cloned(Wish::default()).await;
    let seed = world.path("seed");
    commit(&seed, "theirs", "x", "theirs").await;
    let bare = world.path("served/octo/hello.git");
    ok(&seed, &["push", "--quiet", bare.to_str().unwrap(), &spec(&own(""))]).await;
    let words = fails(&work, &["push", "--force", "origin", &spec(&own(""))]).await;
    assert!(words.contains("not known here"), "{words}");
    assert_eq!(world.gate.last().0.args["refs"][0]["history"], "unknown");
}

#[tokio::test]
async fn removing_is_refused_by_default() {
    let (world, work) = World::cloned(Wish::default()).await;
    ok(&work, &["push", "origin", &spec(&own(""))]).await;
    for to in [own("").as_str(), "refs/heads/other", "refs/tags/v1"] {
        let words = fails(&work, &["push", "origin", "--delete", to]).await;
        assert!(words.contains("[remote rejected]"), "{words}");
        assert!(world.on_server(to).await.is_some());
    }
}

#[tokio::test]
async fn a_person_can_let_all_of_it_pass() {
    let (world, work) = World::cloned(Wish {
        rules: asking(),
        person: true,
        ..Wish::default()
    })
    .await;
    ok(&work, &["push", "origin", &spec(&own(""))]).await;
    ok(&work, &["commit", "--quiet", "--amend", "-m", "rewritten"]).await;
    ok(&work, &["push", "--force", "origin", &spec(&own(""))]).await;
    ok(&work, &["tag", "-a", "-m", "a tag", "v2"]).await;
    ok(&work, &["push", "origin", "v2"]).await;
    ok(&work, &["push", "origin", &spec("refs/heads/main")]).await;
    ok(&work, &["push", "origin", "--delete", "other"]).await;
    assert_eq!(world.on_server("refs/heads/other").await, None);
    assert!(world.on_server("refs/tags/v2").await.is_some());
    let asked = world.gate.asked.lock().unwrap().clone();
    let verdicts: Vec<_> = asked
        .iter()
        .map(|(_, verdict, rule)| (*verdict, rule.as_str()))
        .collect();
    assert_eq!(
        verdicts,
        [
            (Verdict::Allow, "env.git.push"),
            (Verdict::Hold, "env.git.force"),
            (Verdict::Hold, "env.git.tags"),
            (Verdict::Hold, "env.git.elsewhere"),
            (Verdict::Hold, "env.git.delete"),
        ]
    );
}

#[tokio::test]
async fn what_a_person_must_decide_is_not_let_pass_by_a_gate_that_forgot_to_ask() {
    let (world, work) = World::cloned(Wish {
        rules: asking(),
        ..Wish::default()
    })
    .await;
    let words = fails(&work, &["push", "origin", &spec("refs/heads/main")]).await;
    assert!(words.contains("not this run's branch"), "the person said no: {words}");
    world.gate.forgetful.store(true, std::sync::atomic::Ordering::SeqCst);
    let words = fails(&work, &["push", "origin", &spec("refs/heads/main")]).await;
    assert!(words.contains("nobody was asked"), "{words}");
    assert!(world.pushed().is_empty());
}

/// The client waits as long as a person does, and a client that goes away takes its push with it.
#[tokio::test]
async fn a_held_push_waits_and_a_client_that_gives_up_leaves_nothing() {
    let (world, work) = World::cloned(Wish {
        rules: asking(),
        person: true,
        ..Wish::default()
    })
    .await;
    let go = Arc::new(Notify::new());
    *world.gate.wait.lock().unwrap() = Some(Arc::clone(&go));
    let to = spec("refs/heads/main");
    let args = ["push", "origin", &to];
    let mut gone = spawn(&work, &args);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(gone.try_wait().unwrap().is_none(), "nobody decided yet");
    assert_eq!(world.gate.last().1, Verdict::Hold);
    assert!(!world.left_behind().is_empty(), "the push is being kept");
    kill(gone).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.left_behind(), Vec::<std::path::PathBuf>::new());
    let (again, ()) = tokio::join!(git(&work, &args), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        go.notify_waiters();
    });
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(world.pushed().len(), 1);
}

#[tokio::test]
async fn a_sandbox_that_ends_takes_a_held_push_with_it() {
    let (world, work) = World::cloned(Wish {
        rules: asking(),
        person: true,
        ..Wish::default()
    })
    .await;
    *world.gate.wait.lock().unwrap() = Some(Arc::new(Notify::new()));
    let push = spawn(&work, &["push", "origin", &spec("refs/heads/main")]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.gate.last().1, Verdict::Hold);
    world.stop.cancel();
    let output = tokio::time::timeout(Duration::from_secs(10), push.wait_with_output()).await;
    let output = output.unwrap().unwrap();
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("the sandbox ended"),
        "{}",
        text(&output.stderr)
    );
    assert!(world.pushed().is_empty());
    assert_eq!(world.left_behind(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_large_push_goes_over_the_disk_and_leaves_nothing_there() {
    let (world, work) = World::cloned(Wish {
        spool_memory: 64 << 10,
        ..Wish::default()
    })
    .await;
    // Not compressible, and larger than what git sends in one piece (http.postBuffer, 1 MiB).
    let tip = commit(&work, "noise.bin", noise(6 << 20), "noise").await;
    ok(&work, &["push", "origin", &spec(&own(""))]).await;
    assert_eq!(world.on_server(&own("")).await, Some(tip));
    assert!(world.pushed()[0].len() > 6 << 20);
    assert_eq!(world.left_behind(), Vec::<std::path::PathBuf>::new());
    let (_, details) = world.gate.settled.lock().unwrap()[0].clone();
    assert!(details["pack_bytes"].as_u64().unwrap() > 6 << 20);
}

#[tokio::test]
async fn a_pack_over_the_limit_is_refused_with_the_limit() {
    let rules = RefRules {
        max_pack_bytes: std::num::NonZeroU64::new(2000).unwrap(),
        ..RefRules::default()
    };
    let (world, work) = World::cloned(Wish {
        rules,
        ..Wish::default()
    })
    .await;
    ok(&work, &["push", "origin", &spec(&own("/small"))]).await;
    commit(&work, "noise.bin", noise(4000), "noise").await;
    let words = fails(&work, &["push", "origin", &spec(&own("/large"))]).await;
    assert!(words.contains("larger than 2000 bytes"), "{words}");
    assert_eq!(world.pushed().len(), 1);
}

#[tokio::test]
async fn a_push_from_a_shallow_clone_is_whole_on_the_host() {
    let world = World::new().await;
    let work = world.clone_as("shallow", &["--depth", "1"]).await;
    let tip = commit(&work, "new", "x", "from a shallow clone").await;
    ok(&work, &["push", "origin", &spec(&own(""))]).await;
    assert_eq!(world.on_server(&own("")).await, Some(tip));
    assert!(!text(&world.pushed()[0]).contains("shallow"), "the line stays behind");
    assert_eq!(world.gate.last().0.args["commits"], 1);
}

#[tokio::test]
async fn what_the_server_itself_refuses_is_said_and_written_down() {
    let (world, work) = World::cloned(Wish::default()).await;
    let hook = world.path("served/octo/hello.git/hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho 'no friday deploys' >&2\nexit 1\n").unwrap();
    ok(&world.path("client"), &["--version"]).await;
    std::process::Command::new("chmod")
        .arg("+x")
        .arg(&hook)
        .status()
        .unwrap();
    let words = fails(&work, &["push", "origin", &spec(&own(""))]).await;
    assert!(
        words.contains("remote: no friday deploys") && words.contains("pre-receive hook declined"),
        "{words}"
    );
    let (outcome, details) = world.gate.settled.lock().unwrap()[0].clone();
    assert!(matches!(outcome, Outcome::Failed { .. }));
    assert_eq!(details["refused"][0]["reason"], "pre-receive hook declined");
}

#[tokio::test]
async fn a_server_that_goes_away_in_between_is_told_in_the_protocol() {
    let (world, work) = World::cloned(Wish::default()).await;
    world.set_unreachable();
    let words = fails(&work, &["push", "origin", &spec(&own(""))]).await;
    assert!(words.contains("could not be reached"), "{words}");
    assert!(words.contains("[remote rejected]"), "{words}");
    assert_eq!(world.left_behind(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn signed_pushes_and_push_options_are_refused() {
    let (world, work) = World::cloned(Wish::default()).await;
    let bare = world.path("served/octo/hello.git");
    ok(&bare, &["config", "receive.advertisePushOptions", "true"]).await;
    let words = fails(
        &work,
        &["push", "-o", "merge_request.create", "origin", &spec(&own(""))],
    )
    .await;
    assert!(words.contains("403"), "{words}");
    let (action, _, rule) = world.gate.last();
    assert_eq!(rule, "stockade.git");
    assert!(action.args["fault"].as_str().unwrap().contains("push options"));
    assert!(world.pushed().is_empty());
}

#[tokio::test]
async fn an_environment_without_pushes_says_so_before_the_server_hears_of_it() {
    let rules = RefRules {
        push: Vec::new(),
        ..RefRules::default()
    };
    let (world, work) = World::cloned(Wish {
        rules,
        ..Wish::default()
    })
    .await;
    let before = world.server.seen().len();
    let words = fails(&work, &["push", "origin", &spec(&own(""))]).await;
    assert!(
        words.contains("remote: stockade: this environment does not allow pushing"),
        "{words}"
    );
    assert_eq!(world.server.seen().len(), before);
}
