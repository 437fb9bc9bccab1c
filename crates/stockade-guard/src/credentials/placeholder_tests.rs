use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use proptest::prelude::*;

use super::*;

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

fn hex(text: &str) -> String {
    text.bytes().map(|b| format!("{b:02x}")).collect()
}

/// Every form that is promised, and some that clients combine.
fn forms(text: &str) -> Vec<String> {
    let shifted = |before: &str| STANDARD.encode(format!("{before}{text}:x"));
    vec![
        text.to_owned(),
        text.to_uppercase(),
        percent(text),
        percent(text).to_lowercase(),
        percent(&percent(text)),
        text.replace('-', "%2d"),
        text.replace('s', "\\u0073"),
        hex(text),
        hex(text).to_uppercase(),
        percent(&hex(text)),
        shifted(""),
        shifted("u"),
        shifted("us"),
        shifted("use"),
        percent(&shifted("x-access-token:")),
        URL_SAFE_NO_PAD.encode(format!("??>{text}")),
        format!("Basic {}", shifted("robot:")),
        shifted("u").chars().flat_map(|c| [c, '\r', '\n']).collect(),
    ]
}

#[test]
fn placeholders_are_random_and_recognisable() {
    let (one, other) = (Placeholder::mint().unwrap(), Placeholder::mint().unwrap());
    assert_ne!(one, other);
    assert!(one.as_str().starts_with("stk-placeholder-") && one.as_str().len() == 48);
    assert_eq!(one.removed_from(format!("a{0}b{0}", one.as_str()).as_bytes()), b"ab");
}

/// Both alphabets (RFC 4648, sections 4 and 5) spell the marker alike, so one search serves both.
#[test]
fn the_marker_is_the_same_in_both_alphabets() {
    for shift in 0..3 {
        let core = base64_core(MARKER.as_bytes(), shift);
        assert!(core.iter().all(u8::is_ascii_alphanumeric), "{core:?}");
    }
}

#[test]
fn every_form_is_found_and_nothing_else() {
    let placeholder = Placeholder::mint().unwrap();
    for form in forms(placeholder.as_str()) {
        assert!(holds(form.as_bytes()), "{form}");
        assert!(holds(format!("x={form}&y").as_bytes()), "{form}");
    }
    for other in [
        "",
        "stk-placeholder",
        "stk_placeholder-00",
        "a%",
        "%zz",
        "\\",
        "\\u00",
        &"A".repeat(4000),
    ] {
        assert!(!holds(other.as_bytes()), "{other}");
    }
}

#[test]
fn a_body_is_searched_up_to_its_limit() {
    let placeholder = Placeholder::mint().unwrap();
    let filler = vec![b'a'; 1000];
    let refused = |limit| {
        let mut scan = BodyScan::new(limit);
        scan.push(&filler)
            .and_then(|()| scan.push(placeholder.as_str().as_bytes()))
    };
    let fault = refused(2000).unwrap_err();
    assert!(matches!(fault, CredentialFault::Placeholder(Place::Body)), "{fault}");
    assert!(refused(1000).is_ok(), "beyond the limit nobody looks");
}

proptest! {
    /// However a body is cut, a placeholder in it is found in every form, at the latest with the chunk that ends it.
    #[test]
    fn cuts_hide_nothing(
        before in proptest::collection::vec(any::<u8>(), 0..700),
        form in 0..18_usize,
        cuts in proptest::collection::vec(1..90_usize, 1..40),
    ) {
        let placeholder = Placeholder::mint().unwrap();
        let form = forms(placeholder.as_str()).swap_remove(form);
        let body = [&before[..], b"\n", form.as_bytes(), b"\nand after that"].concat();
        let mut scan = BodyScan::new(1 << 20);
        let (mut at, mut found) = (0, false);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(body.len());
            found |= scan.push(&body[at..end]).is_err();
            at = end;
            if at == body.len() {
                break;
            }
        }
        prop_assert!(found, "{}", form);
    }
}
