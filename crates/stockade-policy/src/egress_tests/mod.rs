//! Egress rules through the policy as a whole: what is asked, and which rule answers.

use serde_json::{Value, json};
use stockade_domain::{
    Action, ActionKind, AgentKind, AgentSpec, Environment, NetworkLevel, Rule, RuleMatch, RuleVerdict, Verdict,
};

use crate::{Fault, Host, Policy};

mod properties;
mod telling;

fn environment(network: NetworkLevel, rules: Value) -> Environment {
    Environment {
        egress: serde_json::from_value(rules).unwrap(),
        acknowledge_full_network: network == NetworkLevel::Full,
        ..Environment::named("test", network)
    }
}

fn with_agent(environment: &Environment, rules: Vec<Rule>) -> Policy {
    let agent = AgentSpec {
        name: "tester".to_owned(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules,
        limits: Default::default(),
    };
    Policy::compile(&agent, environment).unwrap_or_else(|error| panic!("{error}"))
}

fn policy(network: NetworkLevel, rules: Value) -> Policy {
    with_agent(&environment(network, rules), Vec::new())
}

fn action(operation: &str, args: Value) -> Action {
    Action {
        kind: ActionKind::Egress,
        operation: operation.to_owned(),
        target: String::new(),
        args,
    }
}

fn said(policy: &Policy, operation: &str, args: Value) -> String {
    let answer = policy.evaluate(&action(operation, args));
    let sign = match answer.verdict {
        Verdict::Allow => '+',
        Verdict::Hold => '?',
        Verdict::Deny | Verdict::Stop => '-',
    };
    format!("{sign} {}", answer.rule)
}

fn connect(policy: &Policy, host: &str, port: u16, protocol: &str) -> String {
    said(
        policy,
        "connect",
        json!({ "host": host, "port": port, "protocol": protocol }),
    )
}

fn inspected(policy: &Policy, host: &str, protocol: &str) -> String {
    let port = if protocol == "http" { 80 } else { 443 };
    said(
        policy,
        "connect",
        json!({ "host": host, "port": port, "protocol": protocol, "inspected": true }),
    )
}

fn request(policy: &Policy, method: &str, host: &str, path: &str) -> String {
    said(
        policy,
        "request",
        json!({ "host": host, "port": 443, "protocol": "https", "method": method, "path": path }),
    )
}

fn needs(policy: &Policy, host: &str, port: u16) -> bool {
    policy.inspection_rule(&Host::parse(host).unwrap(), port).is_some()
}

#[test]
fn denials_come_first_and_then_the_first_that_fits() {
    let policy = policy(
        NetworkLevel::Custom,
        json!([
            { "name": "all", "verdict": "allow", "hosts": ["*.example.com"] },
            { "name": "held", "verdict": "hold", "hosts": ["a.example.com", "c.example.org"] },
            { "name": "late", "verdict": "allow", "hosts": ["c.example.org"] },
            { "name": "no", "verdict": "deny", "hosts": ["bad.example.com"] },
        ]),
    );
    for (host, expected) in [
        ("a.example.com", "+ env.egress[0]:all"),
        ("x.y.example.com", "+ env.egress[0]:all"),
        ("bad.example.com", "- env.egress[3]:no"),
        ("BAD.example.com.", "- env.egress[3]:no"),
        ("c.example.org", "? env.egress[1]:held"),
        ("example.com", "- env.custom"),
        ("d.example.org", "- env.custom"),
    ] {
        assert_eq!(connect(&policy, host, 443, "tls"), expected, "{host}");
        assert_eq!(said(&policy, "resolve", json!({ "host": host })), expected, "{host}");
    }
    // A denial without ports is about all of them, a permission about the web's.
    assert_eq!(connect(&policy, "bad.example.com", 22, "ssh"), "- env.egress[3]:no");
    assert_eq!(connect(&policy, "a.example.com", 22, "ssh"), "- env.custom");
    assert_eq!(connect(&policy, "a.example.com", 443, "tcp"), "- env.egress");
}

#[test]
fn rules_stand_over_the_level_and_speak_for_what_they_name() {
    let rules = json!([
        { "verdict": "deny", "hosts": ["pypi.org"] },
        { "verdict": "ask", "hosts": ["crates.io"] },
        { "verdict": "allow", "hosts": ["github.com"], "methods": ["GET"] },
        { "verdict": "allow", "hosts": ["new.example.com"] },
    ]);
    let trusted = policy(NetworkLevel::Trusted, rules.clone());
    assert_eq!(connect(&trusted, "pypi.org", 443, "tls"), "- env.egress[0]");
    assert_eq!(connect(&trusted, "crates.io", 443, "tls"), "? env.egress[1]");
    assert_eq!(connect(&trusted, "new.example.com", 443, "tls"), "+ env.egress[3]");
    assert_eq!(connect(&trusted, "gitlab.com", 443, "tls"), "+ env.trusted:gitlab.com");
    // The list names github.com, but a rule speaks for it now.
    assert_eq!(request(&trusted, "GET", "github.com", "/x"), "+ env.egress[2]");
    assert_eq!(request(&trusted, "POST", "github.com", "/x"), "- env.egress");
    let full = policy(NetworkLevel::Full, rules);
    assert_eq!(connect(&full, "pypi.org", 443, "tls"), "- env.egress[0]");
    assert_eq!(connect(&full, "elsewhere.example.org", 443, "tls"), "+ env.full");
    assert_eq!(request(&full, "POST", "github.com", "/x"), "- env.egress");
    let rest = json!([{ "verdict": "ask", "hosts": ["*"] }, { "verdict": "deny", "hosts": ["*.evil.example"] }]);
    let held = policy(NetworkLevel::Full, rest);
    assert_eq!(connect(&held, "elsewhere.example.org", 443, "tls"), "? env.egress[0]");
    assert_eq!(connect(&held, "a.evil.example", 443, "tls"), "- env.egress[1]");
    assert_eq!(connect(&held, "1.1.1.1", 443, "tls"), "? env.egress[0]");
    assert_eq!(connect(&held, "10.0.0.1", 443, "tls"), "- stockade.direct_address");
    assert_eq!(
        connect(&held, "metadata.google.internal", 80, "http"),
        "- stockade.infrastructure_name"
    );
    assert_eq!(
        connect(&held, "db.internal", 443, "tls"),
        "- stockade.infrastructure_name"
    );
}

#[test]
fn a_bare_address_is_no_way_around_a_rule_about_a_name() {
    let policy = policy(
        NetworkLevel::Full,
        json!([
            { "verdict": "deny", "hosts": ["*.evil.example"] },
            { "verdict": "ask", "hosts": ["held.example.com"] },
            { "verdict": "allow", "hosts": ["api.example.com"], "paths": ["/v1"] },
        ]),
    );
    let behind = |key: &str, name: &str| {
        let (port, protocol) = if key == "sni" { (443, "tls") } else { (80, "http") };
        let args = json!({ "host": "1.1.1.1", "port": port, "protocol": protocol, key: name });
        said(&policy, "connect", args)
    };
    for key in ["sni", "authority"] {
        assert_eq!(behind(key, "good.example.com"), "+ env.full");
        assert_eq!(behind(key, "WWW.evil.example."), "- env.egress[0]");
        assert_eq!(behind(key, "held.example.com"), "? env.egress[1]");
        assert_eq!(behind(key, "api.example.com"), "- stockade.needs_inspection");
    }
    assert_eq!(connect(&policy, "1.1.1.1", 443, "tls"), "+ env.full");
}

#[test]
fn approvals_are_bound_to_the_rules() {
    let version = |rules: Value| policy(NetworkLevel::Custom, rules).version();
    let base = version(json!([{ "verdict": "allow", "hosts": ["a.example.com"] }]));
    assert_eq!(
        base,
        version(json!([{ "verdict": "allow", "hosts": ["a.example.com"] }]))
    );
    assert_ne!(base, version(json!([])));
    assert_ne!(
        base,
        version(json!([{ "verdict": "allow", "hosts": ["a.example.com"], "methods": ["GET"] }]))
    );
}

#[test]
fn protocols_have_rules_of_their_own() {
    let policy = policy(
        NetworkLevel::Custom,
        json!([
            { "verdict": "allow", "hosts": ["git.example.com"], "protocols": ["ssh"] },
            { "verdict": "allow", "hosts": ["db.example.com"], "protocols": ["postgres"] },
            { "verdict": "allow", "hosts": ["raw.example.com"], "protocols": ["tcp"], "ports": [25, 9000] },
            { "verdict": "allow", "hosts": ["web.example.com"], "protocols": ["https"], "ports": [8443] },
            { "verdict": "allow", "hosts": ["tls.example.com"], "protocols": ["tls"] },
            { "verdict": "allow", "hosts": ["git.corp.internal"], "protocols": ["ssh"] },
        ]),
    );
    for (host, port, protocol, expected) in [
        ("git.example.com", 22, "ssh", "+ env.egress[0]"),
        ("git.example.com", 22, "tcp", "- env.egress"),
        ("git.example.com", 22, "tls", "- env.egress"),
        ("git.example.com", 443, "tls", "- env.custom"),
        ("db.example.com", 5432, "postgres", "+ env.egress[1]"),
        ("db.example.com", 5432, "ssh", "- env.egress"),
        ("raw.example.com", 25, "tcp", "+ env.egress[2]"),
        ("raw.example.com", 9000, "ssh", "+ env.egress[2]"),
        ("raw.example.com", 443, "tls", "- env.custom"),
        ("web.example.com", 8443, "tls", "+ env.egress[3]"),
        ("web.example.com", 8443, "http", "- env.egress"),
        ("tls.example.com", 443, "tls", "+ env.egress[4]"),
        ("git.corp.internal", 22, "ssh", "+ env.egress[5]"),
        ("other.corp.internal", 22, "ssh", "- stockade.infrastructure_name"),
    ] {
        assert_eq!(
            connect(&policy, host, port, protocol),
            expected,
            "{protocol} {host}:{port}"
        );
    }
    let opaque = |host: &str, port: u16| {
        policy
            .egress()
            .is_opaque(Host::parse(host).unwrap().name().unwrap(), port)
    };
    assert!(opaque("raw.example.com", 25) && !opaque("raw.example.com", 26) && !opaque("git.example.com", 22));
}

#[test]
fn what_depends_on_the_request_is_let_in_only_to_be_read() {
    let policy = policy(
        NetworkLevel::Custom,
        json!([
            { "name": "no-admin", "verdict": "deny", "hosts": ["*.example.com"], "paths": ["/admin"] },
            { "name": "read", "verdict": "allow", "hosts": ["api.example.com"], "methods": ["GET", "HEAD"], "paths": ["/v1"] },
            { "name": "write", "verdict": "ask", "hosts": ["api.example.com"], "methods": ["POST"], "max_request_bytes": 100 },
            { "name": "plain", "verdict": "allow", "hosts": ["web.example.com"] },
            { "name": "free", "verdict": "allow", "hosts": ["free.example.org"] },
        ]),
    );
    assert!(needs(&policy, "api.example.com", 443) && needs(&policy, "api.example.com", 80));
    assert!(
        needs(&policy, "web.example.com", 443),
        "a denial by path has to be read too"
    );
    assert!(!needs(&policy, "free.example.org", 443) && !needs(&policy, "api.example.com", 22));
    assert!(!needs(&policy, "unknown.example.com", 443), "nothing is let out there");
    for host in ["api.example.com", "web.example.com"] {
        for protocol in ["tls", "http"] {
            let port = if protocol == "http" { 80 } else { 443 };
            assert_eq!(connect(&policy, host, port, protocol), "- stockade.needs_inspection");
            assert_eq!(inspected(&policy, host, protocol), "+ env.inspected");
        }
        assert_eq!(connect(&policy, host, 443, "tcp"), "- env.egress");
    }
    assert_eq!(connect(&policy, "free.example.org", 443, "tls"), "+ env.egress[4]:free");
    assert_eq!(inspected(&policy, "unknown.example.com", "tls"), "- env.custom");
    for (method, host, path, expected) in [
        ("GET", "api.example.com", "/v1/x?y=1", "+ env.egress[1]:read"),
        ("GET", "api.example.com", "/%761/x", "+ env.egress[1]:read"),
        ("GET", "api.example.com", "/v2", "- env.egress"),
        ("GET", "api.example.com", "/v1/../admin", "- stockade.ambiguous_path"),
        (
            "GET",
            "api.example.com",
            "/v1%2f..%2fadmin",
            "- stockade.ambiguous_path",
        ),
        ("GET", "api.example.com", "/ADMIN;x/v1", "- env.egress[0]:no-admin"),
        ("get", "api.example.com", "/v1", "- env.egress"),
        ("DELETE", "api.example.com", "/v1", "- env.egress"),
        ("POST", "api.example.com", "/v1", "? env.egress[2]:write"),
        ("post", "api.example.com", "/v1", "? env.egress[2]:write"),
        ("POST", "api.example.com", "/v1/admin", "? env.egress[2]:write"),
        ("POST", "api.example.com", "/admin", "- env.egress[0]:no-admin"),
        ("PUT", "web.example.com", "/x", "+ env.egress[3]:plain"),
        ("PUT", "web.example.com", "//admin", "- env.egress[0]:no-admin"),
        ("PUT", "free.example.org", "/a/../b", "+ env.egress[4]:free"),
        ("GET", "web.example.com", "no path", "- stockade.malformed"),
    ] {
        assert_eq!(request(&policy, method, host, path), expected, "{method} {host} {path}");
    }
    let sized = |bytes: u64| {
        let args = json!({ "host": "api.example.com", "port": 443, "protocol": "https", "method": "POST", "path": "/", "bytes": bytes });
        said(&policy, "request", args)
    };
    assert_eq!(
        (sized(100).as_str(), sized(101).as_str()),
        ("? env.egress[2]:write", "- env.egress")
    );
}

#[test]
fn a_request_is_judged_with_all_of_its_parts() {
    let policy = policy(NetworkLevel::Full, json!([]));
    let good = json!({ "host": "a.example.com", "port": 443, "protocol": "https", "method": "GET", "path": "/" });
    assert_eq!(said(&policy, "request", good.clone()), "+ env.full");
    for (key, value, rule) in [
        ("method", Value::Null, "- stockade.operation"),
        ("method", json!(""), "- stockade.operation"),
        ("path", Value::Null, "- stockade.operation"),
        ("path", json!("x"), "- stockade.malformed"),
        ("bytes", json!("many"), "- stockade.operation"),
        ("protocol", json!("tls"), "- stockade.operation"),
        ("authority", json!("b.example.com"), "- stockade.name_mismatch"),
        ("authority", json!("a.example.com:80"), "- stockade.name_mismatch"),
        ("fault", json!(Fault::Disagreement.as_str()), "- stockade.name_mismatch"),
    ] {
        let mut args = good.clone();
        args[key] = value;
        assert_eq!(said(&policy, "request", args.clone()), rule, "{args}");
    }
    let mut same = good;
    same["authority"] = json!("A.example.com:443");
    assert_eq!(said(&policy, "request", same), "+ env.full");
}

#[test]
fn an_agents_rules_narrow_requests_too() {
    let rule = |id: &str, verdict: RuleVerdict, when: Value| Rule {
        id: id.to_owned(),
        when: serde_json::from_value::<RuleMatch>(when).unwrap(),
        verdict,
        reason: String::new(),
    };
    let open = environment(
        NetworkLevel::Custom,
        json!([{ "verdict": "allow", "hosts": ["a.example.com"], "ports": [443, 8443], "protocols": ["https"] }]),
    );
    let policy = with_agent(
        &open,
        vec![
            rule(
                "no-delete",
                RuleVerdict::Deny,
                json!({ "host": "*.example.com", "method": "DELETE" }),
            ),
            rule(
                "pulls",
                RuleVerdict::Ask,
                json!({ "host": "a.example.com", "path": "/repos/*/pulls*" }),
            ),
            rule(
                "port",
                RuleVerdict::Deny,
                json!({ "host": "a.example.com", "port": 8443 }),
            ),
            rule("files", RuleVerdict::Deny, json!({ "path": "*.pem" })),
        ],
    );
    assert!(needs(&policy, "a.example.com", 443));
    assert_eq!(
        connect(&policy, "a.example.com", 443, "tls"),
        "- stockade.needs_inspection"
    );
    assert_eq!(inspected(&policy, "a.example.com", "tls"), "+ env.inspected");
    assert_eq!(
        said(&policy, "resolve", json!({ "host": "a.example.com" })),
        "+ env.egress[0]"
    );
    assert_eq!(request(&policy, "GET", "a.example.com", "/x"), "+ env.egress[0]");
    assert_eq!(request(&policy, "delete", "a.example.com", "/x"), "- no-delete");
    assert_eq!(request(&policy, "POST", "a.example.com", "/repos/o/r/pulls"), "? pulls");
    assert_eq!(request(&policy, "GET", "b.example.com", "/x"), "- env.custom");
    // A rule about files says nothing about connections.
    let files = with_agent(
        &open,
        vec![rule("files", RuleVerdict::Deny, json!({ "path": "*.pem" }))],
    );
    assert!(!needs(&files, "a.example.com", 443));
    assert_eq!(connect(&files, "a.example.com", 443, "tls"), "+ env.egress[0]");
}

#[test]
fn limits_belong_to_the_rule_that_lets_out() {
    let mut environment = environment(
        NetworkLevel::Custom,
        json!([
            { "verdict": "allow", "hosts": ["a.example.com"], "limits": { "bytes_up": 1000, "connections_per_minute": 5 } },
            { "verdict": "allow", "hosts": ["b.example.com"], "limits": { "requests": 3 }, "max_request_bytes": 10 },
        ]),
    );
    environment.traffic = serde_json::from_value(json!({ "bytes_down": 7 })).unwrap();
    let policy = with_agent(&environment, Vec::new());
    assert_eq!(policy.egress().traffic().bytes_down.map(|n| n.get()), Some(7));
    let bounds = policy.bounds(&action(
        "connect",
        json!({ "host": "a.example.com", "port": 443, "protocol": "tls" }),
    ));
    assert_eq!(bounds.len(), 1);
    assert_eq!(bounds[0].limits.bytes_up.map(|n| n.get()), Some(1000));
    assert_eq!(bounds[0].rule, "env.egress[0]");
    assert!(
        !needs(&policy, "a.example.com", 443),
        "bytes are counted without reading them"
    );
    assert!(needs(&policy, "b.example.com", 443), "requests are not");
    let args = json!({ "host": "b.example.com", "port": 443, "protocol": "https", "method": "GET", "path": "/" });
    let bounds = policy.bounds(&action("request", args));
    assert_eq!(
        (bounds[0].limits.requests.map(|n| n.get()), bounds[0].max_request_bytes),
        (Some(3), Some(10))
    );
}
