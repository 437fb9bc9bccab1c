use std::time::Duration;

use serde_json::json;
use stockade_domain::{ActionKind, Decision, EventType, Limits, Outcome, RuleVerdict, Verdict};
use stockade_ports::{Activities as _, Store as _};

use crate::support::{
    Wish, World,
    agent::{agent, with_files},
    rule,
};

async fn world(script: &str) -> World {
    World::new(Wish {
        kind: agent(script),
        ..Wish::default()
    })
    .await
}

/// An agent that asks once and does it when allowed.
const ASKS: &str = "open; words 'Let me '; words 'run it.'; tool 1 'make test'; ask 1; hear; \
    case $line in *'\"optionId\":\"yes\"'*) touch allowed; done_tool 1;; *'\"optionId\":\"always\"'*) touch always;; \
    *'\"optionId\":\"no\"'*) touch refused;; *cancelled*) touch cancelled;; esac; words Bye.; finish; hear";

#[tokio::test]
async fn a_question_becomes_an_action_and_is_allowed_once() {
    let world = world(ASKS).await;
    let person = async {
        let question = world.question().await;
        assert_eq!(
            (question.action.operation.as_str(), question.action.target.as_str()),
            ("execute", "run make test")
        );
        assert_eq!(question.action.args["command"], "make test");
        world.decide(question.id, Decision::Approve, None).await;
    };
    let (worked, ()) = tokio::join!(world.work(), person);
    worked.unwrap();
    assert!(world.workspace("allowed").exists() && !world.workspace("always").exists());
    let action = world.store.actions(world.id).await.unwrap().remove(0);
    assert_eq!(
        (action.action.kind, action.outcome),
        (ActionKind::Permission, Some(Outcome::Done))
    );
    let spoken: Vec<_> = world
        .told(EventType::MessageAgent)
        .await
        .iter()
        .map(|d| d["text"].clone())
        .collect();
    assert_eq!(spoken, [json!("Let me run it."), json!("Bye.")]);
    assert_eq!(
        world.told(EventType::ToolCall).await[0]["input"]["command"],
        "make test"
    );
    assert_eq!(world.told(EventType::ToolResult).await[0]["output"], "ok");
    assert_eq!(world.told(EventType::AgentReady).await[0]["name"], "fake");
    assert_eq!(world.told(EventType::TurnEnded).await[0]["stop"], "end_turn");
}

#[tokio::test]
async fn a_rejection_reaches_the_agent_and_a_person_s_words_follow() {
    let script = "open; tool 1 'rm -rf'; ask 1; hear; case $line in *'\"optionId\":\"no\"'*) touch refused;; *) touch wrong;; esac; \
        finish; hear; prompt=$id; case $line in *'use git clean'*) touch heard;; esac; words Ok.; finish; hear";
    let world = world(script).await;
    let person = async {
        let question = world.question().await;
        world.decide(question.id, Decision::Reject, Some("use git clean")).await;
    };
    let (worked, ()) = tokio::join!(world.work(), person);
    worked.unwrap();
    assert!(world.workspace("refused").exists() && world.workspace("heard").exists());
    assert!(!world.workspace("wrong").exists());
    assert_eq!(world.told(EventType::TurnStarted).await.len(), 2);
}

#[tokio::test]
async fn an_agent_that_stops_at_a_refusal_is_told_why_and_goes_on() {
    for stop in ["cancelled", "end_turn"] {
        let script = format!(
            "open; tool 1 'make'; ask 1; hear; id=$prompt; reply '{{\"stopReason\":\"{stop}\"}}'; \
             hear; prompt=$id; case $line in *'the test says so'*) touch told;; esac; words Ok.; finish; hear"
        );
        let world = World::new(Wish {
            kind: agent(&script),
            rules: vec![rule("execute", RuleVerdict::Deny)],
            ..Wish::default()
        })
        .await;
        world.work().await.unwrap();
        assert!(world.workspace("told").exists(), "{stop}");
    }

    // The control: an agent that ends as cancelled for no reason has failed.
    let failure = world("open; id=$prompt; reply '{\"stopReason\":\"cancelled\"}'; hear")
        .await
        .work()
        .await;
    assert_eq!(failure.unwrap_err().code, "agent_cancelled");
}

#[tokio::test]
async fn rules_answer_without_a_person() {
    for (verdict, file) in [(RuleVerdict::Allow, "allowed"), (RuleVerdict::Deny, "refused")] {
        let world = World::new(Wish {
            kind: agent(ASKS),
            rules: vec![rule("execute", verdict)],
            ..Wish::default()
        })
        .await;
        world.work().await.unwrap();
        assert!(world.workspace(file).exists(), "{file}");
    }
}

#[tokio::test]
async fn steering_withdraws_the_question_and_becomes_the_next_prompt() {
    let script = "open; tool 1 'make'; ask 1; hear; hear2=; \
        for i in 1 2; do case $line in *session/cancel*) touch was-cancelled;; *'\"outcome\":\"cancelled\"'*) touch withdrawn;; esac; \
        [ $i = 1 ] && hear; done; id=$prompt; reply '{\"stopReason\":\"cancelled\"}'; \
        hear; prompt=$id; case $line in *'write a poem'*) touch poem;; esac; finish; hear";
    let world = world(script).await;
    let person = async {
        world.question().await;
        world.say("write a poem", true).await;
    };
    let (worked, ()) = tokio::join!(world.work(), person);
    worked.unwrap();
    for file in ["was-cancelled", "withdrawn", "poem"] {
        assert!(world.workspace(file).exists(), "{file}");
    }
}

#[tokio::test]
async fn a_message_waits_for_the_end_of_the_turn() {
    let script = "open; until test -e go; do sleep 0.02; done; finish; hear; prompt=$id; \
        case $line in *'and the tests'*) touch heard;; esac; finish; hear";
    let world = world(script).await;
    world.provision().await.unwrap();
    let person = async {
        while world.told(EventType::TurnStarted).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.say("and the tests", false).await;
        std::fs::write(world.workspace("go"), "").unwrap();
    };
    let (driven, ()) = tokio::join!(world.drive(), person);
    driven.unwrap();
    assert!(world.workspace("heard").exists());
}

#[tokio::test]
async fn a_crash_says_what_the_agent_printed_without_keys() {
    let world = world("open; echo 'boom: key sk-ant-0123456789abcdef' >&2; exit 7").await;
    let failure = world.work().await.unwrap_err();
    assert_eq!(failure.code, "agent_exited");
    assert!(
        failure.message.contains("exit code 7") && failure.message.contains("boom"),
        "{failure}"
    );
    assert!(!failure.message.contains("0123456789"), "{failure}");
    assert!(failure.hint.is_some());
}

#[tokio::test]
async fn garbage_and_unknown_requests_do_no_harm() {
    let script = "say 'not json'; say '[1,2]'; say '{\"jsonrpc\":\"2.0\"}'; open; say '}{'; \
        update '{\"sessionUpdate\":\"hologram\"}'; say '{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}'; \
        say '{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"terminal/create\",\"params\":{}}'; hear; \
        case $line in *-32601*) touch refused;; esac; \
        say '{\"jsonrpc\":\"2.0\",\"id\":\"y\",\"method\":\"fs/write_text_file\",\"params\":{\"path\":\"/workspace/x\",\"content\":\"x\"}}'; hear; \
        case $line in *-32601*) touch fs-refused;; esac; \
        say '{\"jsonrpc\":\"2.0\",\"id\":\"z\",\"method\":\"session/request_permission\",\"params\":{\"sessionId\":\"other\"}}'; hear; \
        case $line in *-32602*) touch permission-refused;; esac; words Fine.; finish; hear";
    let world = world(script).await;
    world.work().await.unwrap();
    for file in ["refused", "fs-refused", "permission-refused"] {
        assert!(world.workspace(file).exists(), "{file}");
    }
    assert!(!world.workspace("x").exists());
    assert!(world.store.actions(world.id).await.unwrap().is_empty());
}

#[tokio::test]
async fn offered_files_are_actions_and_end_at_the_workspace() {
    let write = |id: &str, path: &str| {
        format!(
            "say '{{\"jsonrpc\":\"2.0\",\"id\":\"{id}\",\"method\":\"fs/write_text_file\",\"params\":{{\"sessionId\":\"s1\",\"path\":\"{path}\",\"content\":\"hi\"}}}}'; hear; "
        )
    };
    let script = format!(
        "open; {} {} case $line in *-32602*) touch kept-in;; esac; finish; hear",
        write("a", "/workspace/sub/x.txt"),
        write("b", "/workspace/../outside.txt")
    );
    let world = World::new(Wish {
        kind: with_files(&script, true),
        ..Wish::default()
    })
    .await;
    world.work().await.unwrap();
    assert_eq!(std::fs::read_to_string(world.workspace("sub/x.txt")).unwrap(), "hi");
    assert!(world.workspace("kept-in").exists());
    let actions = world.store.actions(world.id).await.unwrap();
    assert_eq!(actions.len(), 1);
    assert_eq!(
        (actions[0].action.operation.as_str(), actions[0].action.target.as_str()),
        ("fs/write_text_file", "sub/x.txt")
    );
}

#[tokio::test]
async fn an_agent_that_repeats_itself_is_interrupted_and_a_person_decides() {
    let script = "open; n=0; for i in 1 2 3; do tool $i 'make'; done_tool $i; done; hear; \
        case $line in *session/cancel*) touch interrupted;; esac; id=$prompt; reply '{\"stopReason\":\"cancelled\"}'; \
        hear; prompt=$id; case $line in *'lets you go on'*) touch on;; esac; finish; hear";
    for (decision, goes_on) in [(Decision::Approve, true), (Decision::Reject, false)] {
        let world = world(script).await;
        let person = async {
            let question = world.question().await;
            assert_eq!(question.action.operation, "repeat");
            world.decide(question.id, decision, None).await;
        };
        let (worked, ()) = tokio::join!(world.work(), person);
        assert!(world.workspace("interrupted").exists());
        assert_eq!(world.workspace("on").exists(), goes_on);
        match worked {
            Ok(()) => assert!(goes_on),
            Err(failure) => assert!(!goes_on && failure.code == "loop", "{failure}"),
        }
    }
}

#[tokio::test]
async fn a_stop_cancels_the_prompt_and_the_question() {
    let world = world("open; tool 1 make; ask 1; while hear; do case $line in *session/cancel*) id=$prompt; reply '{\"stopReason\":\"cancelled\"}';; esac; done").await;
    world.provision().await.unwrap();
    let stop = async {
        world.question().await;
        world.runner.stop(world.id).await;
    };
    let began = std::time::Instant::now();
    let (driven, ()) = tokio::join!(world.drive(), stop);
    assert_eq!(driven.unwrap_err().code, "stopped");
    assert!(began.elapsed() < Duration::from_secs(8));
    let actions = world.store.actions(world.id).await.unwrap();
    assert!(actions.iter().all(|a| a.verdict != Verdict::Allow));
}

#[tokio::test]
async fn an_agent_that_never_answers_is_given_up_and_a_limit_is_named() {
    let silent = world("sleep 30").await;
    assert_eq!(silent.work().await.unwrap_err().code, "agent_no_answer");

    let wrong = world("hear; reply '{\"protocolVersion\":9}'; hear").await;
    assert_eq!(wrong.work().await.unwrap_err().code, "agent_protocol");

    let mut limits = Limits::default();
    limits.budget.turns = Some(0);
    let broke = World::new(Wish {
        kind: agent("open; finish; hear"),
        limits,
        ..Wish::default()
    })
    .await;
    assert_eq!(broke.work().await.unwrap_err().code, "budget_exhausted");

    let refuses = world("open; id=$prompt; say \"{\\\"jsonrpc\\\":\\\"2.0\\\",\\\"id\\\":$id,\\\"error\\\":{\\\"code\\\":-32000,\\\"message\\\":\\\"log in\\\"}}\"; hear").await;
    assert_eq!(refuses.work().await.unwrap_err().code, "unauthorized");
}
