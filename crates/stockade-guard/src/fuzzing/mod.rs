//! What fuzzers feed: the readers of hostile bytes, each beside a second reader that has to agree.
//!
//! A target takes any bytes and panics where a promise does not hold. `fuzz/` runs them under
//! libFuzzer; the tests here replay the committed inputs.
//!
//! | Target | Bytes | What must hold |
//! |---|---|---|
//! | [`hello`] | first bytes of a connection | a server name is what a second parser finds; more bytes change no answer |
//! | [`http1`] | a client's side of HTTP/1 | what arrives upstream is, read strictly, what was judged |
//! | [`http2`] | a client's frames of HTTP/2 | what arrives upstream was judged |
//! | [`target`] | method, target and `Host` | the canonical form is read as itself |
//! | [`dns`] | a question | an address is given for the allowed name that was asked for alone |
//! | [`git`] | packets and commands | what was read is written and read the same, however it is cut |

mod connection;
mod names;
mod second;
mod strict;
mod world;

use stockade_policy::{
    Host, RequestPath, RequestTarget, Scheme,
    target::{Http1Target, TargetForm},
};

use crate::{
    git::{CommandReader, PktReader},
    proxy::connect_head,
    sniff::{Opening, recognise},
};

/// What a fuzzer calls with any bytes.
pub type Target = fn(&[u8]);

/// Every target with its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("hello", hello),
    ("http1", http1),
    ("http2", http2),
    ("target", target),
    ("dns", dns),
    ("git", git),
];

/// Longest HTTP head of the targets, in bytes.
const LONGEST: usize = 4096;

/// The first bytes of a connection.
pub fn hello(data: &[u8]) {
    let said = recognise(data, LONGEST);
    if let Some(Opening::Tls(hello)) = &said {
        // The TLS library tells names in lower case.
        let named = second::server_name(data).map(|name| name.to_ascii_lowercase());
        assert_eq!(hello.sni, named, "two parsers read two server names");
        let host = hello.sni.as_deref().map(Host::parse);
        assert!(
            host.is_none_or(|host| host.is_ok_and(|host| host.name().is_some())),
            "{hello:?}"
        );
    }
    for cut in [data.len() / 2, data.len().saturating_sub(1)] {
        if let Some(early) = recognise(&data[..cut], LONGEST) {
            assert_eq!(Some(early), said, "more bytes changed the answer");
        }
    }
}

/// What a client says over HTTP/1, in pieces whose size is the first byte; and the head of a CONNECT.
pub fn http1(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else {
        return;
    };
    connection::http1(bytes, usize::from(*piece).max(1));
    if let Ok(Some(read)) = connect_head(bytes, LONGEST) {
        let (heads, _) = strict::requests(bytes).expect("what was taken is strictly well-formed");
        let [head] = heads.as_slice() else {
            panic!("one head was taken and {} are there", heads.len())
        };
        assert_eq!((head.method.as_str(), read.form), ("CONNECT", TargetForm::Authority));
        let place = format!("{}:{}", head.target.rsplit_once(':').expect("a port").0, read.port);
        let again = RequestTarget::url(&format!("https://{place}/")).expect("what was read");
        assert_eq!((again.host, again.port), (read.host, read.port));
    }
}

/// What a client says over HTTP/2 after the preface, in pieces whose size is the first byte.
pub fn http2(data: &[u8]) {
    let Some((piece, frames)) = data.split_first() else {
        return;
    };
    connection::http2(frames, usize::from(*piece).max(1));
}

/// Lines: a method, a target, and the values of `Host`.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let (method, target) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let hosts: Vec<&str> = lines.collect();
    for scheme in [Scheme::Http, Scheme::Https] {
        let asked = Http1Target {
            scheme,
            method,
            target,
            hosts: &hosts,
        };
        let Ok(read) = RequestTarget::http1(&asked) else {
            continue;
        };
        names::stays_itself(&read.host);
        for host in &hosts {
            let (named, _) = stockade_policy::host_and_port(host).expect("a host that was read");
            assert_eq!(named, read.host, "a Host is another one");
        }
        if read.form == TargetForm::Asterisk {
            continue;
        }
        let path = RequestPath::parse(read.path.as_str()).expect("a path that was read");
        assert_eq!(
            (path.as_str(), path.doubt().is_some()),
            (read.path.as_str(), read.path.doubt().is_some())
        );
        let again = RequestTarget::url(&read.to_string()).expect("what was written from what was read");
        let parts = |target: RequestTarget| (target.scheme, target.host, target.port, target.path, target.query);
        assert_eq!(parts(again), parts(read));
    }
}

/// A question to the name server.
pub fn dns(data: &[u8]) {
    names::question(data);
}

/// Packets, and commands of a push; the first byte says where they are cut.
pub fn git(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let cut = usize::from(*cut).max(1);
    let packets = |cut: usize| {
        let (mut reader, mut found) = (PktReader::default(), Vec::new());
        for piece in bytes.chunks(cut) {
            reader.push(piece);
            loop {
                match reader.read() {
                    Ok(Some(packet)) => found.push(packet),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error), 0),
                }
            }
        }
        let pending = reader.pending();
        assert!(pending <= bytes.len());
        (found, None, pending)
    };
    assert_eq!(packets(cut), packets(usize::MAX), "cuts changed the packets");
    let commands = |bytes: &[u8], cut: usize| {
        let (mut reader, mut read) = (CommandReader::default(), 0);
        for piece in bytes.chunks(cut) {
            read += piece.len();
            if reader.push(piece).ok()? {
                break;
            }
        }
        let (commands, rest) = reader.finish().ok()?;
        Some((commands, [&rest[..], &bytes[read..]].concat()))
    };
    let whole = commands(bytes, usize::MAX);
    assert_eq!(commands(bytes, cut), whole, "cuts changed the commands");
    if let Some((Some(read), _)) = whole {
        let written = read.encode();
        let (again, rest) = commands(&written, cut).expect("what was written");
        let again = again.expect("commands");
        assert_eq!(
            (&again.updates, &again.capabilities),
            (&read.updates, &read.capabilities)
        );
        assert!(rest.is_empty() && again.shallow.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn corpus(name: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "../../fuzz/corpus", name].iter().collect()
    }

    fn replay(name: &str) {
        let (_, target) = TARGETS.iter().find(|(own, _)| *own == name).expect("a target");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus(name)).expect("a corpus") {
            let path = entry.unwrap().path();
            target(&std::fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count >= 5, "{name} has {count} inputs");
    }

    #[test]
    fn every_corpus_has_a_target_and_a_fuzzer() {
        let mut directories: Vec<String> = std::fs::read_dir(corpus("."))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        directories.sort();
        let mut names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(directories, names);
        for name in names {
            assert!(corpus("../fuzz_targets").join(format!("{name}.rs")).exists(), "{name}");
        }
    }

    #[test]
    fn hello_replays() {
        replay("hello");
    }

    #[test]
    fn http1_replays() {
        replay("http1");
    }

    #[test]
    fn http2_replays() {
        replay("http2");
    }

    #[test]
    fn target_replays() {
        replay("target");
    }

    #[test]
    fn dns_replays() {
        replay("dns");
    }

    #[test]
    fn git_replays() {
        replay("git");
    }
}
