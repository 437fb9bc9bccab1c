//! How much goes through, what is told of it, and how it is ended from outside.

mod evidence;
mod limits;
mod load;
mod requests;
mod revoked;
mod tunnels;

use std::{
    net::SocketAddr,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use stockade_domain::{EventType, Revocation, RevocationId};
use stockade_ports::{Bus, Clock, Store, SystemClock, Topic};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    rig::{Rig, SOON},
    world::serve,
};

/// A server outside that counts every byte it gets, and says nothing.
#[derive(Clone, Default)]
struct Sink {
    bytes: Arc<AtomicU64>,
    /// Connections that ended.
    ended: Arc<AtomicU64>,
}

impl Sink {
    async fn start(&self) -> SocketAddr {
        let own = self.clone();
        serve(move |mut stream| {
            let own = own.clone();
            async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(1..) = stream.read(&mut buffer).await.inspect(|got| {
                    own.bytes.fetch_add(*got as u64, Ordering::SeqCst);
                }) {}
                own.ended.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .await
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// What has come once nothing comes any more.
    async fn at_rest(&self) -> u64 {
        let rest = async {
            loop {
                let before = self.bytes();
                sleep(Duration::from_millis(200)).await;
                if self.bytes() == before {
                    return before;
                }
            }
        };
        timeout(SOON, rest).await.expect("silence")
    }
}

/// Sends until the connection ends; gives what was handed over.
async fn pour(mut stream: TcpStream, piece: usize) -> u64 {
    let piece = vec![b'x'; piece];
    let mut poured = 0;
    while let Ok(Ok(went)) = timeout(SOON, stream.write(&piece)).await {
        poured += went as u64;
        // An end shows in reading before it shows in writing.
        let mut byte = [0];
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::ZERO, stream.read(&mut byte)).await {
            break;
        }
    }
    poured
}

fn some(number: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(number)
}

impl Rig {
    /// Takes hosts away, as the gateway does.
    async fn revoke(&self, hosts: &str) -> Revocation {
        let revocation = Revocation {
            id: RevocationId::from_uuid(SystemClock.uuid()),
            team: self.team,
            environment: "test".to_owned(),
            hosts: hosts.to_owned(),
            reason: "a leak".to_owned(),
            by: "ada".to_owned(),
            created_at: SystemClock.now(),
            lifted_by: None,
            lifted_at: None,
        };
        self.store.put_revocation(revocation.clone()).await.unwrap();
        self.bus.publish(Topic::Revocations).await;
        revocation
    }

    /// The data of the events of a type, once there are so many.
    async fn data(&self, kind: EventType, count: usize) -> Vec<Value> {
        let data = async {
            loop {
                let events = self.events().await;
                let found: Vec<_> = events.into_iter().filter(|e| e.kind == kind).map(|e| e.data).collect();
                if found.len() >= count {
                    return found;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, data).await.unwrap_or_else(|_| panic!("{count} {kind}"))
    }

    /// How many refusals the records stand for, by rule.
    async fn refused(&self, rule: &str) -> u64 {
        let denied = self.data(EventType::EgressDenied, 0).await;
        let own = denied.iter().filter(|data| data["rule"] == rule);
        own.map(|data| stockade_domain::traffic::attempts(&data["args"])).sum()
    }
}
