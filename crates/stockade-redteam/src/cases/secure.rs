//! TLS: names that disagree, hellos that hide them, certificates that do not hold, what an authority is worth.

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    Case,
    plan::{Plan, carry_out},
    reach::open,
};
use crate::{
    field::Field,
    hello::{ENCRYPTED, SERVER_NAME, changed, hello, in_records, naming},
    inside::Inside,
    judge::Trial,
    report::Group::Tls,
    talk::{Client, Talk, Wants, get},
    world::{BAD, DENIED, DENIED_ADDRESS, KEYED, OTHER, PLAIN, READ, Words},
};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-TL-01",
        group: Tls,
        tried: "domain fronting: server name and Host or :authority name two hosts, either way round",
        expected: "no answer from the server; where they agree it answers",
        run: |field, _| Box::pin(fronting(field)),
    },
    Case {
        id: "A-TL-02",
        group: Tls,
        tried: "connect to an open host and name another one of the same provider and certificate",
        expected: "no handshake, also where both are open; each by its own name works",
        run: |field, _| Box::pin(provider(field)),
    },
    Case {
        id: "A-TL-03",
        group: Tls,
        tried: "no server name, an address, two, one with odd bytes",
        expected: "no handshake with the server; an ordinary one works",
        run: |field, _| Box::pin(nameless(field)),
    },
    Case {
        id: "A-TL-03f",
        group: Tls,
        tried: "hide a denied server name: one-byte records, split segments, behind Encrypted ClientHello",
        expected: "no handshake with the server; an open name in pieces works",
        run: |field, _| Box::pin(fragments(field)),
    },
    Case {
        id: "A-TL-04",
        group: Tls,
        tried: "open hosts whose certificates are self-made, expired or for another name, where requests are read",
        expected: "no answer reaches a client that believes everything; a valid one does",
        run: |field, _| Box::pin(certificates(field)),
    },
    Case {
        id: "A-TL-06",
        group: Tls,
        tried: "get a certificate of the run's authority for a name that was not connected to",
        expected: "none; the one for the name itself verifies",
        run: |field, _| Box::pin(leaves(field)),
    },
    Case {
        id: "A-TL-07",
        group: Tls,
        tried: "believe another sandbox's authority instead of the own one",
        expected: "what that one believes does not hold here; the own one does",
        run: |field, _| Box::pin(strangers(field)),
    },
    Case {
        id: "A-TL-09",
        group: Tls,
        tried: "old versions, HTTP/2 in the clear, an ALPN that is not spoken, other bytes within TLS that is read",
        expected: "nothing of it reaches a server; HTTP/1.1 and HTTP/2 work",
        run: |field, _| Box::pin(lies(field)),
    },
    Case {
        id: "A-TL-11",
        group: Tls,
        tried: "TLS on other ports and to addresses, with an open server name",
        expected: "no handshake with anybody; 443 of the open host works",
        run: |field, _| Box::pin(elsewhere(field)),
    },
];

fn words(field: &Field) -> &Words {
    field.parts.canaries.world().words()
}

/// Bytes of a hello, and whether a server answers them.
fn raw(name: impl Into<String>, host: &str, port: u16, pieces: Vec<Vec<u8>>) -> Talk {
    Talk {
        name: name.into(),
        host: host.to_owned(),
        port,
        tls: None,
        say: pieces,
        wants: Wants::Handshake,
    }
}

fn two(talk: Talk, name: &str) -> Talk {
    let client = Client {
        alpn: vec!["h2"],
        ..Client::naming(name)
    };
    Talk {
        tls: Some(client),
        ..talk
    }
}

async fn fronting(field: &Field) -> Trial {
    let Words { open: word, stray, .. } = words(field);
    let path = format!("/open?{stray}");
    let mut attacks = Vec::new();
    for host in [
        DENIED,
        PLAIN,
        KEYED,
        "read.world.test:22",
        "READ.world.test.evil.test",
        DENIED_ADDRESS,
    ] {
        attacks.push(Talk::secure(format!("host {host}"), READ, get(host, &path), word));
    }
    let absolute = format!("GET https://{DENIED}{path} HTTP/1.1\r\nHost: {READ}\r\nConnection: close\r\n\r\n");
    attacks.push(Talk::secure("absolute", READ, absolute, word));
    for host in [DENIED, KEYED] {
        let talk = Talk::secure(
            format!(":authority {host}"),
            READ,
            format!("GET https://{host}{path}"),
            word,
        );
        attacks.push(two(talk, READ));
    }
    for host in [READ, PLAIN] {
        attacks.push(Talk::secure(format!("sni denied, {host}"), host, get(host, &path), word).sni(DENIED));
        attacks.push(Talk::secure(format!("both denied, {host}"), host, get(DENIED, &path), word).sni(DENIED));
    }
    let http2 = Talk::secure("http/2", READ, format!("GET https://{READ}/open"), word);
    carry_out(
        field,
        Plan {
            attacks,
            fine: vec![
                Talk::secure("http/1.1", READ, get(READ, "/open"), word),
                two(http2, READ),
            ],
            denied: vec![format!("{READ}:443"), format!("{PLAIN}:443")],
            ..Plan::default()
        },
    )
    .await
}

async fn provider(field: &Field) -> Trial {
    let Words { open: word, stray, .. } = words(field);
    let path = format!("/{stray}");
    let crossed =
        |host: &str, sni: &str| Talk::secure(format!("{host} as {sni}"), host, get(sni, &path), word).sni(sni);
    let mut fine = open(field);
    fine.push(Talk::secure("the other", OTHER, get(OTHER, "/open"), word));
    carry_out(
        field,
        Plan {
            attacks: vec![
                crossed(PLAIN, OTHER),
                crossed(OTHER, PLAIN),
                crossed(PLAIN, DENIED),
                crossed(OTHER, "www.plain.world.test"),
                crossed(READ, KEYED),
                crossed(KEYED, READ),
            ],
            fine,
            denied: vec![format!("{PLAIN}:443"), format!("{OTHER}:443")],
            ..Plan::default()
        },
    )
    .await
}

async fn nameless(field: &Field) -> Trial {
    let Words { open: word, stray, .. } = words(field);
    let path = format!("/{stray}");
    let sound = hello(PLAIN);
    let named = |name: &'static [u8]| {
        changed(&sound, |list| {
            list.retain(|(kind, _)| *kind != SERVER_NAME);
            list.insert(0, (SERVER_NAME, naming(name)));
        })
    };
    let both = |first: &[u8], second: &[u8]| {
        let entry = |name: &[u8]| naming(name)[2..].to_vec();
        let list_of_two = [entry(first), entry(second)].concat();
        let length = u16::try_from(list_of_two.len()).unwrap_or(0).to_be_bytes();
        changed(&sound, |list| {
            list.retain(|(kind, _)| *kind != SERVER_NAME);
            list.insert(0, (SERVER_NAME, [&length[..], &list_of_two].concat()));
        })
    };
    let twice = changed(&sound, |list| list.push((SERVER_NAME, naming(DENIED.as_bytes()))));
    let mut attacks = Vec::new();
    for host in [PLAIN, READ] {
        let none = Talk::secure(format!("none, {host}"), host, get(host, &path), word);
        attacks.push(none.sni("198.51.100.10"));
    }
    let wild = [
        ("twice", twice),
        ("two in one, open first", both(PLAIN.as_bytes(), DENIED.as_bytes())),
        ("two in one, denied first", both(DENIED.as_bytes(), PLAIN.as_bytes())),
        ("an address", named(b"198.51.100.66")),
        ("an address in brackets", named(b"[2001:db8::1]")),
        ("empty", named(b"")),
        ("nul", named(b"plain.world.test\0.denied.test")),
        ("a space", named(b"plain.world.test ")),
        ("two dots", named(b"plain.world.test..")),
        ("a wildcard", named(b"*.world.test")),
        ("a letter of another script", named("pl\u{430}in.world.test".as_bytes())),
    ];
    let mut fine = open(field);
    fine.push(raw("a hello", PLAIN, 443, vec![sound.clone()]));
    carry_out(
        field,
        Plan {
            attacks,
            wild: wild.map(|(name, bytes)| raw(name, PLAIN, 443, vec![bytes])).to_vec(),
            fine,
            denied: vec![format!("{PLAIN}:443")],
            ..Plan::default()
        },
    )
    .await
}

async fn fragments(field: &Field) -> Trial {
    let name = format!("{}.world.test", words(field).stray);
    let (closed, sound) = (hello(&name), hello(PLAIN));
    // An outer one with nothing real in it, which nobody can tell from a real one.
    let inner = [&[0, 0, 1, 0, 1, 7, 0, 32][..], &[5; 32], &[0, 16], &[6; 16]].concat();
    let encrypted = |hello: &[u8]| changed(hello, |list| list.insert(0, (ENCRYPTED, inner.clone())));
    let pieces = |bytes: &[u8]| vec![bytes[..3].to_vec(), bytes[3..60].to_vec(), bytes[60..].to_vec()];
    let attack = |name: &str, pieces: Vec<Vec<u8>>| {
        [PLAIN, READ].map(|host| raw(format!("{name}, {host}"), host, 443, pieces.clone()))
    };
    let attacks = [
        attack("whole", vec![closed.clone()]),
        attack("records of one byte", vec![in_records(&closed, 1)]),
        attack("records of seven", vec![in_records(&closed, 7)]),
        attack("segments", pieces(&closed)),
        attack("segments of records", pieces(&in_records(&closed, 33))),
        attack("encrypted hello", vec![encrypted(&closed)]),
    ];
    carry_out(
        field,
        Plan {
            attacks: attacks.into_iter().flatten().collect(),
            fine: vec![
                raw("records of one byte", PLAIN, 443, vec![in_records(&sound, 1)]),
                raw("segments", PLAIN, 443, pieces(&sound)),
            ],
            denied: vec![format!("{PLAIN}:443"), format!("{READ}:443")],
            ..Plan::default()
        },
    )
    .await
}

async fn certificates(field: &Field) -> Trial {
    let Words { open: word, stray, .. } = words(field);
    let path = format!("/{stray}");
    let mut attacks = Vec::new();
    for host in BAD {
        let talk = Talk::secure(host, host, get(host, &path), word);
        attacks.push(talk.clone());
        let text = format!("GET https://{host}{path}");
        attacks.push(two(Talk::secure(format!("http/2, {host}"), host, text, word), host));
    }
    carry_out(
        field,
        Plan {
            attacks,
            fine: vec![Talk::secure("valid", READ, get(READ, "/open"), word)],
            denied: BAD.map(|host| format!("{host}:443")).to_vec(),
            ..Plan::default()
        },
    )
    .await
}

/// What programs in a sandbox are told to believe: the authority of its run alone.
fn authority(of: &Inside) -> Vec<CertificateDer<'static>> {
    let trust = of.session.trust();
    let pem = trust.map(|trust| trust.authority).unwrap_or_default();
    CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().collect()
}

fn believing(talk: Talk, roots: Vec<CertificateDer<'static>>) -> Talk {
    let client = talk.tls.clone().unwrap_or_else(|| Client::naming(&talk.host));
    Talk {
        tls: Some(Client {
            roots: Some(roots),
            ..client
        }),
        ..talk
    }
}

async fn leaves(field: &Field) -> Trial {
    let word = &words(field).open;
    let name = format!("{}.world.test", words(field).stray);
    let names = [DENIED, KEYED, "localhost", "llm.stockade.internal", name.as_str()];
    let attack = |sni: &&str| raw(*sni, READ, 443, vec![hello(sni)]);
    let fine = Talk::secure("its own", READ, get(READ, "/open"), word);
    carry_out(
        field,
        Plan {
            attacks: names.iter().map(attack).collect(),
            fine: vec![believing(fine, authority(&field.realm))],
            denied: vec![format!("{READ}:443")],
            ..Plan::default()
        },
    )
    .await
}

async fn strangers(field: &Field) -> Trial {
    let word = &words(field).open;
    let talk = |name: &str| Talk::secure(name, READ, get(READ, "/open"), word);
    let world = vec![field.parts.canaries.world().authority().clone()];
    carry_out(
        field,
        Plan {
            wild: vec![
                believing(talk("another sandbox's"), authority(&field.neighbour)),
                believing(talk("the server's own"), world),
            ],
            fine: vec![believing(talk("its own"), authority(&field.realm))],
            ..Plan::default()
        },
    )
    .await
}

async fn lies(field: &Field) -> Trial {
    let Words { open: word, stray, .. } = words(field);
    let path = format!("/{stray}");
    let sound = hello(READ);
    // "supported_versions" (RFC 8446, 4.2.1): nothing above TLS 1.1.
    let old = changed(&sound, |list| {
        list.retain(|(kind, _)| *kind != 43 && *kind != 51);
        list.push((43, vec![4, 3, 2, 3, 1]));
    });
    let mut older = changed(&sound, |list| list.retain(|(kind, _)| *kind == SERVER_NAME));
    if let Some(version) = older.get_mut(9..11) {
        version.copy_from_slice(&[3, 1]);
    }
    let preface = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{stray}");
    let lying = |name: &str, alpn: &'static str, say: String| {
        let mut talk = Talk::secure(name, READ, say, word);
        talk.tls = Some(Client {
            alpn: vec![alpn],
            ..Client::naming(READ)
        });
        talk
    };
    let wild = vec![
        raw("tls 1.1", READ, 443, vec![old]),
        raw("tls 1.0", READ, 443, vec![older]),
        Talk::plain("http/2 in the clear", PLAIN, preface.clone(), word),
        Talk::plain("http/2 in the clear, read", READ, preface, word),
        Talk::plain("ssh", PLAIN, format!("SSH-2.0-{stray}\r\n"), word),
        Talk::plain("bytes", PLAIN, format!("\0\0\0\x08{stray}"), word),
        Talk::plain("bytes, read", READ, format!("\0\0\0\x08{stray}"), word).port(443),
        lying("another protocol", "ssh", format!("SSH-2.0-{stray}\r\n\r\n\r\n")),
        lying("bytes within", "http/1.1", format!("\0\0\x08{stray}\r\n\r\n")),
    ];
    let http2 = Talk::secure("http/2", READ, format!("GET https://{READ}/open"), word);
    let tunnel = format!("CONNECT {DENIED}:443 HTTP/1.1\r\nHost: {READ}\r\nX-Own: {path}\r\n\r\n");
    carry_out(
        field,
        Plan {
            attacks: vec![Talk::secure("connect within", READ, tunnel, word)],
            wild,
            fine: vec![
                Talk::secure("http/1.1", READ, get(READ, "/open"), word),
                two(http2, READ),
            ],
            denied: vec![format!("{PLAIN}:80"), format!("{READ}:443")],
            ..Plan::default()
        },
    )
    .await
}

async fn elsewhere(field: &Field) -> Trial {
    let Words {
        open: word,
        sink,
        stray,
    } = words(field);
    let say = get(PLAIN, &format!("/{stray}"));
    let mut attacks = Vec::new();
    for port in [465, 853, 8443] {
        attacks.push(Talk::secure(format!("port {port}"), PLAIN, say.clone(), sink).port(port));
    }
    for address in [DENIED_ADDRESS, "203.0.113.66", "2001:db8::66"] {
        attacks.push(Talk::secure(address, address, say.clone(), sink).sni(PLAIN));
    }
    attacks.push(Talk::secure("denied, on 80", PLAIN, say, word).sni(DENIED).port(80));
    carry_out(
        field,
        Plan {
            attacks,
            fine: open(field),
            denied: ["plain.world.test:8443", "198.51.100.66:443"]
                .map(str::to_owned)
                .to_vec(),
            ..Plan::default()
        },
    )
    .await
}
