//! Questions: data in names, other resolvers, what is malformed or spelled in other ways.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::{
    Case,
    plan::{self, ferries, unseen, watched, works},
};
use crate::{
    ferry::Ferry,
    field::Field,
    judge::{Attempt, Sighting, Trial},
    report::Group::Dns,
    talk::{LONG, Talk, get},
    world::{PLAIN, WIDE, Words, wire},
};

/// Longest an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
const A: u16 = 1;
/// Record types data is carried in: A, NS, CNAME, SOA, NULL, PTR, MX, TXT, AAAA, SRV, NAPTR, OPT, DS, RRSIG, DNSKEY,
/// TLSA, SVCB, HTTPS, IXFR, AXFR, ANY, and one that is private.
const KINDS: [u16; 22] = [
    A, 2, 5, 6, 10, 12, 15, 16, 28, 33, 35, 41, 43, 46, 48, 52, 64, 65, 251, 252, 255, 65_280,
];

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-DN-02",
        group: Dns,
        tried: "carry data in questions of every record type, by datagram and by stream",
        expected: "no question reaches the name server; an open name is answered",
        run: |field, _| Box::pin(kinds(field)),
    },
    Case {
        id: "A-DN-03",
        group: Dns,
        tried: "ask other resolvers: by address, mDNS, LLMNR, NetBIOS, DNS over other ports",
        expected: "no question reaches anybody",
        run: |field, _| Box::pin(resolvers(field)),
    },
    Case {
        id: "A-DN-05",
        group: Dns,
        tried: "data in labels below an open wildcard",
        expected: "no question leads to one at the name server; an ordinary name below it works",
        run: |field, _| Box::pin(below(field)),
    },
    Case {
        id: "A-DN-09",
        group: Dns,
        tried: "malformed questions: loops, cut off, too long, dots and NUL in labels, several, answers, other classes",
        expected: "none reaches the name server; the resolver still answers",
        run: |field, _| Box::pin(malformed(field)),
    },
    Case {
        id: "A-DN-10",
        group: Dns,
        tried: "spell denied names: mixed case, Unicode, punycode, escapes, service labels",
        expected: "no question reaches the name server; an open name in mixed case is answered",
        run: |field, _| Box::pin(spellings(field)),
    },
];

fn words(field: &Field) -> &Words {
    field.parts.canaries.world().words()
}

/// A question (RFC 1035, 4.1): the name in labels as they are.
fn question(labels: &[&[u8]], kind: u16) -> Vec<u8> {
    let mut packet = vec![0x5a, 0xa5, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        packet.push(u8::try_from(label.len()).unwrap_or(63));
        packet.extend_from_slice(label);
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

fn of(name: &str, kind: u16) -> Vec<u8> {
    let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
    question(&labels, kind)
}

/// One question; an attempt that got something when the name exists for who answers.
async fn ask(ferry: &Ferry, name: String, packet: Vec<u8>, stream: bool) -> Attempt {
    let answer = match stream {
        false => ferry.datagram("resolver", 53, &packet, PATIENCE).await,
        true => by_stream(ferry, &packet).await,
    };
    let code = |bytes: &Bytes| bytes.get(3).map(|byte| byte & 15);
    let (got, why) = match answer {
        Err(why) => (false, why),
        Ok(bytes) if code(&bytes) == Some(0) => (true, "the name is answered for".to_owned()),
        Ok(bytes) => (false, format!("answered with code {:?}", code(&bytes))),
    };
    Attempt {
        name,
        got,
        why,
        errno: None,
    }
}

async fn by_stream(ferry: &Ferry, packet: &[u8]) -> Result<Bytes, String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = ferry.tcp("resolver", 53).await?;
    let length = u16::try_from(packet.len()).unwrap_or(0).to_be_bytes();
    let exchange = async {
        stream.write_all(&[&length[..], packet].concat()).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(Bytes::from(answer))
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await;
    answer
        .map_err(|_| "nothing came back".to_owned())?
        .map_err(|error| error.to_string())
}

/// Questions by name, each as a datagram and on a stream.
type Questions = Vec<(String, Vec<u8>)>;

async fn ask_all(ferry: &Ferry, questions: &Questions) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for some in questions.chunks(32) {
        let both = some.iter().flat_map(|(name, packet)| {
            [false, true].map(|stream| {
                let way = if stream { "tcp" } else { "udp" };
                ask(ferry, format!("{way}, {name}"), packet.clone(), stream)
            })
        });
        attempts.extend(join_all(both).await);
    }
    attempts
}

/// Questions that must not reach the name server, asked inside and where nothing stops them.
async fn tunnel(field: &Field, questions: Questions, denied: &[&str]) -> Trial {
    let (inside, outside) = match ferries(field).await {
        Ok(both) => both,
        Err(trial) => return trial,
    };
    let mut trial = Trial::default();
    fine(inside, &mut trial).await;
    let (attempts, seen) = watched(field, ask_all(inside, &questions)).await;
    trial.inside = attempts;
    unseen(&mut trial, &seen);
    let places: Vec<String> = denied.iter().map(|place| (*place).to_owned()).collect();
    plan::denied(field, &places, &mut trial).await;
    let (attempts, seen) = watched(field, ask_all(outside, &questions)).await;
    trial.control = attempts;
    let what = "questions with the attacker's word by the control";
    let expected = format!("{} or more", questions.len());
    let ok = seen.asked >= questions.len() as u64;
    trial
        .control_host
        .push(Sighting::new(what, expected, seen.asked.to_string(), ok));
    trial
}

/// An open name is answered for, in any case and by either way.
async fn fine(ferry: &Ferry, trial: &mut Trial) {
    for (name, stream) in [("plain.world.test", false), ("PLAIN.world.TEST", true)] {
        let attempt = ask(ferry, name.to_owned(), of(name, A), stream).await;
        works(trial, &attempt);
    }
}

async fn kinds(field: &Field) -> Trial {
    let stray = &words(field).stray;
    let questions = KINDS
        .map(|kind| {
            (
                format!("type {kind}"),
                of(&format!("t{kind}.{stray}.denied.test"), kind),
            )
        })
        .to_vec();
    tunnel(
        field,
        questions,
        &[&format!("t1.{stray}.denied.test"), &format!("t16.{stray}")],
    )
    .await
}

async fn spellings(field: &Field) -> Trial {
    let stray = words(field).stray.as_str();
    let upper = stray.to_uppercase();
    let bytes = |labels: &[&str]| {
        let labels: Vec<&[u8]> = labels.iter().map(|label| label.as_bytes()).collect();
        question(&labels, A)
    };
    let questions = vec![
        ("mixed case".to_owned(), bytes(&[&upper, "DeNiEd", "tEsT"])),
        ("unicode".to_owned(), bytes(&[stray, "dеnied", "test"])),
        ("full width".to_owned(), bytes(&[stray, "ｄenied", "test"])),
        ("punycode".to_owned(), bytes(&[stray, "xn--dnied-zwe", "test"])),
        ("punycode of nothing".to_owned(), bytes(&[stray, "xn--", "test"])),
        ("service".to_owned(), bytes(&["_https", "_tcp", stray, "test"])),
        ("underscore within".to_owned(), bytes(&[stray, "_x", "test"])),
        ("hyphens".to_owned(), bytes(&["-", stray, "test"])),
        ("number".to_owned(), bytes(&[stray, "127", "0", "0", "1", "test"])),
        (
            "open name in front".to_owned(),
            bytes(&["plain", "world", "test", stray, "test"]),
        ),
        (
            "below an open name".to_owned(),
            bytes(&[stray, "plain", "world", "test"]),
        ),
    ];
    tunnel(field, questions, &[]).await
}

async fn below(field: &Field) -> Trial {
    let (inside, outside) = match ferries(field).await {
        Ok(both) => both,
        Err(trial) => return trial,
    };
    let stray = &words(field).stray;
    let questions: Questions = (0..40)
        .map(|n| {
            let name = format!("{}{n:02}.{stray}.{WIDE}", "d".repeat(60));
            (format!("label {n}"), of(&name, if n % 2 == 0 { A } else { 16 }))
        })
        .collect();
    let mut trial = Trial::default();
    fine(inside, &mut trial).await;
    // Whether the sandbox is told that there is such a name says nothing: what counts is who was asked.
    let (_, seen) = watched(field, ask_all(inside, &questions)).await;
    unseen(&mut trial, &seen);
    let near = "yes.wide.world.test";
    let near = Talk::plain(near, near, get(near, "/open"), &words(field).open);
    works(&mut trial, &crate::talk::talk(inside, &near, LONG).await);
    let (_, seen) = watched(field, ask_all(outside, &questions)).await;
    let what = "questions with the attacker's word by the control";
    let sighting = Sighting::new(what, "80", seen.asked.to_string(), seen.asked == 80);
    trial.control_host.push(sighting);
    trial
}

async fn resolvers(field: &Field) -> Trial {
    let (inside, outside) = match ferries(field).await {
        Ok(both) => both,
        Err(trial) => return trial,
    };
    let name = format!("{}.denied.test", words(field).stray);
    let packet = of(&name, A);
    let own = field.parts.canaries.nameserver();
    let own_host = own.ip().to_string();
    let places = [
        ("8.8.8.8", 53),
        ("2606:4700:4700::1111", 53),
        ("224.0.0.251", 5353),
        ("ff02::fb", 5353),
        ("224.0.0.252", 5355),
        ("255.255.255.255", 137),
        ("8.8.8.8", 5353),
        ("9.9.9.9", 853),
        ("127.0.0.53", 53),
        (own_host.as_str(), own.port()),
    ];
    let each = places
        .iter()
        .map(|(host, port)| inside.datagram(host, *port, &packet, PATIENCE));
    let (answers, seen) = watched(field, join_all(each)).await;
    let mut trial = Trial::default();
    for ((host, port), answer) in places.iter().zip(answers) {
        // A question to port 53 is answered by the Guard whoever was asked: that there is no such name.
        let known = answer
            .as_ref()
            .is_ok_and(|bytes| bytes.get(3).is_some_and(|byte| byte & 15 == 0));
        trial.inside.push(Attempt {
            name: format!("{host}:{port}"),
            got: known,
            why: answer.map_or_else(
                |why| why,
                |bytes| format!("answered with code {:?}", bytes.get(3).map(|b| b & 15)),
            ),
            errno: None,
        });
    }
    unseen(&mut trial, &seen);
    fine(inside, &mut trial).await;
    let (answer, seen) = watched(field, outside.datagram(&own_host, own.port(), &packet, PATIENCE)).await;
    trial.control.push(Attempt {
        name: format!("{own_host}:{}", own.port()),
        got: answer.is_ok(),
        why: answer.map_or_else(|why| why, |_| "it answered".to_owned()),
        errno: None,
    });
    let what = "questions with the attacker's word by the control";
    trial
        .control_host
        .push(Sighting::new(what, "1", seen.asked.to_string(), seen.asked == 1));
    trial
}

/// What no careful server takes for a question about an open name.
fn monsters(stray: &str) -> Questions {
    let name = format!("{stray}.denied.test");
    let sound = of(&name, A);
    let head = |count: u8| vec![0x5a, 0xa5, 1, 0, 0, count, 0, 0, 0, 0, 0, 0];
    let after = |mut packet: Vec<u8>, bytes: &[u8]| {
        packet.extend_from_slice(bytes);
        packet
    };
    let changed = |at: usize, byte: u8| {
        let mut packet = sound.clone();
        packet[at] = byte;
        packet
    };
    let class = sound.len() - 1;
    let long: Vec<String> = (0..8).map(|_| "x".repeat(60)).collect();
    let mut all = vec![
        ("loop", after(head(1), &[0xc0, 12, 0, 1, 0, 1])),
        (
            "loop of two",
            after(head(1), &[1, b'a', 0xc0, 16, 0xc0, 12, 0, 1, 0, 1]),
        ),
        ("pointer ahead", after(head(1), &[0xc0, 200, 0, 1, 0, 1])),
        ("cut off", sound[..sound.len() - 6].to_vec()),
        ("head alone", head(1)),
        ("too long a name", of(&format!("{stray}.{}.test", long.join(".")), A)),
        (
            "label of 64",
            after(head(1), &[&[64], "y".repeat(64).as_bytes(), &[0, 0, 1, 0, 1]].concat()),
        ),
        (
            "dots in a label",
            question(&[b"plain.world.test", stray.as_bytes(), b"test"], A),
        ),
        ("open name as one label", question(&[b"plain.world.test"], A)),
        (
            "nul in a label",
            question(&[format!("{stray}\0").as_bytes(), b"plain", b"world", b"test"], A),
        ),
        (
            "nul after a name",
            question(&[b"plain", b"world", format!("test\0.{stray}.test").as_bytes()], A),
        ),
        (
            "control characters",
            question(&[format!("{stray}\r\n").as_bytes(), b"plain", b"world", b"test"], A),
        ),
        (
            "two questions",
            after(after(head(2), &of(PLAIN, A)[12..]), &sound[12..]),
        ),
        ("no question", head(0)),
        ("an answer", changed(2, 0x81)),
        ("an update", changed(2, 0x28)),
        ("a notice", changed(2, 0x20)),
        ("class chaos", changed(class, 3)),
        ("class any", changed(class, 255)),
        ("padded", after(sound.clone(), &[b'z'; 1300])),
    ];
    let additional = after(changed(11, 1), &wire(&name));
    all.push(("cut off behind", additional));
    all.into_iter()
        .map(|(name, packet)| (name.to_owned(), packet))
        .collect()
}

async fn malformed(field: &Field) -> Trial {
    let (inside, outside) = match ferries(field).await {
        Ok(both) => both,
        Err(trial) => return trial,
    };
    let questions = monsters(&words(field).stray);
    let mut trial = Trial::default();
    let (attempts, seen) = watched(field, ask_all(inside, &questions)).await;
    trial.inside = attempts;
    // A question without a name asks nothing.
    trial.inside.retain(|attempt| !attempt.name.ends_with("no question"));
    unseen(&mut trial, &seen);
    fine(inside, &mut trial).await;
    let (attempts, _) = watched(field, ask_all(outside, &questions)).await;
    trial.control = attempts;
    trial
}
