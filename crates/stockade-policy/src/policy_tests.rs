use proptest::prelude::*;
use stockade_domain::{AddressException, AgentKind, EgressRule, Rule, RuleMatch, RuleVerdict};

use super::*;

fn agent(rules: Vec<Rule>) -> AgentSpec {
    AgentSpec {
        name: "tester".to_owned(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules,
        limits: Default::default(),
    }
}

fn rule(id: &str, host: &str, verdict: RuleVerdict) -> Rule {
    Rule {
        id: id.to_owned(),
        when: RuleMatch {
            host: Some(host.to_owned()),
            ..Default::default()
        },
        verdict,
        reason: String::new(),
    }
}

fn environment(network: NetworkLevel, domains: &[&str]) -> Environment {
    Environment {
        domains: domains.iter().map(|d| (*d).to_owned()).collect(),
        acknowledge_full_network: network == NetworkLevel::Full,
        ..Environment::named("test", network)
    }
}

fn policy(network: NetworkLevel, domains: &[&str]) -> Policy {
    Policy::compile(&agent(Vec::new()), &environment(network, domains)).unwrap()
}

fn egress(args: Value) -> Action {
    let connect = args.get("port").is_some();
    Action {
        kind: ActionKind::Egress,
        operation: if connect { "connect" } else { "resolve" }.to_owned(),
        target: String::new(),
        args,
    }
}

fn tls(host: &str) -> Action {
    egress(json!({ "host": host, "port": 443, "protocol": "tls" }))
}

fn verdict(policy: &Policy, action: &Action) -> (Verdict, String) {
    let PolicyVerdict { verdict, rule, .. } = policy.evaluate(action);
    (verdict, rule)
}

fn rule_of(policy: &Policy, args: Value) -> String {
    let (verdict, rule) = verdict(policy, &egress(args));
    format!("{} {rule}", if verdict == Verdict::Allow { "+" } else { "-" })
}

#[test]
fn levels_open_what_they_say() {
    let cases: &[(NetworkLevel, &[&str], &str, &str)] = &[
        (NetworkLevel::None, &[], "pypi.org", "- env.none"),
        (NetworkLevel::Trusted, &[], "pypi.org", "+ env.trusted:pypi.org"),
        (
            NetworkLevel::Trusted,
            &[],
            "files.pythonhosted.org",
            "+ env.trusted:files.pythonhosted.org",
        ),
        (NetworkLevel::Trusted, &[], "gist.github.com", "- env.trusted"),
        (
            NetworkLevel::Trusted,
            &["a.example.com"],
            "a.example.com",
            "+ env.custom:a.example.com",
        ),
        (NetworkLevel::Custom, &[], "pypi.org", "- env.custom"),
        (
            NetworkLevel::Custom,
            &["*.example.com"],
            "a.b.example.com",
            "+ env.custom:*.example.com",
        ),
        (NetworkLevel::Custom, &["*.example.com"], "example.com", "- env.custom"),
        (NetworkLevel::Custom, &["example.com"], "a.example.com", "- env.custom"),
        (
            NetworkLevel::Custom,
            &["example.com"],
            "evilexample.com",
            "- env.custom",
        ),
        (
            NetworkLevel::Custom,
            &["example.com"],
            "example.com.evil.com",
            "- env.custom",
        ),
        (NetworkLevel::Full, &[], "anything.example", "+ env.full"),
    ];
    for (level, domains, host, expected) in cases {
        let policy = policy(*level, domains);
        assert_eq!(rule_of(&policy, json!({ "host": host })), *expected, "resolve {host}");
        let connect = json!({ "host": host, "port": 443, "protocol": "tls" });
        assert_eq!(rule_of(&policy, connect), *expected, "connect {host}");
    }
}

#[test]
fn infrastructure_is_closed_by_name_under_every_level() {
    let full = policy(NetworkLevel::Full, &[]);
    for host in [
        "localhost",
        "foo.localhost",
        "metadata.google.internal",
        "metadata",
        "db.internal",
        "printer.local",
        "router.home.arpa",
        "intranet",
        "other.stockade.internal",
    ] {
        assert_eq!(
            rule_of(&full, json!({ "host": host })),
            "- stockade.infrastructure_name",
            "{host}"
        );
    }
    let listed = policy(NetworkLevel::Custom, &["git.corp.internal"]);
    assert_eq!(
        rule_of(&listed, json!({ "host": "git.corp.internal" })),
        "+ env.custom:git.corp.internal"
    );
    assert_eq!(
        rule_of(&listed, json!({ "host": "db.corp.internal" })),
        "- stockade.infrastructure_name"
    );
}

#[test]
fn internal_names_are_always_there_and_only_on_their_port() {
    let none = policy(NetworkLevel::None, &[]);
    for host in crate::INTERNAL_HOSTS {
        assert_eq!(rule_of(&none, json!({ "host": host })), "+ stockade.internal");
        let web = json!({ "host": host, "port": 80, "protocol": "http" });
        assert_eq!(rule_of(&none, web), "+ stockade.internal");
        let other = json!({ "host": host, "port": 443, "protocol": "tls" });
        assert_eq!(rule_of(&none, other), "- stockade.internal_port");
    }
}

#[test]
fn the_proxy_is_found_under_every_level_and_leads_not_to_itself() {
    for level in [NetworkLevel::None, NetworkLevel::Custom, NetworkLevel::Full] {
        let policy = policy(level, &[]);
        let proxy = crate::egress::PROXY_HOST;
        assert_eq!(rule_of(&policy, json!({ "host": proxy })), "+ stockade.internal");
        for port in [80, 443, crate::egress::PROXY_PORT] {
            let connect = json!({ "host": proxy, "port": port, "protocol": "http" });
            assert_eq!(rule_of(&policy, connect), "- stockade.proxy");
        }
    }
}

#[test]
fn ports_and_protocols() {
    let policy = policy(
        NetworkLevel::Custom,
        &["web.example.com", "git.example.com:22", "tls.example.com:443"],
    );
    let ask = |host: &str, port: u16, protocol: &str| {
        rule_of(&policy, json!({ "host": host, "port": port, "protocol": protocol }))
    };
    assert_eq!(ask("web.example.com", 443, "tls"), "+ env.custom:web.example.com");
    assert_eq!(ask("web.example.com", 80, "http"), "+ env.custom:web.example.com");
    assert_eq!(ask("web.example.com", 443, "tcp"), "- stockade.protocol");
    assert_eq!(ask("web.example.com", 22, "tcp"), "- env.port");
    assert_eq!(ask("web.example.com", 8443, "tls"), "- env.port");
    assert_eq!(ask("git.example.com", 22, "tcp"), "+ env.custom:git.example.com:22");
    assert_eq!(ask("git.example.com", 443, "tls"), "- env.port");
    assert_eq!(ask("tls.example.com", 443, "tls"), "+ env.custom:tls.example.com:443");
    assert_eq!(ask("tls.example.com", 443, "tcp"), "- stockade.protocol");
    assert_eq!(ask("tls.example.com", 80, "http"), "- env.port");
}

#[test]
fn addresses_are_no_destination_but_under_full_and_public() {
    for level in [NetworkLevel::None, NetworkLevel::Trusted, NetworkLevel::Custom] {
        let policy = policy(level, &[]);
        for host in ["1.1.1.1", "169.254.169.254", "2606:4700::1111", "0x7f.1"] {
            assert_eq!(
                verdict(&policy, &tls(host)),
                (Verdict::Deny, "stockade.direct_address".into()),
                "{host}"
            );
        }
    }
    let full = policy(NetworkLevel::Full, &[]);
    assert_eq!(verdict(&full, &tls("1.1.1.1")), (Verdict::Allow, "env.full".into()));
    assert_eq!(
        rule_of(&full, json!({ "host": "1.1.1.1", "port": 25, "protocol": "tcp" })),
        "- env.port"
    );
    for host in [
        "10.0.0.1",
        "169.254.169.254",
        "127.1",
        "::ffff:10.0.0.1",
        "fd00:ec2::254",
        "64:ff9b::a00:1",
    ] {
        assert_eq!(
            verdict(&full, &tls(host)),
            (Verdict::Deny, "stockade.direct_address".into()),
            "{host}"
        );
    }
}

#[test]
fn a_refused_address_refuses_the_name_that_led_to_it() {
    let mut environment = environment(NetworkLevel::Custom, &["a.example.com"]);
    let ask = |environment: &Environment, address: &str| {
        let policy = Policy::compile(&agent(Vec::new()), environment).unwrap();
        rule_of(
            &policy,
            json!({ "host": "a.example.com", "port": 443, "protocol": "tls", "address": address }),
        )
    };
    assert_eq!(ask(&environment, "93.184.216.34"), "+ env.custom:a.example.com");
    assert_eq!(ask(&environment, "10.0.0.1"), "- stockade.address");
    assert_eq!(ask(&environment, "nonsense"), "- stockade.address");
    environment.address_exceptions.push(AddressException {
        cidr: "10.0.0.0/24".to_owned(),
        reason: "the lab".to_owned(),
    });
    assert_eq!(ask(&environment, "10.0.0.1"), "+ env.custom:a.example.com");
    assert_eq!(ask(&environment, "10.0.1.1"), "- stockade.address");
}

#[test]
fn names_that_disagree_are_refused() {
    let policy = policy(NetworkLevel::Custom, &["a.example.com", "b.example.com"]);
    let sni = |sni: Value| {
        rule_of(
            &policy,
            json!({ "host": "a.example.com", "port": 443, "protocol": "tls", "sni": sni }),
        )
    };
    assert_eq!(sni(json!("A.example.com.")), "+ env.custom:a.example.com");
    assert_eq!(sni(json!("b.example.com")), "- stockade.name_mismatch");
    assert_eq!(sni(json!("")), "- stockade.name_mismatch");
    assert_eq!(sni(Value::Null), "- stockade.name_mismatch");
    let host = |authority: &str| {
        let args = json!({ "host": "a.example.com", "port": 80, "protocol": "http", "authority": authority });
        rule_of(&policy, args)
    };
    assert_eq!(host("a.example.com:80"), "+ env.custom:a.example.com");
    assert_eq!(host("a.example.com:8080"), "- stockade.name_mismatch");
    assert_eq!(host("b.example.com"), "- stockade.name_mismatch");
    assert_eq!(host("a.example.com@b.example.com"), "- stockade.name_mismatch");
}

#[test]
fn every_fault_is_refused_even_where_all_is_open() {
    let full = policy(NetworkLevel::Full, &[]);
    let ask = |fault: Value| {
        rule_of(
            &full,
            json!({ "host": "a.example.com", "port": 443, "protocol": "tls", "fault": fault }),
        )
    };
    assert_eq!(verdict(&full, &tls("a.example.com")).0, Verdict::Allow);
    for fault in Fault::ALL {
        assert_eq!(ask(json!(fault.as_str())), format!("- {}", fault.rule()));
    }
    assert_eq!(ask(json!("made up")), "- stockade.refused");
    assert_eq!(ask(json!(7)), "- stockade.refused");
}

#[test]
fn an_alias_into_infrastructure_is_refused() {
    let policy = policy(NetworkLevel::Full, &[]);
    let ask = |alias: &str| {
        rule_of(
            &policy,
            json!({ "host": "a.example.com", "port": 443, "protocol": "tls", "alias": alias }),
        )
    };
    assert_eq!(ask("cdn.example.net"), "+ env.full");
    assert_eq!(ask("metadata.google.internal"), "- stockade.infrastructure_name");
    assert_eq!(ask("not a name"), "- stockade.infrastructure_name");
}

#[test]
fn an_alias_of_a_name_that_a_rule_denies_is_refused() {
    let mut environment = environment(NetworkLevel::Custom, &["a.example.com"]);
    let mut barred = EgressRule::hosts(RuleVerdict::Deny, &["*.example.net"]);
    barred.name = Some("barred".to_owned());
    // What is denied in part may be an alias: the request itself says no more than the open name.
    let mut partly = EgressRule::hosts(RuleVerdict::Deny, &["partly.example.org"]);
    partly.methods = vec!["PUT".to_owned()];
    environment.egress = vec![barred, partly];
    let policy = Policy::compile(&agent(Vec::new()), &environment).unwrap();
    let ask = |alias: &str| {
        let action = json!({ "host": "a.example.com", "port": 443, "protocol": "tls", "alias": alias });
        rule_of(&policy, action)
    };
    assert_eq!(ask("cdn.example.net"), "- env.egress[0]:barred");
    assert_eq!(ask("partly.example.org"), "+ env.custom:a.example.com");
    assert_eq!(ask("cdn.example.org"), "+ env.custom:a.example.com");
}

#[test]
fn an_agents_rules_narrow_and_never_widen() {
    let with = |rules: Vec<Rule>| {
        Policy::compile(&agent(rules), &environment(NetworkLevel::Custom, &["a.example.com"])).unwrap()
    };
    let widen = with(vec![rule("open", "*", RuleVerdict::Allow)]);
    assert_eq!(
        verdict(&widen, &tls("b.example.com")),
        (Verdict::Deny, "env.custom".into())
    );
    assert_eq!(
        verdict(&widen, &tls("a.example.com")),
        (Verdict::Allow, "env.custom:a.example.com".into())
    );
    let ask = with(vec![rule("ask", "*.EXAMPLE.com.", RuleVerdict::Ask)]);
    assert_eq!(verdict(&ask, &tls("A.example.com")), (Verdict::Hold, "ask".into()));
    assert_eq!(
        verdict(&ask, &tls("b.example.com")),
        (Verdict::Deny, "env.custom".into())
    );
    let deny = with(vec![rule("no", "A.Example.com.", RuleVerdict::Deny)]);
    assert_eq!(verdict(&deny, &tls("a.example.com")), (Verdict::Deny, "no".into()));
    let order = with(vec![
        rule("first", "a.example.com", RuleVerdict::Allow),
        rule("second", "*", RuleVerdict::Deny),
    ]);
    assert_eq!(verdict(&order, &tls("a.example.com")).0, Verdict::Allow);
}

#[test]
fn a_denied_name_is_denied_behind_a_bare_address_too() {
    let rules = vec![rule("no", "*.evil.example", RuleVerdict::Deny)];
    let policy = Policy::compile(&agent(rules), &environment(NetworkLevel::Full, &[])).unwrap();
    let ask = |sni: &str| {
        rule_of(
            &policy,
            json!({ "host": "1.1.1.1", "port": 443, "protocol": "tls", "sni": sni }),
        )
    };
    assert_eq!(ask("good.example"), "+ env.full");
    assert_eq!(ask("www.EVIL.example"), "- no");
    assert_eq!(ask("metadata.google.internal"), "- stockade.name_mismatch");
}

#[test]
fn a_host_rule_holds_for_permissions_in_any_spelling() {
    let rules = vec![rule("no", "evil.example", RuleVerdict::Deny)];
    let policy = Policy::compile(&agent(rules), &environment(NetworkLevel::None, &[])).unwrap();
    for host in ["evil.example", "EVIL.example."] {
        let action = Action {
            kind: ActionKind::Permission,
            operation: "fetch".to_owned(),
            target: String::new(),
            args: json!({ "host": host }),
        };
        assert_eq!(verdict(&policy, &action), (Verdict::Deny, "no".into()));
    }
}

#[test]
fn malformed_egress_actions_are_refused() {
    let full = policy(NetworkLevel::Full, &[]);
    for args in [
        json!({}),
        json!({ "host": 7 }),
        json!({ "host": "a b" }),
        json!({ "host": "a.example.com", "port": 0 }),
        json!({ "host": "a.example.com", "port": 65536 }),
        json!({ "host": "a.example.com", "port": "443" }),
        json!({ "host": "a.example.com", "port": -1 }),
    ] {
        assert_eq!(full.evaluate(&egress(args.clone())).verdict, Verdict::Deny, "{args}");
    }
    let mut action = tls("a.example.com");
    action.operation = "listen".to_owned();
    assert_eq!(full.evaluate(&action).verdict, Verdict::Deny);
}

#[test]
fn bad_environments_and_rules_name_the_entry() {
    let error = |environment: &Environment| {
        Policy::compile(&agent(Vec::new()), environment)
            .unwrap_err()
            .to_string()
    };
    for bad in [
        "https://a.example.com",
        "a.example.com/path",
        "*",
        "a.*.com",
        "*.com",
        "*.",
        "com",
        "10.0.0.1",
        "[::1]:80",
        "a_b.example.com",
        "a.example.com:0",
        "a.example.com:http",
        "a.example.com:53",
        "localhost",
        "*.internal",
        "*.corp.internal",
        "metadata.google.internal",
        "llm.stockade.internal",
        "",
    ] {
        let text = error(&environment(NetworkLevel::Custom, &["good.example.com", bad]));
        assert!(text.contains(&format!("domain '{bad}'")), "{bad}: {text}");
    }
    let unacknowledged = Environment::named("wide", NetworkLevel::Full);
    assert!(error(&unacknowledged).contains("acknowledge_full_network"));
    assert!(error(&environment(NetworkLevel::None, &["a.example.com"])).contains("'none'"));
    for (id, host) in [("env.x", "a.com"), ("", "a.com"), ("x", "a b"), ("x", "ä*"), ("x", "")] {
        let rules = vec![rule(id, host, RuleVerdict::Deny)];
        let result = Policy::compile(&agent(rules), &environment(NetworkLevel::None, &[]));
        assert!(matches!(result, Err(PolicyError::Rule { .. })), "{id} {host}");
    }
}

#[test]
fn the_version_covers_everything_that_decides() {
    let version =
        |rules: Vec<Rule>, environment: &Environment| Policy::compile(&agent(rules), environment).unwrap().version();
    let base = version(Vec::new(), &environment(NetworkLevel::Custom, &["a.example.com"]));
    assert_eq!(
        base,
        version(Vec::new(), &environment(NetworkLevel::Custom, &["a.example.com"]))
    );
    assert_ne!(
        base,
        version(Vec::new(), &environment(NetworkLevel::Custom, &["b.example.com"]))
    );
    assert_ne!(
        base,
        version(Vec::new(), &environment(NetworkLevel::Trusted, &["a.example.com"]))
    );
    let rules = vec![rule("no", "x.example", RuleVerdict::Deny)];
    assert_ne!(
        base,
        version(rules, &environment(NetworkLevel::Custom, &["a.example.com"]))
    );
}

proptest! {
    /// Whatever is spelled, only what is the listed host itself, or below the listed suffix, passes.
    #[test]
    fn no_spelling_passes_but_the_listed_name(text in "[a-zA-Z0-9.*:@%\\[\\]\u{ff41}\u{3002}\u{0}_ -]{0,24}") {
        let policy = policy(NetworkLevel::Custom, &["ab.cd", "*.ef.gh"]);
        if policy.evaluate(&tls(&text)).verdict == Verdict::Allow {
            let host = Host::parse(&text).unwrap().to_string();
            prop_assert!(host == "ab.cd" || host.ends_with(".ef.gh"), "{text:?} passed as {host}");
        }
    }

    /// A name that is denied stays denied in every case and with the root's dot.
    #[test]
    fn a_denied_name_is_denied_in_every_case(flips in any::<u32>(), dot in any::<bool>()) {
        let rules = vec![rule("no", "sub.example.com", RuleVerdict::Deny)];
        let policy = Policy::compile(&agent(rules), &environment(NetworkLevel::Full, &[])).unwrap();
        let mut text: String = "sub.example.com"
            .char_indices()
            .map(|(at, c)| if flips >> at & 1 == 1 { c.to_ascii_uppercase() } else { c })
            .collect();
        if dot {
            text.push('.');
        }
        prop_assert_eq!(policy.evaluate(&tls(&text)).rule, "no");
    }
}
