//! A Guard as a process of its own.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::Arc,
};

use hickory_proto::{
    op::Message,
    rr::{RData, Record, RecordType, rdata::A},
};
use serde_json::json;
use stockade_guard::Origin;
use stockade_ports::{Boundary, Egress as _, EgressSession};
use tokio::{net::TcpStream, runtime::Runtime};

use crate::{ORIGIN, PASSED, asked, client::EACH, namespace, session::Installation, tell};

/// One run in a network namespace.
pub(crate) fn serve(root: &str) {
    let (path, boundary) = namespace::boundary();
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let _session = runtime.block_on(async {
        let installation = Installation::open(dir.path(), nameserver().await, vec![root.to_owned()]).await;
        let (run, lease) = installation.run().await;
        let session = installation
            .guard()
            .guard(&run, lease, boundary)
            .await
            .expect("a session");
        session.open();
        let authority = session.trust().expect("it inspects").authority;
        tell(&json!({ "namespace": path, "authority": authority }));
        session
    });
    while asked() {}
}

/// Very many runs, each with its sockets on loopback; tells what memory they take.
pub(crate) fn crowd(root: &str, sessions: usize) {
    // Two sockets each, and two for every connection; the store and the runtime have some too.
    let room = (raise_limit() - 600) / (2 + 2 * EACH as u64);
    let sessions = sessions.min(usize::try_from(room).expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let before = std::cell::Cell::new(0);
    let _kept: Vec<Box<dyn EgressSession>> = runtime.block_on(async {
        let installation = Installation::open(dir.path(), nameserver().await, vec![root.to_owned()]).await;
        let origin = Arc::new(Places::default());
        let guard = installation.guard().with_origin(Arc::clone(&origin) as _);
        before.set(resident());
        let (mut kept, mut places) = (Vec::new(), Vec::new());
        for _ in 0..sessions {
            let (run, lease) = installation.run().await;
            let (boundary, tcp, dns) = loopback();
            let session = guard.guard(&run, lease, boundary).await.expect("a session");
            session.open();
            origin.learn(tcp, dns).await;
            kept.push(session);
            places.push(tcp);
        }
        tell(&json!({ "places": places }));
        kept
    });
    while asked() {
        tell(&json!({ "before_kib": before.get(), "resident_kib": resident() }));
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

fn loopback() -> (Boundary, SocketAddr, SocketAddr) {
    let tcp4 = TcpListener::bind("127.0.77.2:0").expect("a socket");
    let dns4 = UdpSocket::bind("127.0.77.2:0").expect("a socket");
    let addresses = (
        tcp4.local_addr().expect("an address"),
        dns4.local_addr().expect("an address"),
    );
    let boundary = Boundary {
        tcp4: OwnedFd::from(tcp4),
        tcp6: None,
        dns4: OwnedFd::from(dns4),
        dns6: None,
    };
    (boundary, addresses.0, addresses.1)
}

/// Stands in for a thousand namespaces: what each session's clients want to reach.
#[derive(Default)]
struct Places(std::sync::Mutex<HashMap<SocketAddr, SocketAddr>>);

impl Places {
    async fn learn(&self, tcp: SocketAddr, dns: SocketAddr) {
        let wanted = crate::client::look_up(dns, PASSED).await;
        let mut places = self.0.lock().expect("not poisoned");
        places.insert(tcp, SocketAddr::new(wanted, 443));
    }
}

impl Origin for Places {
    fn destination(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        let places = self.0.lock().expect("not poisoned");
        places
            .get(&stream.local_addr()?)
            .copied()
            .ok_or(io::ErrorKind::NotFound.into())
    }
}

/// Answers every question with the server's address.
async fn nameserver() -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("an address");
    let SocketAddr::V4(origin) = ORIGIN.parse().expect("an address") else {
        panic!("the server is at an IPv4 address");
    };
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            if let Some(answer) = answer(&buffer[..length], *origin.ip()) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    address
}

fn answer(question: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let request = Message::from_vec(question).ok()?;
    let query = request.queries.first()?.clone();
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_available = true;
    response.queries = vec![query.clone()];
    if query.query_type() == RecordType::A {
        response.answers = vec![Record::from_rdata(query.name().clone(), 60, RData::A(A(address)))];
    }
    response.to_vec().ok()
}

/// Resident memory of this process in KiB (proc_pid_status(5), `VmRSS`).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|number| number.parse().ok()).expect("a size")
}

/// As many descriptors as the host lets a process have (setrlimit(2)); how many that is.
pub(crate) fn raise_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct lives as long as both calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    limit.rlim_cur
}
