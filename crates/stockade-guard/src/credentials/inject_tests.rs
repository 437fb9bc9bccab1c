use super::*;

const VALUE: &[u8] = b"hunter2-hunter2";

fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn basic_kind() -> CredentialKind {
    CredentialKind::Basic {
        username: "robot".to_owned(),
    }
}

fn header(name: &str, prefix: &str) -> CredentialKind {
    CredentialKind::Header {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
    }
}

fn query() -> CredentialKind {
    CredentialKind::Query { name: "key".to_owned() }
}

fn github() -> CredentialKind {
    CredentialKind::GithubApp {
        app_id: "1".to_owned(),
        installation_id: 2,
        api_url: "https://api.github.com".to_owned(),
    }
}

fn injected(kind: &CredentialKind, mut head: Parts) -> Parts {
    put(kind, &Slot::of(kind), VALUE, &mut head).unwrap();
    head
}

#[test]
fn each_kind_has_its_form_and_replaces_what_the_client_sent() {
    let basic = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:hunter2-hunter2")));
    for (kind, path, name, expected) in [
        (
            CredentialKind::Bearer,
            "/",
            "authorization",
            "Bearer hunter2-hunter2".to_owned(),
        ),
        (basic_kind(), "/", "authorization", basic("robot")),
        (header("X-Key", ""), "/", "x-key", "hunter2-hunter2".to_owned()),
        (
            header("X-Key", "Token "),
            "/",
            "x-key",
            "Token hunter2-hunter2".to_owned(),
        ),
        (
            github(),
            "/repos/a/b",
            "authorization",
            "Bearer hunter2-hunter2".to_owned(),
        ),
        (github(), "/a/b.git/info/refs", "authorization", basic("x-access-token")),
        (
            github(),
            "/a/b.git/git-receive-pack",
            "authorization",
            basic("x-access-token"),
        ),
        (
            github(),
            "/a/b.git/info/lfs/objects/batch",
            "authorization",
            basic("x-access-token"),
        ),
    ] {
        for sent in [&[][..], &[(name, "what the client sent")]] {
            let head = injected(&kind, head(path, sent));
            let values: Vec<_> = head.headers.get_all(name).iter().collect();
            assert_eq!(values, [expected.as_str()], "{kind:?}");
            assert!(values[0].is_sensitive() && !format!("{head:?}").contains("hunter2"));
        }
    }
}

#[test]
fn a_parameter_is_replaced_or_added() {
    let mut odd = head("/p", &[]);
    put(&query(), &Slot::of(&query()), b"a&b=c d/\xff", &mut odd).unwrap();
    assert_eq!(odd.uri, "/p?key=a%26b%3Dc%20d%2F%FF");
    for (target, expected) in [
        ("/p", "/p?key=hunter2-hunter2"),
        ("/p?a=1&key=x&b", "/p?a=1&key=hunter2-hunter2&b"),
        ("/p?k%65y=x", "/p?key=hunter2-hunter2"),
        ("/p?keys=x", "/p?keys=x&key=hunter2-hunter2"),
        ("https://a.example/p?key", "https://a.example/p?key=hunter2-hunter2"),
    ] {
        assert_eq!(injected(&query(), head(target, &[])).uri, expected, "{target}");
    }
}

#[test]
fn the_answer_is_asked_for_whole_and_uncompressed() {
    let sent = [
        ("accept-encoding", "gzip, br"),
        ("range", "bytes=0-0"),
        ("if-range", "x"),
        ("accept", "*/*"),
    ];
    let head = injected(&CredentialKind::Bearer, head("/", &sent));
    assert_eq!(head.headers["accept-encoding"], "identity");
    let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-encoding", "authorization"]);
}

#[test]
fn values_that_cannot_stand_there_are_told_apart() {
    let refused = |value: &[u8]| {
        put(
            &CredentialKind::Bearer,
            &Slot::Header(AUTHORIZATION),
            value,
            &mut head("/", &[]),
        )
    };
    for (value, word) in [
        (&b"short"[..], "8 bytes"),
        (b"with-a-line-break\n", "line break"),
        (b"two\r\nX-Other: lines", "line break"),
        (b"not-ascii-\xc3\xa4", "no header can carry"),
        (b" begins-with-a-space", "no header can carry"),
    ] {
        assert!(refused(value).unwrap_err().contains(word), "{value:?}");
    }
    // In base64 and percent-encoded the same bytes are fine.
    for kind in [basic_kind(), query()] {
        put(&kind, &Slot::of(&kind), b"two\r\nlines-of-it", &mut head("/", &[])).unwrap();
    }
}

#[test]
fn only_its_own_placeholder_may_stand_where_the_secret_goes() {
    let (own, other) = (Placeholder::mint().unwrap(), Placeholder::mint().unwrap());
    let basic = |user: &str, text: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{text}")));
    let check = |kind: &CredentialKind, head: Parts| Slot::of(kind).check(&head, &own);
    let authorization = |value: String| check(&CredentialKind::Bearer, head("/", &[("authorization", &value)]));
    for fine in [
        "anything".to_owned(),
        format!("Bearer {}", own.as_str()),
        format!("token {}", own.as_str()),
        basic("x", own.as_str()),
        basic(own.as_str(), ""),
    ] {
        authorization(fine.clone()).unwrap_or_else(|fault| panic!("{fine}: {fault}"));
    }
    for wrong in [
        format!("Bearer {}", other.as_str()),
        format!("Bearer {}{}", own.as_str(), other.as_str()),
        format!("Bearer {}", &own.as_str()[..40]),
        basic("x", other.as_str()),
        basic(other.as_str(), own.as_str()),
        format!("Bearer {}", STANDARD.encode(other.as_str())),
    ] {
        let fault = authorization(wrong.clone()).expect_err(&wrong);
        assert_eq!(fault.code(), "credential_placeholder", "{wrong}");
        assert!(!fault.to_string().contains("stk-"), "{fault}");
    }
    let parameter = |text: &str| check(&query(), head(&format!("/p?key={text}&other=1"), &[]));
    parameter(own.as_str()).unwrap();
    parameter(&own.as_str().replace('-', "%2D")).unwrap();
    parameter(other.as_str()).unwrap_err();
    for (kind, head) in [
        (
            CredentialKind::Bearer,
            head("/", &[("authorization", "a"), ("authorization", "a")]),
        ),
        (query(), head("/p?key=a&key=a", &[])),
        (query(), head("/p?key=a&%6bey=b", &[])),
    ] {
        assert_eq!(check(&kind, head).unwrap_err().code(), "credential_several_values");
    }
}
