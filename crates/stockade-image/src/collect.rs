//! Removing what no sandbox uses and nobody asked for lately.
//!
//! Nothing is removed without its exclusive lock, so nothing in use, by whatever process. Where
//! the lock is not free at once the thing is left for the next time.

use std::{
    collections::HashSet,
    fs::{self, DirEntry},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use stockade_ports::Collected;

use crate::{
    fault::{Fault, OnDisk},
    lock::{Lock, Sharing},
    places::{Digest, Places, Record},
};

/// Removes images last used more than `keep` ago, then layers no image has, then leftovers.
/// Blocking.
pub(crate) fn collect(places: &Places, keep: Duration) -> Result<Collected, Fault> {
    places.prepare().disk(|| "make the store's directories".to_owned())?;
    let mut collected = Collected::default();
    images(places, keep, &mut collected)?;
    layers(places, &mut collected)?;
    leftovers(places, keep, &mut collected)?;
    locks(places)?;
    Ok(collected)
}

/// Entries of a directory with names a digest can be made of.
fn entries(dir: &Path) -> Result<Vec<(String, DirEntry)>, Fault> {
    let what = || format!("look into {}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).disk(what)? {
        let entry = entry.disk(what)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry));
        }
    }
    Ok(found)
}

fn digest(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

/// Whether something was last used more than `keep` ago. What cannot be told was not.
fn old(entry: &DirEntry, keep: Duration) -> bool {
    let modified = entry.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|modified| SystemTime::now().duration_since(modified).unwrap_or_default() >= keep)
}

/// The exclusive lock, if nobody has it.
fn alone(path: &Path) -> Result<Option<Lock>, Fault> {
    Lock::try_take(path, Sharing::Exclusive).disk(|| "lock for removal".to_owned())
}

fn images(places: &Places, keep: Duration, collected: &mut Collected) -> Result<(), Fault> {
    let mut indexes = Vec::new();
    for (name, entry) in entries(&places.images())? {
        let Some(digest) = name.strip_suffix(".json").and_then(digest) else {
            continue;
        };
        if let Some(Record::Index { manifest }) = places.record(&digest) {
            indexes.push((digest, manifest));
            continue;
        }
        let Some(_lock) = alone(&places.image_lock(&digest))? else {
            continue;
        };
        // Only now: its last user may have noted the time in giving it back.
        if old(&entry, keep) {
            fs::remove_file(entry.path()).disk(|| "remove an image".to_owned())?;
            collected.images += 1;
        }
    }
    // An index whose image is gone means nothing any more; the next pull writes it again.
    for (index, manifest) in indexes {
        if places.record(&manifest).is_none() {
            let _ = fs::remove_file(places.image(&index));
        }
    }
    Ok(())
}

fn layers(places: &Places, collected: &mut Collected) -> Result<(), Fault> {
    let mut needed = HashSet::new();
    for (name, _) in entries(&places.images())? {
        let record = name
            .strip_suffix(".json")
            .and_then(digest)
            .and_then(|d| places.record(&d));
        if let Some(Record::Image { layers, .. }) = record {
            needed.extend(layers);
        }
    }
    for (name, entry) in entries(&places.layers())? {
        let Some(diff_id) = digest(&name).filter(|id| !needed.contains(id)) else {
            continue;
        };
        // A pull holds the layers it has so far, before any image names them.
        let Some(_lock) = alone(&places.layer_lock(&diff_id))? else {
            continue;
        };
        // Out of its name in one step: half a layer must not be taken for one.
        let unfinished = places.unfinished(&diff_id);
        remove(&unfinished)?;
        fs::rename(entry.path(), &unfinished).disk(|| "remove a layer".to_owned())?;
        collected.bytes += size(&unfinished);
        remove(&unfinished)?;
        collected.layers += 1;
    }
    Ok(())
}

/// What pulls and removals left that died halfway.
fn leftovers(places: &Places, keep: Duration, collected: &mut Collected) -> Result<(), Fault> {
    for (name, entry) in entries(&places.tmp())? {
        if let Some(diff_id) = digest(&name) {
            if let Some(_lock) = alone(&places.layer_lock(&diff_id))? {
                collected.bytes += size(&entry.path());
                remove(&entry.path())?;
            }
        } else if old(&entry, keep) {
            // A record that was not renamed; writing one takes milliseconds.
            let _ = fs::remove_file(entry.path());
        }
    }
    for (name, entry) in entries(&places.downloads())? {
        let Some(diff_id) = name.split('-').next().and_then(digest) else {
            continue;
        };
        if let Some(_lock) = alone(&places.layer_lock(&diff_id))?
            && old(&entry, keep)
        {
            collected.bytes += size(&entry.path());
            fs::remove_file(entry.path()).disk(|| "remove a download".to_owned())?;
        }
    }
    Ok(())
}

/// Locks of what is not there any more.
fn locks(places: &Places) -> Result<(), Fault> {
    for (name, entry) in entries(&places.locks())? {
        let there = match name.split_once('-') {
            Some(("image", hex)) => digest(hex).is_some_and(|d| places.image(&d).exists()),
            Some(("layer", hex)) => digest(hex).is_some_and(|d| places.layer(&d).exists()),
            _ => true,
        };
        if !there && let Some(_lock) = alone(&entry.path())? {
            // Whoever waits for it notices that the file is gone.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).disk(|| format!("remove {}", path.display())),
        _ => Ok(()),
    }
}

/// Space a tree takes on the disk. Links are not followed.
fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return 0;
    };
    let below = if meta.is_dir() { fs::read_dir(path).ok() } else { None };
    let below = below.into_iter().flatten().flatten().map(|entry| size(&entry.path()));
    meta.blocks() * 512 + below.sum::<u64>()
}
