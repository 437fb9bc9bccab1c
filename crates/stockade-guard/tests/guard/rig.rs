//! A Guard with everything around it.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use stockade_domain::{
    ApprovalDecision, Decision, Environment, Event, EventType, NetworkLevel, Rule, RuleMatch, RuleVerdict, RunId,
    RunInput, TaskId, TeamId,
};
use stockade_gate::Gate;
use stockade_guard::{Broker, Guard, GuardConfig, Inspector, Origin};
use stockade_policy::Policy;
use stockade_ports::{
    Boundary, Clock, CreateRun, CreateTask, Egress, EgressSession, Internal, InternalBody, InternalRequest,
    InternalResponse, RunIdentity, SecretValue, Secrets as _, Store, SystemClock,
    sim::{MemoryStore, RecordingBus, samples},
};
use stockade_vault::{InstallationKey, Vault};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::world::{Internet, NameServer};

/// Longest any test waits for something that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// What a test wants.
pub(crate) struct Plan {
    pub(crate) environment: Environment,
    pub(crate) rules: Vec<Rule>,
    pub(crate) config: GuardConfig,
    /// Leave the session as it begins.
    pub(crate) closed: bool,
    pub(crate) inspector: Option<Arc<dyn Inspector>>,
    pub(crate) broker: Option<Arc<dyn Broker>>,
    /// The team's secrets by name.
    pub(crate) secrets: Vec<(&'static str, &'static str)>,
}

impl Plan {
    pub(crate) fn custom(domains: &[&str]) -> Self {
        Self::level(NetworkLevel::Custom, domains)
    }

    pub(crate) fn level(level: NetworkLevel, domains: &[&str]) -> Self {
        Self {
            environment: Environment {
                domains: domains.iter().map(|d| (*d).to_owned()).collect(),
                acknowledge_full_network: level == NetworkLevel::Full,
                ..Environment::named("test", level)
            },
            rules: Vec::new(),
            config: GuardConfig {
                dns_timeout: Duration::from_secs(2),
                handshake_timeout: Duration::from_millis(800),
                first_word: Duration::from_millis(150),
                ..GuardConfig::default()
            },
            closed: false,
            inspector: None,
            broker: None,
            secrets: Vec::new(),
        }
    }

    pub(crate) fn rule(mut self, id: &str, host: &str, verdict: RuleVerdict) -> Self {
        self.rules.push(Rule {
            id: id.to_owned(),
            when: RuleMatch {
                host: Some(host.to_owned()),
                ..RuleMatch::default()
            },
            verdict,
            reason: format!("rule {id}"),
        });
        self
    }

    pub(crate) async fn start(self) -> Rig {
        Rig::start(self).await
    }
}

/// Stands in for the kernel: which destination a client's port stands for.
#[derive(Default)]
struct Destinations(Mutex<HashMap<SocketAddr, SocketAddr>>);

impl Origin for Destinations {
    fn destination(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        let destinations = self.0.lock().unwrap();
        destinations
            .get(&stream.peer_addr()?)
            .copied()
            .ok_or(io::ErrorKind::NotFound.into())
    }
}

pub(crate) struct Rig {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) names: NameServer,
    pub(crate) internet: Arc<Internet>,
    pub(crate) session: Option<Box<dyn EgressSession>>,
    pub(crate) run: RunId,
    pub(crate) team: TeamId,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) bus: Arc<RecordingBus>,
    destinations: Arc<Destinations>,
    pub(crate) tcp4: SocketAddr,
    tcp6: SocketAddr,
    dns4: SocketAddr,
}

impl Rig {
    async fn start(plan: Plan) -> Self {
        let names = NameServer::start().await;
        let store = Arc::new(MemoryStore::default());
        let clock = SystemClock;
        let (run, team) = (RunId::from_uuid(clock.uuid()), TeamId::from_uuid(clock.uuid()));
        let mut spec = samples::spec(samples::limits());
        spec.environment = plan.environment;
        spec.agent.rules = plan.rules;
        spec.policy_version = Policy::compile(&spec.agent, &spec.environment).unwrap().version();
        let create = CreateTask {
            id: TaskId::from_uuid(clock.uuid()),
            team,
            prompt: spec.prompt.clone(),
            repo: None,
            run: Some(CreateRun { id: run, spec }),
            idempotency_key: None,
            now: clock.now(),
        };
        store.create_task(create).await.unwrap();
        let claim = store.claim(clock.now()).await.unwrap().expect("a run to claim");
        store
            .step(run, Some(claim.lease), RunInput::Provisioned, clock.now())
            .await
            .unwrap();

        let bus = Arc::new(RecordingBus::default());
        let gate = Gate::new(Arc::clone(&store) as _, Arc::clone(&bus) as _, Arc::new(clock));
        let internet = Arc::new(Internet::default());
        let destinations = Arc::new(Destinations::default());
        let gateway = Arc::new(Gateway::default());
        let config = GuardConfig {
            nameservers: vec![names.address],
            ..plan.config
        };
        let mut guard = Guard::new(gate, Arc::clone(&gateway) as _, config)
            .unwrap()
            .with_origin(Arc::clone(&destinations) as _)
            .with_dial(Arc::clone(&internet) as _);
        if let Some(inspector) = plan.inspector {
            guard = guard.with_inspector(inspector);
        }
        if let Some(broker) = plan.broker {
            guard = guard.with_broker(broker);
        }
        let vault = Vault::new(Arc::clone(&store) as _, InstallationKey::generate().unwrap());
        for (name, value) in plan.secrets {
            let value = SecretValue::new(value.as_bytes().to_vec());
            let name = name.parse().unwrap();
            vault.put(team, &name, value, clock.now()).await.unwrap();
        }
        guard = guard.with_secrets(Arc::new(vault));
        let tcp4 = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp6 = std::net::TcpListener::bind("[::1]:0").unwrap();
        let dns4 = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let addresses = (
            tcp4.local_addr().unwrap(),
            tcp6.local_addr().unwrap(),
            dns4.local_addr().unwrap(),
        );
        let boundary = Boundary {
            tcp4: OwnedFd::from(tcp4),
            tcp6: Some(OwnedFd::from(tcp6)),
            dns4: OwnedFd::from(dns4),
            dns6: None,
        };
        let closed = plan.closed;
        let session = guard.guard(&claim.run, claim.lease, boundary).await.unwrap();
        if !closed {
            session.open();
        }
        Self {
            store,
            names,
            internet,
            session: Some(session),
            run,
            team,
            gateway,
            bus,
            destinations,
            tcp4: addresses.0,
            tcp6: addresses.1,
            dns4: addresses.2,
        }
    }

    /// A server of the Internet: a name, its address and what answers there.
    pub(crate) fn host(&self, name: &str, address: &str, port: u16, server: SocketAddr) {
        self.names.set(name, &[address]);
        let place = match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(_) => format!("{address}:{port}"),
            IpAddr::V6(_) => format!("[{address}]:{port}"),
        };
        self.internet.place(&place, server);
    }

    /// Connects as a client inside the sandbox would.
    pub(crate) async fn connect(&self, destination: &str) -> TcpStream {
        let destination: SocketAddr = destination.parse().unwrap();
        let (socket, own, guard) = match destination {
            SocketAddr::V4(_) => (TcpSocket::new_v4().unwrap(), "127.0.0.1:0", self.tcp4),
            SocketAddr::V6(_) => (TcpSocket::new_v6().unwrap(), "[::1]:0", self.tcp6),
        };
        socket.bind(own.parse().unwrap()).unwrap();
        let local = socket.local_addr().unwrap();
        self.destinations.0.lock().unwrap().insert(local, destination);
        socket.connect(guard).await.unwrap()
    }

    /// An address that a program which is no part of the test connects to in place of a name.
    pub(crate) async fn entrance(self: &Arc<Self>, name: &str, port: u16) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (rig, name) = (Arc::clone(self), name.to_owned());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut inside = rig.connect_to(&name, port).await;
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut inside).await;
                });
            }
        });
        address
    }

    /// From now on whoever asks where a connection wanted to go panics.
    pub(crate) fn break_origin(&self) {
        let destinations = Arc::clone(&self.destinations);
        let poisoned = std::thread::spawn(move || {
            let _held = destinations.0.lock().unwrap();
            panic!("on purpose");
        });
        assert!(poisoned.join().is_err());
    }

    /// Looks a name up and connects to what it got.
    pub(crate) async fn connect_to(&self, name: &str, port: u16) -> TcpStream {
        let address = self.address_of(name).await;
        self.connect(&format!("{address}:{port}")).await
    }

    /// The synthetic address of an allowed name.
    pub(crate) async fn address_of(&self, name: &str) -> IpAddr {
        let (code, addresses) = self.resolve(name, RecordType::A).await;
        assert_eq!(code, ResponseCode::NoError, "{name}");
        *addresses.first().unwrap_or_else(|| panic!("{name} has no address"))
    }

    pub(crate) async fn resolve(&self, name: &str, kind: RecordType) -> (ResponseCode, Vec<IpAddr>) {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
        let answer = self.ask(&query.to_vec().unwrap()).await.expect("an answer");
        read(&answer)
    }

    /// Sends a datagram to the name server and waits a moment for the answer.
    pub(crate) async fn ask(&self, question: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(question, self.dns4).await.unwrap();
        let mut buffer = vec![0; 4096];
        let length = timeout(Duration::from_secs(1), socket.recv(&mut buffer))
            .await
            .ok()?
            .unwrap();
        buffer.truncate(length);
        Some(buffer)
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        self.store.events(self.run, 0, 10_000).await.unwrap()
    }

    /// `operation target rule` of every event of this type.
    pub(crate) async fn told(&self, kind: EventType) -> Vec<String> {
        let events = self.events().await;
        let text = |event: &Event, key: &str| event.data[key].as_str().unwrap_or_default().to_owned();
        events
            .iter()
            .filter(|event| event.kind == kind)
            .map(|e| format!("{} {} {}", text(e, "operation"), text(e, "target"), text(e, "rule")))
            .collect()
    }

    pub(crate) async fn denied(&self) -> Vec<String> {
        self.told(EventType::EgressDenied).await
    }

    pub(crate) async fn allowed(&self) -> Vec<String> {
        self.told(EventType::EgressAllowed).await
    }

    /// Details of every settlement, once there are so many.
    pub(crate) async fn settled(&self, count: usize) -> Vec<serde_json::Value> {
        let settled = async {
            loop {
                let events = self.events().await;
                let settled: Vec<_> = events
                    .iter()
                    .filter(|e| e.kind == EventType::ActionSettled)
                    .map(|e| e.data.clone())
                    .collect();
                if settled.len() >= count {
                    return settled;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, settled).await.expect("settlements")
    }

    /// The pending approval, once there is one.
    pub(crate) async fn pending(&self) -> stockade_domain::Approval {
        let pending = async {
            loop {
                let state = Some(stockade_domain::ApprovalState::Pending);
                let found = self.store.approvals(None, Some(self.run), state, 10).await.unwrap();
                if let Some(approval) = found.into_iter().next() {
                    return approval;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, pending).await.expect("an approval")
    }

    /// Decides what is pending, or will be.
    pub(crate) async fn decide(&self, decision: Decision) {
        let approval = self.pending().await;
        let decision = ApprovalDecision {
            decision,
            by: "ada".to_owned(),
            reason: None,
            edited_args: None,
        };
        let decided = self.store.decide(self.team, approval.id, decision, SystemClock.now());
        decided.await.unwrap();
    }

    pub(crate) async fn close(&mut self) {
        let session = self.session.take().expect("a session");
        session.close().await;
    }
}

pub(crate) fn read(answer: &[u8]) -> (ResponseCode, Vec<IpAddr>) {
    let answer = Message::from_vec(answer).unwrap();
    let addresses = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(a) => Some(IpAddr::from(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::from(aaaa.0)),
        _ => None,
    });
    (answer.metadata.response_code, addresses.collect())
}

/// Sends bytes and reads until the other side is done or has been silent for a moment.
pub(crate) async fn talk(stream: &mut TcpStream, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes).await;
    listen(stream).await
}

/// Reads until the other side is done or has been silent for a moment.
pub(crate) async fn listen(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let mut first = true;
    loop {
        let patience = if first { SOON } else { Duration::from_millis(150) };
        match timeout(patience, stream.read_buf(&mut heard)).await {
            Ok(Ok(1..)) => first = false,
            _ => return String::from_utf8_lossy(&heard).into_owned(),
        }
    }
}

/// Whether the other side has closed without a byte.
pub(crate) async fn is_shut(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(timeout(SOON, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

/// The gateway of the tests: says who asked, then streams what the test feeds it.
#[derive(Default)]
pub(crate) struct Gateway {
    pub(crate) calls: Mutex<Vec<(RunIdentity, String, String)>>,
    pub(crate) feed: Mutex<Option<mpsc::Receiver<Bytes>>>,
}

#[async_trait]
impl Internal for Gateway {
    fn hosts(&self) -> &[&'static str] {
        &stockade_policy::INTERNAL_HOSTS
    }

    async fn call(&self, identity: RunIdentity, host: &str, request: InternalRequest) -> InternalResponse {
        let path = request.uri().to_string();
        self.calls.lock().unwrap().push((identity, host.to_owned(), path));
        let feed = self.feed.lock().unwrap().take();
        let body = match feed {
            None => request.into_body(),
            Some(feed) => {
                let frames = futures::stream::unfold(feed, |mut feed| async move {
                    feed.recv().await.map(|bytes| (Ok(Frame::data(bytes)), feed))
                });
                InternalBody::new(BodyExt::map_err(
                    StreamBody::new(frames),
                    |never: std::convert::Infallible| match never {},
                ))
            }
        };
        http::Response::new(body)
    }
}
