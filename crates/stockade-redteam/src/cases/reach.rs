//! Connections: addresses, names that lead astray, other ports, and requests that mean another place than their
//! connection.

use super::{
    Case,
    plan::{Plan, carry_out, ferries, unseen, watched},
};
use crate::{
    field::Field,
    judge::{Attempt, Trial},
    report::Group::Network,
    talk::{Client, Talk, get},
    world::{BARRED, DENIED, DENIED_ADDRESS, ODD, PLAIN, PLAIN_ADDRESS, READ, Words},
};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-NW-04",
        group: Network,
        tried: "connect to addresses themselves: an open name's, IPv6, mapped and embedded forms, the Guard's own",
        expected: "nothing answers; no connection at the sink; the Guard's denial",
        run: |field, _| Box::pin(addresses(field)),
    },
    Case {
        id: "A-NW-05n",
        group: Network,
        tried: "open names that lead to metadata, private, shared, loopback and embedded addresses",
        expected: "never dialled; the Guard's denial for each",
        run: |field, _| Box::pin(odd(field)),
    },
    Case {
        id: "A-NW-06",
        group: Network,
        tried: "spell a denied host in other ways in requests to an open one: case, dots, brackets, escapes, controls",
        expected: "no answer from the server; canonical spellings of the open name work",
        run: |field, _| Box::pin(spellings(field)),
    },
    Case {
        id: "A-NW-08",
        group: Network,
        tried: "hosts that look like open ones, and the bare name of an open wildcard",
        expected: "not looked up, not reached; the open name and one below the wildcard work",
        run: |field, _| Box::pin(lookalikes(field)),
    },
    Case {
        id: "A-NW-11",
        group: Network,
        tried: "other ports of an open host",
        expected: "nothing answers; 80 and 443 work",
        run: |field, _| Box::pin(ports(field)),
    },
    Case {
        id: "A-NW-12",
        group: Network,
        tried: "CONNECT, absolute targets and disagreeing, doubled or missing Host headers on an open connection",
        expected: "no answer from the server; the plain request and its absolute form work",
        run: |field, _| Box::pin(relays(field)),
    },
    Case {
        id: "A-NW-13",
        group: Network,
        tried: "hide a request to a denied path behind two lengths, doubtful codings and spaces before colons",
        expected: "the server never reads it; bodies with a length and in chunks work",
        run: |field, _| Box::pin(smuggled(field)),
    },
    Case {
        id: "A-NW-14",
        group: Network,
        tried: "a denied path, method or host as the second request: kept alive, pipelined, over HTTP/2",
        expected: "the second is denied by itself; two allowed ones work",
        run: |field, _| Box::pin(second(field)),
    },
    Case {
        id: "A-NW-15",
        group: Network,
        tried: "lead out of an open path: dots, slashes, escapes, parameters, case",
        expected: "no answer from the server; the open path and one below it work",
        run: |field, _| Box::pin(paths(field)),
    },
    Case {
        id: "A-NW-03q",
        group: Network,
        tried: "datagrams to QUIC, DTLS, STUN and time ports of an open host and of an address",
        expected: "none arrives",
        run: |field, _| Box::pin(datagrams(field)),
    },
];

fn words(field: &Field) -> &Words {
    field.parts.canaries.world().words()
}

/// A path that holds the attackers' word.
fn stray(field: &Field) -> String {
    format!("/{}", words(field).stray)
}

/// What an open host answers.
pub(super) fn open(field: &Field) -> Vec<Talk> {
    let word = &words(field).open;
    vec![
        Talk::plain("http", PLAIN, get(PLAIN, "/open"), word),
        Talk::secure("tls", PLAIN, get(PLAIN, "/open"), word),
    ]
}

async fn addresses(field: &Field) -> Trial {
    let Words { open: word, sink, .. } = words(field);
    let others = [
        DENIED_ADDRESS,
        PLAIN_ADDRESS,
        "::ffff:198.51.100.66",
        "64:ff9b::198.51.100.66",
        "2002:c633:6442::1",
        "2001:0:c633:6442::1",
        "::c633:6442",
        "fd00::66",
        "2606:4700::1111",
        "ff02::fb",
        "198.18.0.1",
        "198.18.0.200",
        "203.0.113.9",
        "127.0.0.1",
        "::1",
        "240.0.0.1",
    ];
    let talk = |address: &str| Talk::plain(address, address, get(DENIED, &stray(field)), sink).or(word);
    carry_out(
        field,
        Plan {
            attacks: others.map(talk).to_vec(),
            fine: open(field),
            denied: [
                "198.51.100.66:80",
                "198.51.100.10:80",
                "198.18.0.200:80",
                "2606:4700::1111",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..Plan::default()
        },
    )
    .await
}

async fn odd(field: &Field) -> Trial {
    let hosts = ODD.map(|(name, _)| format!("{name}.world.test"));
    let talk = |host: &String| Talk::plain(host, host, get(host, &stray(field)), &words(field).sink);
    carry_out(
        field,
        Plan {
            attacks: hosts.iter().map(talk).collect(),
            fine: open(field),
            denied: hosts.iter().map(|host| format!("{host}:80")).collect(),
            ..Plan::default()
        },
    )
    .await
}

async fn spellings(field: &Field) -> Trial {
    let word = &words(field).open;
    let near = "yes.wide.world.test";
    let path = stray(field);
    let spelled = [
        BARRED.to_owned(),
        BARRED.to_uppercase(),
        format!("{BARRED}."),
        format!("{BARRED}.."),
        format!("[{BARRED}]"),
        format!("{BARRED}:80"),
        format!("{near}@{BARRED}"),
        format!("{BARRED}#{near}"),
        format!("{BARRED}\0.{near}"),
        format!("{BARRED}\t{near}"),
        format!("{BARRED}, {near}"),
        BARRED.replace('.', "%2e"),
        BARRED.replace('.', "。"),
        BARRED.replace('b', "ｂ"),
        DENIED_ADDRESS.to_owned(),
        "3325256770".to_owned(),
        "0306.063.0144.0102".to_owned(),
        "0xc6.0x33.0x64.0x42".to_owned(),
    ];
    let mut attacks: Vec<Talk> = spelled
        .iter()
        .map(|host| Talk::plain(host.escape_debug().to_string(), near, get(host, &path), word))
        .collect();
    let direct = [BARRED.to_owned(), BARRED.to_uppercase()];
    attacks.extend(
        direct.map(|host| Talk::plain(format!("to {host}"), &host, get(near, &path), &words(field).sink).or(word)),
    );
    let fine = [
        near.to_owned(),
        near.to_uppercase(),
        format!("{near}."),
        format!("{near}:80"),
    ];
    carry_out(
        field,
        Plan {
            attacks,
            fine: fine
                .map(|host| Talk::plain(&host, near, get(&host, "/open"), word))
                .to_vec(),
            denied: vec![BARRED.to_owned(), format!("{near}:80")],
            ..Plan::default()
        },
    )
    .await
}

async fn lookalikes(field: &Field) -> Trial {
    let Words {
        open: word,
        sink,
        stray: own,
    } = words(field);
    let hosts = [
        format!("{own}{PLAIN}"),
        format!("{own}.{PLAIN}"),
        format!("{PLAIN}.{own}.test"),
        format!("{own}-wide.world.test"),
        format!("{own}.wide.world.test.evil.test"),
    ];
    let mut attacks: Vec<Talk> = hosts
        .iter()
        .map(|host| Talk::plain(host.replace(own, "STRAY"), host, get(host, &stray(field)), sink))
        .collect();
    attacks.push(Talk::plain(
        "bare",
        "wide.world.test",
        get("wide.world.test", &stray(field)),
        sink,
    ));
    let mut fine = open(field);
    let near = "yes.wide.world.test";
    fine.push(Talk::plain(near, near, get(near, "/open"), word));
    carry_out(
        field,
        Plan {
            attacks,
            fine,
            denied: vec![hosts[0].clone(), "wide.world.test".to_owned()],
            ..Plan::default()
        },
    )
    .await
}

async fn ports(field: &Field) -> Trial {
    let sink = &words(field).sink;
    let numbers = [1, 22, 25, 110, 445, 993, 3128, 5432, 8080, 8443, 65_535];
    let plain = |port: u16| Talk::plain(format!("{port}"), PLAIN, get(PLAIN, &stray(field)), sink).port(port);
    let mut attacks = numbers.map(plain).to_vec();
    let tls = |port: u16| Talk::secure(format!("tls {port}"), PLAIN, get(PLAIN, &stray(field)), sink).port(port);
    attacks.extend([465, 8443].map(tls));
    carry_out(
        field,
        Plan {
            attacks,
            fine: open(field),
            denied: ["plain.world.test:22", "plain.world.test:8443"]
                .map(str::to_owned)
                .to_vec(),
            ..Plan::default()
        },
    )
    .await
}

async fn relays(field: &Field) -> Trial {
    let word = &words(field).open;
    let path = stray(field);
    let own = &words(field).stray;
    let whole = |line: String, hosts: &[&str]| {
        let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        format!("{line} HTTP/1.1\r\n{hosts}X-Own: {own}\r\nConnection: close\r\n\r\n")
    };
    let says = [
        ("connect", whole(format!("CONNECT {DENIED}:443"), &[PLAIN])),
        ("connect itself", whole(format!("CONNECT {PLAIN}:443"), &[PLAIN])),
        ("absolute", whole(format!("GET http://{DENIED}{path}"), &[PLAIN])),
        ("absolute, both", whole(format!("GET http://{DENIED}{path}"), &[DENIED])),
        (
            "absolute, host denied",
            whole(format!("GET http://{PLAIN}{path}"), &[DENIED]),
        ),
        ("absolute, tls", whole(format!("GET https://{PLAIN}{path}"), &[PLAIN])),
        (
            "absolute, port",
            whole(format!("GET http://{PLAIN}:22{path}"), &[PLAIN]),
        ),
        (
            "absolute, user",
            whole(format!("GET http://{PLAIN}@{DENIED}{path}"), &[PLAIN]),
        ),
        ("host", whole(format!("GET {path}"), &[DENIED])),
        ("host, port", whole(format!("GET {path}"), &["plain.world.test:22"])),
        ("two hosts", whole(format!("GET {path}"), &[PLAIN, DENIED])),
        ("two hosts turned", whole(format!("GET {path}"), &[DENIED, PLAIN])),
        ("same host twice", whole(format!("GET {path}"), &[PLAIN, PLAIN])),
        ("no host", whole(format!("GET {path}"), &[])),
        ("empty host", whole(format!("GET {path}"), &[""])),
        ("forwarded by colon", whole(format!("GET {DENIED}:80"), &[PLAIN])),
    ];
    let mut attacks: Vec<Talk> = says
        .into_iter()
        .map(|(name, text)| Talk::plain(name, PLAIN, text, word))
        .collect();
    let secure = whole(format!("CONNECT {DENIED}:443"), &[READ]);
    attacks.push(Talk::secure("connect within tls", READ, secure, word));
    let mut fine = open(field);
    let absolute = format!("GET http://{PLAIN}/open HTTP/1.1\r\nHost: {PLAIN}\r\nConnection: close\r\n\r\n");
    fine.push(Talk::plain("absolute", PLAIN, absolute, word));
    carry_out(
        field,
        Plan {
            attacks,
            fine,
            denied: vec!["plain.world.test:80".to_owned()],
            ..Plan::default()
        },
    )
    .await
}

/// Requests to an open path with another behind them, by name.
pub(super) fn hidden(host: &str, path: &str, hidden: &str) -> Vec<(&'static str, String)> {
    let second = format!("GET {hidden} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let chunked = format!("0\r\n\r\n{second}");
    let post = |version: &str, lines: &str, body: &str| {
        format!("POST {path} HTTP/{version}\r\nHost: {host}\r\n{lines}\r\n{body}")
    };
    let (all, rest) = (second.len(), chunked.len());
    let both = |coding: &str| post("1.1", &format!("Content-Length: {rest}\r\n{coding}\r\n"), &chunked);
    vec![
        ("length and chunks", both("Transfer-Encoding: chunked")),
        ("space before the colon", both("Transfer-Encoding : chunked")),
        ("unknown coding", both("Transfer-Encoding: xchunked")),
        ("coding listed", both("Transfer-Encoding: identity, chunked")),
        (
            "coding twice",
            both("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        ),
        ("coding with a tab", both("Transfer-Encoding:\tchunked")),
        ("coding in capitals", both("TRANSFER-ENCODING: CHUNKED")),
        (
            "two lengths",
            post(
                "1.1",
                &format!("Content-Length: 0\r\nContent-Length: {all}\r\n"),
                &second,
            ),
        ),
        (
            "length listed",
            post("1.1", &format!("Content-Length: 0, {all}\r\n"), &second),
        ),
        (
            "length in hexadecimal",
            post("1.1", &format!("Content-Length: 0x{all:x}\r\n"), &second),
        ),
        ("negative length", post("1.1", "Content-Length: -1\r\n", &second)),
        (
            "version 1.0 in chunks",
            post(
                "1.0",
                "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n",
                &chunked,
            ),
        ),
    ]
}

async fn smuggled(field: &Field) -> Trial {
    let Words {
        open: word, stray: own, ..
    } = words(field);
    let wants = format!("{word} /{own}");
    let talk = |(name, text): (&str, String)| Talk::plain(name, READ, text, &wants);
    let said = "abc";
    let fixed = format!("POST /open HTTP/1.1\r\nHost: {READ}\r\nConnection: close\r\nContent-Length: 3\r\n\r\n{said}");
    let pieces = format!(
        "POST /open HTTP/1.1\r\nHost: {READ}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{said}\r\n0\r\n\r\n"
    );
    carry_out(
        field,
        Plan {
            attacks: hidden(READ, "/open", &stray(field)).into_iter().map(talk).collect(),
            fine: vec![
                Talk::plain("with a length", READ, fixed, word),
                Talk::plain("in chunks", READ, pieces, word),
            ],
            denied: vec![format!("{READ}:80")],
            ..Plan::default()
        },
    )
    .await
}

async fn second(field: &Field) -> Trial {
    let Words {
        open: word, stray: own, ..
    } = words(field);
    let first = format!("GET /open HTTP/1.1\r\nHost: {READ}\r\n\r\n");
    let wants = format!("{word} /{own}");
    let asked = format!("{word} /open?{own}");
    let another = |line: &str, host: &str| format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let path = another(&format!("GET /{own}"), READ);
    let method = another(&format!("DELETE /open?{own}"), READ);
    let host = another(&format!("GET /open?{own}"), DENIED);
    let port = another(&format!("GET /open?{own}"), "read.world.test:22");
    let mut attacks = Vec::new();
    for (name, text, wants) in [
        ("path", path, &wants),
        ("method", method, &asked),
        ("host", host, &asked),
        ("port", port, &asked),
    ] {
        attacks.push(Talk::secure(format!("kept, {name}"), READ, first.as_bytes(), wants).then(text.as_bytes()));
        attacks.push(Talk::secure(
            format!("pipelined, {name}"),
            READ,
            format!("{first}{text}"),
            wants,
        ));
        attacks.push(Talk::plain(
            format!("in clear, {name}"),
            READ,
            format!("{first}{text}"),
            wants,
        ));
    }
    let two = |name: &str, text: String, wants: &str| {
        let mut talk = Talk::secure(
            format!("http/2, {name}"),
            READ,
            format!("GET https://{READ}/open"),
            wants,
        );
        talk.tls = Some(Client {
            alpn: vec!["h2"],
            ..Client::naming(READ)
        });
        talk.then(text)
    };
    attacks.extend([
        two("path", format!("GET https://{READ}/{own}"), &wants),
        two("method", format!("DELETE https://{READ}/open?{own}"), &asked),
        two("authority", format!("GET https://{DENIED}/open?{own}"), &asked),
        two(
            "another open authority",
            format!("GET https://{PLAIN}/open?{own}"),
            &asked,
        ),
        two(
            "host and authority",
            format!("GET https://{READ}/open?{own}\nhost: {DENIED}"),
            &asked,
        ),
    ]);
    let again = another("GET /open/again", READ);
    let works = format!("{word} /open/again");
    carry_out(
        field,
        Plan {
            attacks,
            fine: vec![
                Talk::secure("kept", READ, first.as_bytes(), &works).then(again.as_bytes()),
                two("two", format!("GET https://{READ}/open/again"), &works),
            ],
            denied: vec![
                "DELETE https://read.world.test".to_owned(),
                "read.world.test:443".to_owned(),
            ],
            ..Plan::default()
        },
    )
    .await
}

async fn paths(field: &Field) -> Trial {
    let Words {
        open: word, stray: own, ..
    } = words(field);
    let ways = [
        format!("/{own}"),
        format!("/open/../{own}"),
        format!("/open/./../{own}"),
        format!("//open/../{own}"),
        format!("/open/%2e%2e/{own}"),
        format!("/open/.%2E/{own}"),
        format!("/open/..%2f{own}"),
        format!("/open%2f..%2f{own}"),
        format!("/open/..;/{own}"),
        format!("/open/..;x=y/{own}"),
        format!("/open/..\\{own}"),
        format!("/open\\..\\{own}"),
        format!("/open/..%5c{own}"),
        format!("/open/..%00/{own}"),
        format!("/OPEN/{own}"),
        format!("/open{own}"),
        format!("//{own}"),
    ];
    let mut attacks: Vec<Talk> = ways
        .iter()
        .map(|way| Talk::secure(way.replace(own, "STRAY"), READ, get(READ, way), word))
        .collect();
    attacks.extend([&ways[1], &ways[4]].map(|way| {
        Talk::plain(
            format!("in clear, {}", way.replace(own, "STRAY")),
            READ,
            get(READ, way),
            word,
        )
    }));
    carry_out(
        field,
        Plan {
            attacks,
            fine: vec![
                Talk::secure("the path", READ, get(READ, "/open"), word),
                Talk::secure("below it", READ, get(READ, "/open/a%20b?x=../y"), word),
            ],
            denied: vec!["GET https://read.world.test".to_owned()],
            ..Plan::default()
        },
    )
    .await
}

async fn datagrams(field: &Field) -> Trial {
    let (inside, outside) = match ferries(field).await {
        Ok(both) => both,
        Err(trial) => return trial,
    };
    let patience = std::time::Duration::from_millis(300);
    let word = words(field).stray.as_bytes();
    let places: Vec<(&str, u16)> = [PLAIN, DENIED_ADDRESS]
        .into_iter()
        .flat_map(|host| [443, 853, 123, 3478, 784].map(|port| (host, port)))
        .collect();
    let each = places
        .iter()
        .map(|(host, port)| inside.datagram(host, *port, word, patience));
    let (answers, seen) = watched(field, futures::future::join_all(each)).await;
    let mut trial = Trial::default();
    let attempt = |name: String, answer: Result<bytes::Bytes, String>| Attempt {
        name,
        got: answer.is_ok(),
        why: answer.map_or_else(|why| why, |bytes| format!("{} bytes came back", bytes.len())),
        errno: None,
    };
    for ((host, port), answer) in places.iter().zip(answers) {
        trial.inside.push(attempt(format!("{host}:{port}"), answer));
    }
    unseen(&mut trial, &seen);
    for place in field.parts.canaries.udp() {
        let Ok(address) = place.parse::<std::net::SocketAddr>() else {
            continue;
        };
        let host = address.ip().to_string();
        let (answer, seen) = watched(field, outside.datagram(&host, address.port(), word, patience)).await;
        trial.control.push(attempt(place, answer));
        if let Some(packets) = seen.packets {
            let what = "packets with the attacker's word by the control";
            let sighting = crate::judge::Sighting::new(what, "1 or more", packets.to_string(), packets > 0);
            trial.control_host.push(sighting);
        }
    }
    let why = match trial.control.iter().any(|attempt| attempt.got) {
        true => String::new(),
        false => "no datagram came back outside either".to_owned(),
    };
    trial.no_control = Some(why).filter(|why| !why.is_empty());
    trial
}
