use stockade_policy::target::TargetForm;

use super::*;

fn read(head: &str) -> Result<String, Fault> {
    let target = connect_head(head.as_bytes(), 4096)?.expect("a whole head");
    assert_eq!(target.form, TargetForm::Authority);
    Ok(format!("{} {}", target.host, target.port))
}

#[test]
fn one_destination_is_read_from_one_connect() {
    for (head, expected) in [
        (
            "CONNECT a.example.com:443 HTTP/1.1\r\nHost: a.example.com:443\r\n\r\n",
            "a.example.com 443",
        ),
        (
            "CONNECT A.Example.COM.:443 HTTP/1.1\r\nhost: a.example.com\r\n\r\n",
            "a.example.com 443",
        ),
        ("CONNECT a.example.com:22 HTTP/1.0\r\n\r\n", "a.example.com 22"),
        (
            "CONNECT 0x7f.1:80 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n",
            "127.0.0.1 80",
        ),
        (
            "CONNECT [::ffff:10.0.0.1]:80 HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n",
            "10.0.0.1 80",
        ),
        (
            "CONNECT a.example.com:443 HTTP/1.1\r\nHost: a.example.com:443\r\nProxy-Authorization: Basic eA==\r\n\r\n",
            "a.example.com 443",
        ),
    ] {
        assert_eq!(read(head).as_deref(), Ok(expected), "{head}");
        for cut in 0..head.len() {
            assert_eq!(
                connect_head(&head.as_bytes()[..cut], 4096),
                Ok(None),
                "{head} cut at {cut}"
            );
        }
    }
}

#[test]
fn what_could_be_two_destinations_is_none() {
    use Fault::{AmbiguousLength, Disagreement, EarlyBytes, HeaderTooLarge, MalformedRequest, NoHost};
    let head = |target: &str, lines: &str| format!("CONNECT {target} HTTP/1.1\r\n{lines}\r\n\r\n");
    let own = "Host: a.example.com:443";
    let good = head("a.example.com:443", own);
    assert!(read(&good).is_ok());
    for (head, fault) in [
        (head("a.example.com", own), MalformedRequest),
        (head("a.example.com:", own), MalformedRequest),
        (head("a.example.com:0", own), MalformedRequest),
        (head("a.example.com:65536", own), MalformedRequest),
        (head("a.example.com:+443", own), MalformedRequest),
        (head("user@a.example.com:443", own), MalformedRequest),
        (head("https://a.example.com:443", own), MalformedRequest),
        (head("a.example.com:443/", own), MalformedRequest),
        (head("/", own), MalformedRequest),
        (head("*", own), MalformedRequest),
        (head("::1:443", own), MalformedRequest),
        (head("a.example.com:443:443", own), MalformedRequest),
        (head("a_b.example.com:443", own), MalformedRequest),
        (head("a.example.com%00:443", own), MalformedRequest),
        (head("b.example.com:443", own), Disagreement),
        (head("a.example.com:8443", own), Disagreement),
        (head("a.example.com:443", "x: y"), NoHost),
        (
            head(
                "a.example.com:443",
                "Host: a.example.com:443\r\nHost: a.example.com:443",
            ),
            NoHost,
        ),
        (head("a.example.com:443", "Host:"), MalformedRequest),
        (
            head("a.example.com:443", "Host: a.example.com:443\r\n folded"),
            MalformedRequest,
        ),
        (head("a.example.com:443", "Host : a.example.com:443"), MalformedRequest),
        (
            head("a.example.com:443", "Host: a.example.com:443\nx: y"),
            MalformedRequest,
        ),
        (
            head("a.example.com:443", "Host: a.example.com:443\r\nContent-Length: 0"),
            AmbiguousLength,
        ),
        (
            head(
                "a.example.com:443",
                "Host: a.example.com:443\r\nTransfer-Encoding: chunked",
            ),
            AmbiguousLength,
        ),
        (format!("{good}GET / HTTP/1.1\r\n"), EarlyBytes),
        (format!("{good}{good}"), EarlyBytes),
        (format!("{good}\u{16}\u{3}\u{1}"), EarlyBytes),
        (
            head("a.example.com:443", &format!("{own}\r\nx: {}", "y".repeat(5000))),
            HeaderTooLarge,
        ),
    ] {
        assert_eq!(read(&head), Err(fault), "{head}");
    }
}
