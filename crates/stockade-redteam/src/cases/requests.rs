//! Requests that mean another place than their connection: other hosts, hidden ones, second ones, other paths.

use super::{
    Case,
    plan::{Plan, carry_out},
    reach::open,
};
use crate::{
    field::Field,
    judge::Trial,
    report::Group::Network,
    talk::{Client, Talk, get},
    world::{BARRED, DENIED, DENIED_ADDRESS, PLAIN, READ, Words},
};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-NW-06",
        group: Network,
        tried: "spell a denied host in other ways in requests to an open one: case, dots, brackets, escapes, controls",
        expected: "no answer from the server; canonical spellings of the open name work",
        run: |field, _| Box::pin(spellings(field)),
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
];

fn words(field: &Field) -> &Words {
    field.parts.canaries.world().words()
}

/// A path that holds the attackers' word.
fn stray(field: &Field) -> String {
    format!("/{}", words(field).stray)
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
