//! The secret itself: what servers tell of it, where it is lent, where it lies.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    Case,
    lent::{again, bearer, carried, lent, placeholder, request, secret, words},
    plan::Plan,
    requests::hidden,
};
use crate::{
    field::Field,
    inside::Call,
    judge::{Attempt, Sighting, Trial},
    report::Group::Credentials,
    talk::{Client, Talk},
    told::Told,
    world::{BOUND, DENIED, KEYED, OTHER, PLAIN, READ, Words},
};

/// Where a secret could lie inside.
const PLACES: [&str; 8] = [
    "/workspace",
    "/home",
    "/tmp",
    "/var",
    "/run",
    "/etc",
    "/opt/agents",
    "/dev/shm",
];

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-CR-03",
        group: Credentials,
        tried: "have the server tell the secret: body, chunks, error, header, cookie, redirect, hexadecimal, HTTP/2",
        expected: "what comes back does not hold it; the server got it",
        run: |field, _| Box::pin(echoed(field)),
    },
    Case {
        id: "A-CR-04",
        group: Credentials,
        tried: "get the secret lent where it is not bound: plain HTTP, other paths and methods, after a lent request",
        expected: "the server gets no secret there; in its place it does",
        run: |field, _| Box::pin(unbound(field)),
    },
    Case {
        id: "A-CR-08",
        group: Credentials,
        tried: "look for the secret in files, in what processes were started with, in memory and socket tables",
        expected: "nowhere; the placeholder is found where it was put",
        run: |field, _| Box::pin(sought(field)),
    },
    Case {
        id: "A-CR-11",
        group: Credentials,
        tried: "hide a second request behind one that gets the secret",
        expected: "the server never reads it; one alone is answered",
        run: |field, _| Box::pin(smuggled(field)),
    },
    Case {
        id: "A-CR-10",
        group: Credentials,
        tried: "send the key elsewhere: a changed base URL, look-alike hosts, a redirect to another host",
        expected: "no server is told it; the bound host is",
        run: |field, _| Box::pin(diverted(field)),
    },
    Case {
        id: "A-CR-06",
        group: Credentials,
        tried: "look for the secret in what the installation writes: state directory, events of the runs",
        expected: "nowhere; the name of the secret is in the events",
        run: |field, _| Box::pin(written(field)),
    },
];

/// Ways to have a careless server repeat what it was told.
fn repeated(field: &Field, value: &str) -> Vec<Talk> {
    let secret = secret(field);
    let header = bearer(value);
    let talk = |name: &str, path: &str, wants: &str| {
        let text = request("GET", KEYED, &format!("{BOUND}/{path}"), &header, "");
        Talk::secure(name, KEYED, text, wants)
    };
    let mut all = vec![
        talk("body", "echo", secret),
        // Three bytes of the answer are in a chunk, wherever the first one begins.
        (0..3).fold(talk("chunks", "chunked", secret), |talk, at| {
            talk.or(&format!("{}\r\n3\r\n{}", &secret[at..at + 3], &secret[at + 3..at + 6]))
        }),
        talk("error", "error", secret),
        talk("header and cookie", "header", secret),
        talk("redirect", "redirect", secret),
        talk("hexadecimal", "hex", &hex::encode(secret)),
    ];
    let mut http2 = talk("http/2", "echo", secret);
    http2.say = vec![format!("GET https://{KEYED}{BOUND}/echo\nauthorization: Bearer {value}").into_bytes()];
    http2.tls = Some(Client {
        alpn: vec!["h2"],
        ..Client::naming(KEYED)
    });
    all.push(http2);
    let slow = format!("GET {BOUND}/open HTTP/1.1\r\nHost: {KEYED}\r\n{header}\r\n\r\n");
    let text = request("GET", KEYED, &format!("{BOUND}/echo"), &header, "");
    all.push(Talk::secure("the second answer", KEYED, slow, secret).then(text));
    all
}

async fn echoed(field: &Field) -> Trial {
    let own = placeholder(&field.realm);
    let text = request(
        "GET",
        KEYED,
        "/keyed/gzip",
        &format!("{}\r\nAccept-Encoding: gzip", bearer(&own)),
        "",
    );
    let mut trial = carried(
        field,
        Plan {
            attacks: repeated(field, &own),
            control: Some(repeated(field, secret(field))),
            wild: vec![Talk::secure("compressed", KEYED, text, secret(field)).or("content-encoding: gzip")],
            fine: lent(field),
            ..Plan::default()
        },
    )
    .await;
    again(field, &mut trial).await;
    trial
}

async fn unbound(field: &Field) -> Trial {
    let secret = secret(field);
    let value = |path: &str| request("GET", KEYED, path, "", "");
    let first = format!("GET /keyed/open HTTP/1.1\r\nHost: {KEYED}\r\n\r\n");
    let talks = |header: &str| {
        let ask = |method: &str, path: &str| request(method, KEYED, path, header, "");
        vec![
            Talk::plain("plain", KEYED, ask("GET", "/keyed/echo"), secret),
            Talk::secure("another path", KEYED, ask("GET", "/echo"), secret),
            Talk::secure("longer path", KEYED, ask("GET", "/keyed2/echo"), secret),
            Talk::secure("out of the path", KEYED, ask("GET", "/keyed/../echo"), secret),
            Talk::secure("another method", KEYED, ask("PUT", "/keyed/echo"), secret),
            Talk::secure("after a lent one", KEYED, first.as_bytes(), secret).then(ask("GET", "/echo")),
            Talk::plain(
                "another host",
                PLAIN,
                request("GET", PLAIN, "/keyed/echo", header, ""),
                secret,
            ),
            Talk::secure(
                "another host, read",
                READ,
                request("GET", READ, "/echo", header, ""),
                secret,
            ),
        ]
    };
    let mut trial = carried(
        field,
        Plan {
            attacks: talks(""),
            control: Some(talks(&bearer(secret))),
            fine: vec![Talk::secure(
                "the path",
                KEYED,
                value("/keyed/open"),
                &words(field).open,
            )],
            ..Plan::default()
        },
    )
    .await;
    again(field, &mut trial).await;
    trial
}

async fn smuggled(field: &Field) -> Trial {
    let Words { open: word, stray, .. } = words(field);
    let wants = format!("{word} /{stray}");
    let talk = |(name, text): (&str, String)| Talk::secure(name, KEYED, text, &wants);
    carried(
        field,
        Plan {
            attacks: hidden(KEYED, "/keyed/open", &format!("/{stray}"))
                .into_iter()
                .map(talk)
                .collect(),
            fine: lent(field),
            denied: vec![format!("{KEYED}:443")],
            ..Plan::default()
        },
    )
    .await
}

async fn diverted(field: &Field) -> Trial {
    let Words {
        open: word,
        sink,
        stray,
    } = words(field);
    let own = placeholder(&field.realm);
    let header = bearer(&own);
    let hosts = [
        DENIED.to_owned(),
        format!("{KEYED}.{stray}.test"),
        format!("{stray}{KEYED}"),
        "keyed.world.example.test".to_owned(),
        "198.51.100.66".to_owned(),
    ];
    let mut attacks = Vec::new();
    for host in &hosts {
        let name = host.replace(stray, "STRAY");
        let text = request("GET", host, "/keyed/open", &header, "");
        attacks.push(Talk::plain(format!("plain, {name}"), host, text.clone(), sink));
        attacks.push(Talk::secure(format!("tls, {name}"), host, text, sink).sni(DENIED));
    }
    let within = request("GET", DENIED, "/keyed/open", &header, "");
    attacks.push(Talk::secure("as the bound server's host", KEYED, within.clone(), word));
    attacks.push(Talk::plain("as an open server's host", PLAIN, within, word));
    let crossed = request("GET", KEYED, "/keyed/open", &header, "");
    attacks.push(Talk::secure("by the bound name, elsewhere", OTHER, crossed, word).sni(KEYED));
    let mut trial = carried(
        field,
        Plan {
            attacks,
            fine: lent(field),
            denied: vec![DENIED.to_owned(), format!("{KEYED}:443")],
            silent: vec![own],
            ..Plan::default()
        },
    )
    .await;
    again(field, &mut trial).await;
    trial
}

/// A text as the seeker is told it: it must not be in its own command line.
fn inverted(text: &str) -> String {
    text.bytes().map(|byte| format!("{:02x}", !byte)).collect()
}

async fn sought(field: &Field) -> Trial {
    let (secret, own) = (secret(field), placeholder(&field.realm));
    // One that was lent a moment ago; the ferry is up as well.
    let mut before = Trial::default();
    again(field, &mut before).await;
    let seek = |text: &str| Call::new("seek").with("not", inverted(text)).each("under", PLACES);
    let encoded = [BASE64_STANDARD.encode(secret), hex::encode(secret)];
    let inside = encoded
        .iter()
        .fold(seek(secret), |call, form| call.with("not", inverted(form)));
    let found = field.realm.run(&inside).await;
    // The control: the placeholder, which is in the ferry's environment, in a file, and in memory by that.
    let file = "/workspace/placeholder";
    let put = field.realm.handle.write_file(file, own.clone().into(), 0o644).await;
    let control = match put {
        Ok(()) => field.realm.run(&seek(&own)).await,
        Err(error) => Told::fault(error.to_string()),
    };
    let files = found.counts.get("files").copied().unwrap_or(0);
    let mut trial = super::trial(found, control);
    trial.control_host = before.control_host;
    let ok = files > 20;
    trial.control_host.push(Sighting::new(
        "files looked through",
        "more than 20",
        files.to_string(),
        ok,
    ));
    let all = ["seek.files", "seek.processes"];
    let got = |name: &&str| trial.control.iter().any(|attempt| attempt.got && attempt.name == *name);
    let both = all.iter().all(got);
    let seen = trial
        .control
        .iter()
        .map(|one| format!("{}: {}", one.name, one.why))
        .collect::<Vec<_>>();
    let sighting = Sighting::new("the placeholder", "found in files and processes", seen.join("; "), both);
    trial.control_host.push(sighting);
    trial
}

async fn written(field: &Field) -> Trial {
    let secret = secret(field);
    let mut trial = Trial::default();
    again(field, &mut trial).await;
    let events = field
        .parts
        .store
        .events(field.realm.run, 0, 10_000)
        .await
        .unwrap_or_default();
    let texts: Vec<String> = events
        .iter()
        .map(|event| serde_json::to_string(&event.data).unwrap_or_default())
        .collect();
    let encoded = [secret.to_owned(), BASE64_STANDARD.encode(secret), hex::encode(secret)];
    let holds = |bytes: &[u8], text: &str| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    let files = crate::host::files_below(&field.parts.state_dir, 8);
    for (place, named) in [
        ("events", "events of the run"),
        ("files", "files of the state directory"),
    ] {
        let count = |text: &str| match place {
            "events" => texts.iter().filter(|own| own.contains(text)).count(),
            _ => files.iter().filter(|(_, bytes)| holds(bytes, text)).count(),
        };
        let held: usize = encoded.iter().map(|text| count(text)).sum();
        trial.host.push(Sighting::new(
            format!("the secret in {named}"),
            "0",
            held.to_string(),
            held == 0,
        ));
        // What stands there for certain: the host it was lent for, and the servers' word in a planted file.
        let word = if place == "events" { KEYED } else { field.token() };
        let held = count(word);
        let what = format!("'{}…' in {named}", word.chars().take(10).collect::<String>());
        trial
            .control_host
            .push(Sighting::new(what, "1 or more", held.to_string(), held > 0));
    }
    trial.inside.push(Attempt {
        name: "written".to_owned(),
        got: false,
        why: format!("{} files and {} events were looked through", files.len(), texts.len()),
        errno: None,
    });
    trial
}
