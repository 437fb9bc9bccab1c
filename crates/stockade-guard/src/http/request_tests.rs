use super::*;

fn pin() -> Pin {
    Pin::plain(Host::parse("a.example.com").unwrap(), 80)
}

fn request(target: &str, hosts: &[&str]) -> Request<()> {
    let mut request = Request::builder().uri(target);
    for host in hosts {
        request = request.header(HOST, *host);
    }
    request.body(()).unwrap()
}

#[test]
fn names_that_agree_pass() {
    for (target, host) in [
        ("/", "a.example.com"),
        ("/x?y", "A.Example.com.:80"),
        ("http://a.example.com/x", "a.example.com"),
        ("http://A.example.com:80/x", "a.example.com:80"),
    ] {
        let read = check(&request(target, &[host]), &pin()).unwrap();
        assert_eq!(
            authority(&read.host, Some(read.port)),
            "a.example.com:80",
            "{target} {host}"
        );
    }
    let mut all = request("*", &["a.example.com"]);
    assert_eq!(check(&all, &pin()), Err(Stray::Fault(Fault::MalformedRequest)));
    *all.method_mut() = Method::OPTIONS;
    assert!(check(&all, &pin()).is_ok());
}

#[test]
fn any_other_name_anywhere_is_seen() {
    for (target, host) in [
        ("/", "b.example.com"),
        ("/", "a.example.com:8080"),
        ("/", "a.example.com b.example.com"),
        ("/", "a.example.com,b.example.com"),
        ("/", "b.example.com@a.example.com"),
        ("/", ""),
        ("http://b.example.com/", "a.example.com"),
        ("http://a.example.com:81/", "a.example.com"),
        ("http://a.example.com@b.example.com/", "a.example.com"),
        ("http://b.example.com@a.example.com/", "a.example.com"),
        ("http://a.example.com/", "b.example.com"),
    ] {
        let seen = check(&request(target, &[host]), &pin());
        assert!(
            matches!(seen, Err(Stray::Elsewhere { .. })),
            "{target} {host}: {seen:?}"
        );
    }
    let https = check(&request("https://a.example.com/", &["a.example.com"]), &pin());
    assert_eq!(https, Err(Stray::Fault(Fault::MalformedRequest)));
    assert_eq!(check(&request("/", &[]), &pin()), Err(Stray::Fault(Fault::NoHost)));
    let two = request("/", &["a.example.com", "a.example.com"]);
    assert_eq!(check(&two, &pin()), Err(Stray::Fault(Fault::NoHost)));
}

#[test]
fn what_goes_out_is_in_origin_form_and_for_the_last_hop() {
    let mut request = request("http://a.example.com/x?y=1", &["a.example.com"]);
    let headers = request.headers_mut();
    headers.insert(CONNECTION, "keep-alive, X-Own, host, Content-Length".parse().unwrap());
    headers.insert("x-own", "1".parse().unwrap());
    headers.insert(CONTENT_LENGTH, "4".parse().unwrap());
    headers.insert("x-kept", "1".parse().unwrap());
    headers.insert(UPGRADE, "websocket".parse().unwrap());
    let to = check(&request, &pin()).unwrap();
    outward(&mut request, &to, Alpn::Http1, false);
    assert_eq!(request.uri().to_string(), "/x?y=1");
    let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["host", "x-kept", "content-length"]);
}

#[test]
fn a_host_goes_out_in_one_spelling() {
    for (host, expected) in [
        ("A.Example.COM.", "a.example.com"),
        ("a.example.com:80", "a.example.com:80"),
    ] {
        let mut request = request("/", &[host]);
        let to = check(&request, &pin()).unwrap();
        outward(&mut request, &to, Alpn::Http1, false);
        assert_eq!(request.headers()[HOST], expected);
    }
}

#[test]
fn trailers_are_still_taken_after_a_hop() {
    let mut request = request("/", &["a.example.com"]);
    request.headers_mut().insert(TE, "gzip, trailers".parse().unwrap());
    let to = check(&request, &pin()).unwrap();
    outward(&mut request, &to, Alpn::Http1, false);
    assert_eq!(request.headers()[TE], "trailers");
    assert_eq!(request.headers()[CONNECTION], "te");
}

#[test]
fn http2_has_its_authority_in_the_target() {
    let pin = Pin::secure(Host::parse("a.example.com").unwrap(), 443);
    let http2 = |target: &str, hosts: &[&str]| {
        let mut request = request(target, hosts);
        *request.version_mut() = Version::HTTP_2;
        request
    };
    let good = [
        http2("https://a.example.com/x", &[]),
        http2("https://A.example.com.:443/x", &["a.example.com"]),
    ];
    for mut request in good {
        let to = check(&request, &pin).unwrap();
        outward(&mut request, &to, Alpn::Http2, false);
        assert_eq!(request.uri().to_string(), "https://a.example.com/x");
        assert!(request.headers().is_empty());
    }
    let stray = |target: &str, hosts: &[&str]| check(&http2(target, hosts), &pin).unwrap_err();
    let named = |stray: Stray| match stray {
        Stray::Elsewhere { named, .. } => named,
        Stray::Fault(fault) => panic!("{fault:?}"),
    };
    for (target, host) in [
        ("https://b.example.com/", "a.example.com"),
        ("https://a.example.com/", "b.example.com"),
    ] {
        assert_eq!(named(stray(target, &[host])), "b.example.com:443");
    }
    for (target, hosts, fault) in [
        (
            "https://a.example.com/",
            &["a.example.com", "a.example.com"][..],
            Fault::NoHost,
        ),
        ("/", &["a.example.com"], Fault::NoHost),
        ("http://a.example.com/", &[], Fault::MalformedRequest),
    ] {
        assert_eq!(stray(target, hosts), Stray::Fault(fault), "{target}");
    }
}

#[test]
fn a_request_that_is_for_one_other_place_says_which() {
    let Err(Stray::Elsewhere { named, target }) = check(&request("/x", &["B.example.com:80"]), &pin()) else {
        panic!("it is for another place")
    };
    assert_eq!(named, "B.example.com:80");
    assert_eq!(target.unwrap().to_string(), "http://b.example.com/x");
    let two = check(&request("http://b.example.com/", &["c.example.com"]), &pin());
    assert!(matches!(two, Err(Stray::Elsewhere { target: None, .. })), "{two:?}");
}
