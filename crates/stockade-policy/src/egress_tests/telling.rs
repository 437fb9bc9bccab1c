//! What people are told: about rules that do not compile, and why an answer is what it is.

use stockade_domain::EgressRule;

use super::*;
use crate::Place;

#[test]
fn a_bad_rule_is_named_with_its_place() {
    let error = |level: NetworkLevel, rule: Value| {
        let rules: Vec<EgressRule> =
            serde_json::from_value(json!([{ "verdict": "deny", "hosts": ["x.example.com"] }, rule])).unwrap();
        let environment = Environment {
            egress: rules,
            acknowledge_full_network: true,
            ..Environment::named("e", level)
        };
        crate::EgressRules::compile(&environment).unwrap_err()
    };
    for (rule, words) in [
        (json!({ "verdict": "allow", "hosts": [] }), "names no host"),
        (json!({ "verdict": "allow", "hosts": ["*"] }), "only 'network: full'"),
        (json!({ "verdict": "allow", "hosts": ["a.*.com"] }), "leading labels"),
        (json!({ "verdict": "allow", "hosts": ["a.example.com:80"] }), "'ports'"),
        (
            json!({ "verdict": "allow", "hosts": ["10.0.0.1"] }),
            "address_exceptions",
        ),
        (json!({ "verdict": "allow", "hosts": ["localhost"] }), "two labels"),
        (
            json!({ "verdict": "allow", "hosts": ["a.example.com"], "ports": [0] }),
            "1 to 65535",
        ),
        (
            json!({ "verdict": "allow", "hosts": ["a.example.com"], "ports": [53] }),
            "53",
        ),
        (
            json!({ "verdict": "allow", "hosts": ["a.example.com"], "protocols": ["tcp"] }),
            "list 'ports'",
        ),
        (
            json!({ "verdict": "allow", "hosts": ["a.example.com"], "protocols": ["ssh"], "paths": ["/x"] }),
            "no requests",
        ),
        (
            json!({ "verdict": "allow", "hosts": ["a.example.com"], "methods": ["get"] }),
            "capitals",
        ),
        (
            json!({ "verdict": "allow", "hosts": ["a.example.com"], "methods": ["CONNECT"] }),
            "CONNECT",
        ),
        (
            json!({ "verdict": "allow", "hosts": ["a.example.com"], "paths": ["/a/../b"] }),
            "'..'",
        ),
        (
            json!({ "verdict": "deny", "hosts": ["a.example.com"], "max_request_bytes": 5 }),
            "no limits",
        ),
        (
            json!({ "name": "a b", "verdict": "deny", "hosts": ["a.example.com"] }),
            "letters",
        ),
    ] {
        let text = error(NetworkLevel::Custom, rule.clone());
        assert!(text.starts_with("egress[1]") && text.contains(words), "{rule}: {text}");
    }
    let none = error(
        NetworkLevel::None,
        json!({ "verdict": "allow", "hosts": ["a.example.com"] }),
    );
    assert!(none.contains("'none'"), "{none}");
    let twice = json!([{ "name": "n", "verdict": "deny", "hosts": ["a.example.com"] }, { "name": "n", "verdict": "deny", "hosts": ["b.example.com"] }]);
    let environment = environment(NetworkLevel::Custom, twice);
    assert!(
        crate::EgressRules::compile(&environment)
            .unwrap_err()
            .contains("given twice")
    );
}

#[test]
fn an_explanation_names_the_rule_and_why_the_others_did_not() {
    let policy = policy(
        NetworkLevel::Custom,
        json!([
            { "name": "elsewhere", "verdict": "allow", "hosts": ["b.example.com"] },
            { "name": "read", "verdict": "allow", "hosts": ["api.example.com"], "methods": ["GET"] },
            { "name": "write", "verdict": "ask", "hosts": ["api.example.com"], "methods": ["POST"], "reason": "a person looks" },
            { "name": "no", "verdict": "deny", "hosts": ["api.example.com"], "paths": ["/admin"] },
        ]),
    );
    let explain = |url: &str, method: Option<&str>| policy.explain(&Place::parse(url, method).unwrap());
    let told = explain("https://API.example.com/x", Some("POST"));
    assert_eq!(
        (told.verdict, told.rule.as_str(), told.reason.as_str()),
        (Verdict::Hold, "env.egress[2]:write", "a person looks")
    );
    assert!(told.inspected && told.url == "https://api.example.com/x");
    let steps: Vec<_> = told
        .steps
        .iter()
        .map(|step| (step.index, step.decided, step.why.as_str()))
        .collect();
    assert_eq!(
        steps,
        [
            (Some(3), false, "it names other paths"),
            (Some(0), false, "it names other hosts"),
            (Some(1), false, "it names other methods"),
            (Some(2), true, "it fits"),
        ]
    );
    assert_eq!(told.steps[3].text, "ask POST https|http api.example.com port 80|443");
    let refused = explain("https://api.example.com/x", Some("DELETE"));
    assert_eq!(refused.rule, "env.egress");
    assert!(
        refused.steps.last().unwrap().decided && refused.steps.len() == 5,
        "{refused:?}"
    );
    let level = explain("https://c.example.com/", None);
    assert_eq!(
        (level.rule.as_str(), level.inspected, level.steps.len()),
        ("env.custom", false, 5)
    );
    assert_eq!(
        explain("http://169.254.169.254/latest", None).rule,
        "stockade.direct_address"
    );
    assert_eq!(explain("ssh://b.example.com", None).verdict, Verdict::Deny);
    for (url, method, words) in [
        ("b.example.com", None, "whole URL"),
        ("https://a b/", None, "'https://a b/'"),
        ("gopher://b.example.com/", None, "'gopher'"),
        ("tcp://b.example.com", None, "names no port"),
        ("ssh://git@b.example.com/x", None, "user name"),
        ("ssh://b.example.com/x.git", None, "has a path"),
        ("ssh://b.example.com", Some("GET"), "leave it out"),
        ("https://b.example.com/", Some("G ET"), "capitals"),
    ] {
        let error = Place::parse(url, method).unwrap_err().to_string();
        assert!(error.contains(words), "{url}: {error}");
    }
}
