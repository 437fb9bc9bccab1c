//! The Guard: takes boundaries and serves them.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use stockade_domain::Run;
use stockade_gate::{Gate, Scope};
use stockade_policy::PolicyError;
use stockade_ports::{
    Boundary, Egress, EgressError, EgressSession, GitPlace, Internal, Lease, Secrets, SystemClock, Tally, Trust,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    GuardConfig,
    broker::Broker,
    connection,
    credentials::{OwnRequests, Repository, RunCredentials, RunCredentialsParts},
    dial::{Dial, SystemDial},
    dns,
    git::{GateDoor, GitSession, GitSettings},
    inspection::{ByPolicy, Inspector},
    lookup::Lookup,
    origin::{KernelOrigin, Origin},
    pins::Pins,
    refusals::Refusals,
    session::{Session, Trial},
    tls::{Tls, Trusted, Unsigned},
};

/// Why there is no Guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// No name servers.
    #[error("no name servers: {0}; set the guard's 'nameservers' or fix /etc/resolv.conf")]
    Nameservers(String),
    /// The certificate authorities that servers are verified against.
    #[error("the certificate authorities cannot be used: {0}; check the guard's extra roots")]
    Roots(String),
}

/// The egress boundary outside every sandbox. One value serves all runs of a process.
pub struct Guard {
    gate: Gate,
    internal: Arc<dyn Internal>,
    origin: Arc<dyn Origin>,
    dial: Arc<dyn Dial>,
    lookup: Lookup,
    inspector: Arc<dyn Inspector>,
    broker: Option<Arc<dyn Broker>>,
    secrets: Option<Arc<dyn Secrets>>,
    trusted: Trusted,
    config: GuardConfig,
}

impl Guard {
    /// A Guard that asks this gate and carries internal requests to this gateway.
    ///
    /// Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`GuardError`] when there is no name server to ask, or an extra root is no certificate.
    pub fn new(gate: Gate, internal: Arc<dyn Internal>, config: GuardConfig) -> Result<Self, GuardError> {
        Ok(Self {
            gate,
            internal,
            origin: Arc::new(KernelOrigin),
            dial: Arc::new(SystemDial),
            lookup: Lookup::new(&config)?,
            inspector: Arc::new(ByPolicy),
            broker: None,
            secrets: None,
            trusted: Trusted::new(&config.extra_roots).map_err(GuardError::Roots)?,
            config,
        })
    }

    /// The Guard with another way to learn where a connection wanted to go.
    #[must_use]
    pub fn with_origin(self, origin: Arc<dyn Origin>) -> Self {
        Self { origin, ..self }
    }

    /// The Guard with another way to open connections outwards.
    #[must_use]
    pub fn with_dial(self, dial: Arc<dyn Dial>) -> Self {
        Self { dial, ..self }
    }

    /// The Guard with other rules about what is inspected.
    #[must_use]
    pub fn with_inspector(self, inspector: Arc<dyn Inspector>) -> Self {
        Self { inspector, ..self }
    }

    /// The Guard with somebody who puts credentials into requests.
    #[must_use]
    pub fn with_broker(self, broker: Arc<dyn Broker>) -> Self {
        Self {
            broker: Some(broker),
            ..self
        }
    }

    /// The Guard with the secrets that environments put into requests.
    #[must_use]
    pub fn with_secrets(self, secrets: Arc<dyn Secrets>) -> Self {
        Self {
            secrets: Some(secrets),
            ..self
        }
    }

    /// What the run's environment puts into requests, if anything.
    fn credentials(&self, run: &Run, scope: &Scope) -> Result<Option<Arc<RunCredentials>>, String> {
        let bindings = run.spec.environment.credentials.clone();
        if bindings.is_empty() {
            return Ok(None);
        }
        let secrets = self.secrets.clone();
        let secrets = secrets.ok_or("it has credentials, and this Guard has no secrets")?;
        let repo = run.spec.repo.as_ref();
        let fetch = OwnRequests {
            lookup: self.lookup.clone(),
            dial: Arc::clone(&self.dial),
            outward: self.trusted.outward().map_err(|error| error.to_string())?,
            scope: scope.clone(),
            config: self.config.clone(),
        };
        let parts = RunCredentialsParts {
            team: run.team,
            bindings,
            repository: repo.and_then(|repo| Repository::of_source(&repo.source)),
            secrets,
            fetch: Arc::new(fetch),
            clock: Arc::new(SystemClock),
        };
        let credentials = RunCredentials::new(parts).map_err(|fault| fault.to_string())?;
        Ok(Some(Arc::new(credentials)))
    }

    fn session(&self, scope: Scope, credentials: Option<Arc<RunCredentials>>) -> Result<Arc<Session>, Unsigned> {
        let inspects = credentials.is_some() || self.inspector.any(scope.policy());
        let tls = inspects.then(|| Tls::new(scope.run(), &self.trusted)).transpose()?;
        Ok(Arc::new(Session {
            gate: self.gate.clone(),
            scope,
            internal: Arc::clone(&self.internal),
            origin: Arc::clone(&self.origin),
            dial: Arc::clone(&self.dial),
            lookup: self.lookup.clone(),
            pins: Pins::new(self.config.max_names),
            refusals: Refusals::default(),
            trial: Trial::default(),
            connections: Arc::new(Semaphore::new(self.config.max_connections)),
            waiting: Arc::new(Semaphore::new(self.config.max_waiting)),
            stop: CancellationToken::new(),
            lost: CancellationToken::new(),
            tasks: TaskTracker::new(),
            inspector: Arc::clone(&self.inspector),
            broker: self.broker.clone(),
            credentials,
            git: OnceLock::new(),
            tls,
            config: self.config.clone(),
        }))
    }
}

#[async_trait]
impl Egress for Guard {
    async fn guard(&self, run: &Run, lease: Lease, boundary: Boundary) -> Result<Box<dyn EgressSession>, EgressError> {
        let scope = Scope::of(run, lease).map_err(|error| EgressError::Environment {
            environment: run.spec.environment.name.clone(),
            cause: match error {
                PolicyError::Environment { cause, .. } => cause,
                rule @ PolicyError::Rule { .. } => rule.to_string(),
            },
        })?;
        let sockets = Sockets::take(boundary)?;
        let credentials = self
            .credentials(run, &scope)
            .map_err(|cause| EgressError::Environment {
                environment: run.spec.environment.name.clone(),
                cause,
            })?;
        let session = self
            .session(scope, credentials)
            .map_err(|error| EgressError::Boundary(error.to_string()))?;
        for listener in sockets.streams {
            let alarm = Alarm(Arc::clone(&session));
            let serve = accept(Arc::clone(&session), listener);
            session.tasks.spawn(alarm.unless_stopped(serve));
        }
        for socket in sockets.datagrams {
            let alarm = Alarm(Arc::clone(&session));
            let serve = dns::serve_datagrams(Arc::clone(&session), socket);
            session.tasks.spawn(alarm.unless_stopped(serve));
        }
        Ok(Box::new(GuardSession { session }))
    }
}

/// A boundary's sockets in the runtime's hands.
struct Sockets {
    streams: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
}

impl Sockets {
    fn take(boundary: Boundary) -> Result<Self, EgressError> {
        let wrong = |error: std::io::Error| EgressError::Boundary(error.to_string());
        let stream = |fd: OwnedFd| {
            let listener = std::net::TcpListener::from(fd);
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let datagram = |fd: OwnedFd| {
            let socket = std::net::UdpSocket::from(fd);
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        };
        let Boundary { tcp4, tcp6, dns4, dns6 } = boundary;
        Ok(Self {
            streams: std::iter::once(tcp4)
                .chain(tcp6)
                .map(stream)
                .collect::<Result<_, _>>()
                .map_err(wrong)?,
            datagrams: std::iter::once(dns4)
                .chain(dns6)
                .map(datagram)
                .collect::<Result<_, _>>()
                .map_err(wrong)?,
        })
    }
}

/// Accepts connections until the session ends.
async fn accept(session: Arc<Session>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = session.stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that was gone before it was accepted.
                tracing::debug!(run = %session.scope.run(), %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let own = Arc::clone(&session);
        match Arc::clone(&session.connections).try_acquire_owned() {
            Ok(place) => {
                session.tasks.spawn(async move {
                    connection::serve(own, stream).await;
                    drop(place);
                });
            }
            // In line, so that a flood waits in the listener's queue.
            Err(_) => connection::turn_away(&session, stream).await,
        }
    }
}

/// Goes off when a task that serves the boundary ends and nobody ended the session: by a panic,
/// for example. The sockets would then be open and nobody behind them.
struct Alarm(Arc<Session>);

impl Alarm {
    async fn unless_stopped(self, serve: impl Future<Output = ()>) {
        serve.await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.0.stop.is_cancelled() {
            self.0.lost.cancel();
        }
    }
}

/// A boundary being served. Dropping it ends every connection.
struct GuardSession {
    session: Arc<Session>,
}

#[async_trait]
impl EgressSession for GuardSession {
    fn tally(&self) -> Tally {
        self.session.trial.tally()
    }

    fn open(&self) {
        self.session.trial.end();
    }

    fn trust(&self) -> Option<Trust> {
        self.session.tls.as_ref().map(Tls::trust)
    }

    fn variables(&self) -> Vec<(String, String)> {
        let credentials = self.session.credentials.as_ref();
        let pairs = credentials.into_iter().flat_map(|credentials| credentials.variables());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn serve_git(&self, place: GitPlace) {
        let session = &self.session;
        if let Some(policy) = session.policy().git() {
            let git = GitSession::new(
                policy.clone(),
                Arc::new(GateDoor(session.passage())),
                place.inspector,
                GitSettings::new(place.spool_dir),
                session.stop.clone(),
            );
            // A second place for one session cannot be: a run is provisioned once.
            let _ = session.git.set(git);
        }
    }

    async fn lost(&self) -> String {
        self.session.lost.cancelled().await;
        "a task that served its boundary has ended".to_owned()
    }

    async fn close(&self) {
        self.session.stop.cancel();
        self.session.tasks.close();
        let wait = self.session.config.close_timeout;
        if tokio::time::timeout(wait, self.session.tasks.wait()).await.is_err() {
            tracing::warn!(run = %self.session.scope.run(), "connections were still open when the session was closed");
        }
        self.session.report().await;
    }
}

impl Drop for GuardSession {
    fn drop(&mut self) {
        self.session.stop.cancel();
    }
}
