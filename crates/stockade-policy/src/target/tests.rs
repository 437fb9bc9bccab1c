use proptest::prelude::*;

use super::*;

fn url(text: &str) -> Result<String, TargetError> {
    RequestTarget::url(text).map(|target| target.to_string())
}

fn http1(method: &str, target: &str, hosts: &[&str]) -> Result<String, TargetError> {
    let request = Http1Target {
        scheme: Scheme::Http,
        method,
        target,
        hosts,
    };
    RequestTarget::http1(&request).map(|target| target.to_string())
}

#[test]
fn spellings_of_a_url_are_one_url() {
    for text in [
        "https://api.example.com/a?x=1",
        "HTTPS://API.Example.COM:443/a?x=1",
        "https://api.example.com./%61?x=1",
        "https://api.example\u{3002}com/a?x=1",
    ] {
        assert_eq!(url(text).unwrap(), "https://api.example.com/a?x=1", "{text}");
    }
    assert_eq!(url("http://a.example.com").unwrap(), "http://a.example.com/");
    assert_eq!(url("http://a.example.com?x").unwrap(), "http://a.example.com/?x");
    assert_eq!(url("https://a.example.com:80/").unwrap(), "https://a.example.com:80/");
    assert_eq!(url("http://0x7f.1/").unwrap(), "http://127.0.0.1/");
    assert_eq!(url("http://[::ffff:7f00:1]:81/").unwrap(), "http://127.0.0.1:81/");
    assert_eq!(url("http://[2001:DB8::1]/").unwrap(), "http://[2001:db8::1]/");
}

#[test]
fn a_bad_url_says_what_is_wrong() {
    for (text, words) in [
        ("api.example.com/a", "whole URL"),
        ("", "whole URL"),
        ("ftp://a.example.com/", "'ftp'"),
        ("https:/a.example.com", "whole URL"),
        ("https://", "empty"),
        ("https:///a", "empty"),
        ("https://user@a.example.com/", "user name"),
        ("https://a.example.com@evil.example/", "user name"),
        ("https://a.example.com/#x", "never sent"),
        ("https://a.example.com:0/", "no port"),
        ("https://a.example.com:65536/", "no port"),
        ("https://a.example.com:+80/", "no port"),
        ("https://a.example.com:/", "no port"),
        ("https://a:b:80/", "brackets"),
        ("https://::1/", "brackets"),
        ("https://[::1/", "host"),
        ("https://[::1%25eth0]/", "address"),
        ("https://a b/", "cannot contain"),
        ("https://a%2eexample.com/", "cannot contain"),
        ("https://a.example.com\\@b.example/", "valid path"),
        ("https://1.2.3.4.5/", "address"),
        ("https://a.example.com/a b", "' '"),
        ("https://a.example.com/?a b", "' '"),
        ("https://a.example.com/%zz", "begins no escape"),
    ] {
        let error = url(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn the_four_forms_of_http1() {
    assert_eq!(
        http1("GET", "/a?b", &["A.example.com"]).unwrap(),
        "http://a.example.com/a?b"
    );
    assert_eq!(
        http1("GET", "http://a.example.com/a", &["a.example.com:80"]).unwrap(),
        "http://a.example.com/a"
    );
    assert_eq!(
        http1("OPTIONS", "*", &["a.example.com"]).unwrap(),
        "http://a.example.com*"
    );
    assert_eq!(
        http1("CONNECT", "a.example.com:443", &["a.example.com:443"]).unwrap(),
        "http://a.example.com:443/"
    );
    assert_eq!(
        http1("CONNECT", "a.example.com:443", &["a.example.com"]).unwrap(),
        "http://a.example.com:443/"
    );
}

#[test]
fn names_that_disagree_are_a_refusal_of_their_own() {
    let disagree = |error: TargetError| {
        matches!(error, TargetError::Disagree { .. }) && error.fault() == crate::Fault::Disagreement
    };
    for (method, target, host) in [
        ("GET", "http://a.example.com/", "b.example.com"),
        ("GET", "http://a.example.com/", "a.example.com:81"),
        ("GET", "http://a.example.com:81/", "a.example.com"),
        ("CONNECT", "a.example.com:443", "b.example.com:443"),
        ("CONNECT", "a.example.com:443", "a.example.com:444"),
    ] {
        assert!(
            disagree(http1(method, target, &[host]).unwrap_err()),
            "{method} {target} {host}"
        );
    }
    assert_eq!(
        http1("GET", "https://a.example.com/", &["a.example.com"]),
        Err(TargetError::OtherScheme)
    );
}

#[test]
fn hostile_requests_are_refused() {
    assert_eq!(http1("GET", "/", &[]), Err(TargetError::NoHost));
    assert_eq!(
        http1("GET", "/", &["a.example.com", "a.example.com"]),
        Err(TargetError::ManyHosts)
    );
    for (method, target, host) in [
        ("GET", "*", "a.example.com"),
        ("GET", "a.example.com:80", "a.example.com"),
        ("GET", "a", "a.example.com"),
        ("GET", "", "a.example.com"),
        ("CONNECT", "/", "a.example.com"),
        ("CONNECT", "a.example.com", "a.example.com"),
        ("CONNECT", "http://a.example.com/", "a.example.com"),
        ("GET", "/", ""),
        ("GET", "/", "a.example.com,b.example.com"),
        ("GET", "/", "a.example.com b.example.com"),
        ("GET", "/", "a.example.com@b.example.com"),
        ("GET", "/", "a.example.com/"),
        ("GET", "/", "a.example.com:"),
        ("GET", "/", "\u{0}a.example.com"),
        ("GET", "http://a.example.com@b.example.com/", "b.example.com"),
        ("GET", "http:///x", "a.example.com"),
        ("GET", "/a\tb", "a.example.com"),
        ("GET", "/\u{7f}", "a.example.com"),
    ] {
        let read = http1(method, target, &[host]);
        assert!(read.is_err(), "{method} {target:?} {host:?} was read as {read:?}");
    }
}

#[test]
fn http2_names_its_host_once() {
    let read = |method: &str, scheme: Option<&str>, authority: Option<&str>, path: Option<&str>, hosts: &[&str]| {
        let request = Http2Target {
            connection: Scheme::Https,
            method,
            scheme,
            authority,
            path,
            hosts,
        };
        RequestTarget::http2(&request).map(|target| target.to_string())
    };
    let plain = read("GET", Some("https"), Some("A.example.com:443"), Some("/x"), &[]);
    assert_eq!(plain.unwrap(), "https://a.example.com/x");
    let same = read(
        "GET",
        Some("https"),
        Some("a.example.com"),
        Some("/x"),
        &["a.example.com"],
    );
    assert_eq!(same.unwrap(), "https://a.example.com/x");
    let connect = read("CONNECT", None, Some("a.example.com:22"), None, &[]);
    assert_eq!(connect.unwrap(), "https://a.example.com:22/");
    let web_socket = read("CONNECT", Some("https"), Some("a.example.com"), Some("/chat"), &[]);
    assert_eq!(web_socket.unwrap(), "https://a.example.com/chat");
    let host = Some("a.example.com");
    for (given, expected) in [
        (
            read("GET", Some("https"), None, Some("/"), &["a.example.com"]),
            TargetError::NoHost,
        ),
        (
            read("GET", Some("https"), Some(""), Some("/"), &[]),
            TargetError::NoHost,
        ),
        (read("GET", None, host, Some("/"), &[]), TargetError::NoScheme),
        (
            read("GET", Some("http"), host, Some("/"), &[]),
            TargetError::OtherScheme,
        ),
        (
            read(
                "GET",
                Some("https"),
                host,
                Some("/"),
                &["a.example.com", "a.example.com"],
            ),
            TargetError::ManyHosts,
        ),
        (
            read("GET", Some("https"), host, None, &[]),
            TargetError::Form(String::new()),
        ),
        (
            read("GET", Some("https"), host, Some("x"), &[]),
            TargetError::Form("x".into()),
        ),
        (
            read("GET", Some("https"), host, Some("*"), &[]),
            TargetError::Form("*".into()),
        ),
        (read("CONNECT", None, host, None, &[]), TargetError::NoPort),
    ] {
        assert_eq!(given, Err(expected));
    }
    let other = read("GET", Some("https"), host, Some("/"), &["b.example.com"]);
    assert!(matches!(other, Err(TargetError::Disagree { .. })), "{other:?}");
}

proptest! {
    #[test]
    fn urls_are_read_once_and_for_all(text in "https?://\\PC{0,40}|https?://[a-c.:@/?#%\\[\\]\\\\0-9]{0,24}") {
        if let Ok(read) = RequestTarget::url(&text) {
            let again = RequestTarget::url(&read.to_string());
            prop_assert_eq!(again.map(|target| target.to_string()), Ok(read.to_string()));
        }
    }

    /// Whatever a request says, it passes for a host only if every name in it is that host.
    #[test]
    fn every_name_is_the_same_name(target in "(http://)?[ab.:@/\\\\0-9]{0,12}", host in "[abAB.:@,/ ]{0,8}") {
        if let Ok(read) = RequestTarget::http1(&Http1Target { scheme: Scheme::Http, method: "GET", target: &target, hosts: &[&host] }) {
            let (named, _) = host_and_port(&host).unwrap();
            prop_assert_eq!(&read.host, &named);
            if let Some(rest) = target.strip_prefix("http://") {
                let authority = rest.split(['/', '?', '\\']).next().unwrap_or_default();
                prop_assert_eq!(host_and_port(authority).unwrap().0, named);
            }
        }
    }
}
