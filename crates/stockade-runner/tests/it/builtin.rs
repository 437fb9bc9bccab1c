use std::time::Duration;

use serde_json::json;
use stockade_domain::{ActionKind, Amounts, BudgetLimits, Decision, EventType, Limits, Outcome, RuleVerdict, Verdict};
use stockade_ports::Store as _;

use crate::support::{
    Wish, World,
    model::{Answer, Answers},
    repository, rule,
};

fn wish(answers: Vec<Answer>) -> Wish {
    Wish {
        answers: Answers::of(answers),
        ..Wish::default()
    }
}

#[tokio::test]
async fn tools_work_on_the_workspace_and_every_one_is_an_action() {
    let (_keep, repo) = repository();
    let world = World::new(Wish {
        repo: Some(repo),
        ..wish(vec![
            Answer::Says(
                "Let me look.",
                vec![
                    ("list_files", json!({})),
                    ("search", json!({ "pattern": "Hel+o" })),
                    ("read_file", json!({ "path": "hello.txt", "offset": 2 })),
                ],
            ),
            Answer::Says(
                "",
                vec![
                    (
                        "edit_file",
                        json!({ "path": "hello.txt", "old_string": "Helo", "new_string": "Hello" }),
                    ),
                    (
                        "write_file",
                        json!({ "path": "/workspace/new/deep.txt", "content": "deep" }),
                    ),
                    ("bash", json!({ "command": "cat hello.txt; echo oops >&2; exit 3" })),
                ],
            ),
            Answer::Says("The greeting is right now.", vec![]),
        ])
    })
    .await;
    world.work().await.unwrap();
    assert_eq!(
        std::fs::read_to_string(world.workspace("hello.txt")).unwrap(),
        "Hello\nworld\n"
    );
    assert_eq!(
        std::fs::read_to_string(world.workspace("new/deep.txt")).unwrap(),
        "deep"
    );
    let asked = world.answers.asked();
    let results = |turn: usize| asked[turn]["messages"].as_array().unwrap().last().unwrap()["content"].clone();
    let first = results(1);
    assert_eq!(first[0]["content"], ".gitignore\nhello.txt");
    assert_eq!(first[1]["content"], "hello.txt:1:Helo\n");
    assert_eq!(first[2]["content"], "world\n[lines 2 to 2 of 2]");
    let second = results(2);
    // Two pipes: which of them is read first is the simulated sandbox's affair.
    let ran = second[2]["content"].as_str().unwrap();
    assert!(
        ran.contains("Hello\nworld\n") && ran.contains("oops\n") && ran.ends_with("\n[exit code 3]"),
        "{ran}"
    );
    assert_eq!(second[2]["is_error"], true);
    let actions = world.store.actions(world.id).await.unwrap();
    let tools: Vec<_> = actions.iter().filter(|a| a.action.kind == ActionKind::Tool).collect();
    assert_eq!(tools.len(), 6);
    assert!(tools.iter().all(|a| a.outcome == Some(Outcome::Done)), "{tools:#?}");
    assert_eq!(tools[4].action.args["path"], "new/deep.txt", "paths have one spelling");
    let results = world.told(EventType::ToolResult).await;
    assert_eq!((results.len(), &results[5]["status"]), (6, &json!("failed")));
    let words: Vec<_> = world.told(EventType::MessageAgent).await;
    assert_eq!(words.last().unwrap()["text"], "The greeting is right now.");
    assert_eq!(world.told(EventType::TurnEnded).await.len(), 3);
    assert!(
        world.told(EventType::AgentReady).await[0]["tools"]
            .as_array()
            .unwrap()
            .len()
            == 6
    );
}

#[tokio::test]
async fn a_rejection_reaches_the_model_with_the_person_s_words_and_the_tool_does_not_run() {
    let world = World::new(Wish {
        rules: vec![rule("bash", RuleVerdict::Ask)],
        ..wish(vec![
            Answer::Says("", vec![("bash", json!({ "command": "touch first" }))]),
            Answer::Says("", vec![("bash", json!({ "command": "touch second" }))]),
            Answer::Says("Fine.", vec![]),
        ])
    })
    .await;
    let person = async {
        let first = world.question().await;
        assert_eq!(first.action.target, "touch first");
        world.decide(first.id, Decision::Reject, Some("not on a Friday")).await;
        let second = loop {
            let next = world.question().await;
            if next.id != first.id {
                break next;
            }
        };
        world.decide(second.id, Decision::Approve, None).await;
    };
    let (worked, ()) = tokio::join!(world.work(), person);
    worked.unwrap();
    assert!(!world.workspace("first").exists());
    assert!(world.workspace("second").exists(), "the control: an approved one runs");
    let asked = world.answers.asked();
    let told = asked[1]["messages"].to_string();
    assert!(told.contains("not on a Friday") && told.contains("ada"), "{told}");
}

#[tokio::test]
async fn what_a_person_edited_is_what_runs() {
    let world = World::new(Wish {
        rules: vec![rule("bash", RuleVerdict::Ask)],
        ..wish(vec![Answer::Says(
            "",
            vec![("bash", json!({ "command": "touch asked" }))],
        )])
    })
    .await;
    let person = async {
        let question = world.question().await;
        let args = json!({ "command": "touch edited" });
        world
            .decide_edited(question.id, Decision::Approve, None, Some(args))
            .await;
    };
    let (worked, ()) = tokio::join!(world.work(), person);
    worked.unwrap();
    assert!(world.workspace("edited").exists() && !world.workspace("asked").exists());
    assert!(
        world.answers.asked()[1]["messages"]
            .to_string()
            .contains("a person changed the input")
    );
}

#[tokio::test]
async fn a_wrong_call_is_explained_and_nothing_runs() {
    let world = World::new(wish(vec![Answer::Says(
        "",
        vec![
            ("fly", json!({})),
            ("bash", json!({ "command": 3 })),
            ("read_file", json!({ "path": "missing" })),
            (
                "edit_file",
                json!({ "path": "missing", "old_string": "a", "new_string": "b" }),
            ),
        ],
    )]))
    .await;
    world.work().await.unwrap();
    let told = world.answers.asked()[1]["messages"][2]["content"].clone();
    for (index, word) in [
        (0, "no tool 'fly'"),
        (1, "not a text"),
        (2, "no such file"),
        (3, "no such file"),
    ] {
        assert_eq!(told[index]["is_error"], true);
        let text = told[index]["content"].as_str().unwrap();
        assert!(text.contains(word), "{text}");
    }
    let actions = world.store.actions(world.id).await.unwrap();
    let tools = actions.iter().filter(|a| a.action.kind == ActionKind::Tool).count();
    assert_eq!(tools, 2, "calls that make no sense ask nobody");
}

#[tokio::test]
async fn long_output_loses_its_middle_before_a_model_sees_it() {
    let command = "echo BEGIN; yes middle | head -c 300000; echo END";
    let world = World::new(wish(vec![Answer::Says(
        "",
        vec![("bash", json!({ "command": command }))],
    )]))
    .await;
    world.work().await.unwrap();
    let told = world.answers.asked()[1]["messages"][2]["content"][0]["content"].clone();
    let told = told.as_str().unwrap();
    assert!(told.len() < 30_000, "{}", told.len());
    assert!(told.starts_with("BEGIN") && told.contains("END") && told.contains("bytes left out"));
    let event = &world.told(EventType::ToolResult).await[0];
    assert!(event.to_string().len() < 10_000);
}

#[tokio::test]
async fn overload_and_broken_streams_are_tried_again_and_unauthorized_is_not() {
    let world = World::new(wish(vec![
        Answer::Status(529),
        Answer::Cut,
        Answer::Says("Hi.", vec![]),
    ]))
    .await;
    world.work().await.unwrap();
    assert_eq!(world.answers.asked().len(), 3);
    let turns = world.told(EventType::TurnStarted).await;
    assert_eq!(turns.len(), 1, "another attempt is not another turn");

    let world = World::new(wish(vec![Answer::Status(401), Answer::Says("never", vec![])])).await;
    let failure = world.work().await.unwrap_err();
    assert_eq!(failure.code, "unauthorized");
    assert!(failure.message.contains("the upstream says no") && failure.hint.is_some());
    assert_eq!(world.answers.asked().len(), 1);
}

#[tokio::test]
async fn an_exhausted_budget_ends_the_run_and_names_the_resource() {
    let mut limits = Limits::default();
    limits.budget = BudgetLimits {
        turns: Some(2),
        ..limits.budget
    };
    let step = |n: u32| Answer::Says("", vec![("bash", json!({ "command": format!("echo {n}") }))]);
    let world = World::new(Wish {
        limits,
        ..wish(vec![step(1), step(2), step(3)])
    })
    .await;
    let failure = world.work().await.unwrap_err();
    assert_eq!(failure.code, "budget_exhausted");
    assert!(failure.message.contains("turns"), "{failure}");
    assert_eq!(world.answers.asked().len(), 2);
    assert_eq!(world.run().await.budget.used.turns, 2);
    assert_eq!(world.run().await.budget.reserved, Amounts::ZERO);
}

#[tokio::test]
async fn the_same_call_again_and_again_asks_a_person_and_silence_ends_the_run() {
    let limits = Limits {
        approval_timeout_seconds: 1,
        ..Limits::default()
    };
    let again = || Answer::Says("", vec![("bash", json!({ "command": "make" }))]);
    let world = World::new(Wish {
        limits,
        ..wish(vec![again(), again(), again(), again()])
    })
    .await;
    let failure = world.work().await.unwrap_err();
    assert_eq!(failure.code, "loop");
    let actions = world.store.actions(world.id).await.unwrap();
    let ran = actions
        .iter()
        .filter(|a| a.action.kind == ActionKind::Tool && a.verdict == Verdict::Allow)
        .count();
    assert_eq!(ran, 2);
    assert_eq!(world.told(EventType::ActionStopped).await.len(), 1);
}

#[tokio::test]
async fn people_are_heard_between_turns_and_steering_before_the_next_tool() {
    let world = World::new(wish(vec![
        Answer::Says(
            "",
            vec![
                ("bash", json!({ "command": "until test -e go; do sleep 0.02; done" })),
                ("bash", json!({ "command": "touch too-late" })),
            ],
        ),
        Answer::Says("As you wish.", vec![]),
    ]))
    .await;
    world.provision().await.unwrap();
    let person = async {
        world.say("stop that, write a poem", true).await;
        std::fs::write(world.workspace("go"), "").unwrap();
    };
    let (driven, ()) = tokio::join!(world.drive(), async {
        while world.told(EventType::ToolCall).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        person.await;
    });
    driven.unwrap();
    assert!(!world.workspace("too-late").exists());
    let asked = world.answers.asked();
    let last = asked[1]["messages"].as_array().unwrap().last().unwrap().clone();
    assert!(last["content"][1]["content"].as_str().unwrap().contains("interrupted"));
    assert_eq!(last["content"][2]["text"], "stop that, write a poem");
}

#[tokio::test]
async fn silence_for_too_long_ends_the_run_and_a_stop_ends_it_at_once() {
    let limits = Limits {
        inactivity_seconds: 1,
        ..Limits::default()
    };
    let world = World::new(Wish {
        limits,
        ..wish(vec![Answer::Silence])
    })
    .await;
    assert_eq!(world.work().await.unwrap_err().code, "inactive");

    let world = World::new(wish(vec![Answer::Says(
        "",
        vec![("bash", json!({ "command": "sleep 60" }))],
    )]))
    .await;
    world.provision().await.unwrap();
    use stockade_ports::Activities as _;
    let stop = async {
        while world.told(EventType::ToolCall).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.runner.stop(world.id).await;
    };
    let began = std::time::Instant::now();
    let (driven, ()) = tokio::join!(world.drive(), stop);
    assert_eq!(driven.unwrap_err().code, "stopped");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_person_s_time_to_think_is_no_inactivity() {
    let limits = Limits {
        inactivity_seconds: 1,
        ..Limits::default()
    };
    let world = World::new(Wish {
        limits,
        rules: vec![rule("bash", RuleVerdict::Ask)],
        ..wish(vec![Answer::Says(
            "",
            vec![("bash", json!({ "command": "touch late" }))],
        )])
    })
    .await;
    let person = async {
        let question = world.question().await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        world.decide(question.id, Decision::Approve, None).await;
    };
    let (worked, ()) = tokio::join!(world.work(), person);
    worked.unwrap();
    assert!(world.workspace("late").exists());
}
