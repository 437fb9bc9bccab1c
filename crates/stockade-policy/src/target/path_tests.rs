use proptest::prelude::*;

use super::*;

fn path(text: &str) -> RequestPath {
    RequestPath::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn prefix(text: &str) -> PathPrefix {
    PathPrefix::parse(text).unwrap()
}

#[test]
fn spellings_of_a_path_are_one_path() {
    for (text, canonical) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/%61/%7e%2D%5f", "/a/~-_"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a[1]{x}|\"<>^`", "/a%5B1%5D%7Bx%7D%7C%22%3C%3E%5E%60"),
        ("/a%5B1%5d", "/a%5B1%5D"),
        ("/a%3f%23%26", "/a%3F%23%26"),
        ("/@scope/name:x!$&'()*+,;=", "/@scope/name:x!$&'()*+,;="),
        ("/100%25", "/100%25"),
        ("/a/...", "/a/..."),
        ("/.well-known/x", "/.well-known/x"),
    ] {
        assert_eq!(path(text).as_str(), canonical, "{text}");
        assert_eq!(path(text).doubt(), None, "{text}");
    }
}

#[test]
fn what_servers_read_differently_is_remembered() {
    for (text, doubt) in [
        ("/a/../b", Doubt::DotSegment),
        ("/a/.", Doubt::DotSegment),
        ("/..", Doubt::DotSegment),
        ("/a/%2e%2E/b", Doubt::DotSegment),
        ("/a/.%2e/b", Doubt::DotSegment),
        ("/a/..;x=1/b", Doubt::DotSegment),
        ("/a/..%3bx/b", Doubt::DotSegment),
        ("/a%2fb", Doubt::Separator),
        ("/a%2Fb", Doubt::Separator),
        ("/a%5cb", Doubt::Separator),
        ("/a\\b", Doubt::Separator),
        ("/a%252fb", Doubt::DoubleEscape),
        ("/%25%32%65", Doubt::DoubleEscape),
        ("/a%00b", Doubt::Bytes),
        ("/a%0d%0ab", Doubt::Bytes),
        ("/a%7f", Doubt::Bytes),
        ("/a%c0%af", Doubt::Bytes),
        ("/%ff", Doubt::Bytes),
        ("/a%ef%bc%8fb", Doubt::LookAlike),
        ("/%ef%bc%8e%ef%bc%8e/b", Doubt::LookAlike),
        ("/%e2%80%a5/b", Doubt::LookAlike),
    ] {
        assert_eq!(path(text).doubt(), Some(doubt), "{text}");
    }
}

#[test]
fn what_is_no_path_is_refused() {
    for (text, error) in [
        ("", PathError::Start),
        ("a", PathError::Start),
        ("*", PathError::Start),
        ("/a b", PathError::Character { at: 2, character: ' ' }),
        ("/a#b", PathError::Character { at: 2, character: '#' }),
        ("/a\r\nX", PathError::Character { at: 2, character: '\r' }),
        ("/a\0", PathError::Character { at: 2, character: '\0' }),
        (
            "/\u{e9}",
            PathError::Character {
                at: 1,
                character: '\u{e9}',
            },
        ),
        ("/%", PathError::Escape { at: 1 }),
        ("/%4", PathError::Escape { at: 1 }),
        ("/%zz", PathError::Escape { at: 1 }),
        ("/%+1", PathError::Escape { at: 1 }),
        ("/%u002f", PathError::Escape { at: 1 }),
    ] {
        assert_eq!(RequestPath::parse(text), Err(error), "{text:?}");
    }
    assert_eq!(
        RequestPath::parse(&format!("/{}", "a".repeat(LONGEST))),
        Err(PathError::TooLong)
    );
}

#[test]
fn a_prefix_covers_whole_segments() {
    let within = |text: &str, of: &str| path(text).is_within(&prefix(of));
    for (text, of) in [
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/a/b", "/a"),
        ("/a/b", "/a/"),
        ("/a/b/c", "/a/b"),
        ("/x", "/"),
        ("/", "/"),
        ("/%61/b", "/a"),
    ] {
        assert!(within(text, of), "{text} {of}");
    }
    for (text, of) in [
        ("/ab", "/a"),
        ("/A", "/a"),
        ("/a;x", "/a"),
        ("//a", "/a"),
        ("/a", "/a/"),
        ("/a/c", "/a/b"),
        ("/", "/a"),
        ("/a//b", "/a/b"),
    ] {
        assert!(!within(text, of), "{text} {of}");
    }
}

#[test]
fn a_denial_covers_what_a_lenient_server_takes_for_the_path() {
    let may = |text: &str, of: &str| path(text).may_be_within(&prefix(of));
    for (text, of) in [
        ("/admin", "/admin"),
        ("/ADMIN/x", "/admin"),
        ("//admin", "/admin"),
        ("/a//b", "/a/b"),
        ("/admin;x=1/y", "/admin"),
        ("/admin%3bx", "/admin"),
        ("/a/b", "/a/"),
        ("/;/admin", "/admin"),
    ] {
        assert!(may(text, of), "{text} {of}");
    }
    for (text, of) in [("/administrator", "/admin"), ("/x/admin", "/admin"), ("/", "/admin")] {
        assert!(!may(text, of), "{text} {of}");
    }
}

#[test]
fn a_rules_path_must_be_clear() {
    for bad in [
        "", "a", "/a*", "/a?x", "/a/../b", "/a%2fb", "/a//b", "/a;b", "/a b", "//",
    ] {
        assert!(PathPrefix::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(prefix("/%7Euser").as_str(), "/~user");
}

proptest! {
    #[test]
    fn reading_is_idempotent_and_never_panics(text in "/\\PC{0,40}|/[%0-9a-fA-F./;\\\\]{0,40}") {
        if let Ok(read) = RequestPath::parse(&text) {
            let again = RequestPath::parse(read.as_str()).unwrap();
            prop_assert_eq!(again.as_str(), read.as_str());
        }
    }

    /// However a clear path escapes its letters, it is within the same prefixes.
    #[test]
    fn escapes_change_nothing(segments in prop::collection::vec("[a-z~_-]{1,6}", 1..5), mask in any::<u32>()) {
        let plain = format!("/{}", segments.join("/"));
        let escaped: String = plain
            .char_indices()
            .map(|(at, c)| if c != '/' && mask >> (at % 32) & 1 == 1 { format!("%{:02x}", u32::from(c)) } else { c.to_string() })
            .collect();
        prop_assert_eq!(path(&escaped), path(&plain));
        let of = prefix(&format!("/{}", segments[0]));
        prop_assert!(path(&escaped).is_within(&of) && path(&escaped).may_be_within(&of));
    }

    /// What is strictly within is also loosely within: a denial never covers less than a permission.
    #[test]
    fn a_denial_covers_at_least_what_a_permission_does(text in "/[a-cA-C/;.%0-9]{0,16}", of in "/[a-c]{1,2}(/[a-c]{1,2})?") {
        if let Ok(read) = RequestPath::parse(&text) {
            let of = prefix(&of);
            prop_assert!(!read.is_within(&of) || read.may_be_within(&of));
        }
    }
}

#[test]
fn an_escaped_separator_is_within_only_in_both_readings() {
    let prefix = PathPrefix::parse("/repos/acme").unwrap();
    for (path, expected) in [
        ("/repos/acme", true),
        ("/repos/acme/a%2Fb", true),
        ("/repos/acme/a%5cb", true),
        ("/repos%2Facme/x", false),
        ("/repos/acme%2Fx", false),
        ("/repos/acme/x%2f..%2f..%2fother", false),
        ("/repos/acme/x%5c..%5cother", false),
        ("/repos/acme/x%2f%252e", false),
        ("/repos/acme/%2e%2e/x", false),
        ("/repos/acme/x%00", false),
    ] {
        assert_eq!(
            RequestPath::parse(path).unwrap().is_surely_within(&prefix),
            expected,
            "{path}"
        );
    }
}
