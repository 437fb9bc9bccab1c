//! The store as others see it.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use async_trait::async_trait;
use oci_client::Reference;
use stockade_ports::{Collected, ImageError, Images, PullProgress, sandbox::ImageTree};

use crate::{
    collect::collect,
    config::ImageConfig,
    fault::Fault,
    flight::Flights,
    places::{Digest, Places},
    pull::{Lease, Pull},
    reference::Asked,
    registry::Registry,
};

/// Images on this host's disk. Any number of processes may use one directory.
pub struct ImageStore {
    shared: Arc<Shared>,
    flights: Flights,
}

/// What all pulls of this process have in common.
pub(crate) struct Shared {
    pub(crate) config: ImageConfig,
    pub(crate) places: Places,
    leases: Mutex<HashMap<Digest, Weak<Lease>>>,
    registries: Mutex<HashMap<String, Registry>>,
}

impl ImageStore {
    /// Makes the store; nothing happens on the disk before it is first used.
    #[must_use]
    pub fn new(config: ImageConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                places: Places::new(config.dir.clone()),
                config,
                leases: Mutex::default(),
                registries: Mutex::default(),
            }),
            flights: Flights::default(),
        }
    }
}

impl Shared {
    /// The lease on an image, made if this process has none.
    pub(crate) fn lease(&self, digest: &Digest, make: impl FnOnce() -> Lease) -> Arc<Lease> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, lease| lease.strong_count() > 0);
        if let Some(lease) = leases.get(digest).and_then(Weak::upgrade) {
            return lease;
        }
        let lease = Arc::new(make());
        leases.insert(digest.clone(), Arc::downgrade(&lease));
        lease
    }

    /// The client for a reference's registry. It keeps connections and tokens.
    pub(crate) fn registry(&self, reference: &Reference) -> Result<Registry, Fault> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registry) = registries.get(reference.registry()) {
            return Ok(registry.clone());
        }
        let registry = Registry::of(reference, &self.config)?;
        registries.insert(reference.registry().to_owned(), registry.clone());
        Ok(registry)
    }
}

#[async_trait]
impl Images for ImageStore {
    fn check(&self, reference: &str) -> Result<(), ImageError> {
        let asked = Asked::parse(reference, self.shared.config.require_digest);
        asked.map(drop).map_err(|fault| fault.about(reference))
    }

    async fn prepare(&self, reference: &str, progress: &dyn PullProgress) -> Result<Arc<ImageTree>, ImageError> {
        let asked = Asked::parse(reference, self.shared.config.require_digest);
        let asked = asked.map_err(|fault| fault.about(reference))?;
        let start = |meter, cancelled| {
            let pull = Pull {
                shared: Arc::clone(&self.shared),
                asked: asked.clone(),
                meter,
                cancelled,
            };
            pull.run()
        };
        let flight = self.flights.join(asked.key(), start);
        let prepared = flight.land(progress).await.map_err(|fault| fault.about(reference))?;
        Ok(Arc::new(ImageTree {
            pinned: asked.pinned(&prepared.resolved),
            digest: prepared.digest.to_string(),
            layers: prepared.layers.clone(),
            env: prepared.env.clone(),
            keep: Box::new(Arc::clone(&prepared.lease)) as Box<dyn Any + Send + Sync>,
        }))
    }

    async fn collect(&self) -> Result<Collected, ImageError> {
        let (places, keep) = (self.shared.places.clone(), self.shared.config.keep);
        let collected = tokio::task::spawn_blocking(move || collect(&places, keep)).await;
        let collected = collected.unwrap_or_else(|e| Err(Fault::Store(format!("collecting broke off: {e}"))));
        collected.map_err(|fault| fault.about("all images"))
    }
}
