use serde_json::json;
use stockade_domain::{AgentKind, AgentSpec, Environment, NetworkLevel, Rule, RuleMatch};

use super::*;
use crate::Policy;

pub(super) fn pattern(text: &str) -> PathPattern {
    text.parse().unwrap()
}

pub(super) fn names(path: &str) -> Names {
    Names::of_place(&Place::of(path).unwrap())
}

fn patterns(texts: &[&str]) -> Vec<PathPattern> {
    texts.iter().map(|text| pattern(text)).collect()
}

fn policy_with(rules: FileRules, agent: Vec<Rule>) -> Policy {
    let agent = AgentSpec {
        name: "tester".to_owned(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules: agent,
        limits: Default::default(),
    };
    let environment = Environment {
        files: rules,
        ..Environment::named("test", NetworkLevel::None)
    };
    Policy::compile(&agent, &environment).unwrap()
}

pub(super) fn policy(rules: FileRules) -> Policy {
    policy_with(rules, Vec::new())
}

pub(super) fn write(args: Value) -> Action {
    Action {
        kind: ActionKind::Tool,
        operation: "write_file".to_owned(),
        target: String::new(),
        args,
    }
}

pub(super) fn file(path: &str, kind: ExportedKind) -> ExportedFile {
    let sized = !matches!(kind, ExportedKind::Submodule | ExportedKind::Removed);
    ExportedFile {
        path: path.to_owned(),
        kind,
        bytes: sized.then_some(10),
    }
}

pub(super) fn export(files: &[ExportedFile]) -> Action {
    Action {
        kind: ActionKind::Export,
        operation: "diff".to_owned(),
        target: String::new(),
        args: to_args(files),
    }
}

pub(super) fn plain(path: &str) -> Action {
    export(&[file(path, ExportedKind::File)])
}

fn says(policy: &Policy, action: &Action) -> (Verdict, String) {
    let PolicyVerdict { verdict, rule, .. } = policy.evaluate(action);
    (verdict, rule)
}

#[test]
fn patterns_match_names_anywhere_places_from_the_workspace_and_everything_below() {
    for (text, yes, no) in [
        (
            "*.pem",
            &["a.pem", "x/y/a.pem", "keys.pem/inside", ".pem"][..],
            &["a.pemx", "pem"][..],
        ),
        ("/a.txt", &["a.txt", "a.txt/b"], &["x/a.txt"]),
        ("src/*.rs", &["src/a.rs"], &["src/x/a.rs", "a.rs", "y/src/a.rs"]),
        ("src/**/*.rs", &["src/a.rs", "src/x/y/a.rs"], &["src/a.r", "lib/a.rs"]),
        ("src/**", &["src/a", "src/a/b"], &["src", "srcs/a"]),
        ("src", &["src", "src/a", "x/src/a"], &["srcs"]),
        ("build/", &["build/a", "x/build/a/b"], &["build", "x/build"]),
        ("**", &["a", "a/b"], &[]),
        ("**/a/**/b", &["a/b", "x/a/y/z/b", "a/b/c"], &["a", "b/a"]),
        ("?.md", &["é.md", "x/y.md"], &[".md", "ab.md"]),
        ("a*b*c", &["aXbbYc", "abc"], &["ab", "acb"]),
    ] {
        let compiled = Pattern::new(&pattern(text), Case::Exact);
        for path in yes {
            assert!(compiled.covers(&names(path)), "{text} / {path}");
        }
        for path in no {
            assert!(!compiled.covers(&names(path)), "{text} / {path}");
        }
    }
    let hostile = Pattern::new(&pattern(&"*a".repeat(1000)), Case::Exact);
    assert!(!hostile.covers(&names(&"a".repeat(999))), "and quickly");
    let hostile = Pattern::new(&pattern(&"**/a/".repeat(500)), Case::Exact);
    assert!(!hostile.covers(&names(&"a/".repeat(499))), "and quickly");
}

#[test]
fn a_link_counts_as_the_directory_it_can_stand_for() {
    for (text, yes, no) in [
        (
            "/.github/workflows/",
            &[".github", ".github/workflows"][..],
            &["x", "x/.github", ".githubs"][..],
        ),
        ("**/.claude/settings.json", &[".claude", "x/.claude"], &["claude", "x"]),
        ("src/**", &["src"], &["lib"]),
        ("*.pem", &["a.pem"], &["keys"]),
        ("build/", &["build", "x/build"], &["x"]),
    ] {
        let compiled = Pattern::new(&pattern(text), Case::Exact);
        let hit = |path: &str| {
            let place = names(path);
            compiled.covers(&place) || compiled.reaches_below(&place)
        };
        assert!(yes.iter().all(|path| hit(path)), "{text}");
        assert!(!no.iter().any(|path| hit(path)), "{text}");
    }
}

#[test]
fn links_lead_out_unless_their_letters_say_otherwise() {
    let out = |link: &str, target: &str| leads_out(&Place::in_tree(link).unwrap(), target);
    for (link, target) in [
        ("a", "/etc/passwd"),
        ("a", "/workspace/b"),
        ("a", "../b"),
        ("d/e/a", "../../../x"),
        ("a", "b/../c"),
        ("d/a", "./x/../../y"),
        ("a", ".git/config"),
        ("d/a", "../.GIT/hooks/pre-commit"),
        ("a", ""),
    ] {
        assert!(out(link, target), "{link} -> {target}");
    }
    for (link, target) in [
        ("a", "b"),
        ("d/e/a", "../../x"),
        ("a", "./b/c"),
        ("d/a", ".."),
        ("a", ".gitignore"),
        ("a", "."),
    ] {
        assert!(!out(link, target), "{link} -> {target}");
    }
}

#[test]
fn denied_and_not_allowed_paths_are_refused_when_written_and_when_exported() {
    let policy = policy(FileRules {
        allow: patterns(&["src/**", "*.md"]),
        deny: patterns(&["*.pem", "src/secret/"]),
        ..FileRules::default()
    });
    let denied = |rule: &str| (Verdict::Deny, rule.to_owned());
    for (path, expected) in [
        ("src/a.rs", None),
        ("x/README.md", None),
        ("src/a.pem", Some("env.files.deny:*.pem")),
        ("src/A.PEM", Some("env.files.deny:*.pem")),
        ("src/secret/x", Some("env.files.deny:src/secret/")),
        ("lib/a.rs", Some("env.files.allow")),
        ("SRC/a.rs", Some("env.files.allow")),
    ] {
        let written = says(&policy, &write(json!({ "path": path, "content": "" })));
        let left = says(&policy, &plain(path));
        match expected {
            Some(rule) => assert_eq!((written, left), (denied(rule), denied(rule)), "{path}"),
            None => assert_eq!((written.0, left.0), (Verdict::Allow, Verdict::Allow), "{path}"),
        }
    }
    for (spelling, rule) in [
        ("/workspace/./src//secret/../secret/x", "env.files.deny:src/secret/"),
        ("src/../../tmp/x", "env.files.allow"),
        ("/tmp/key.pem", "env.files.deny:*.pem"),
        ("", "stockade.path"),
        ("a\0b", "stockade.path"),
    ] {
        let action = write(json!({ "path": spelling, "content": "" }));
        assert_eq!(says(&policy, &action), denied(rule), "{spelling:?}");
    }
    assert_eq!(says(&policy, &write(json!({ "content": "" }))), denied("stockade.path"));
    let removed = export(&[file("src/a.pem", ExportedKind::Removed)]);
    assert_eq!(
        says(&policy, &removed),
        denied("env.files.deny:*.pem"),
        "removing changes it too"
    );
    let read = Action {
        operation: "read_file".to_owned(),
        ..write(json!({ "path": "src/a.pem" }))
    };
    assert_eq!(says(&policy, &read).0, Verdict::Allow, "reading is not writing");
    let question = Action {
        kind: ActionKind::Permission,
        operation: "edit".to_owned(),
        ..write(json!({ "path": "src/a.pem" }))
    };
    assert_eq!(says(&policy, &question), denied("env.files.deny:*.pem"));
    let question = Action {
        operation: "read".to_owned(),
        ..question
    };
    assert_eq!(says(&policy, &question).0, Verdict::Hold);
}

#[test]
fn what_asks_asks_when_it_leaves_and_not_before() {
    let usual = policy(FileRules::default());
    for (path, rule) in [
        (".github/workflows/ci.yml", "env.files.sensitive:/.github/workflows/"),
        (
            "x/.claude/settings.json",
            "env.files.sensitive:**/.claude/settings.json",
        ),
        (".Claude/Settings.json", "env.files.sensitive:**/.claude/settings.json"),
        (".mcp.json", "env.files.sensitive:.mcp.json"),
        ("home/.bashrc", "env.files.sensitive:.bashrc"),
        (".vscode/tasks.json", "env.files.sensitive:**/.vscode/tasks.json"),
        (".envrc", "env.files.sensitive:.envrc"),
        (".husky/pre-commit", "env.files.sensitive:/.husky/"),
    ] {
        assert_eq!(says(&usual, &plain(path)), (Verdict::Hold, rule.to_owned()));
        assert_eq!(
            says(&usual, &write(json!({ "path": path, "content": "" }))).0,
            Verdict::Allow,
            "{path}"
        );
    }
    for path in [
        "src/main.rs",
        ".gitignore",
        ".github/CODEOWNERS",
        ".claude/agents/x.md",
        "claude/settings.json",
    ] {
        assert_eq!(says(&usual, &plain(path)).0, Verdict::Allow, "{path}");
    }
    let special = |path: &str, kind: ExportedKind| says(&usual, &export(&[file(path, kind)]));
    let link = |target: &str| ExportedKind::Link(Some(target.to_owned()));
    assert_eq!(special("a", link("b")).0, Verdict::Allow);
    assert_eq!(special("a", link("/etc")).1, "env.files.outside_links");
    assert_eq!(special("a", ExportedKind::Link(None)).1, "env.files.outside_links");
    assert_eq!(
        special(".claude", link("x")).1,
        "env.files.sensitive:**/.claude/settings.json"
    );
    assert_eq!(special("lib", ExportedKind::Submodule).1, "env.files.submodules");
    assert_eq!(special("x.sh", ExportedKind::Executable).0, Verdict::Allow);
    let own = policy(FileRules {
        ask: patterns(&["infra/"]),
        sensitive: RuleVerdict::Allow,
        executables: RuleVerdict::Deny,
        ..FileRules::default()
    });
    assert_eq!(
        says(&own, &plain("infra/x")),
        (Verdict::Hold, "env.files.ask:infra/".to_owned())
    );
    assert_eq!(says(&own, &plain(".mcp.json")).0, Verdict::Allow);
    let executable = export(&[file("x.sh", ExportedKind::Executable)]);
    assert_eq!(
        says(&own, &executable),
        (Verdict::Deny, "env.files.executables".to_owned())
    );
}

fn policy_of_total(bytes: u64) -> Policy {
    policy(FileRules {
        max_total_bytes: std::num::NonZeroU64::new(bytes),
        ..FileRules::default()
    })
}

#[test]
fn limits_hold_for_one_file_and_for_all_of_them() {
    let limit = |n: u64| std::num::NonZeroU64::new(n);
    let policy = policy(FileRules {
        max_file_bytes: limit(10),
        max_files: limit(2),
        max_total_bytes: limit(25),
        ..FileRules::default()
    });
    let rule = |args: Value| {
        let (verdict, rule) = says(&policy, &write(args));
        (verdict == Verdict::Deny).then_some(rule)
    };
    assert_eq!(rule(json!({ "path": "a", "content": "x".repeat(10) })), None);
    assert_eq!(
        rule(json!({ "path": "a", "content": "x".repeat(11) })).unwrap(),
        "env.files.max_file_bytes"
    );
    assert_eq!(
        rule(json!({ "path": "a", "bytes": 11 })).unwrap(),
        "env.files.max_file_bytes"
    );
    let written = |files: u64, bytes: u64| {
        rule(json!({ "path": "a", "content": "", "written": { "files": files, "bytes": bytes } }))
    };
    assert_eq!(written(2, 25), None);
    assert_eq!(written(3, 1).unwrap(), "env.files.max_files");
    assert_eq!(written(1, 26).unwrap(), "env.files.max_total_bytes");
    assert_eq!(
        rule(json!({ "path": "a", "content": "", "written": 3 })).unwrap(),
        "stockade.files"
    );
    assert!(policy.files().exceeds(3, 0) && !policy.files().exceeds(2, 25));
    let sized = |path: &str, bytes: u64| ExportedFile {
        bytes: Some(bytes),
        ..file(path, ExportedKind::File)
    };
    let left = |files: &[ExportedFile]| says(&policy, &export(files));
    assert_eq!(left(&[sized("a", 10), sized("b", 10)]).0, Verdict::Allow);
    assert_eq!(left(&[sized("a", 11)]).1, "env.files.max_file_bytes");
    assert_eq!(
        left(&[sized("a", 1), sized("b", 1), sized("c", 1)]).1,
        "env.files.max_files"
    );
    let removed = file("c", ExportedKind::Removed);
    assert_eq!(
        left(&[sized("a", 1), sized("b", 1), removed]).0,
        Verdict::Allow,
        "what is gone is no file"
    );
    let total = policy_of_total(25);
    let half = 1 << 63;
    let wrapping = export(&[sized("a", half), sized("b", half)]);
    assert_eq!(
        says(&total, &wrapping).1,
        "env.files.max_total_bytes",
        "no sum wraps around"
    );
}

#[test]
fn a_refusal_names_every_path_with_its_reason_and_nothing_that_only_asks() {
    let policy = policy(FileRules {
        deny: patterns(&["*.pem", "keys/"]),
        ..FileRules::default()
    });
    let files: Vec<_> = ["a.pem", "fine", "keys/b", ".mcp.json"]
        .map(|path| file(path, ExportedKind::File))
        .to_vec();
    let answer = policy.evaluate(&export(&files));
    assert_eq!(
        (answer.verdict, answer.rule.as_str()),
        (Verdict::Deny, "env.files.deny:*.pem")
    );
    for word in [
        "2 of 4",
        "'a.pem' (the environment denies *.pem)",
        "'keys/b' (the environment denies keys/)",
    ] {
        assert!(answer.reason.contains(word), "{}", answer.reason);
    }
    assert!(
        !answer.reason.contains("fine") && !answer.reason.contains("mcp"),
        "{}",
        answer.reason
    );
    let many: Vec<_> = (0..5000)
        .map(|n| file(&format!("{n:0100}.pem"), ExportedKind::File))
        .collect();
    let answer = policy.evaluate(&export(&many));
    assert!(
        answer.reason.len() < 2 * REASON && answer.reason.contains("more"),
        "{}",
        answer.reason.len()
    );
}

#[test]
fn an_export_that_does_not_say_what_it_brings_out_is_refused() {
    let policy = policy(FileRules::default());
    let args = |change: fn(&mut Value)| {
        let mut action = export(&[file("a", ExportedKind::File), file("l", ExportedKind::Removed)]);
        change(&mut action.args);
        says(&policy, &action)
    };
    assert_eq!(args(|_| {}).0, Verdict::Allow);
    let changes: [fn(&mut Value); 7] = [
        |args| *args = json!({}),
        |args| args["sizes"] = json!([1]),
        |args| args["sizes"] = json!([null, null]),
        |args| args["files"] = json!(["a", 3]),
        |args| args["special"] = json!([{ "path": "other", "kind": "removed" }]),
        |args| args["special"][0]["kind"] = json!("pipe"),
        |args| drop(args.as_object_mut().unwrap().remove("special")),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert_eq!(args(change), (Verdict::Deny, "stockade.files".to_owned()), "{index}");
    }
    for path in ["../a", "/etc/passwd", "a/./b", "a//b", "a/", ""] {
        assert_eq!(
            says(&policy, &plain(path)),
            (Verdict::Deny, "stockade.path".to_owned()),
            "{path}"
        );
    }
    let snapshot = Action {
        operation: "snapshot".to_owned(),
        args: json!({}),
        ..plain("a")
    };
    assert_eq!(
        says(&policy, &snapshot).0,
        Verdict::Allow,
        "a snapshot stays on this side"
    );
}

#[test]
fn an_agent_s_rules_narrow_and_never_widen() {
    let rule = |verdict: RuleVerdict| Rule {
        id: "own".to_owned(),
        when: RuleMatch {
            kind: Some(ActionKind::Export),
            ..RuleMatch::default()
        },
        verdict,
        reason: String::new(),
    };
    let rules = || FileRules {
        deny: patterns(&["*.pem"]),
        ..FileRules::default()
    };
    for (own, path, expected) in [
        (RuleVerdict::Allow, "a.pem", (Verdict::Deny, "env.files.deny:*.pem")),
        (
            RuleVerdict::Allow,
            ".mcp.json",
            (Verdict::Hold, "env.files.sensitive:.mcp.json"),
        ),
        (RuleVerdict::Deny, ".mcp.json", (Verdict::Deny, "own")),
        (RuleVerdict::Ask, "a", (Verdict::Hold, "own")),
        (RuleVerdict::Allow, "a", (Verdict::Allow, "own")),
    ] {
        let (verdict, rule) = says(&policy_with(rules(), vec![rule(own)]), &plain(path));
        assert_eq!((verdict, rule.as_str()), expected);
    }
}

#[test]
fn the_rules_and_the_curated_list_are_part_of_the_version() {
    let version = |rules: FileRules| policy(rules).version();
    let usual = version(FileRules::default());
    let other = FileRules {
        deny: patterns(&["x"]),
        ..FileRules::default()
    };
    assert_ne!(usual, version(other));
    assert_eq!(usual, version(FileRules::default()));
    let open = FilePolicy::compile(&FileRules {
        sensitive: RuleVerdict::Allow,
        ..FileRules::default()
    });
    assert_eq!(open.unwrap().list(), Value::Null);
    let listed = FilePolicy::compile(&FileRules::default()).unwrap().list();
    assert_eq!(listed["version"], SENSITIVE_VERSION);
    assert!(listed["patterns"].as_array().unwrap().len() > 40);
}

#[test]
fn rules_are_explained_in_the_order_they_are_asked() {
    let lines = policy(FileRules {
        allow: patterns(&["src/"]),
        deny: patterns(&["*.pem"]),
        max_files: std::num::NonZeroU64::new(7),
        ..FileRules::default()
    })
    .files()
    .explain();
    assert_eq!(lines[0], "deny   *.pem");
    assert!(lines[1].starts_with("allow  src/"), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "at most 7 files");
}
