//! From a compressed blob to an unpacked layer under its diff id.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufReader, Read},
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use sha2::{Digest as _, Sha256};
use stockade_archive::{Flavour, Limits, unpack};

use crate::{
    config::ImageLimits,
    fault::{Fault, OnDisk},
    flight::Meter,
    manifest::{Compression, Layer},
    places::{Digest, LayerInfo, Places, write_json},
};

/// Below this many bytes no ratio is suspicious.
const HARMLESS: u64 = 64 << 20;

/// Unpacks layers of one pull. Blocking.
pub(crate) struct Unpacker {
    pub(crate) places: Places,
    pub(crate) limits: ImageLimits,
    pub(crate) meter: Meter,
    /// Nobody waits any more.
    pub(crate) cancelled: Arc<AtomicBool>,
    /// Bytes the layers of the image may still have.
    pub(crate) budget: Arc<AtomicU64>,
}

impl Unpacker {
    /// Unpacks a blob and puts the tree under its name. Whoever calls holds the layer's exclusive
    /// lock and has checked the blob's digest.
    pub(crate) fn place(&self, layer: &Layer, blob: &Path) -> Result<(), Fault> {
        let unfinished = self.places.unfinished(&layer.diff_id);
        let target = self.places.layer(&layer.diff_id);
        let outcome = self.fill(&unfinished, layer, blob).and_then(|()| {
            // What a crash left under the name without its description is not a layer.
            remove(&target)?;
            fs::rename(&unfinished, &target).disk(|| "keep a layer".to_owned())?;
            let parent = File::open(self.places.layers()).and_then(|dir| dir.sync_all());
            parent.disk(|| "keep a layer".to_owned())
        });
        if outcome.is_err() {
            let _ = remove(&unfinished);
        }
        outcome
    }

    fn fill(&self, dir: &Path, layer: &Layer, blob: &Path) -> Result<(), Fault> {
        let what = || "make a layer's directory".to_owned();
        remove(dir)?;
        DirBuilder::new().mode(0o755).create(dir).disk(what)?;
        let tree = dir.join("tree");
        DirBuilder::new().mode(0o755).create(&tree).disk(what)?;
        let root = File::open(&tree).disk(what)?;
        // Whatever the umask: a sandbox's own user reads the tree. Nobody else reaches it, because
        // the store's directories are closed.
        rustix::fs::fchmod(&root, rustix::fs::Mode::from_raw_mode(0o755)).disk(what)?;
        let blob = File::open(blob).disk(|| "open a layer's download".to_owned())?;
        let mut stream = Stream::open(blob, layer.compression, self)?;
        let bounds = Limits {
            entries: self.limits.entries,
            depth: self.limits.depth,
        };
        let unpacked = unpack(&mut stream, root.as_fd(), Flavour::ImageLayer, &bounds)?;
        let (found, bytes) = stream.rest()?;
        if found != layer.diff_id {
            return Err(Fault::Unsafe(format!(
                "its content is {found}, not what the image says"
            )));
        }
        let info = LayerInfo {
            bytes,
            entries: unpacked.entries,
            opaque: unpacked.opaque,
        };
        write_json(&dir.join("info.json"), &info).disk(|| "describe a layer".to_owned())?;
        // The name must not appear before the content: not even when the power fails.
        rustix::fs::syncfs(&root).disk(|| "flush a layer".to_owned())
    }
}

fn remove(dir: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).disk(|| format!("remove {}", dir.display())),
        _ => Ok(()),
    }
}

/// The tar stream of a blob: decompressed, hashed and bounded.
struct Stream<'a> {
    inner: Box<dyn Read + 'a>,
    of: &'a Unpacker,
    /// Compressed bytes taken so far.
    taken: Arc<AtomicU64>,
    given: u64,
    hash: Sha256,
}

impl<'a> Stream<'a> {
    fn open(blob: File, compression: Compression, of: &'a Unpacker) -> Result<Self, Fault> {
        let taken = Arc::default();
        let counted = Counted {
            blob,
            taken: Arc::clone(&taken),
            meter: &of.meter,
        };
        let buffered = BufReader::with_capacity(128 * 1024, counted);
        Ok(Self {
            inner: match compression {
                Compression::None => Box::new(buffered),
                // Several members in a row are one stream (RFC 1952, 2.2).
                Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
                // The library's own limit on the window is 128 MiB.
                Compression::Zstd => {
                    let decoder = zstd::Decoder::with_buffer(buffered);
                    Box::new(decoder.disk(|| "start a zstd decoder".to_owned())?)
                }
            },
            of,
            taken,
            given: 0,
            hash: Sha256::new(),
        })
    }

    /// Reads what follows the end of the archive; digest and length of all.
    fn rest(mut self) -> Result<(Digest, u64), Fault> {
        let end = io::copy(&mut self, &mut io::sink());
        end.map_err(|e| Fault::Unsafe(format!("the end of the layer: {e}")))?;
        Ok((Digest::finished(self.hash), self.given))
    }

    fn check(&self, more: u64) -> io::Result<()> {
        let (limits, order) = (&self.of.limits, Ordering::Relaxed);
        if self.of.cancelled.load(order) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let spent = self.of.budget.fetch_update(order, order, |left| left.checked_sub(more));
        if spent.is_err() {
            return Err(io::Error::other(format!(
                "more than {} bytes come out of the image",
                limits.image_bytes
            )));
        }
        if self.given > HARMLESS && self.given / limits.ratio.max(1) > self.taken.load(order) {
            let ratio = limits.ratio;
            return Err(io::Error::other(format!(
                "more than {ratio} bytes come out of each compressed one: a decompression bomb"
            )));
        }
        Ok(())
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.given += n as u64;
        self.hash.update(&buffer[..n]);
        self.check(n as u64)?;
        Ok(n)
    }
}

/// Counts what is read of a blob.
struct Counted<'a> {
    blob: File,
    taken: Arc<AtomicU64>,
    meter: &'a Meter,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.blob.read(buffer)?;
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        self.meter.unpacked(n as u64);
        Ok(n)
    }
}
