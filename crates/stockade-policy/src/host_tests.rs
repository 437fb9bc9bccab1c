use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    Host::parse(text)
        .unwrap_or_else(|e| panic!("{text:?}: {e}"))
        .to_string()
}

#[test]
fn spellings_of_a_name_are_one_name() {
    for text in [
        "example.com",
        "EXAMPLE.com",
        "Example.Com.",
        "example\u{3002}com",
        "\u{ff45}xample.com",
    ] {
        assert_eq!(canonical(text), "example.com", "{text:?}");
    }
    assert_eq!(canonical("bücher.example"), "xn--bcher-kva.example");
    assert_eq!(canonical("XN--BCHER-KVA.example"), "xn--bcher-kva.example");
    assert_eq!(canonical("localhost."), "localhost");
    assert_eq!(canonical("r3---sn-abc.example.com"), "r3---sn-abc.example.com");
}

#[test]
fn every_spelling_of_an_address_is_that_address() {
    for text in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7F.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "0x7f.0x0.0x0.0x1",
        "::ffff:127.0.0.1",
        "[::ffff:7f00:1]",
        "\u{ff11}27.0.0.1",
        "①27.0.0.1",
    ] {
        assert_eq!(canonical(text), "127.0.0.1", "{text:?}");
    }
    assert_eq!(canonical("[2001:DB8::1]"), "2001:db8::1");
    assert_eq!(canonical("0"), "0.0.0.0");
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let long_label = format!("{}.com", "a".repeat(64));
    let long_name = format!("{}com", "abcdefgh.".repeat(30));
    for text in [
        "",
        ".",
        "..",
        ".example.com",
        "example..com",
        "example.com..",
        "exa mple.com",
        "example.com\0.allowed.com",
        "evil.com\n",
        "user@example.com",
        "example.com/path",
        "example.com#x",
        "exam%70le.com",
        "example.com\\x",
        "_dmarc.example.com",
        "-a.example.com",
        "a-.example.com",
        "[127.0.0.1]",
        "[::1",
        "::1]",
        "[::1%eth0]",
        "fe80::1%1",
        "1.2.3.4.5",
        "1.2.3.256",
        "256.1.1.1",
        "4294967296",
        "08.1.1.1",
        "1.2.3.09",
        "example.0x1z.1",
        "a.b.99",
        "xn--a.com",
        "xn--.com",
        "a\u{ad}.",
        "*.example.com",
        "example.com:80",
        &long_label,
        &long_name,
        &"x".repeat(5000),
    ] {
        if text == "a\u{ad}." {
            // A soft hyphen vanishes in UTS #46; what is left is a plain name.
            assert_eq!(canonical(text), "a");
            continue;
        }
        assert!(Host::parse(text).is_err(), "{text:?} gave {:?}", Host::parse(text));
    }
}

#[test]
fn ports_are_split_off_in_one_way_only() {
    let read = |text: &str| host_and_port(text).map(|(host, port)| (host.to_string(), port)).ok();
    assert_eq!(read("Example.com:8080"), Some(("example.com".into(), Some(8080))));
    assert_eq!(read("example.com"), Some(("example.com".into(), None)));
    assert_eq!(read("[::1]:80"), Some(("::1".into(), Some(80))));
    assert_eq!(read("[::1]"), Some(("::1".into(), None)));
    for bad in [
        "example.com:",
        "example.com:0",
        "example.com:65536",
        "a:b:80",
        "::1",
        "[::1]80",
        "a@b:80",
        "a:+80",
        "[::1]x:80",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn below_means_at_least_one_more_label() {
    let name = |text: &str| Host::parse(text).unwrap().name().unwrap().clone();
    assert!(name("a.example.com").is_below("example.com"));
    assert!(name("a.b.example.com").is_below("example.com"));
    assert!(!name("example.com").is_below("example.com"));
    assert!(!name("evilexample.com").is_below("example.com"));
    assert!(!name("example.com.evil.com").is_below("example.com"));
}

proptest! {
    #[test]
    fn parsing_is_idempotent_and_never_panics(text in "\\PC{0,40}") {
        if let Ok(host) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(&host.to_string()).unwrap(), host);
        }
    }

    #[test]
    fn dots_hosts_and_digits_never_panic(text in "[0-9a-fA-FxX.:\\[\\]]{0,30}") {
        if let Ok(host) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(&host.to_string()).unwrap(), host);
        }
        let _ = host_and_port(&text);
    }

    #[test]
    fn case_and_the_root_dot_change_nothing(name in "[a-z]{1,9}(\\.[a-z]{1,9}){0,4}", flips in any::<u64>()) {
        let mixed: String = name
            .char_indices()
            .map(|(at, c)| if flips >> (at % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c })
            .collect();
        prop_assert_eq!(Host::parse(&format!("{mixed}.")).unwrap(), Host::parse(&name).unwrap());
    }

    #[test]
    fn an_address_in_any_radix_is_that_address(bits in any::<u32>(), shape in 0..5) {
        let [a, b, c, d] = bits.to_be_bytes();
        let text = match shape {
            0 => format!("{bits}"),
            1 => format!("{bits:#x}"),
            2 => format!("0{bits:o}"),
            3 => format!("{a:#x}.0{b:o}.{}", u16::from_be_bytes([c, d])),
            _ => format!("[::ffff:{a}.{b}.{c}.{d}]"),
        };
        prop_assert_eq!(Host::parse(&text).unwrap(), Host::Address(Ipv4Addr::from(bits).into()));
    }
}
