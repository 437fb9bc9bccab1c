use serde_json::json;
use stockade_domain::EgressRule;

use super::*;

fn lines(imported: &Imported) -> Vec<String> {
    let line = |rule: &EgressRule| {
        let verdict = format!("{:?}", rule.verdict).to_lowercase();
        format!(
            "{verdict} {} {} {}",
            rule.hosts.join(","),
            rule.methods.join("|"),
            rule.paths.join("|")
        )
        .trim_end()
        .to_owned()
    };
    imported.environment.egress.iter().map(line).collect()
}

fn acl() -> serde_json::Value {
    json!({
        "version": "v1",
        "services": [
            { "name": "builder", "project": "infra", "action": "enforce",
              "allowed_domains": ["pypi.org", "*.example.com", "read.example.com", "bad.example.org"],
              "mitm_domains": [{ "domain": "read.example.com", "add_headers": { "X": "y" }, "detailed_http_logs": true }] },
            { "name": "watched", "project": "infra", "action": "report", "allowed_domains": ["a.example.com"] },
            { "name": "free", "project": "infra", "action": "open" },
        ],
        "default": { "project": "other", "action": "enforce", "allowed_domains": ["default.example.com"] },
        "global_deny_list": ["bad.example.org"],
        "global_allow_list": ["every.example.net"],
    })
}

#[test]
fn a_smokescreen_role_becomes_an_environment() {
    let builder = smokescreen(&acl(), Some("builder")).unwrap();
    assert_eq!(
        lines(&builder),
        [
            "deny bad.example.org",
            "allow read.example.com",
            "allow pypi.org,*.example.com,bad.example.org",
            "allow every.example.net",
        ]
    );
    assert!(builder.environment.egress[1].inspect);
    assert_eq!(builder.environment.name, "builder");
    let notes = builder.notes.join("\n");
    for words in [
        "'bad.example.org'",
        "services[0].mitm_domains[0].add_headers",
        "80 and 443",
    ] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    let watched = smokescreen(&acl(), Some("watched")).unwrap();
    assert_eq!(watched.environment.network, NetworkLevel::Custom);
    assert!(
        watched.notes.iter().any(|note| note.contains("'report'")),
        "{:?}",
        watched.notes
    );
    let free = smokescreen(&acl(), Some("free")).unwrap();
    assert_eq!(free.environment.network, NetworkLevel::Full);
    assert!(!free.environment.acknowledge_full_network);
    let unknown = smokescreen(&acl(), Some("nobody")).unwrap();
    assert!(lines(&unknown).contains(&"allow default.example.com".to_owned()));
    let several = smokescreen(&acl(), None).unwrap_err().to_string();
    assert!(several.contains("--role") && several.contains("builder"), "{several}");
}

#[test]
fn what_is_not_known_is_refused_with_its_path() {
    let wrong = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut document = acl();
        change(&mut document);
        smokescreen(&document, Some("free")).unwrap_err().to_string()
    };
    for (words, error) in [
        (
            "services[0].alowed_domains: unknown",
            wrong(&|d| d["services"][0]["alowed_domains"] = json!([])),
        ),
        (
            "services[0].mitm_domains[0].body: unknown",
            wrong(&|d| d["services"][0]["mitm_domains"][0]["body"] = json!(1)),
        ),
        ("globals: unknown", wrong(&|d| d["globals"] = json!([]))),
        ("version: expected 'v1'", wrong(&|d| d["version"] = json!("v2"))),
        ("services: it is missing", wrong(&|d| d["services"] = json!(null))),
        (
            "services[2].action: expected",
            wrong(&|d| d["services"][2]["action"] = json!("allow")),
        ),
        (
            "global_deny_list[0]",
            wrong(&|d| d["global_deny_list"] = json!(["a.*.com"])),
        ),
        ("global_deny_list[0]", wrong(&|d| d["global_deny_list"] = json!(["*"]))),
        (
            "global_allow_list: expected a list",
            wrong(&|d| d["global_allow_list"] = json!("x")),
        ),
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let mut foreign = acl();
    foreign["services"][0]["mitm_domains"][0]["domain"] = json!("other.example.com");
    let error = smokescreen(&foreign, Some("builder")).unwrap_err().to_string();
    assert!(error.contains("services[0].mitm_domains[0].domain"), "{error}");
}

fn team(rules: serde_json::Value, default: &str) -> serde_json::Value {
    json!({
        "$schema": "https://schema.openenvelope.org/team/v1.json", "name": "Support", "slug": "support", "version": "1.0.0",
        "description": "d", "visibility": "private",
        "agents": [{ "key": "triage", "name": "T", "title": "T", "role": "r",
            "accessPolicy": { "accessPolicyVersion": "1", "defaultAction": default, "rules": rules } }],
    })
}

#[test]
fn an_access_policy_becomes_an_environment() {
    let rules = json!([
        { "host": "api.example.com", "methods": ["get"], "pathPrefix": "/v1", "action": "allow", "reason": "reads" },
        { "host": "api.example.com", "methods": ["POST"], "action": "require_approval" },
        { "host": "api.example.com", "action": "deny" },
        { "host": "bad.example.org", "action": "deny" },
        { "host": "*.example.org", "action": "allow" },
    ]);
    let imported = open_envelope(&team(rules, "deny"), None).unwrap();
    assert_eq!(
        lines(&imported),
        [
            "allow api.example.com GET /v1",
            "ask api.example.com POST",
            "deny bad.example.org",
            "allow *.example.org",
        ]
    );
    assert_eq!(imported.environment.name, "triage");
    assert_eq!(imported.environment.egress[0].reason, "reads");
    assert!(imported.notes[0].contains("require_approval"), "{:?}", imported.notes);
    let notes = imported.notes.join("\n");
    assert!(
        notes.contains("rules[2] (deny api.example.com) is left out") && notes.contains("whole segments"),
        "{notes}"
    );
}

#[test]
fn an_open_default_is_not_acknowledged_by_an_import() {
    let rules = json!([{ "host": "a.example.com", "action": "allow" }, { "host": "*.example.com", "action": "deny" }]);
    let imported = open_envelope(&team(rules, "allow"), Some("triage")).unwrap();
    assert_eq!(imported.environment.network, NetworkLevel::Full);
    assert!(!imported.environment.acknowledge_full_network);
    let notes = imported.notes.join("\n");
    assert!(
        notes.contains("acknowledge_full_network") && notes.contains("denial always wins"),
        "{notes}"
    );
}

#[test]
fn a_broken_team_is_refused_with_the_path() {
    let error =
        |document: &serde_json::Value, agent: Option<&str>| open_envelope(document, agent).unwrap_err().to_string();
    let rule = |rule: serde_json::Value| error(&team(json!([rule]), "deny"), None);
    let at = "agents[0].accessPolicy.rules[0]";
    for (words, error) in [
        (
            format!("{at}.methds: unknown"),
            rule(json!({ "host": "a.example.com", "methds": [], "action": "allow" })),
        ),
        (
            format!("{at}.action: it is missing"),
            rule(json!({ "host": "a.example.com" })),
        ),
        (
            format!("{at}.action: expected"),
            rule(json!({ "host": "a.example.com", "action": "ask" })),
        ),
        (format!("{at}.host:"), rule(json!({ "host": "a b", "action": "allow" }))),
        (
            format!("{at}.pathPrefix:"),
            rule(json!({ "host": "a.example.com", "pathPrefix": "/a/../b", "action": "allow" })),
        ),
        (
            "agents[0].accessPolicy.defaultAction".to_owned(),
            error(&team(json!([]), "maybe"), None),
        ),
        (
            "no agent 'x'; the team has: triage".to_owned(),
            error(&team(json!([]), "deny"), Some("x")),
        ),
        ("agents: it is missing".to_owned(), error(&json!({ "name": "x" }), None)),
        ("the document: expected fields".to_owned(), error(&json!([]), None)),
    ] {
        assert!(error.contains(&words), "{words}: {error}");
    }
    // A policy by itself is read as well; hosts in a list are allowed.
    let alone = json!({ "accessPolicyVersion": "1", "defaultAction": "deny", "rules": [{ "host": "a.example.com", "action": "allow" }] });
    assert_eq!(lines(&open_envelope(&alone, None).unwrap()), ["allow a.example.com"]);
    let mut listed = team(json!([]), "deny");
    let agent = listed["agents"][0].as_object_mut().unwrap();
    agent.remove("accessPolicy");
    agent.insert("allowedHosts".to_owned(), json!(["a.example.com", "*.b.example.com"]));
    assert_eq!(
        lines(&open_envelope(&listed, None).unwrap()),
        ["allow a.example.com,*.b.example.com"]
    );
}
