//! The measurement lets a sandbox that holds through, and notices one that does not.

use std::{
    net::SocketAddr,
    os::{fd::OwnedFd, linux::net::SocketAddrExt, unix::net::SocketAddr as SocketName},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use stockade_ports::{
    EgressSession, Tally,
    sandbox::{
        Boundary, MEASURED_INSIDE, Measurement, ProbePlan, Sandbox, SandboxError, SandboxHandle, Witness, prove,
    },
    sim::ClosedDoor,
};
use stockade_sandbox::{NativeConfig, NativeSandbox, original_destination};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinSet,
};

use crate::bed::{Bed, cases, config, run};

cases!(
    a_fresh_sandbox_measures_up,
    a_canary_on_the_host_is_not_reached,
    a_boundary_that_answers_is_noticed,
    a_boundary_nobody_serves_is_noticed,
    a_canary_that_is_reached_is_noticed;
    native:
    a_missing_filter_is_noticed,
    a_capability_in_the_bounding_set_is_noticed,
    missing_limits_are_noticed,
    a_larger_disk_is_noticed,
);

/// Servers of the host.
struct Canary {
    addresses: Vec<SocketAddr>,
    name: String,
    hits: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Canary {
    async fn serve() -> Arc<Self> {
        let hits = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(at).await.expect("a canary");
            addresses.push(listener.local_addr().expect("address"));
            let hits = Arc::clone(&hits);
            tasks.spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    hits.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.write_all(b"chirp").await;
                }
            });
        }
        let name = format!("stockade-canary-{}", std::process::id());
        let address = SocketName::from_abstract_name(&name).expect("a name");
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("a canary");
        listener.set_nonblocking(true).expect("nonblocking");
        let listener = UnixListener::from_std(listener).expect("a canary");
        let count = Arc::clone(&hits);
        tasks.spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Arc::new(Self {
            addresses,
            name,
            hits,
            _tasks: tasks,
        })
    }
}

impl Witness for Canary {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }
    fn abstract_socket(&self) -> Option<String> {
        Some(self.name.clone())
    }
    fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

/// What a boundary does that should refuse everything.
#[derive(Clone, Copy, PartialEq)]
enum Leak {
    /// Answers every connection with a page.
    Answers,
    /// Passes connections to the host's loopback on.
    Forwards,
}

/// A session that says all is well, whatever it does.
struct Leaky {
    plan: ProbePlan,
    _tasks: JoinSet<()>,
    /// Serves names as it should be.
    _names: ClosedDoor,
}

impl Leaky {
    fn serve(boundary: Boundary, plan: &ProbePlan, leak: Leak) -> Self {
        let mut tasks = JoinSet::new();
        let again = |fd: &OwnedFd| fd.try_clone().expect("dup");
        for fd in [Some(again(&boundary.tcp4)), boundary.tcp6.as_ref().map(again)] {
            let Some(fd) = fd else { continue };
            tasks.spawn(pass(fd, leak));
        }
        Self {
            plan: plan.clone(),
            _tasks: tasks,
            _names: names(boundary),
        }
    }
}

/// Serves the datagram sockets alone.
fn names(boundary: Boundary) -> ClosedDoor {
    let spare = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a spare listener");
        OwnedFd::from(listener)
    };
    let boundary = Boundary {
        tcp4: spare(),
        tcp6: None,
        ..boundary
    };
    ClosedDoor::serve(boundary, original_destination)
}

async fn pass(fd: OwnedFd, leak: Leak) {
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true).expect("nonblocking");
    let listener = TcpListener::from_std(listener).expect("a listener");
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let to = original_destination(&stream).or_else(|| stream.local_addr().ok());
            match (leak, to) {
                (Leak::Answers, _) => {
                    let mut request = [0; 512];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").await;
                }
                (Leak::Forwards, Some(to)) if to.ip().is_loopback() => {
                    if let Ok(mut outside) = TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut outside).await;
                    }
                }
                _ => {}
            }
        });
    }
}

#[async_trait]
impl EgressSession for Leaky {
    fn tally(&self) -> Tally {
        let denied = self.plan.denied.iter().map(|addr| addr.ip().to_string());
        Tally {
            denied: denied.chain([self.plan.denied_name.clone()]).collect(),
            allowed: Vec::new(),
        }
    }
    fn open(&self) {}
    async fn lost(&self) -> String {
        std::future::pending().await
    }
    async fn close(&self) {}
}

type Proved = Result<(Arc<dyn SandboxHandle>, Measurement), SandboxError>;

/// Makes a sandbox and proves it behind a closed door.
async fn proved(sandbox: &dyn Sandbox, bed: &Bed, plan: &ProbePlan) -> Proved {
    let mut fresh = sandbox.create(bed.spec()).await.unwrap_or_else(|e| panic!("{e}"));
    let boundary = fresh.take_boundary().expect("a boundary");
    let door = ClosedDoor::serve(boundary, original_destination);
    prove(fresh, plan, &door).await
}

/// The names of the checks that failed, with nothing left of the sandbox.
#[track_caller]
fn unproved(result: Proved) -> Vec<String> {
    match result {
        Ok((_, measurement)) => panic!("it was proved: {measurement:?}"),
        Err(SandboxError::Unproved { failed }) => {
            let name = |sentence: &String| sentence.split(':').next().unwrap_or_default().to_owned();
            println!("{failed:#?}");
            failed.iter().map(name).collect()
        }
        Err(other) => panic!("{other}"),
    }
}

async fn a_fresh_sandbox_measures_up(bed: Bed) {
    let plan = ProbePlan::standard(None);
    let (handle, measurement) = proved(&*bed.sandbox, &bed, &plan)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    for name in MEASURED_INSIDE {
        let check = measurement.checks.iter().find(|check| check.name == name);
        assert!(check.is_some_and(|check| check.ok), "{name} in {measurement:?}");
    }
    assert_eq!(run(&*handle, &["echo", "in"]).await.ok(), "in\n");
}

async fn a_canary_on_the_host_is_not_reached(bed: Bed) {
    let canary = Canary::serve().await;
    // It is alive: a connection of ours is seen.
    for address in canary.addresses() {
        let mut said = String::new();
        let mut stream = TcpStream::connect(address).await.expect("alive");
        stream.read_to_string(&mut said).await.expect("says");
        assert_eq!(said, "chirp");
    }
    assert_eq!(canary.hits(), 2);
    let plan = ProbePlan::standard(Some(canary.clone()));
    let (_handle, measurement) = proved(&*bed.sandbox, &bed, &plan)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(canary.hits(), 2, "{measurement:?}");
    let seen = measurement
        .checks
        .iter()
        .find(|check| check.name == "canary.unreachable");
    assert_eq!(seen.map(|check| check.seen.as_str()), Some("no answer from 2"));
}

async fn a_boundary_that_answers_is_noticed(bed: Bed) {
    let plan = ProbePlan::standard(None);
    let mut fresh = bed.sandbox.create(bed.spec()).await.unwrap_or_else(|e| panic!("{e}"));
    let door = Leaky::serve(fresh.take_boundary().expect("a boundary"), &plan, Leak::Answers);
    assert_eq!(unproved(prove(fresh, &plan, &door).await), ["egress.denied"]);
}

async fn a_boundary_nobody_serves_is_noticed(bed: Bed) {
    let plan = ProbePlan::standard(None);
    let mut fresh = bed.sandbox.create(bed.spec()).await.unwrap_or_else(|e| panic!("{e}"));
    let _unserved = fresh.take_boundary().expect("a boundary");
    let door = names(Boundary {
        tcp4: std::net::TcpListener::bind("127.0.0.1:0").expect("spare").into(),
        tcp6: None,
        dns4: std::net::UdpSocket::bind("127.0.0.1:0").expect("spare").into(),
        dns6: None,
    });
    let failed = unproved(prove(fresh, &plan, &door).await);
    assert_eq!(failed, ["egress.denied", "egress.guarded"]);
}

async fn a_canary_that_is_reached_is_noticed(bed: Bed) {
    let canary = Canary::serve().await;
    let plan = ProbePlan::standard(Some(canary.clone()));
    let mut fresh = bed.sandbox.create(bed.spec()).await.unwrap_or_else(|e| panic!("{e}"));
    let door = Leaky::serve(fresh.take_boundary().expect("a boundary"), &plan, Leak::Forwards);
    let failed = unproved(prove(fresh, &plan, &door).await);
    assert_eq!(failed, ["canary.unreachable", "canary.silent"]);
    assert!(canary.hits() > 0);
}

/// A backend whose launcher leaves something out.
fn sabotaged(bed: &Bed, how: &str) -> NativeSandbox {
    let config = config(&bed.dir);
    let launcher = config.launcher.iter().cloned().chain([how.into()]).collect();
    NativeSandbox::new(NativeConfig { launcher, ..config })
}

async fn failing_with(bed: &Bed, how: &str) -> Vec<String> {
    let plan = ProbePlan::standard(None);
    unproved(proved(&sabotaged(bed, how), bed, &plan).await)
}

async fn a_missing_filter_is_noticed(bed: Bed) {
    assert_eq!(failing_with(&bed, "without-filter").await, ["filter.installed"]);
}

async fn a_capability_in_the_bounding_set_is_noticed(bed: Bed) {
    assert_eq!(failing_with(&bed, "with-capabilities").await, ["privileges.none"]);
}

async fn missing_limits_are_noticed(bed: Bed) {
    assert_eq!(failing_with(&bed, "without-limits").await, ["limits.in_force"]);
}

async fn a_larger_disk_is_noticed(bed: Bed) {
    assert_eq!(failing_with(&bed, "with-more-disk").await, ["limits.in_force"]);
}
