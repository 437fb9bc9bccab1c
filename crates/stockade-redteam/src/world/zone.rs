//! The one name server there is (RFC 1035): it knows the names of the red team and remembers every question.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use crate::{RedTeamError, prepare};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// What a name leads to.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// These addresses.
    At(Vec<IpAddr>),
    /// Those at the first look-up of either kind, these ever after: a name that is judged as one thing and used as
    /// another.
    Then(Vec<IpAddr>, Vec<IpAddr>),
    /// Another name.
    Alias(String),
}

/// Names and what they lead to, and who asked.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    names: Mutex<HashMap<String, Known>>,
    asked: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Zone {
    /// A name, or with `*.` in front every name below; nothing has a time to live.
    pub(crate) fn set(&self, name: &str, known: Known) {
        lock(&self.names).insert(name.to_owned(), known);
    }

    /// How many questions held this text, as it is or in capitals.
    pub(crate) fn asked(&self, text: &str) -> u64 {
        lock(&self.asked).iter().filter(|name| name.contains(text)).count() as u64
    }

    fn find(&self, name: &str) -> Option<Known> {
        let mut names = lock(&self.names);
        if let Some(Known::Then(first, later)) = names.get(name).cloned() {
            // Two questions make one look-up: for either kind of address.
            let asked = lock(&self.asked).iter().filter(|asked| *asked == name).count();
            if asked <= 2 {
                return Some(Known::At(first));
            }
            names.insert(name.to_owned(), Known::At(later));
        }
        let below = |name: &str| name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let mut pattern = name.to_owned();
        loop {
            if let Some(known) = names.get(&pattern) {
                return Some(known.clone());
            }
            pattern = below(pattern.trim_start_matches("*."))?;
        }
    }

    /// What a name leads to in the end, for whoever dials what a name server says.
    pub(crate) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let name = name.trim_end_matches('.').to_lowercase();
        match self.find(&name) {
            Some(Known::At(addresses)) => addresses,
            Some(Known::Then(_, later)) => later,
            Some(Known::Alias(other)) => self.find(&other).map_or_else(Vec::new, |known| match known {
                Known::At(addresses) => addresses,
                _ => Vec::new(),
            }),
            None => Vec::new(),
        }
    }

    fn reply(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let (name, kind, end) = question(packet)?;
        lock(&self.asked).push(name.clone());
        Some(reply(packet.get(..end)?, kind, self.find(&name), |other| {
            self.find(other)
        }))
    }

    /// Serves questions by datagram and by stream at one port of the loopback.
    pub(crate) async fn serve(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<SocketAddr, RedTeamError> {
        let what = "the name server";
        let mut last = None;
        // The port that one protocol has free another may not.
        for _ in 0..16 {
            let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(prepare(what))?;
            let address = socket.local_addr().map_err(prepare(what))?;
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    tasks.spawn(datagrams(Arc::clone(self), socket));
                    tasks.spawn(streams(Arc::clone(self), listener));
                    return Ok(address);
                }
                Err(error) => last = Some(error),
            }
        }
        let last = last.map_or_else(|| "no port is free".to_owned(), |error| error.to_string());
        Err(prepare(what)(last))
    }
}

async fn datagrams(zone: Arc<Zone>, socket: UdpSocket) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // A client that is gone already makes an error; the next one need not be.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(answer) = zone.reply(&buffer[..length]) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn streams(zone: Arc<Zone>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let zone = Arc::clone(&zone);
        tokio::spawn(async move { stream_of(&zone, stream).await });
    }
}

async fn stream_of(zone: &Zone, mut stream: TcpStream) -> Option<()> {
    loop {
        let length = usize::from(stream.read_u16().await.ok()?);
        let mut packet = vec![0; length];
        stream.read_exact(&mut packet).await.ok()?;
        let answer = zone.reply(&packet)?;
        stream.write_u16(u16::try_from(answer.len()).ok()?).await.ok()?;
        stream.write_all(&answer).await.ok()?;
    }
}

/// The name asked for, the record type, and where the question ends.
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    packet.get(at + 3)?;
    Some((labels.join("."), kind, at + 4))
}

fn reply(asked: &[u8], kind: u16, known: Option<Known>, other: impl Fn(&str) -> Option<Known>) -> Vec<u8> {
    let mut packet = asked.to_vec();
    // An answer, recursion available, the code.
    packet[2] |= 0x84;
    packet[3] = 0x80 | if known.is_some() { 0 } else { 3 };
    let mut records = Vec::new();
    // The owner by reference to the question.
    let mut owner = vec![0xc0, 12];
    let mut known = known;
    if let Some(Known::Alias(to)) = &known {
        let target = wire(to);
        records.push(record(&owner, CNAME, &target));
        owner = target;
        known = other(to);
    }
    if let Some(Known::At(addresses)) = known {
        records.extend(addresses.iter().filter_map(|address| match address {
            IpAddr::V4(v4) if kind == A => Some(record(&owner, A, &v4.octets())),
            IpAddr::V6(v6) if kind == AAAA => Some(record(&owner, AAAA, &v6.octets())),
            _ => None,
        }));
    }
    let count = u8::try_from(records.len()).unwrap_or(u8::MAX);
    packet[4..12].copy_from_slice(&[0, 1, 0, count, 0, 0, 0, 0]);
    packet.extend(records.concat());
    packet
}

/// A name as labels.
pub(crate) fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| [&[u8::try_from(label.len().min(63)).unwrap_or(63)], label.as_bytes()].concat())
        .collect();
    bytes.push(0);
    bytes
}

/// A record of class IN without a time to live.
fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap_or(0).to_be_bytes();
    [owner, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 0], &length, data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(name: &str, kind: u16) -> Vec<u8> {
        let head = [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&head[..], &wire(name), &kind.to_be_bytes(), &[0, 1]].concat()
    }

    fn answered(zone: &Zone, name: &str) -> (u8, u8, Vec<u8>) {
        let reply = zone.reply(&asks(name, A)).unwrap();
        (reply[3] & 15, reply[7], reply[reply.len() - 4..].to_vec())
    }

    #[test]
    fn names_wildcards_and_aliases_lead_where_they_should() {
        let zone = Zone::default();
        zone.set("a.test", Known::At(vec!["192.0.2.1".parse().unwrap()]));
        zone.set("*.wide.test", Known::At(vec!["192.0.2.2".parse().unwrap()]));
        zone.set("b.test", Known::Alias("a.test".to_owned()));
        assert_eq!(answered(&zone, "A.tesT"), (0, 1, vec![192, 0, 2, 1]));
        assert_eq!(answered(&zone, "x.y.wide.test"), (0, 1, vec![192, 0, 2, 2]));
        assert_eq!(answered(&zone, "b.test"), (0, 2, vec![192, 0, 2, 1]));
        assert_eq!(answered(&zone, "elsewhere.test").0, 3);
        assert_eq!((zone.asked("a.test"), zone.asked("wide")), (1, 1));
        assert!(
            zone.reply(&asks("a.test", A)[..20]).is_none(),
            "half a question is none"
        );
    }

    #[test]
    fn a_name_that_changes_changes_after_one_look_up() {
        let zone = Zone::default();
        let [first, later] = ["192.0.2.1", "127.0.0.1"].map(|text| vec![text.parse().unwrap()]);
        zone.set("r.test", Known::Then(first, later));
        let seen: Vec<_> = (0..4).map(|_| answered(&zone, "r.test").2[0]).collect();
        assert_eq!(seen[..2], [192, 192]);
        assert_eq!(seen[2..], [127, 127]);
    }
}
