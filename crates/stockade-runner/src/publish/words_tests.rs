use stockade_domain::run::FileChange;

use super::*;

#[test]
fn a_title_calls_nobody_and_closes_nothing() {
    for (prompt, made) in [
        ("\n  Fix the parser \nplease", "Fix the parser"),
        ("fixes #12 for @alice, see GH-7", "fixes 12 for alice, see GH 7"),
        (
            "closes https://git.example/o/r/issues/3",
            "closes git.example/o/r/issues/3",
        ),
        ("mail me@example.org # now - 3", "mail me@example.org # now - 3"),
        ("a\tb\u{202e}c\u{7}", "a bc"),
        (" \n", "Change made by an agent"),
    ] {
        assert_eq!(title(prompt), made);
    }
    let long = title(&"ü".repeat(500));
    assert_eq!((long.chars().count(), long.chars().last()), (TITLE, Some('…')));
}

#[test]
fn what_others_wrote_stands_in_blocks_that_it_cannot_end() {
    let result = RunResult {
        summary: "Done.\n```\n````\n@alice fixes #1 ![x](https://evil.example/x.png)\u{1b}[2J".to_owned(),
        files: vec![FileChange {
            path: "a\n```\n@bob".to_owned(),
            change: "added".to_owned(),
            added: Some(1),
            removed: None,
        }],
        ..RunResult::default()
    };
    let text = written("run_1", "tester`@carol", "Do it.\n~~~", &result);
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        match fence {
            None if line.starts_with("```") => fence = Some(line.trim_end_matches("text")),
            None => {
                let quoted = line.contains("`tester@carol`");
                assert!(quoted || !line.contains(['@', '#', '!']), "outside of a block: {line}");
            }
            Some(open) if line == open => fence = None,
            Some(_) => {}
        }
    }
    assert_eq!(fence, None, "{text}");
    assert!(text.contains("`run_1`") && text.contains("@alice fixes #1") && text.contains("added a ``` @bob +1"));
    assert!(!text.contains('\u{1b}'));
    let nothing = written("run_1", "tester", "Do it.", &RunResult::default());
    assert!(
        !nothing.contains("What the agent says") && !nothing.contains("What changed"),
        "{nothing}"
    );
}
