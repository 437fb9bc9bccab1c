//! The placeholder that stands for a secret inside: in its place, and everywhere else.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    Case,
    plan::{Plan, carry_out},
};
use crate::{
    field::Field,
    inside::Inside,
    judge::{Sighting, Trial},
    report::Group::Credentials,
    talk::{LONG, Talk, get},
    world::{KEYED, PLAIN, READ, VARIABLE, WIDE, Words},
};

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
];

pub(super) fn words(field: &Field) -> &Words {
    field.parts.canaries.world().words()
}

pub(super) fn secret(field: &Field) -> &str {
    field.parts.canaries.world().secret()
}

/// The placeholder inside a sandbox; a made-up one where the Guard gave none.
pub(super) fn placeholder(of: &Inside) -> String {
    let variables = of.session.variables();
    let own = variables.into_iter().find(|(name, _)| name == VARIABLE);
    own.map_or_else(|| format!("stk-placeholder-{}", "0".repeat(32)), |(_, value)| value)
}

/// A request with a header and perhaps a body, after which the connection ends.
pub(super) fn request(method: &str, host: &str, path: &str, header: &str, body: &str) -> String {
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

pub(super) fn bearer(value: &str) -> String {
    format!("Authorization: Bearer {value}")
}

/// In its place the placeholder becomes the secret, and a request without one gets it as well.
pub(super) fn lent(field: &Field) -> Vec<Talk> {
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

pub(super) async fn carried(field: &Field, plan: Plan) -> Trial {
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
        secure("the body", KEYED, request("POST", KEYED, "/keyed/echo", "", &own)).or(&own),
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
        )
        .or(&own),
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
pub(super) async fn again(field: &Field, trial: &mut Trial) {
    field.parts.canaries.world().forget();
    if let Ok((inside, _)) = field.ferries().await {
        for talk in lent(field) {
            let attempt = crate::talk::talk(inside, &talk, LONG).await;
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
