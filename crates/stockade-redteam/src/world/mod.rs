//! The world outside as the Guard finds it while it is attacked: one name server, servers at addresses of
//! documentation ranges (RFC 5737) that are really on the loopback, and for every other address a sink. No packet
//! leaves the host: what the Guard dials is led here, and so is what should never have been dialled.
//!
//! | Module | Part |
//! |---|---|
//! | `zone` | names, and who asked |
//! | `pki` | certificates, good and bad |
//! | `origin` | servers that remember what they were told |
//! | `road` | the way without a Guard, for controls |
//! | `chest` | the secret that must not be found inside |
//! | `realm` | the environment in which these names are open or closed |

mod chest;
mod origin;
mod pki;
mod realm;
mod road;
mod zone;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustls::pki_types::CertificateDer;
use stockade_ports::{Clock as _, Secrets, SystemClock};
use tokio::{net::TcpListener, task::JoinSet};

use self::{
    chest::Chest,
    origin::Origin,
    pki::{Identity, Pki},
};
use crate::{RedTeamError, prepare};

pub(crate) use realm::{BOUND, ODD, VARIABLE, realm};
pub(crate) use zone::{Known, Zone, wire};

/// Open, in TLS that nobody reads and in the clear.
pub(crate) const PLAIN: &str = "plain.world.test";
/// Open as well, at the same server with the same certificate: two customers of one provider.
pub(crate) const OTHER: &str = "other.world.test";
/// Open for some methods and paths, so that requests are read.
pub(crate) const READ: &str = "read.world.test";
/// Gets the credential.
pub(crate) const KEYED: &str = "keyed.world.test";
/// Below it every name is open but one.
pub(crate) const WIDE: &str = "wide.world.test";
/// That one.
pub(crate) const BARRED: &str = "barred.wide.world.test";
/// Not open.
pub(crate) const DENIED: &str = "denied.world.test";
/// Open, with certificates that do not hold.
pub(crate) const BAD: [&str; 3] = ["self.world.test", "expired.world.test", "wrong.world.test"];
/// Where [`PLAIN`] is.
pub(crate) const PLAIN_ADDRESS: &str = "198.51.100.10";
/// Where [`DENIED`] is: a sink.
pub(crate) const DENIED_ADDRESS: &str = "198.51.100.66";

/// The servers and what they say.
pub(crate) struct World {
    pub(crate) zone: Arc<Zone>,
    pki: Pki,
    /// By address: who listens there on ports 80 and 443, and where that really is.
    places: HashMap<IpAddr, (Arc<Origin>, SocketAddr)>,
    sink: (Arc<Origin>, SocketAddr),
    secret: String,
    words: Words,
}

/// What is said where. Nothing else says it.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    /// By servers that may be reached.
    pub(crate) open: String,
    /// By the sink.
    pub(crate) sink: String,
    /// By attackers, in whatever must not leave.
    pub(crate) stray: String,
}

impl World {
    /// Starts the servers; they end with the tasks.
    pub(crate) async fn start(zone: Arc<Zone>, tasks: &mut JoinSet<()>) -> Result<Arc<Self>, RedTeamError> {
        let id = || SystemClock.uuid().simple().to_string();
        let words = Words {
            open: format!("open-{}", id()),
            sink: format!("sink-{}", id()),
            stray: format!("stray{}", &id()[..20]),
        };
        let pki = Pki::new("red team")?;
        let mut places = HashMap::new();
        for (host, identity) in servers(&pki)? {
            let served = serve(&words.open, identity, tasks).await?;
            let addresses = match realm::address(host) {
                Some(address) => vec![address],
                None => Vec::new(),
            };
            for address in addresses {
                places.insert(address, (Arc::clone(&served.0), served.1));
            }
        }
        let sink = serve(&words.sink, pki.server(&["*.world.test", "*.wide.world.test"])?, tasks).await?;
        realm::name(&zone);
        Ok(Arc::new(Self {
            zone,
            pki,
            places,
            sink,
            secret: format!("secret-of-the-red-team-{}", id()),
            words,
        }))
    }

    /// Opens a road on which nothing is stopped.
    pub(crate) async fn road(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<SocketAddr, RedTeamError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(prepare("a road"))?;
        let address = listener.local_addr().map_err(prepare("a road"))?;
        tasks.spawn(road::serve(Arc::clone(self), listener));
        Ok(address)
    }

    /// Where an address really is.
    pub(crate) fn place(&self, address: SocketAddr) -> SocketAddr {
        let served = self.places.get(&address.ip());
        match served.filter(|_| matches!(address.port(), 80 | 443)) {
            Some((_, real)) => *real,
            None => self.sink.1,
        }
    }

    /// The authority of its servers.
    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        self.pki.root()
    }

    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    pub(crate) fn secrets(&self) -> Arc<dyn Secrets> {
        Arc::new(Chest(self.secret.clone()))
    }

    /// Connections to the sink so far.
    pub(crate) fn sunk(&self) -> u64 {
        self.sink.0.connections()
    }

    /// Forgets what the servers were told.
    pub(crate) fn forget(&self) {
        for origin in self.places.values().map(|(origin, _)| origin).chain([&self.sink.0]) {
            origin.forget();
        }
    }

    /// Which servers were told some text, by address; the sink is `sink`.
    pub(crate) fn who_heard(&self, text: &str) -> Vec<String> {
        let mut who: Vec<String> = self
            .places
            .iter()
            .filter(|(_, (origin, _))| origin.heard(text))
            .map(|(address, _)| address.to_string())
            .collect();
        who.sort();
        who.extend(self.sink.0.heard(text).then(|| "sink".to_owned()));
        who
    }
}

async fn serve(
    word: &str,
    identity: Identity,
    tasks: &mut JoinSet<()>,
) -> Result<(Arc<Origin>, SocketAddr), RedTeamError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(prepare("a server"))?;
    let address = listener.local_addr().map_err(prepare("a server"))?;
    let origin = Origin::new(word, identity)?;
    tasks.spawn(Arc::clone(&origin).serve(listener));
    Ok((origin, address))
}

/// Hosts that have servers of their own.
fn servers(pki: &Pki) -> Result<Vec<(&'static str, Identity)>, RedTeamError> {
    let stranger = Pki::new("nobody's")?;
    Ok(vec![
        (PLAIN, pki.server(&[PLAIN, OTHER])?),
        (READ, pki.server(&[READ])?),
        (KEYED, pki.server(&[KEYED])?),
        (WIDE, pki.server(&["*.wide.world.test"])?),
        (BAD[0], stranger.server(&[BAD[0]])?),
        (BAD[1], pki.expired(&[BAD[1]])?),
        (BAD[2], pki.server(&["elsewhere.world.test"])?),
    ])
}
