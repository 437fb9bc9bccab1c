//! The steps from a reference to an image that is here and stays.

use std::{
    collections::HashSet,
    fs::{self, File, FileTimes},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::SystemTime,
};

use futures::{StreamExt, TryStreamExt};
use oci_client::Reference;

use crate::{
    download::Download,
    fault::{Fault, OnDisk},
    flight::Meter,
    layer::Unpacker,
    lock::{Lock, Sharing},
    manifest::{self, Found, Layer, Manifest, Plan},
    places::{Digest, LayerInfo, Places, Record},
    reference::Asked,
    registry::Registry,
    store::Shared,
};

/// Layers brought at the same time.
const AT_ONCE: usize = 3;

/// An image that is here.
pub(crate) struct Prepared {
    /// Digest of the manifest.
    pub(crate) digest: Digest,
    /// What the reference resolved to: an index or the manifest.
    pub(crate) resolved: Digest,
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) lease: Arc<Lease>,
}

/// Keeps an image and its layers from being collected, by locks that other processes see.
pub(crate) struct Lease {
    record: PathBuf,
    _locks: Vec<Lock>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        touch(&self.record);
    }
}

/// Notes that something is used now: collection goes by the file's time.
fn touch(path: &std::path::Path) {
    let times = FileTimes::new().set_modified(SystemTime::now());
    // Without the note it is collected earlier and pulled again.
    let _ = File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_times(times));
}

/// One pull.
pub(crate) struct Pull {
    pub(crate) shared: Arc<Shared>,
    pub(crate) asked: Asked,
    pub(crate) meter: Meter,
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Pull {
    /// Brings the image if it is not here.
    pub(crate) async fn run(self) -> Result<Arc<Prepared>, Fault> {
        let prepared = self.places().prepare();
        prepared.disk(|| format!("make the directory {}", self.shared.config.dir.display()))?;
        if let Some(digest) = &self.asked.digest
            && let Some(prepared) = self.here(digest).await?
        {
            return Ok(prepared);
        }
        let deadline = self.shared.config.deadline;
        let brought = tokio::time::timeout(deadline, self.bring()).await;
        brought.unwrap_or_else(|_| {
            let seconds = deadline.as_secs();
            Err(Fault::Unavailable(format!("it was not here within {seconds} s")))
        })
    }

    fn places(&self) -> &Places {
        &self.shared.places
    }

    /// The image or index of that digest, if all of it is here.
    async fn here(&self, resolved: &Digest) -> Result<Option<Arc<Prepared>>, Fault> {
        let digest = match self.places().record(resolved) {
            None => return Ok(None),
            Some(Record::Image { .. }) => resolved.clone(),
            Some(Record::Index { manifest }) => {
                touch(&self.places().image(resolved));
                manifest
            }
        };
        let image = Lock::take(&self.places().image_lock(&digest), Sharing::Shared).await;
        let image = image.disk(|| "lock an image".to_owned())?;
        // Read again: it may have been collected before the lock was ours.
        let Some(Record::Image { layers, env }) = self.places().record(&digest) else {
            return Ok(None);
        };
        let mut locks = vec![image];
        for layer in &layers {
            locks.push(self.lock_layer(layer, Sharing::Shared).await?);
            if self.places().layer_info(layer).is_none() {
                return Ok(None);
            }
        }
        touch(&self.places().image(&digest));
        Ok(Some(self.prepared(digest, resolved.clone(), layers, env, locks)))
    }

    fn prepared(
        &self,
        digest: Digest,
        resolved: Digest,
        layers: Vec<Digest>,
        env: Vec<(String, String)>,
        locks: Vec<Lock>,
    ) -> Arc<Prepared> {
        // One lease for each image and process: a thousand sandboxes need no more descriptors
        // than one.
        let lease = self.shared.lease(&digest, || Lease {
            record: self.places().image(&digest),
            _locks: locks,
        });
        Arc::new(Prepared {
            layers: layers.iter().map(|layer| self.places().tree(layer)).collect(),
            digest,
            resolved,
            env,
            lease,
        })
    }

    async fn lock_layer(&self, diff_id: &Digest, sharing: Sharing) -> Result<Lock, Fault> {
        let lock = Lock::take(&self.places().layer_lock(diff_id), sharing).await;
        lock.disk(|| "lock a layer".to_owned())
    }

    /// Asks the registry and brings what is missing.
    async fn bring(&self) -> Result<Arc<Prepared>, Fault> {
        let registry = self.shared.registry(&self.asked.reference)?;
        let (digest, resolved, manifest) = self.resolve(&registry).await?;
        if let Some(prepared) = self.here(&digest).await? {
            self.note_index(&resolved, &digest)?;
            return Ok(Arc::new(Prepared {
                resolved,
                digest: prepared.digest.clone(),
                layers: prepared.layers.clone(),
                env: prepared.env.clone(),
                lease: Arc::clone(&prepared.lease),
            }));
        }
        let reference = self.asked.reference.clone_with_digest(digest.to_string());
        let configuration = registry.small(&reference, &manifest.config, manifest.config_size).await;
        let configuration = configuration.map_err(|fault| fault.within("its configuration"))?;
        let plan = manifest.with_configuration(&configuration)?;
        let (layers, locks) = self.layers(&registry, &reference, &plan).await?;
        self.keep(digest, resolved, layers, plan.env, locks).await
    }

    /// The manifest for this platform, its digest, and the digest the reference stands for.
    async fn resolve(&self, registry: &Registry) -> Result<(Digest, Digest, Manifest), Fault> {
        let limits = &self.shared.config.limits;
        let (bytes, resolved) = registry.manifest(&self.asked.reference).await?;
        let digest = match manifest::read(&bytes, limits)? {
            Found::Image(manifest) => return Ok((resolved.clone(), resolved, manifest)),
            Found::Index(digest) => digest,
        };
        let reference = self.asked.reference.clone_with_digest(digest.to_string());
        let (bytes, _) = registry.manifest(&reference).await?;
        match manifest::read(&bytes, limits)? {
            Found::Image(manifest) => Ok((digest, resolved, manifest)),
            Found::Index(_) => Err(Fault::Unsafe("its index leads to another index".to_owned())),
        }
    }

    /// Brings every layer; the diff ids, the uppermost first, and the locks that keep them.
    async fn layers(
        &self,
        registry: &Registry,
        reference: &Reference,
        plan: &Plan,
    ) -> Result<(Vec<Digest>, Vec<Lock>), Fault> {
        // A layer may come twice, and then counts where it is uppermost: what it says there hides
        // what it said below.
        let mut seen = HashSet::new();
        let layers: Vec<_> = plan
            .layers
            .iter()
            .rev()
            .filter(|layer| seen.insert(&layer.diff_id))
            .collect();
        self.meter.expect(layers.iter().map(|layer| layer.size).sum());
        let budget = Arc::new(AtomicU64::new(self.shared.config.limits.image_bytes));
        let mut work = Vec::new();
        for layer in &layers {
            let brought = self.layer(registry, reference, layer, Arc::clone(&budget));
            let place = format!("layer {}", layer.diff_id);
            work.push(async move { brought.await.map_err(|fault| fault.within(&place)) });
        }
        // In order, so that the result is; several at a time.
        let brought: Vec<(Lock, LayerInfo)> = futures::stream::iter(work).buffered(AT_ONCE).try_collect().await?;
        let mut total: u64 = 0;
        let mut visible = Vec::new();
        let mut hidden = false;
        let mut locks = Vec::new();
        for (layer, (lock, info)) in layers.into_iter().zip(brought) {
            total = total.saturating_add(info.bytes);
            if !hidden {
                visible.push(layer.diff_id.clone());
                locks.push(lock);
            }
            hidden |= info.opaque;
        }
        let limit = self.shared.config.limits.image_bytes;
        if total > limit {
            return Err(Fault::Unsafe(format!(
                "its layers have {total} bytes, more than {limit}"
            )));
        }
        Ok((visible, locks))
    }

    /// Brings one layer. The shared lock keeps it.
    async fn layer(
        &self,
        registry: &Registry,
        reference: &Reference,
        layer: &Layer,
        budget: Arc<AtomicU64>,
    ) -> Result<(Lock, LayerInfo), Fault> {
        let mut made = false;
        loop {
            let lock = self.lock_layer(&layer.diff_id, Sharing::Shared).await?;
            if let Some(info) = self.places().layer_info(&layer.diff_id) {
                if !made {
                    self.meter.downloaded(layer.size);
                    self.meter.unpacked(layer.size);
                }
                return Ok((lock, info));
            }
            drop(lock);
            let lock = self.lock_layer(&layer.diff_id, Sharing::Exclusive).await?;
            if self.places().layer_info(&layer.diff_id).is_some() {
                // Somebody else made it while we waited.
                continue;
            }
            let path = self.places().download(&layer.diff_id, &layer.blob);
            let download = Download {
                registry,
                reference,
                layer,
                meter: &self.meter,
            };
            download.run(&path).await?;
            self.unpack(lock, layer.clone(), path, Arc::clone(&budget)).await?;
            made = true;
        }
    }

    async fn unpack(&self, lock: Lock, layer: Layer, blob: PathBuf, budget: Arc<AtomicU64>) -> Result<(), Fault> {
        let unpacker = Unpacker {
            places: self.places().clone(),
            limits: self.shared.config.limits,
            meter: self.meter.clone(),
            cancelled: Arc::clone(&self.cancelled),
            budget,
        };
        let work = move || {
            let placed = unpacker.place(&layer, &blob);
            // What was refused will be refused again: no use in keeping it.
            if !matches!(placed, Err(Fault::Store(_))) {
                let _ = fs::remove_file(&blob);
            }
            // The lock goes with the thread and not with us: when nobody waits any more the
            // thread still has files open.
            drop(lock);
            placed
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|e| Err(Fault::Store(format!("unpacking broke off: {e}"))))
    }

    /// Writes down what the image is made of.
    async fn keep(
        &self,
        digest: Digest,
        resolved: Digest,
        layers: Vec<Digest>,
        env: Vec<(String, String)>,
        mut locks: Vec<Lock>,
    ) -> Result<Arc<Prepared>, Fault> {
        let image = Lock::take(&self.places().image_lock(&digest), Sharing::Shared).await;
        locks.push(image.disk(|| "lock an image".to_owned())?);
        let record = Record::Image {
            layers: layers.clone(),
            env: env.clone(),
        };
        let written = self.places().write_record(&digest, &record);
        written.disk(|| "write down an image".to_owned())?;
        self.note_index(&resolved, &digest)?;
        Ok(self.prepared(digest, resolved, layers, env, locks))
    }

    fn note_index(&self, resolved: &Digest, digest: &Digest) -> Result<(), Fault> {
        if resolved == digest {
            return Ok(());
        }
        let record = Record::Index {
            manifest: digest.clone(),
        };
        let written = self.places().write_record(resolved, &record);
        written.disk(|| "write down an index".to_owned())
    }
}
