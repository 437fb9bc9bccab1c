//! Whatever the rules are.

use proptest::prelude::*;

use super::*;
use crate::Place;

/// Rules about few hosts, methods and paths, so that they meet.
fn rules() -> impl Strategy<Value = Value> {
    let host = prop::sample::select(vec![
        "a.example.com",
        "*.example.com",
        "b.example.com",
        "*.b.example.com",
    ]);
    let verdict = prop::sample::select(vec!["allow", "ask", "deny"]);
    let methods = prop::sample::select(vec![json!([]), json!(["GET"]), json!(["GET", "POST"])]);
    let paths = prop::sample::select(vec![json!([]), json!(["/a"]), json!(["/a/b", "/c"])]);
    let rule = (host, verdict, methods, paths).prop_map(|(host, verdict, methods, paths)| {
        json!({ "hosts": [host], "verdict": verdict, "methods": methods, "paths": paths })
    });
    prop::collection::vec(rule, 0..6).prop_map(Value::Array)
}

proptest! {
    /// What the connection's verdict says without a request in sight never lets out what the
    /// request's verdict refuses.
    #[test]
    fn a_connection_that_is_not_read_lets_out_nothing_a_request_is_refused_for(
        rules in rules(),
        host in prop::sample::select(vec!["a.example.com", "b.example.com", "x.b.example.com", "example.com"]),
        method in prop::sample::select(vec!["GET", "POST", "DELETE"]),
        path in prop::sample::select(vec!["/", "/a", "/a/b", "/c/d", "/a/../c", "/A"]),
    ) {
        let policy = policy(NetworkLevel::Custom, rules);
        let blind = connect(&policy, host, 443, "tls");
        let whole = request(&policy, method, host, path);
        if !blind.starts_with('-') {
            prop_assert_eq!(&blind, &whole);
            prop_assert!(!needs(&policy, host, 443));
        }
        // What some request may do, a connection that is read may begin, and its name resolves.
        if !whole.starts_with('-') {
            prop_assert!(!inspected(&policy, host, "tls").starts_with('-'));
            let resolved = said(&policy, "resolve", json!({ "host": host }));
            prop_assert!(!resolved.starts_with('-'));
        }
    }

    /// The explanation's answer is the one the Guard would get, and its last step decided it.
    #[test]
    fn an_explanation_says_what_is_done(
        rules in rules(),
        host in prop::sample::select(vec!["a.example.com", "b.example.com", "x.b.example.com", "example.com"]),
        method in prop::sample::select(vec!["GET", "POST", "DELETE"]),
        path in prop::sample::select(vec!["/", "/a", "/a/b", "/c/d", "/A"]),
    ) {
        let policy = policy(NetworkLevel::Custom, rules);
        let told = policy.explain(&Place::parse(&format!("https://{host}{path}"), Some(method)).unwrap());
        let whole = request(&policy, method, host, path);
        prop_assert_eq!(told.verdict == Verdict::Deny, whole.starts_with('-'));
        let last = told.steps.last().unwrap();
        prop_assert!(last.decided && last.rule == told.rule, "{:?}", told);
        prop_assert_eq!(told.steps.iter().filter(|step| step.decided).count(), 1);
    }

    /// Laying an agent's rules over an environment never opens anything.
    #[test]
    fn an_agent_never_widens(rules in rules(), verdict in prop::sample::select(vec![RuleVerdict::Allow, RuleVerdict::Ask, RuleVerdict::Deny]), host in "(a|b)\\.example\\.com") {
        let environment = environment(NetworkLevel::Custom, rules);
        let own = Rule {
            id: "own".to_owned(),
            when: RuleMatch { host: Some("*".to_owned()), ..RuleMatch::default() },
            verdict,
            reason: String::new(),
        };
        let (plain, narrowed) = (with_agent(&environment, Vec::new()), with_agent(&environment, vec![own]));
        let rank = |answer: &str| "-?+".find(&answer[..1]).unwrap();
        for ask in [
            |policy: &Policy, host: &str| connect(policy, host, 443, "tls"),
            |policy: &Policy, host: &str| request(policy, "GET", host, "/a"),
        ] {
            prop_assert!(rank(&ask(&narrowed, &host)) <= rank(&ask(&plain, &host)));
        }
    }
}
