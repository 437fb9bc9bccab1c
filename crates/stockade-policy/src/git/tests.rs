use serde_json::json;
use stockade_domain::{
    Action, ActionKind, AgentKind, AgentSpec, Environment, NetworkLevel, ObjectId, RefRules, RefUpdate, Rule,
    RuleMatch, RuleVerdict, RunId, Verdict,
};

use super::*;
use crate::{
    Host, Policy,
    files::{ExportedFile, ExportedKind},
};

const RUN: &str = "run_00000000000000000000000000000007";

fn run() -> RunId {
    RUN.parse().unwrap()
}

fn id(digit: char) -> ObjectId {
    digit.to_string().repeat(40).parse().unwrap()
}

fn update(name: &str, old: char, new: char) -> RefUpdate {
    RefUpdate {
        name: name.parse().unwrap(),
        old: id(old),
        new: id(new),
    }
}

fn own(old: char, new: char) -> RefUpdate {
    update(&format!("refs/heads/stockade/{RUN}/fix"), old, new)
}

fn facts(update: &RefUpdate, history: History) -> PushFacts {
    PushFacts {
        refs: vec![RefFacts {
            update: update.clone(),
            history,
        }],
        commits: 1,
        log: vec![LogLine {
            commit: id('b'),
            subject: "one".to_owned(),
        }],
        files: Vec::new(),
        pack_objects: 3,
        stray_objects: 0,
    }
}

fn judged(rules: &RefRules, update: &RefUpdate, history: History) -> (Verdict, String) {
    let action = push_action(
        "https://h/o/r",
        std::slice::from_ref(update),
        Some(&facts(update, history)),
    );
    let answer = GitPolicy::new(rules, run()).judge(&action).unwrap();
    (answer.verdict, answer.rule)
}

#[test]
fn by_default_only_the_runs_own_branch_moves_and_only_forwards() {
    let rules = RefRules::default();
    let is = |update: RefUpdate, history, verdict, rule: &str| {
        assert_eq!(
            judged(&rules, &update, history),
            (verdict, rule.to_owned()),
            "{update:?} {history:?}"
        );
    };
    is(own('0', 'b'), History::New, Verdict::Allow, "env.git.push");
    is(own('a', 'b'), History::FastForward, Verdict::Allow, "env.git.push");
    is(own('a', 'b'), History::Rewritten, Verdict::Deny, "env.git.force");
    is(own('a', 'b'), History::Unknown, Verdict::Deny, "env.git.force");
    is(own('a', '0'), History::Removed, Verdict::Deny, "env.git.delete");
    is(
        update("refs/heads/main", 'a', 'b'),
        History::FastForward,
        Verdict::Deny,
        "env.git.elsewhere",
    );
    is(
        update("refs/tags/v1", '0', 'b'),
        History::New,
        Verdict::Deny,
        "env.git.tags",
    );
    is(
        update("refs/notes/x", '0', 'b'),
        History::New,
        Verdict::Deny,
        "env.git.push",
    );
    // What does not fit together was not looked at.
    is(own('a', 'b'), History::New, Verdict::Deny, "stockade.git");
    is(own('0', 'b'), History::FastForward, Verdict::Deny, "stockade.git");
}

#[test]
fn each_rule_can_open_and_ask() {
    let open = |change: fn(&mut RefRules, RuleVerdict), update: RefUpdate, history| {
        for (rule, verdict) in [
            (RuleVerdict::Allow, Verdict::Allow),
            (RuleVerdict::Ask, Verdict::Hold),
            (RuleVerdict::Deny, Verdict::Deny),
        ] {
            let mut rules = RefRules::default();
            change(&mut rules, rule);
            assert_eq!(judged(&rules, &update, history).0, verdict, "{update:?} {rule:?}");
        }
    };
    open(|r, v| r.force = v, own('a', 'b'), History::Rewritten);
    open(|r, v| r.force = v, own('a', 'b'), History::Unknown);
    open(|r, v| r.delete = v, own('a', '0'), History::Removed);
    open(|r, v| r.tags = v, update("refs/tags/v1", '0', 'b'), History::New);
    open(
        |r, v| r.elsewhere = v,
        update("refs/heads/main", 'a', 'b'),
        History::FastForward,
    );
    // Both count: a tag that is removed, a foreign branch that is rewritten.
    open(
        |r, v| {
            r.elsewhere = RuleVerdict::Allow;
            r.force = v;
        },
        update("refs/heads/main", 'a', 'b'),
        History::Rewritten,
    );
}

#[test]
fn a_push_that_nobody_looked_into_is_never_allowed() {
    let mut rules = RefRules::default();
    for verdict in [
        &mut rules.elsewhere,
        &mut rules.tags,
        &mut rules.delete,
        &mut rules.force,
    ] {
        *verdict = RuleVerdict::Allow;
    }
    let policy = GitPolicy::new(&rules, run());
    let good = push_action("r", &[own('0', 'b')], Some(&facts(&own('0', 'b'), History::New)));
    assert_eq!(policy.judge(&good).unwrap().verdict, Verdict::Allow);
    let mut broken = vec![push_action("r", &[own('0', 'b')], None), unreadable_push("r", "odd")];
    for (key, value) in [
        ("refs", json!([])),
        ("refs", json!("x")),
        ("refs", json!([{ "ref": "HEAD", "old": "0", "new": "1" }])),
        ("inspected", json!("true")),
        ("commits", json!(null)),
        ("commits", json!(1001)),
        ("stray_objects", json!(1)),
        ("stray_objects", json!(null)),
        ("fault", json!(7)),
    ] {
        let mut action = good.clone();
        action.args[key] = value;
        broken.push(action);
    }
    for action in broken {
        assert_eq!(policy.judge(&action).unwrap().verdict, Verdict::Deny, "{}", action.args);
    }
}

#[test]
fn too_many_references_are_refused() {
    let rules = RefRules::default();
    let updates: Vec<RefUpdate> = (0..9)
        .map(|n| update(&format!("refs/heads/stockade/{RUN}/{n}"), '0', 'b'))
        .collect();
    let refs = updates
        .iter()
        .map(|u| RefFacts {
            update: u.clone(),
            history: History::New,
        })
        .collect();
    let facts = PushFacts {
        refs,
        ..facts(&updates[0], History::New)
    };
    let policy = GitPolicy::new(&rules, run());
    assert_eq!(
        policy.judge(&push_action("r", &updates, Some(&facts))).unwrap().rule,
        "env.git.max_refs"
    );
}

#[test]
fn fetching_is_one_switch() {
    for (fetch, verdict) in [(true, Verdict::Allow), (false, Verdict::Deny)] {
        let rules = RefRules {
            fetch,
            ..RefRules::default()
        };
        assert_eq!(
            GitPolicy::new(&rules, run())
                .judge(&fetch_action("r", &[], &[]))
                .unwrap()
                .verdict,
            verdict
        );
    }
}

/// A path can change in several commits in several ways; the file rules must see each of them.
#[test]
fn one_path_with_several_kinds_reads_back_as_it_was() {
    let file = |path: &str, kind, bytes| ExportedFile {
        path: path.to_owned(),
        kind,
        bytes,
    };
    let files = vec![
        file("b", ExportedKind::File, Some(9)),
        file("a", ExportedKind::File, Some(3)),
        file("a", ExportedKind::Link(Some("/etc".to_owned())), Some(4)),
        file("a", ExportedKind::Removed, None),
    ];
    let mut facts = facts(&own('0', 'b'), History::New);
    facts.files = files.clone();
    let action = push_action("r", &[own('0', 'b')], Some(&facts));
    let mut read = crate::files::read_args(&action.args).unwrap();
    assert_eq!(read.len(), files.len());
    for file in &files {
        let at = read.iter().position(|other| other == file).unwrap();
        read.remove(at);
    }
}

fn whole(rules: RefRules, agent: Vec<Rule>, hosts: &[&str]) -> Policy {
    let agent = AgentSpec {
        name: "tester".to_owned(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules: agent,
        limits: Default::default(),
    };
    let domains = hosts.iter().map(|host| (*host).to_owned()).collect();
    let environment = Environment {
        git: rules,
        domains,
        ..Environment::named("test", NetworkLevel::Custom)
    };
    Policy::compile(&agent, &environment).unwrap()
}

fn own_rule(kind: ActionKind, operation: &str, verdict: RuleVerdict) -> Rule {
    Rule {
        id: "mine".to_owned(),
        when: RuleMatch {
            kind: Some(kind),
            tool: Some(operation.to_owned()),
            ..Default::default()
        },
        verdict,
        reason: String::new(),
    }
}

fn said(policy: &Policy, action: &Action) -> String {
    let answer = policy.evaluate(action);
    format!("{:?} {}", answer.verdict, answer.rule).to_lowercase()
}

fn pushed(file: &str) -> Action {
    let update = own('0', 'b');
    let facts = PushFacts {
        files: vec![ExportedFile {
            path: file.to_owned(),
            kind: ExportedKind::File,
            bytes: Some(1),
        }],
        ..facts(&update, History::New)
    };
    push_action("https://h/o/r", &[update], Some(&facts))
}

fn pull_request() -> Action {
    Action {
        kind: ActionKind::Export,
        operation: "pull_request".to_owned(),
        target: "o/r".to_owned(),
        args: json!({ "title": "x" }),
    }
}

#[test]
fn a_runs_policy_judges_git_and_its_files_and_an_agents_rules_only_narrow() {
    let repo = Some("https://git.example/o/r.git");
    let of_run = |rules, agent| whole(rules, agent, &[]).for_run(run(), repo);
    let plain = of_run(RefRules::default(), Vec::new());
    let fetch = fetch_action("https://h/o/r", &[], &[]);
    assert_eq!(said(&plain, &pushed("src/a.rs")), "allow env.git.push");
    assert_eq!(said(&plain, &fetch), "allow env.git.fetch");
    assert_eq!(said(&plain, &pull_request()), "hold env.git.pull_requests");
    assert_eq!(
        said(&plain, &pushed(".github/workflows/x.yml")),
        "hold env.files.sensitive:/.github/workflows/"
    );
    assert_eq!(said(&plain, &pushed("../x")), "deny stockade.path");
    assert_eq!(
        said(
            &of_run(
                RefRules {
                    fetch: false,
                    ..RefRules::default()
                },
                Vec::new()
            ),
            &fetch
        ),
        "deny env.git.fetch"
    );

    let narrow = |kind, operation, verdict| of_run(RefRules::default(), vec![own_rule(kind, operation, verdict)]);
    let (ask, no, yes) = (RuleVerdict::Ask, RuleVerdict::Deny, RuleVerdict::Allow);
    let export = ActionKind::Export;
    assert_eq!(said(&narrow(export, "push", ask), &pushed("a")), "hold mine");
    assert_eq!(said(&narrow(export, "push", no), &pushed("a")), "deny mine");
    assert_eq!(said(&narrow(ActionKind::Egress, "fetch", no), &fetch), "deny mine");
    assert_eq!(said(&narrow(export, "pull_request", no), &pull_request()), "deny mine");
    // What the environment does not give, no agent gives itself.
    let main = push_action("https://h/o/r", &[update("refs/heads/main", '0', 'b')], None);
    assert_eq!(said(&narrow(export, "push", yes), &main), "deny env.git.elsewhere");
    assert_eq!(
        said(&narrow(export, "pull_request", yes), &pull_request()),
        "hold env.git.pull_requests"
    );

    // Without a run there is no branch of its own.
    let nobody = whole(RefRules::default(), Vec::new(), &[]);
    for action in [&pushed("a"), &fetch, &pull_request()] {
        assert_eq!(said(&nobody, action), "deny stockade.git");
    }
}

#[test]
fn connections_to_git_hosts_are_read_and_not_let_out_by_that() {
    let rules = RefRules {
        hosts: vec!["*.forge.example".to_owned(), "git.example:8443".to_owned()],
        ..RefRules::default()
    };
    let policy = whole(
        rules.clone(),
        Vec::new(),
        &[
            "*.forge.example",
            "git.example",
            "git.example:8443",
            "home.example",
            "home.example:22",
        ],
    );
    let policy = policy.for_run(run(), Some("https://home.example/o/r.git"));
    let read = |host: &str, port| policy.inspection_rule(&Host::parse(host).unwrap(), port);
    let rule = Some(GIT_HOSTS.to_owned());
    assert_eq!(read("a.forge.example", 443), rule);
    assert_eq!(read("git.example", 8443), rule);
    assert_eq!(read("home.example", 443), rule, "where the repository came from");
    assert_eq!(read("git.example", 443), None, "another port");
    let closed = whole(rules, Vec::new(), &["x.example"]);
    assert_eq!(
        closed.inspection_rule(&Host::parse("a.forge.example").unwrap(), 443),
        None
    );

    let connect = |host: &str, port: u16, protocol: &str, inspected: bool| Action {
        kind: ActionKind::Egress,
        operation: "connect".to_owned(),
        target: String::new(),
        args: json!({ "host": host, "port": port, "protocol": protocol, "inspected": inspected }),
    };
    let refused = "deny stockade.needs_inspection";
    assert_eq!(said(&policy, &connect("a.forge.example", 443, "tls", false)), refused);
    assert_eq!(said(&policy, &connect("git.example", 8443, "tcp", false)), refused);
    assert!(said(&policy, &connect("a.forge.example", 443, "tls", true)).starts_with("allow "));
    assert!(said(&policy, &connect("home.example", 22, "ssh", false)).starts_with("allow "));
    assert_eq!(
        said(&closed, &connect("a.forge.example", 443, "tls", true)),
        "deny env.custom"
    );
}

#[test]
fn a_git_host_that_is_none_is_refused_with_what_to_write() {
    for wrong in ["https://git.example", "10.0.0.1", "localhost", "git.example:0", "*"] {
        let rules = RefRules {
            hosts: vec![wrong.to_owned()],
            ..RefRules::default()
        };
        let error = GitOver::compile(&rules).unwrap_err();
        assert!(error.starts_with("git.hosts: "), "{wrong}: {error}");
    }
}
