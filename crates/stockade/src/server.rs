//! Finding a server to talk to, or being one for as long as a command lasts.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stockade_api::{Client, ClientError, ProblemCode};
use stockade_domain::RunId;

use crate::{
    exit::{Complaint, Exit},
    keys,
    settings::Settings,
    wiring::{Role, Server},
};

/// Where a running server says how to reach it.
#[derive(Debug, Serialize, Deserialize)]
struct Beacon {
    url: String,
    pid: u32,
}

fn beacon_path(settings: &Settings) -> PathBuf {
    settings.state_dir.join("server.json")
}

/// A client, and the server behind it where this process is that server.
pub(crate) struct Connection {
    client: Client,
    server: Option<Server>,
    /// What this process has announced and takes back.
    beacon: Option<PathBuf>,
}

impl Connection {
    /// Talks to the server that is running, or serves the store for this one command
    /// without driving runs.
    pub(crate) async fn find(settings: Settings) -> anyhow::Result<Self> {
        match existing(&settings).await? {
            Some(client) => Ok(Self::to(client)),
            None => Self::serve(settings, Role::Desk).await,
        }
    }

    /// Talks to the server that is running, or becomes one that drives runs.
    pub(crate) async fn find_or_drive(settings: Settings) -> anyhow::Result<Self> {
        match existing(&settings).await? {
            Some(_) if settings.provider_asked => Err(Complaint::usage(
                "a server is already running with its own configuration, so --provider and --config cannot apply",
            )
            .hint("stop it first, or leave them out")
            .into()),
            Some(client) => Ok(Self::to(client)),
            None => Self::serve(settings, Role::Everything).await,
        }
    }

    /// Talks to a server that keeps running after this command.
    pub(crate) async fn find_lasting(settings: &Settings) -> anyhow::Result<Self> {
        let client = existing(settings).await?.ok_or_else(|| {
            Complaint::unavailable("no server is running").hint("start one with `stockade up`, or leave out --detach")
        })?;
        Ok(Self::to(client))
    }

    async fn serve(mut settings: Settings, role: Role) -> anyhow::Result<Self> {
        settings.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let beacon = beacon_path(&settings);
        let server = Server::start(settings, role).await?;
        if role == Role::Everything {
            announce(&beacon, server.url())?;
        }
        Ok(Self {
            client: Client::new(server.url(), server.token())?,
            server: Some(server),
            beacon: (role == Role::Everything).then_some(beacon),
        })
    }

    fn to(client: Client) -> Self {
        Self {
            client,
            server: None,
            beacon: None,
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether runs end with this process.
    pub(crate) fn is_embedded(&self) -> bool {
        self.server.is_some()
    }

    /// Lets go of everything in hand.
    pub(crate) async fn close(self) {
        if let Some(beacon) = &self.beacon {
            let _ = fs::remove_file(beacon);
        }
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}

/// A run's receipt; it is sealed shortly after the run's last event.
pub(crate) async fn receipt(client: &Client, run: RunId) -> Result<Bytes, ClientError> {
    for _ in 0..50 {
        match client.receipt(run).await {
            Err(error) if error.code() == Some(ProblemCode::NoArtifact) => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            answer => return answer,
        }
    }
    client.receipt(run).await
}

/// Serves until `stop` resolves, announced to other commands.
pub(crate) async fn run_until(
    settings: Settings,
    ready: impl FnOnce(&Server),
    stop: impl Future<Output = ()>,
) -> anyhow::Result<Exit> {
    if existing(&settings).await?.is_some() {
        return Err(
            Complaint::unavailable(format!("a server already serves {}", settings.state_dir.display()))
                .hint("stop it first, or use another --state-dir")
                .into(),
        );
    }
    let beacon = beacon_path(&settings);
    let server = Server::start(settings, Role::Everything).await?;
    announce(&beacon, server.url())?;
    ready(&server);
    stop.await;
    let _ = fs::remove_file(&beacon);
    server.stop().await;
    Ok(Exit::Done)
}

fn announce(path: &std::path::Path, url: &str) -> anyhow::Result<()> {
    let beacon = Beacon {
        url: url.to_owned(),
        pid: std::process::id(),
    };
    keys::write_private(path, &serde_json::to_vec(&beacon)?)?;
    Ok(())
}

/// A client for the server named by the environment or by the beacon, if that answers.
async fn existing(settings: &Settings) -> anyhow::Result<Option<Client>> {
    if let Some(remote) = &settings.remote {
        return Ok(Some(Client::new(&remote.url, &remote.token)?));
    }
    let Ok(text) = fs::read(beacon_path(settings)) else {
        return Ok(None);
    };
    let Ok(beacon) = serde_json::from_slice::<Beacon>(&text) else {
        return Ok(None);
    };
    let Some(token) = keys::operator_token(&settings.state_dir)? else {
        return Ok(None);
    };
    let client = Client::new(&beacon.url, &token)?;
    // A beacon outlives a killed server; only an answer counts.
    let alive = tokio::time::timeout(Duration::from_secs(3), client.health()).await;
    Ok(matches!(alive, Ok(Ok(_))).then_some(client))
}
