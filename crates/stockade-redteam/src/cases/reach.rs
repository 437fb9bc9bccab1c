//! Connections: addresses, names that lead astray, look-alikes, other ports, datagrams.

use super::{
    Case,
    plan::{Plan, captured, carry_out, ferries, unseen, watched},
};
use crate::{
    field::Field,
    judge::{Attempt, Trial},
    report::Group::Network,
    talk::{Talk, get},
    world::{DENIED, DENIED_ADDRESS, ODD, PLAIN, PLAIN_ADDRESS, Words},
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
        captured(&mut trial, &seen);
    }
    let why = match trial.control.iter().any(|attempt| attempt.got) {
        true => String::new(),
        false => "no datagram came back outside either".to_owned(),
    };
    trial.no_control = Some(why).filter(|why| !why.is_empty());
    trial
}
