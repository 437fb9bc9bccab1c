//! Bringing one compressed layer here, in as many pieces as it takes.

use std::{
    io::{Read, SeekFrom},
    path::Path,
};

use futures::StreamExt;
use oci_client::Reference;
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncSeekExt, AsyncWriteExt},
};

use crate::{
    fault::{Fault, OnDisk},
    flight::Meter,
    manifest::Layer,
    places::Digest,
    registry::{ATTEMPTS, Missed, Registry, pause, unread},
};

/// A layer's blob on its way into a file. Whoever calls holds the layer's exclusive lock.
pub(crate) struct Download<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) reference: &'a Reference,
    pub(crate) layer: &'a Layer,
    pub(crate) meter: &'a Meter,
}

/// What is in the file.
struct Part {
    file: File,
    length: u64,
    hash: Sha256,
}

impl Download<'_> {
    /// Brings what is missing of the blob. On success the file is the blob, by its digest.
    pub(crate) async fn run(&self, path: &Path) -> Result<(), Fault> {
        let mut part = open(path).await?;
        self.meter.downloaded(part.length);
        let mut attempt = 0;
        while part.length < self.layer.size {
            let before = part.length;
            match self.more(&mut part).await {
                Ok(()) if part.length >= self.layer.size => {}
                missed => {
                    // Progress starts the count again: a slow line is not a dead one.
                    attempt = if part.length > before { 1 } else { attempt + 1 };
                    let short = || Fault::Unavailable("it broke off in the middle of a layer".to_owned());
                    let (fault, again) = missed.err().map_or_else(|| (short(), true), |m| (m.fault, m.again));
                    if matches!(fault, Fault::Unsafe(_)) {
                        // Nothing to resume from: the next pull starts afresh.
                        let _ = tokio::fs::remove_file(path).await;
                    }
                    if !again || attempt >= ATTEMPTS {
                        return Err(fault);
                    }
                    pause(attempt).await;
                }
            }
        }
        part.file.sync_all().await.disk(|| "keep a layer".to_owned())?;
        let found = Digest::finished(part.hash);
        if part.length == self.layer.size && found == self.layer.blob {
            return Ok(());
        }
        let _ = tokio::fs::remove_file(path).await;
        Err(Fault::Unsafe(format!(
            "the registry gave {found} for {}",
            self.layer.blob
        )))
    }

    /// One answer of the registry, to its end or to the first error.
    async fn more(&self, part: &mut Part) -> Result<(), Missed> {
        let (offset, mut pieces) = self
            .registry
            .blob(self.reference, &self.layer.blob, part.length)
            .await?;
        let lost = |fault| Missed { fault, again: false };
        if offset != part.length {
            // A registry that does not resume sends everything again.
            self.meter.lost(part.length);
            part.restart().await.map_err(lost)?;
        }
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| unread(&e))?;
            let length = piece.len() as u64;
            if part.length + length > self.layer.size {
                let size = self.layer.size;
                part.restart().await.map_err(lost)?;
                return Err(lost(Fault::Unsafe(format!("a layer is larger than its {size} bytes"))));
            }
            part.hash.update(&piece);
            part.file
                .write_all(&piece)
                .await
                .disk(|| "write a layer".to_owned())
                .map_err(lost)?;
            part.length += length;
            self.meter.downloaded(length);
        }
        part.file
            .flush()
            .await
            .disk(|| "write a layer".to_owned())
            .map_err(lost)
    }
}

impl Part {
    async fn restart(&mut self) -> Result<(), Fault> {
        let what = || "start a layer again".to_owned();
        self.file.set_len(0).await.disk(what)?;
        self.file.seek(SeekFrom::Start(0)).await.disk(what)?;
        self.length = 0;
        self.hash = Sha256::new();
        Ok(())
    }
}

/// Opens what an earlier attempt left, or begins.
async fn open(path: &Path) -> Result<Part, Fault> {
    let what = || "open a layer's download".to_owned();
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).await.disk(what)?;
    let mut reader = file.try_clone().await.disk(what)?.into_std().await;
    // What is there is hashed again: its end may have been lost with the power.
    let (hash, length) = tokio::task::spawn_blocking(move || {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        let mut length = 0;
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok::<_, std::io::Error>((hash, length)),
                n => {
                    hash.update(&buffer[..n]);
                    length += n as u64;
                }
            }
        }
    })
    .await
    .map_err(std::io::Error::other)
    .flatten()
    .disk(what)?;
    // The descriptors share their position, which is now the end.
    Ok(Part { file, length, hash })
}
