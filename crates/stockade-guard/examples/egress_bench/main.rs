//! What the Guard costs a connection, beside none and beside other proxies.
//!
//! `egress_bench bench ROUNDS [NAME=ADDRESS …]` prints one line of JSON; each `NAME=ADDRESS` is an HTTP proxy that
//! speaks CONNECT. It starts itself twice more: as the server that is asked (`origin`) and as a Guard
//! (`guard`), so that each is a process of its own, as the other proxies are. The Guard has a real store
//! (SQLite, `synchronous=FULL`), a network namespace with the redirection of a sandbox, and the client
//! connects from inside it.

#![allow(unsafe_code, clippy::expect_used, clippy::unwrap_used)]

mod client;
mod guard;
mod namespace;
mod origin;
mod session;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

/// Where the server listens; no other program uses this address.
pub(crate) const ORIGIN: &str = "127.0.77.1:443";
/// A name that is let through as it is.
pub(crate) const PASSED: &str = "passed.bench.example";
/// A name whose requests the Guard reads.
pub(crate) const INSPECTED: &str = "inspected.bench.example";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["origin"] => origin::serve(),
        ["guard", root] => guard::serve(root),
        ["crowd", root, sessions] => guard::crowd(root, sessions.parse().expect("a number")),
        ["bench", rounds, proxies @ ..] => bench(rounds.parse().expect("a number"), proxies),
        _ => panic!("usage: egress_bench bench ROUNDS [NAME=ADDRESS …]"),
    }
}

fn bench(rounds: usize, proxies: &[&str]) {
    let (_origin, told) = Part::start(&["origin"]);
    let root = told["root"].as_str().expect("a certificate").to_owned();
    let (_guard, told) = Part::start(&["guard", &root]);
    let authority = told["authority"].as_str().expect("a certificate").to_owned();
    let resolver = client::Resolver {
        namespace: told["namespace"].as_str().expect("a path").to_owned(),
        roots: vec![root.clone(), authority],
    };
    let mut ways = vec![client::Way::Direct];
    for proxy in proxies {
        let (name, address) = proxy.split_once('=').expect("NAME=ADDRESS");
        let address: SocketAddr = address.parse().expect("an address");
        ways.push(client::Way::Proxy(name.to_owned(), address));
    }
    ways.extend([client::Way::Passed, client::Way::Inspected]);
    let mut figures = client::measure(&resolver, &ways, rounds);
    figures.crowd(&memory(&root));
    let line = figures.line();
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Memory of a Guard with a thousand sandboxes that have ten connections each.
fn memory(root: &str) -> Value {
    let (mut crowd, told) = Part::start(&["crowd", root, "1000"]);
    let connected = client::crowd(&told["places"], root);
    let mut answer = crowd.ask();
    answer["connected"] = json!(connected.len());
    drop(connected);
    answer
}

/// Another process of this program, which ends with this one.
struct Part {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Part {
    /// Starts it and waits for its first line.
    fn start(arguments: &[&str]) -> (Self, Value) {
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("an output"));
        let mut part = Self { child, out };
        let told = part.read();
        (part, told)
    }

    /// Has it measure itself.
    fn ask(&mut self) -> Value {
        let input = self.child.stdin.as_mut().expect("an input");
        writeln!(input).expect("it listens");
        self.read()
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the parent, and from then on ends with it.
pub(crate) fn tell(line: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("somebody listens");
}

/// Waits for the parent: `true` when it asks, `false` when it is gone.
pub(crate) fn asked() -> bool {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0)
}
