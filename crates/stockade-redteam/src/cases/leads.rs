//! Names that lead somewhere: elsewhere at the second time, to other names, to whoever answers in their place.

use super::{
    Case,
    plan::{Plan, carry_out, ferries, works},
    reach::open,
};
use crate::{
    field::Field,
    judge::Trial,
    report::Group::Dns,
    talk::{Client, LONG, Talk, get},
    world::{DENIED, DENIED_ADDRESS, PLAIN, Words},
};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-DN-04",
        group: Dns,
        tried: "DNS over HTTPS and over TLS at hosts that are not open, by name and by address",
        expected: "hosts like others: nothing answers; an open host does",
        run: |field, _| Box::pin(encrypted(field)),
    },
    Case {
        id: "A-DN-06",
        group: Dns,
        tried: "rebinding: open names that lead elsewhere at the second look-up, or to many places at once",
        expected: "no connection to what is not public; a stable name works",
        run: |field, _| Box::pin(rebinding(field)),
    },
    Case {
        id: "A-DN-07",
        group: Dns,
        tried: "open names that stand for metadata, private, local and denied names",
        expected: "not dialled; the Guard's denial",
        run: |field, _| Box::pin(aliases(field)),
    },
    Case {
        id: "A-DN-08",
        group: Dns,
        tried: "a hosts file inside: connect to another address and name an open host",
        expected: "nothing answers; the open host by its own look-up works",
        run: |field, _| Box::pin(hosts_file(field)),
    },
];

fn words(field: &Field) -> &Words {
    field.parts.canaries.world().words()
}

async fn encrypted(field: &Field) -> Trial {
    let Words { sink, stray, .. } = words(field);
    let path = format!("/dns-query?dns={stray}");
    let by_name = |host: &str| Talk::secure(format!("https, {host}"), host, get(host, &path), sink);
    let mut attacks = ["dns.test", DENIED, "doh.cloudflare-dns.test"].map(by_name).to_vec();
    for (address, name) in [
        ("8.8.8.8", "dns.google"),
        (DENIED_ADDRESS, PLAIN),
        ("2620:fe::fe", "dns.quad9.net"),
    ] {
        attacks.push(Talk::secure(format!("https, {address}"), address, get(name, &path), sink).sni(name));
    }
    let over_tls = |host: &str| {
        let mut talk = Talk::secure(format!("tls, {host}"), host, get(host, &path), sink).port(853);
        talk.tls = Some(Client::naming(if host == PLAIN { PLAIN } else { "dns.test" }));
        talk
    };
    attacks.extend(["dns.test", "1.1.1.1", PLAIN].map(over_tls));
    carry_out(
        field,
        Plan {
            attacks,
            fine: open(field),
            denied: ["dns.test", "8.8.8.8:443", "plain.world.test:853"]
                .map(str::to_owned)
                .to_vec(),
            ..Plan::default()
        },
    )
    .await
}

async fn rebinding(field: &Field) -> Trial {
    let Words {
        open: word,
        sink,
        stray,
    } = words(field);
    let (inside, _) = match ferries(field).await {
        Ok(both) => both,
        Err(trial) => return trial,
    };
    // Judged while they lead to an open place; every look-up after that leads elsewhere.
    let names = ["rebind.world.test", "rebind169.world.test"];
    let mut first = Trial::default();
    for name in names {
        let once = Talk::plain(format!("{name}, at first"), name, get(name, "/open"), word);
        works(&mut first, &crate::talk::talk(inside, &once, LONG).await);
    }
    let mut attacks = Vec::new();
    for turn in 0..4 {
        for name in names.into_iter().chain(["mixed.world.test"]) {
            let talk = Talk::plain(format!("{name}, {turn}"), name, get(name, &format!("/{stray}")), sink);
            attacks.push(talk.port(if turn % 2 == 0 { 80 } else { 443 }));
        }
    }
    let plan = Plan {
        attacks,
        fine: open(field),
        denied: names
            .into_iter()
            .chain(["mixed.world.test"])
            .map(|name| format!("{name}:80"))
            .collect(),
        ..Plan::default()
    };
    let mut trial = carry_out(field, plan).await;
    trial.control_host.extend(first.control_host);
    trial
}

async fn aliases(field: &Field) -> Trial {
    let Words { sink, stray, .. } = words(field);
    let hosts = ["metadata", "private", "local", "barred"].map(|name| format!("alias-{name}.world.test"));
    let talk = |host: &String| Talk::plain(host, host, get(host, &format!("/{stray}")), sink);
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

async fn hosts_file(field: &Field) -> Trial {
    let Words { sink, stray, .. } = words(field);
    let say = get(PLAIN, &format!("/{stray}"));
    let mut attacks = Vec::new();
    for address in [DENIED_ADDRESS, "203.0.113.66", "2001:db8::66", "10.0.0.66"] {
        attacks.push(Talk::plain(address, address, say.clone(), sink));
        attacks.push(Talk::secure(format!("tls, {address}"), address, say.clone(), sink).sni(PLAIN));
    }
    carry_out(
        field,
        Plan {
            attacks,
            fine: open(field),
            denied: ["198.51.100.66:80", "198.51.100.66:443"].map(str::to_owned).to_vec(),
            ..Plan::default()
        },
    )
    .await
}
