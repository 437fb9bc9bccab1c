//! What a command could do inside, tried before there is one.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// What to try. The Guest tries it in a process that stands where a command would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStart {
    /// The request.
    pub id: u32,
    /// Addresses to connect to and to ask for a page (HTTP/1.0).
    #[serde(default)]
    pub tcp: Vec<SocketAddr>,
    /// A name to ask the resolver of `/etc/resolv.conf` for.
    #[serde(default)]
    pub name: String,
    /// Servers of the host, tried as [`ProbeStart::tcp`] is.
    #[serde(default)]
    pub canaries: Vec<SocketAddr>,
    /// A name in the abstract namespace of unix(7) to connect to, without the leading NUL.
    #[serde(default)]
    pub abstract_socket: Option<String>,
}

/// What a probe saw. Nothing in here is judged yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Names of the network interfaces; absent when they could not be listed.
    #[serde(default)]
    pub interfaces: Option<Vec<String>>,
    /// How the connections ended, in the order they were asked for.
    #[serde(default)]
    pub tcp: Vec<Reached>,
    /// The resolver's answer.
    #[serde(default)]
    pub name: Option<Resolved>,
    /// How the connections to the canaries ended.
    #[serde(default)]
    pub canaries: Vec<Reached>,
    /// How the connection to the abstract socket ended.
    #[serde(default)]
    pub abstract_socket: Option<Reached>,
    /// Fields of `/proc/self/status` (proc(5)) about privileges, as they are written there.
    #[serde(default)]
    pub status: BTreeMap<String, String>,
    /// What `PR_GET_NO_NEW_PRIVS` answers.
    #[serde(default)]
    pub no_new_privs: bool,
    /// Soft and hard resource limits (getrlimit(2)) by name: `nproc`, `nofile`, `core`.
    #[serde(default)]
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// Size in bytes of the file system behind each writable directory (statfs(2)).
    #[serde(default)]
    pub disks: BTreeMap<String, u64>,
    /// Dangerous system calls, tried with arguments that do no harm, and what each answered:
    /// an error number, 0 for success.
    #[serde(default)]
    pub calls: BTreeMap<String, i32>,
    /// Landlock (kernel: userspace-api/landlock.rst): the version in force, 0 where the kernel
    /// has none, or why it could not be put in force.
    #[serde(default)]
    pub landlock: Option<Result<u32, String>>,
    /// Microseconds it took.
    #[serde(default)]
    pub micros: u64,
}

/// How an attempt to reach something ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// The kernel refused it with this error number.
    Refused(i32),
    /// Somebody took the connection and closed it without a word.
    Closed,
    /// Somebody took the connection and answered; the first bytes of it.
    Answered(String),
    /// Nothing happened in time.
    Silent,
}

/// What a resolver said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolved {
    /// It answered with this code (RFC 1035, 4.1.1) and so many records.
    Code {
        /// RCODE.
        code: u8,
        /// ANCOUNT.
        answers: u16,
    },
    /// It could not be asked.
    Failed(String),
    /// It did not answer in time.
    Silent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_round_trip_and_missing_ones_are_nothing() {
        let observed = Observed {
            interfaces: Some(vec!["lo".into()]),
            tcp: vec![Reached::Refused(111), Reached::Answered("HTTP/1.0 403".into())],
            name: Some(Resolved::Code { code: 3, answers: 0 }),
            calls: BTreeMap::from([("mount".to_owned(), 1)]),
            ..Observed::default()
        };
        let text = serde_json::to_string(&observed).expect("serializes");
        assert_eq!(serde_json::from_str::<Observed>(&text).expect("parses"), observed);
        assert_eq!(
            serde_json::from_str::<Observed>("{}").expect("parses"),
            Observed::default()
        );
    }
}
