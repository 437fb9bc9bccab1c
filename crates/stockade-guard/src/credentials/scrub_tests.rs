use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE},
};
use proptest::prelude::*;

use super::*;

const SECRET: &str = "s3cr3t/+ \"value\"-Ünï";

fn value(text: &[u8]) -> SecretValue {
    SecretValue::new(text.to_vec())
}

fn scrubbed(secrets: &[&[u8]], chunks: &[&[u8]]) -> (String, u64) {
    let values: Vec<_> = secrets.iter().map(|s| value(s)).collect();
    let mut scrubber = Scrubber::new(&values);
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(chunk)));
    }
    out.extend_from_slice(&scrubber.finish());
    (String::from_utf8_lossy(&out).into_owned(), scrubber.found())
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("%{b:02X}")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The secret in every form, each with the text it leaves when it is redacted.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(secret).into_owned();
    let lines = |text: String| text.as_bytes().chunks(5).collect::<Vec<_>>().join(&b"\r\n"[..]);
    vec![
        secret.to_vec(),
        percent(secret).into_bytes(),
        percent(secret).to_lowercase().into_bytes(),
        text.replace('%', "%25")
            .replace(' ', "+")
            .replace('/', "%2f")
            .replace('"', "%22")
            .into_bytes(),
        serde_json::to_string(&text)
            .unwrap()
            .trim_matches('"')
            .as_bytes()
            .to_vec(),
        text.replace('\\', "\\\\")
            .replace('s', "\\u0073")
            .replace('"', "\\\"")
            .replace('/', "\\/")
            .into_bytes(),
        hex(secret).into_bytes(),
        hex(secret).to_uppercase().into_bytes(),
        STANDARD.encode(secret).into_bytes(),
        URL_SAFE.encode(secret).into_bytes(),
        STANDARD_NO_PAD.encode(secret).into_bytes(),
        percent(STANDARD.encode(secret).as_bytes()).into_bytes(),
        STANDARD.encode(secret).replace('/', "\\/").into_bytes(),
        lines(STANDARD.encode(secret)),
    ]
}

#[test]
fn every_form_is_replaced() {
    for form in forms(SECRET.as_bytes()) {
        let text = [b"before ", &form[..], b" after"].concat();
        let (clean, found) = scrubbed(&[SECRET.as_bytes()], &[&text]);
        // Padding is no part of the secret, nor is a line break before it.
        let padded = clean.replace(['=', '\r', '\n'], "").replace("%3D", "");
        assert_eq!(
            (padded.as_str(), found),
            ("before [redacted] after", 1),
            "{}",
            String::from_utf8_lossy(&form)
        );
    }
}

/// As a password of Basic credentials the secret stands at an alignment of its own; no bit of it is left.
#[test]
fn every_alignment_is_replaced_whole() {
    for user in ["", "u", "us", "use", "user"] {
        for after in ["", "x", "xy", "xyz"] {
            let text = STANDARD.encode(format!("{user}:{SECRET}{after}"));
            let (clean, found) = scrubbed(&[SECRET.as_bytes()], &[text.as_bytes()]);
            assert_eq!(found, 1, "{user} {after}: {clean}");
            let (before, rest) = clean.split_once("[redacted]").unwrap();
            // What is left decodes to the user at most: the characters that shared bits with the secret are gone.
            assert!(before.len() * 6 <= (user.len() + 1) * 8, "{clean}");
            let bits = 8 * (user.len() + 1 + SECRET.len() + after.len());
            let padding = bits.next_multiple_of(6) - bits;
            assert!(
                rest.trim_end_matches('=').len() * 6 <= after.len() * 8 + padding,
                "{clean}"
            );
        }
    }
}

#[test]
fn what_is_no_secret_passes_unchanged() {
    let near = SECRET.replace("value", "valve");
    for text in [
        "",
        "plain text",
        &near,
        &hex(near.as_bytes()),
        &STANDARD.encode(&near),
        "%",
        "%7",
        "\\",
        "\\u00",
        "s3cr3t",
    ] {
        assert_eq!(scrubbed(&[SECRET.as_bytes()], &[text.as_bytes()]), (text.to_owned(), 0));
    }
    let chunk = Bytes::from_static(b"plain text without any of its letters");
    let mut scrubber = Scrubber::new(&[value(b"zzzzzzzz")]);
    assert_eq!(
        scrubber.push(chunk.clone()).as_ptr(),
        chunk.as_ptr(),
        "clean chunks are not copied"
    );
}

#[test]
fn a_secret_within_another_one_does_not_break_it_up() {
    let (long, short) = (&b"abcdefgh-the-long-one"[..], &b"abcdefgh"[..]);
    let text = [long, b" ", short].concat();
    for order in [[long, short], [short, long]] {
        assert_eq!(scrubbed(&order, &[&text]), ("[redacted] [redacted]".to_owned(), 2));
    }
}

#[test]
fn heads_are_scrubbed_and_lose_what_no_longer_holds() {
    let mut scrubber = Scrubber::new(&[value(SECRET.as_bytes())]);
    let location = format!("https://x.example/?t={}", percent(SECRET.as_bytes()));
    let (mut head, ()) = http::Response::builder()
        .header("location", location)
        .header("content-length", "5")
        .header("x-kept", "yes")
        .extension(ReasonPhrase::from_static(b"s3cr3t"))
        .body(())
        .unwrap()
        .into_parts();
    scrubber.head(&mut head);
    assert_eq!(head.headers["location"], "https://x.example/?t=[redacted]");
    assert_eq!(
        (head.headers.len(), &head.headers["x-kept"]),
        (2, &HeaderValue::from_static("yes"))
    );
    assert!(head.extensions.get::<ReasonPhrase>().is_none());
    assert_eq!(scrubber.found(), 1);
}

#[test]
fn answers_that_cannot_be_searched_are_refused() {
    let with = |status: u16, headers: &[(&str, &str)]| {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        admissible(&response.body(()).unwrap().into_parts().0)
    };
    with(200, &[]).unwrap();
    with(200, &[("content-encoding", " Identity")]).unwrap();
    for (status, headers) in [
        (200, &[("content-encoding", "gzip")][..]),
        (200, &[("content-encoding", "identity"), ("content-encoding", "br")]),
        (200, &[("content-encoding", "gzip, identity")]),
        (206, &[]),
        (200, &[("content-range", "bytes 0-0/9")]),
    ] {
        assert!(
            matches!(with(status, headers), Err(CredentialFault::Opaque(_))),
            "{headers:?}"
        );
    }
}

proptest! {
    /// Wherever a stream is cut, the result is the same, and no form of the secret is left in it.
    #[test]
    fn cuts_change_nothing(
        secret in proptest::collection::vec(any::<u8>(), 8..40),
        pieces in proptest::collection::vec((0..14_usize, "[a-zA-Z0-9+/%=\\\\ \n]{0,12}"), 1..6),
        cuts in proptest::collection::vec(1..30_usize, 1..30),
    ) {
        // Some forms are made by way of text.
        let secret: Vec<u8> = secret.into_iter().map(|b| 0x21 + b % 0x5e).collect();
        let all = forms(&secret);
        let mut text = Vec::new();
        for (form, filler) in &pieces {
            text.extend_from_slice(filler.as_bytes());
            text.extend_from_slice(&all[*form]);
            text.extend_from_slice(b"|");
        }
        let (mut chunks, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(text.len());
            chunks.push(&text[at..end]);
            at = end;
            if at == text.len() {
                break;
            }
        }
        let whole = scrubbed(&[&secret], &[&text]);
        prop_assert_eq!(&scrubbed(&[&secret], &chunks), &whole);
        prop_assert!(whole.1 >= 1);
        prop_assert_eq!(scrubbed(&[&secret], &[whole.0.as_bytes()]).1, 0, "nothing is left");
        for form in &all[..3] {
            prop_assert!(!whole.0.as_bytes().windows(form.len()).any(|window| window == &form[..]));
        }
    }
}
