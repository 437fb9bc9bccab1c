use stockade_domain::CredentialKind;

use super::*;

fn binding(hosts: &[&str], methods: &[&str], paths: &[&str]) -> CredentialBinding {
    let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
    let binding = CredentialBinding {
        secret: "token".parse().unwrap(),
        kind: CredentialKind::Bearer,
        hosts: owned(hosts),
        methods: owned(methods),
        paths: owned(paths),
        env: None,
    };
    binding.check().unwrap();
    binding
}

fn covered(binding: &CredentialBinding, method: &str, url: &str) -> bool {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_at(rest.find('/').unwrap());
    let (host, port) = stockade_policy::host_and_port(authority).unwrap();
    let tls = scheme == "https";
    let to = Destination {
        host: &host,
        port: port.unwrap_or(if tls { 443 } else { 80 }),
        tls,
    };
    Coverage::of(binding)
        .unwrap()
        .covers(to, &method.parse().unwrap(), path)
}

#[test]
fn hosts_are_exact_or_below_a_wildcard_on_their_port_over_tls() {
    let exact = binding(&["api.example.com"], &[], &[]);
    let below = binding(&["*.example.com", "git.example.net:8443"], &[], &[]);
    for (url, by_exact, by_below) in [
        ("https://api.example.com/", true, true),
        ("https://API.Example.com./", true, true),
        ("https://a.api.example.com/", false, true),
        ("https://example.com/", false, false),
        ("https://xexample.com/", false, false),
        ("https://api.example.com.evil.net/", false, false),
        ("https://api.example.com:8443/", false, false),
        ("http://api.example.com/", false, false),
        ("http://api.example.com:443/", false, false),
        ("https://git.example.net:8443/", false, true),
        ("https://git.example.net/", false, false),
        ("https://10.0.0.1/", false, false),
    ] {
        assert_eq!(covered(&exact, "GET", url), by_exact, "{url}");
        assert_eq!(covered(&below, "GET", url), by_below, "{url}");
    }
}

#[test]
fn methods_are_those_named_and_never_trace() {
    let any = binding(&["a.example.com"], &[], &[]);
    let some = binding(&["a.example.com"], &["GET", "HEAD"], &[]);
    for (method, by_any, by_some) in [
        ("GET", true, true),
        ("HEAD", true, true),
        ("POST", true, false),
        ("PROPFIND", true, false),
        ("get", true, false),
        ("TRACE", false, false),
        ("CONNECT", false, false),
    ] {
        assert_eq!(covered(&any, method, "https://a.example.com/"), by_any, "{method}");
        assert_eq!(covered(&some, method, "https://a.example.com/"), by_some, "{method}");
    }
}

#[test]
fn paths_are_compared_by_segments_and_lead_nowhere_else() {
    let repos = binding(&["a.example.com"], &[], &["/repos/acme/", "/user"]);
    for (path, expected) in [
        ("/repos/acme", true),
        ("/repos/acme/", true),
        ("/repos/acme/x?y=../..", true),
        ("/repos/%61cme/x", true),
        ("/repos/acme/contents/a%2Fb", true),
        ("/user", true),
        ("/user/keys", true),
        ("/users", false),
        ("/repos/acmes", false),
        ("/repos", false),
        ("/Repos/acme", false),
        ("/", false),
        ("//repos/acme", false),
        ("/repos//acme", false),
        ("/repos%2Facme/x", false),
        ("/repos/acme/../other", false),
        ("/repos/acme/%2e%2E/other", false),
        ("/repos/acme/.%2e/other", false),
        ("/repos/acme/%252e%252e/other", false),
        ("/repos/acme/%25252e%25252e/other", false),
        ("/repos/acme/x%2f..%2f..%2fother", false),
        ("/repos/acme/x%5c..%5cother", false),
        ("/repos/acme/..;a=b/other", false),
        ("/repos/acme/./x", false),
        ("/repos/acme/x%00", false),
    ] {
        let url = format!("https://a.example.com{path}");
        let (path, _) = url.split_once('?').unwrap_or((&url, ""));
        assert_eq!(covered(&repos, "GET", path), expected, "{path}");
    }
    // Without paths every one is covered, whatever it says.
    let any = binding(&["a.example.com"], &[], &[]);
    assert!(covered(&any, "GET", "https://a.example.com/@scope%2fname/../x"));
    let root = binding(&["a.example.com"], &[], &["/"]);
    assert!(covered(&root, "GET", "https://a.example.com/x"));
}

#[test]
fn a_binding_that_no_rule_could_name_is_refused() {
    for host in ["localhost", "*.internal", "metadata.google.internal"] {
        let mut broken = binding(&["a.example.com"], &[], &[]);
        broken.hosts = vec![host.to_owned()];
        assert!(
            matches!(Coverage::of(&broken), Err(CredentialFault::Binding { .. })),
            "{host}"
        );
    }
}
