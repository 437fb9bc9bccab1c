use proptest::prelude::*;

use super::*;

fn class(text: &str) -> AddressClass {
    classify(text.parse().unwrap())
}

fn rules(ranges: &[&str]) -> AddressRules {
    let exceptions: Vec<_> = ranges
        .iter()
        .map(|cidr| AddressException {
            cidr: (*cidr).to_owned(),
            reason: "test".to_owned(),
        })
        .collect();
    AddressRules::compile(&exceptions).unwrap()
}

#[test]
fn every_special_range_has_its_class_at_both_ends() {
    use AddressClass::{
        Broadcast, CarrierNat, Documentation, LinkLocal, Loopback, Metadata, Multicast, Private, Public, Reserved,
        Synthetic, Translated, Unspecified,
    };
    for (text, expected) in [
        ("1.1.1.1", Public),
        ("9.255.255.255", Public),
        ("11.0.0.0", Public),
        ("0.0.0.0", Unspecified),
        ("0.0.0.1", Reserved),
        ("10.0.0.0", Private),
        ("10.255.255.255", Private),
        ("172.15.255.255", Public),
        ("172.16.0.0", Private),
        ("172.31.255.255", Private),
        ("172.32.0.0", Public),
        ("192.168.0.0", Private),
        ("192.169.0.0", Public),
        ("100.63.255.255", Public),
        ("100.64.0.0", CarrierNat),
        ("100.127.255.255", CarrierNat),
        ("100.128.0.0", Public),
        ("100.100.100.200", Metadata),
        ("127.0.0.1", Loopback),
        ("127.255.255.255", Loopback),
        ("169.254.0.1", LinkLocal),
        ("169.254.169.254", Metadata),
        ("169.254.170.2", Metadata),
        ("169.254.170.23", Metadata),
        ("169.254.42.42", Metadata),
        ("168.63.129.16", Metadata),
        ("192.0.0.192", Metadata),
        ("192.0.0.8", Reserved),
        ("192.0.2.1", Documentation),
        ("198.51.100.1", Documentation),
        ("203.0.113.255", Documentation),
        ("198.17.255.255", Public),
        ("198.18.0.0", Synthetic),
        ("198.19.255.255", Synthetic),
        ("198.20.0.0", Public),
        ("223.255.255.255", Public),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("240.0.0.1", Reserved),
        ("255.255.255.255", Broadcast),
        ("2606:4700::1111", Public),
        ("::", Unspecified),
        ("::1", Loopback),
        ("::ffff:10.0.0.1", Private),
        ("::ffff:8.8.8.8", Public),
        ("::10.0.0.1", Private),
        ("::8.8.8.8", Reserved),
        ("::ffff:0:127.0.0.1", Reserved),
        ("64:ff9b::8.8.8.8", Translated),
        ("64:ff9b::10.0.0.1", Translated),
        ("64:ff9b:1::1", Translated),
        ("2001:0:4136:e378::1", Translated),
        ("2002:7f00:1::", Translated),
        ("2001:db8::1", Documentation),
        ("3fff::1", Documentation),
        ("2001:10::1", Reserved),
        ("fc00::1", Private),
        ("fd12:3456::1", Private),
        ("fd00:ec2::254", Metadata),
        ("fd20:ce::254", Metadata),
        ("fd00:ec2::253", Metadata),
        ("fd00:42::42", Metadata),
        ("fe80::a9fe:a9fe", Metadata),
        ("2606:4700::5efe:10.0.0.1", Translated),
        ("2606:4700::200:5efe:8.8.8.8", Translated),
        ("fe80::1", LinkLocal),
        ("fec0::1", Private),
        ("ff02::1", Multicast),
        ("100::1", Reserved),
        ("4000::1", Reserved),
        ("5f00::1", Reserved),
    ] {
        assert_eq!(class(text), expected, "{text}");
    }
}

#[test]
fn an_exception_opens_its_range_and_nothing_else() {
    let rules = rules(&["10.20.0.0/16", "fd12::/32"]);
    for open in ["10.20.0.1", "::ffff:10.20.3.4", "fd12::1", "8.8.8.8"] {
        assert!(rules.judge(open.parse().unwrap()).is_reachable(), "{open}");
    }
    for closed in ["10.21.0.1", "192.168.0.1", "fd13::1", "127.0.0.1", "64:ff9b::10.20.0.1"] {
        assert!(!rules.judge(closed.parse().unwrap()).is_reachable(), "{closed}");
    }
}

#[test]
fn metadata_needs_an_exception_of_its_own() {
    let wide = rules(&["169.254.0.0/16"]);
    assert!(wide.judge("169.254.7.7".parse().unwrap()).is_reachable());
    assert!(!wide.judge("169.254.169.254".parse().unwrap()).is_reachable());
    let exact = rules(&["169.254.169.254/32"]);
    assert!(exact.judge("169.254.169.254".parse().unwrap()).is_reachable());
}

#[test]
fn nothing_opens_what_names_no_host() {
    let rules = rules(&["0.0.0.0/8", "224.0.0.0/8", "198.18.0.0/15", "255.0.0.0/8"]);
    for closed in ["0.0.0.0", "224.0.0.1", "198.18.0.7", "255.255.255.255"] {
        assert!(!rules.judge(closed.parse().unwrap()).is_reachable(), "{closed}");
    }
}

#[test]
fn an_open_translator_is_judged_by_what_lies_behind_it() {
    let rules = rules(&["64:ff9b::/96"]);
    assert!(rules.judge("64:ff9b::8.8.8.8".parse().unwrap()).is_reachable());
    assert!(!rules.judge("64:ff9b::10.0.0.1".parse().unwrap()).is_reachable());
    assert!(!rules.judge("64:ff9b::169.254.169.254".parse().unwrap()).is_reachable());
}

#[test]
fn a_wrong_exception_says_what_to_do() {
    let compile = |cidr: &str, reason: &str| {
        AddressRules::compile(&[AddressException {
            cidr: cidr.to_owned(),
            reason: reason.to_owned(),
        }])
        .map(|_| ())
    };
    assert!(compile("10.0.0.1/8", "x").unwrap_err().contains("10.0.0.0/8"));
    assert!(compile("0.0.0.0/0", "x").unwrap_err().contains("too wide"));
    assert!(compile("ten/8", "x").unwrap_err().contains("not an address range"));
    assert!(compile("10.0.0.0/8", " ").unwrap_err().contains("reason"));
    assert_eq!(compile("10.0.0.7", "x"), Ok(()));
}

proptest! {
    #[test]
    fn a_mapped_address_is_judged_like_the_one_in_it(bits in any::<u32>()) {
        let inner = Ipv4Addr::from(bits);
        prop_assert_eq!(classify(inner.to_ipv6_mapped().into()), classify(inner.into()));
    }

    #[test]
    fn no_embedding_makes_a_special_address_public(bits in any::<u32>(), head in 0..4) {
        let inner = Ipv4Addr::from(bits);
        let [a, b, c, d] = inner.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let outer = match head {
            0 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            1 => Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            2 => Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            _ => Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
        };
        prop_assert_ne!(classify(outer.into()), AddressClass::Public);
    }
}
