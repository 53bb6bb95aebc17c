//! Collection: removing what nothing can be done with, what nothing names, or what a policy says.
//!
//! What stays in any case: what an image with a name needs, what live builds have in their leases, and what a record that
//! stays stands on. The books are made by `survey.rs`, decisions by `ledger.rs`.
//!
//! The collector works alone: whoever finds or adds something holds its lock shared until the lease names it. Under
//! the lock it only deletes rows, in one transaction, and then moves files away; they are deleted after. Killed
//! between, it leaves files without rows, which nobody believes and the next collection moves away.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use oci::Digest;
use rusqlite::params;

use crate::{
    Error, Lease, LockName, Result, Rule, Store,
    contents::{Contents, drop_rest, move_to},
    database::{Durability, Fault, column},
    flock::{self, Hold},
    layout::Kind,
    lease::{list, pins},
    ledger::{Entry, Thing},
    lock, remove,
    survey::Survey,
    usage::{DiskUsage, Usage},
};

/// An interrupted download is kept for as long as this after its last byte, in seconds.
const PARTIAL_SECONDS: u64 = 24 * 60 * 60;
/// What is remembered of a context is kept for as long as this after it last changed, in seconds.
const STATS_SECONDS: u64 = 90 * 24 * 60 * 60;

/// What to remove beyond what nothing can be done with.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    /// What a policy says, rule after rule.
    pub rules: Vec<Rule>,
    /// Whether what no record, image or live build names may stay for as long as the rules allow: the layers of a base that
    /// was pulled for a build that failed. Without it, all of that goes.
    pub keep_unnamed: bool,
    /// Images without a name that were listed within this time stay, in seconds, whatever the rules say: somebody has just
    /// been told their digest.
    pub keep_images_seconds: u64,
}

impl Collection {
    /// What a policy says, and nothing that might be of use and it does not name.
    pub fn by(rules: Vec<Rule>) -> Collection {
        Collection { rules, keep_unnamed: true, ..Collection::default() }
    }
}

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many records.
    pub records: u64,
    /// How many images.
    pub images: u64,
    /// How many blobs, tree manifests and layer folders.
    pub contents: u64,
    /// How many cache mounts.
    pub cache_mounts: u64,
    /// The entries, those of the database first, in the order in which they went, each with what it took on the disk in `reclaimable_bytes`.
    pub entries: Vec<Usage>,
    /// What the cache takes now, in bytes.
    pub used_bytes: u64,
}

impl Freed {
    /// What is free now and was not, in bytes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.reclaimable_bytes).fold(0, u64::saturating_add)
    }
}

impl Store {
    /// What the state folder holds, as it is found while builds go on. Changes nothing.
    ///
    /// # Errors
    /// The database or a document of an image cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let (others, pins) = (self.others()?, pins(self.layout())?);
        let survey = self.ask("look at what is here", |contents| self.survey(contents, &pins, others))?;
        let entries = survey.ledger.entries.into_iter().filter(Entry::is_shown).map(|entry| entry.usage);
        let mut entries: Vec<Usage> = entries.collect();
        entries.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
        Ok(DiskUsage { entries })
    }

    /// Removes what nothing can be done with, what killed builds left, and what is asked. Keeps first, so that nothing valid
    /// is lost. May run beside builds, which wait while it looks and not while it deletes; `kill -9` at any instant loses
    /// nothing that is named.
    ///
    /// # Errors
    /// The database or a document of an image cannot be read: then nothing is removed. Something cannot be deleted: then it
    /// stays for the next collection.
    pub fn collect(&self, what: &Collection) -> Result<Freed> {
        self.sweep()?;
        self.keep()?;
        // Walked before anybody has to wait.
        let others = if what.rules.is_empty() { Vec::new() } else { self.others()? };
        let lease = self.lease()?;
        let mut trash = Vec::new();
        let (mut freed, taken) = self.collect_alone(what, others, &lease, &mut trash)?;
        for path in &trash {
            drop_rest(path)?;
        }
        for entry in taken {
            if self.remove_other(&lease, &entry.thing)? {
                freed.cache_mounts += u64::from(matches!(entry.thing, Thing::CacheMount(_)));
                freed.entries.push(entry.usage);
            } else {
                freed.used_bytes += entry.cache_bytes;
            }
        }
        self.sweep_memos()?;
        lock::sweep(&self.layout().locks())?;
        self.sweep_partials()?;
        self.sweep_older(&self.layout().stats(), STATS_SECONDS)?;
        self.sweep_remotes()?;
        self.sweep_blocks()?;
        self.sweep_repositories(&lease)?;
        Ok(freed)
    }

    /// The part that nobody may disturb. What is to go and the database does not know is given back.
    fn collect_alone(
        &self,
        what: &Collection,
        others: Vec<Entry>,
        lease: &Lease,
        trash: &mut Vec<PathBuf>,
    ) -> Result<(Freed, Vec<Entry>)> {
        let path = self.layout().collector_lock();
        let _alone = flock::open_and_wait(&path, Hold::Exclusive).map_err(|e| Error::io("lock", path, e))?;
        let pins = pins(self.layout())?;
        let (freed, taken, away, alone) = self.change("collect", Durability::Flushed, |contents| {
            let mut survey = self.survey(contents, &pins, others)?;
            survey.ledger.keep_images_seconds = what.keep_images_seconds;
            let mut taken = survey.ledger.take_rubbish(!what.keep_unnamed);
            for rule in &what.rules {
                taken.extend(survey.ledger.take_by(rule));
            }
            taken.extend(survey.ledger.take_rubbish(!what.keep_unnamed));
            let mut books = Books { freed: Freed::default(), away: std::mem::take(&mut survey.strays) };
            let others = books.enter(contents, &survey, &taken)?;
            books.freed.used_bytes = survey.ledger.used_bytes();
            Ok((books.freed, others, books.away, survey.alone()))
        })?;
        for (layer, used) in alone {
            self.stamp_layer(&layer, used);
        }
        for (kind, name) in away {
            let (from, to) = (self.layout().contents(kind).join(name), lease.new_path()?);
            if fs::symlink_metadata(&from).is_ok() {
                move_to(&from, &to).map_err(|e| Error::io("remove", from, e))?;
                trash.push(to);
            }
        }
        Ok((freed, taken))
    }

    /// Removes what the database does not know; whether it could, because nobody uses it.
    fn remove_other(&self, lease: &Lease, thing: &Thing) -> Result<bool> {
        let removed =
            |path: PathBuf| remove::file(&path).map_err(|e| Error::io("remove", path, e)).map(|()| true);
        match thing {
            Thing::CacheMount(id) => self.remove_cache_mount(lease, id),
            Thing::Repository(remote) => self.remove_repository(lease, remote),
            Thing::Context(name) => removed(self.layout().stats().join(name)),
            Thing::Partial(name) => {
                let Ok(digest) = Digest::from_hex(name) else { return Ok(false) };
                match self.try_lock(&LockName::Pull(digest))? {
                    Some(_lock) => removed(self.layout().partials().join(name)),
                    None => Ok(false),
                }
            }
            // Removed already, with its rows or by the sweep.
            Thing::Records(_)
            | Thing::Layer(_)
            | Thing::Blob
            | Thing::Image(_)
            | Thing::Strays
            | Thing::Fixed => Ok(true),
        }
    }

    fn sweep_partials(&self) -> Result<()> {
        for name in list(&self.layout().partials())? {
            if self.is_older(&self.layout().partials().join(&name), PARTIAL_SECONDS) {
                // In its lease there is nothing to move.
                let Ok(digest) = Digest::from_hex(&name) else { continue };
                if let Some(_lock) = self.try_lock(&LockName::Pull(digest))? {
                    let path = self.layout().partials().join(&name);
                    remove::file(&path).map_err(|e| Error::io("remove", path, e))?;
                }
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

/// The rows that go, and the files that then have none.
struct Books {
    freed: Freed,
    away: Vec<(Kind, String)>,
}

type Done<T> = std::result::Result<T, Fault>;

impl Books {
    /// Deletes the rows of what was taken out. Gives back what has none.
    fn enter(&mut self, contents: &Contents<'_>, survey: &Survey, taken: &[usize]) -> Done<Vec<Entry>> {
        let mut others = Vec::new();
        for seq in &survey.rotten {
            self.drop_content(contents, *seq)?;
        }
        self.drop_records(contents, &survey.rotten_records)?;
        for entry in taken.iter().map(|at| &survey.ledger.entries[*at]) {
            match &entry.thing {
                Thing::Records(rows) => self.drop_records(contents, rows)?,
                Thing::Image(manifest) => {
                    self.freed.images += 1;
                    contents
                        .connection
                        .execute("DELETE FROM images WHERE manifest = ?1", [column(manifest)])?;
                }
                Thing::Layer(layer) => {
                    // Its manifest too, also where an image keeps a blob: what is unpacked of that is another layer, as
                    // archives have times in whole seconds.
                    self.drop_row(contents, survey, Kind::Folder, &layer.digest())?;
                    self.drop_row(contents, survey, Kind::Tree, &layer.digest())?;
                }
                Thing::Blob | Thing::Strays | Thing::Fixed => {}
                Thing::CacheMount(_) | Thing::Repository(_) | Thing::Context(_) | Thing::Partial(_) => {
                    others.push(entry.clone());
                    continue;
                }
            }
            for blob in &entry.blobs {
                self.drop_row(contents, survey, Kind::Blob, blob)?;
            }
            if entry.is_shown() {
                self.freed.entries.push(entry.usage.clone());
            }
        }
        // What a whole build stood on may be among it.
        if self.freed.images + self.freed.records + self.freed.contents > 0 {
            crate::memo::forget(contents.layout)?;
        }
        for table in ["origins", "layer_blobs"] {
            let gone = "NOT IN (SELECT digest FROM contents WHERE kind = 'tree')";
            contents.connection.execute(&format!("DELETE FROM {table} WHERE layer {gone}"), [])?;
        }
        Ok(others)
    }

    fn drop_records(&mut self, contents: &Contents<'_>, rows: &[i64]) -> Done<()> {
        for seq in rows {
            contents.connection.execute("DELETE FROM records WHERE seq = ?1", [seq])?;
        }
        self.freed.records += rows.len() as u64;
        Ok(())
    }

    fn drop_row(&mut self, contents: &Contents<'_>, survey: &Survey, kind: Kind, named: &Digest) -> Done<()> {
        if let Some(row) = survey.rows.get(&(kind, *named)) {
            self.drop_content(contents, row.seq)?;
            self.away.push((kind, named.hex()));
        }
        Ok(())
    }

    fn drop_content(&mut self, contents: &Contents<'_>, seq: i64) -> Done<()> {
        contents.connection.execute("DELETE FROM contents WHERE seq = ?1", params![seq])?;
        self.freed.contents += 1;
        Ok(())
    }
}

impl Entry {
    /// Whether it is a line of its own: records are told with the layer that they made.
    fn is_shown(&self) -> bool {
        !(matches!(self.thing, Thing::Records(_)) && self.made.is_some())
    }
}
