//! Collection: removing what nothing names.
//!
//! Roots are the listed images, the kept records, and what live builds have in their leases. What a root needs is
//! reached through records' results, images' documents and layers' blobs.
//!
//! The collector works alone: whoever finds or adds something holds its lock shared until the lease names it. Under
//! the lock it only deletes rows, in one transaction, and then moves files away; they are deleted after. Killed
//! between, it leaves files without rows, which nobody believes and the next collection moves away.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use oci::{Digest, Epoch};
use rusqlite::params;
use tree::LayerId;

use crate::{
    Error, Lease, Lock, LockName, Result, Store,
    contents::{Contents, drop_rest, move_to},
    database::{Durability, Fault, column, digest, unsigned},
    flock::{self, Hold},
    layout::Kind,
    lease::{Pin, list, pins},
    lock, record, remove,
};

/// An interrupted download is kept for as long as this after its last byte, in seconds.
const PARTIAL_SECONDS: u64 = 24 * 60 * 60;
/// What is remembered of a context is kept for as long as this after it last changed, in seconds.
const STATS_SECONDS: u64 = 90 * 24 * 60 * 60;

/// What to remove beyond what nothing names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Records that were last used before this time. Stamps of use are renewed once a day.
    pub records_unused_since: Option<Epoch>,
    /// Images without a name.
    pub untagged_images: bool,
    /// Cache mounts that nobody uses now.
    pub cache_mounts: bool,
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many records.
    pub records: u64,
    /// How many images.
    pub images: u64,
    /// How many blobs, tree manifests and layer folders.
    pub contents: u64,
    /// The length of those contents in bytes.
    pub content_bytes: u64,
    /// How many cache mounts.
    pub cache_mounts: u64,
}

/// What stays.
#[derive(Default)]
struct Reached {
    layers: BTreeSet<LayerId>,
    blobs: BTreeSet<Digest>,
}

impl Store {
    /// Removes what no image, record or live build names, and what killed builds left. Keeps first, so that nothing valid is
    /// lost. May run beside builds, which wait while it looks and not while it deletes; `kill -9` at any instant loses
    /// nothing that is named.
    ///
    /// # Errors
    /// The database or a document of an image cannot be read: then nothing is removed. Something cannot be deleted: then it
    /// stays for the next collection.
    pub fn collect(&self, what: &Collection) -> Result<Freed> {
        self.sweep()?;
        self.keep()?;
        let lease = self.lease()?;
        let mut trash = Vec::new();
        let mut freed = self.collect_alone(what, &lease, &mut trash)?;
        for path in &trash {
            drop_rest(path)?;
        }
        self.sweep_memos()?;
        lock::sweep(&self.layout().locks())?;
        self.sweep_partials()?;
        self.sweep_older(&self.layout().stats(), STATS_SECONDS)?;
        self.sweep_remotes()?;
        self.sweep_repositories(&lease)?;
        if what.cache_mounts {
            for mount in self.cache_mounts()? {
                freed.cache_mounts += u64::from(self.remove_cache_mount(&lease, &mount.id)?);
            }
        }
        Ok(freed)
    }

    /// The part that nobody may disturb.
    fn collect_alone(&self, what: &Collection, lease: &Lease, trash: &mut Vec<PathBuf>) -> Result<Freed> {
        let path = self.layout().collector_lock();
        let _alone = flock::open_and_wait(&path, Hold::Exclusive).map_err(|e| Error::io("lock", path, e))?;
        let pins = pins(self.layout())?;
        let (freed, here) = self.change("collect", Durability::Flushed, |contents| {
            let mut freed = Freed::default();
            if what.untagged_images {
                freed.images = drop_untagged(contents, &pins)?;
            }
            let mut reached = Reached::default();
            self.reach_images(contents, &pins, &mut reached)?;
            freed.records = reach_records(contents, what, &pins, &mut reached)?;
            reach_layers(contents, &pins, &mut reached)?;
            drop_unreached(contents, &reached, &mut freed)?;
            Ok((freed, here(contents)?))
        })?;
        for kind in Kind::ALL {
            let folder = self.layout().contents(kind);
            for name in list(&folder)? {
                if !here.contains(&(kind, name.clone())) {
                    let (from, to) = (folder.join(name), lease.new_path()?);
                    move_to(&from, &to).map_err(|e| Error::io("remove", from, e))?;
                    trash.push(to);
                }
            }
        }
        Ok(freed)
    }

    fn reach_images(
        &self,
        contents: &Contents<'_>,
        pins: &BTreeSet<Pin>,
        reached: &mut Reached,
    ) -> std::result::Result<(), Fault> {
        let mut images = select(contents, "SELECT manifest FROM images")?;
        images.extend(pins.iter().filter_map(|pin| match pin {
            Pin::Image(manifest) => Some(*manifest),
            _ => None,
        }));
        for image in images {
            reached.blobs.extend(self.blobs_of(&image)?);
        }
        for (layer, blob) in select_pairs(contents, "SELECT layer, blob FROM layer_blobs")? {
            if reached.blobs.contains(&blob) {
                reached.layers.insert(LayerId::of_manifest(layer));
            }
        }
        Ok(())
    }

    fn sweep_partials(&self) -> Result<()> {
        let folder = self.layout().partials();
        for name in list(&folder)? {
            let path = folder.join(&name);
            let Ok(digest) = Digest::from_hex(&name) else { continue };
            let lock: Option<Lock> = self.try_lock(&LockName::Pull(digest))?;
            if lock.is_some() && self.is_older(&path, PARTIAL_SECONDS) {
                remove::file(&path).map_err(|e| Error::io("remove", path, e))?;
            }
        }
        Ok(())
    }

    /// Removes the files of a folder that were last written longer ago than this.
    pub(crate) fn sweep_older(&self, folder: &Path, seconds: u64) -> Result<()> {
        for name in list(folder)? {
            let path = folder.join(name);
            if self.is_older(&path, seconds) {
                remove::file(&path).map_err(|e| Error::io("remove", path, e))?;
            }
        }
        Ok(())
    }

    /// Whether a file was last written longer ago than this.
    pub(crate) fn is_older(&self, path: &Path, seconds: u64) -> bool {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        let since = modified.map(|at| at.duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO));
        since.is_ok_and(|at| self.clock().epoch().0.saturating_sub(at.as_secs()) > seconds)
    }
}

/// Takes the images without a name off the list, but those that a live build uses.
fn drop_untagged(contents: &Contents<'_>, pins: &BTreeSet<Pin>) -> std::result::Result<u64, Fault> {
    let query = "SELECT manifest FROM images WHERE manifest NOT IN (SELECT manifest FROM tags)";
    let mut dropped = 0;
    for manifest in select(contents, query)? {
        if !pins.contains(&Pin::Image(manifest)) {
            contents.connection.execute("DELETE FROM images WHERE manifest = ?1", [column(&manifest)])?;
            dropped += 1;
        }
    }
    if dropped > 0 {
        crate::memo::forget(contents.layout)?;
    }
    Ok(dropped)
}

/// Reaches the layers of the records that stay; removes the others, and returns how many.
fn reach_records(
    contents: &Contents<'_>,
    what: &Collection,
    pins: &BTreeSet<Pin>,
    reached: &mut Reached,
) -> std::result::Result<u64, Fault> {
    let mut query = contents.connection.prepare(
        "SELECT seq, last_used, body, kept = 1 OR boot = ?1, definition_key FROM records ORDER BY seq",
    )?;
    let rows = query.query_map([contents.boot.as_str()], |row| {
        let (seq, last_used, body): (i64, u64, String) = (row.get(0)?, unsigned(row, 1)?, row.get(2)?);
        Ok((seq, last_used, body, row.get::<_, bool>(3)?, digest(row, 4)?))
    })?;
    // A layer is in many records; the disk is asked once.
    let (mut here, mut gone) = (BTreeSet::new(), BTreeSet::new());
    let mut dropped = Vec::new();
    for row in rows {
        let (seq, last_used, body, valid, key) = row?;
        let fresh = what.records_unused_since.is_none_or(|since| last_used >= since.0);
        let layers: Vec<LayerId> = record::parse(&body)?.result.iter().map(|part| part.layer).collect();
        for layer in &layers {
            if !here.contains(layer) && !gone.contains(layer) {
                if contents.has_layer(layer)? {
                    here.insert(*layer)
                } else {
                    gone.insert(*layer)
                };
            }
        }
        let whole = layers.iter().all(|layer| here.contains(layer));
        if valid && whole && (fresh || pins.contains(&Pin::Record(key))) {
            reached.layers.extend(layers);
        } else {
            dropped.push(seq);
        }
    }
    for seq in &dropped {
        contents.connection.execute("DELETE FROM records WHERE seq = ?1", params![seq])?;
    }
    Ok(dropped.len() as u64)
}

/// Reaches what leases name, and the blobs of all layers reached.
fn reach_layers(
    contents: &Contents<'_>,
    pins: &BTreeSet<Pin>,
    reached: &mut Reached,
) -> std::result::Result<(), Fault> {
    for pin in pins {
        match pin {
            Pin::Layer(layer) => drop(reached.layers.insert(*layer)),
            Pin::Blob(blob) => drop(reached.blobs.insert(*blob)),
            Pin::Image(_) | Pin::Record(_) => {}
        }
    }
    for (layer, blob) in select_pairs(contents, "SELECT layer, blob FROM layer_blobs")? {
        if reached.layers.contains(&LayerId::of_manifest(layer)) {
            reached.blobs.insert(blob);
        }
    }
    Ok(())
}

/// Deletes the rows of what was not reached, and of what nobody may believe.
fn drop_unreached(
    contents: &Contents<'_>,
    reached: &Reached,
    freed: &mut Freed,
) -> std::result::Result<(), Fault> {
    let mut query = contents
        .connection
        .prepare("SELECT seq, kind, digest, size_bytes, kept = 1 OR boot = ?1 FROM contents ORDER BY seq")?;
    let rows = query.query_map([contents.boot.as_str()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, digest(row, 2)?, unsigned(row, 3)?, row.get(4)?))
    })?;
    let mut dropped = Vec::new();
    for row in rows {
        let (seq, kind, named, size_bytes, valid): (i64, String, Digest, u64, bool) = row?;
        let stays = match kind.as_str() {
            "blob" => reached.blobs.contains(&named),
            _ => reached.layers.contains(&LayerId::of_manifest(named)),
        };
        if !(stays && valid) {
            dropped.push(seq);
            freed.contents += 1;
            freed.content_bytes += size_bytes;
        }
    }
    for seq in dropped {
        contents.connection.execute("DELETE FROM contents WHERE seq = ?1", params![seq])?;
    }
    for table in ["origins", "layer_blobs"] {
        for layer in select(contents, &format!("SELECT DISTINCT layer FROM {table}"))? {
            if !reached.layers.contains(&LayerId::of_manifest(layer)) {
                let delete = format!("DELETE FROM {table} WHERE layer = ?1");
                contents.connection.execute(&delete, [column(&layer)])?;
            }
        }
    }
    Ok(())
}

/// The files and folders that have a row, by their names.
fn here(contents: &Contents<'_>) -> std::result::Result<BTreeSet<(Kind, String)>, Fault> {
    let mut here = BTreeSet::new();
    for kind in Kind::ALL {
        let mut query = contents.connection.prepare("SELECT digest FROM contents WHERE kind = ?1")?;
        for named in query.query_map([kind.as_str()], |row| digest(row, 0))? {
            here.insert((kind, named?.hex()));
        }
    }
    Ok(here)
}

fn select(contents: &Contents<'_>, query: &str) -> std::result::Result<Vec<Digest>, Fault> {
    let mut query = contents.connection.prepare(query)?;
    let rows = query.query_map([], |row| digest(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn select_pairs(contents: &Contents<'_>, query: &str) -> std::result::Result<Vec<(Digest, Digest)>, Fault> {
    let mut query = contents.connection.prepare(query)?;
    let rows = query.query_map([], |row| Ok((digest(row, 0)?, digest(row, 1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
