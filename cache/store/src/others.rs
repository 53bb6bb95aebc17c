//! The entries that the database does not know: cache mounts, copies of repositories, contexts, downloads, and Kiln's own.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use oci::{Digest, Epoch};

use crate::{
    LockName, Result, Store, cache_mount,
    flock::{self, Hold},
    layout::Layout,
    lease::list,
    ledger::{Entry, Thing},
    measure,
    policy::Disk,
    repository::STAMP,
    usage::{Usage, UsageType},
    worth,
};

/// The names in a state folder whose content is counted one by one.
const COUNTED: [&str; 7] = ["blobs", "trees", "layers", "tmp", "partial", "mounts", "stats"];

impl Store {
    /// The file system of the state folder; nothing where it does not say.
    pub fn disk(&self) -> Disk {
        let Ok(found) = rustix::fs::statvfs(self.root()) else { return Disk::default() };
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Disk { total_bytes: bytes(found.f_blocks), free_bytes: bytes(found.f_bavail) }
    }

    /// Looks at what the database does not know. Takes as long as it takes to walk through the cache mounts.
    pub(crate) fn others(&self) -> Result<Vec<Entry>> {
        let mut entries = self.cache_mount_entries()?;
        entries.extend(self.repository_entries()?);
        for name in list(&self.layout().stats())? {
            let path = self.layout().stats().join(&name);
            let size_bytes = measure::on_disk(&path);
            let description = "digests of the files of a build context".to_owned();
            let cost_ms = worth::context_cost_ms(size_bytes);
            let usage = Usage { description, cost_ms, ..found(UsageType::Local, &name, &path, size_bytes) };
            entries.push(entry(usage, Thing::Context(name)));
        }
        for name in list(&self.layout().partials())? {
            let path = self.layout().partials().join(&name);
            let size_bytes = measure::on_disk(&path);
            let in_use = Digest::from_hex(&name).is_ok_and(|digest| self.is_locked(&LockName::Pull(digest)));
            let description = "an interrupted download".to_owned();
            let cost_ms = worth::download_cost_ms(size_bytes);
            let usage =
                Usage { description, cost_ms, in_use, ..found(UsageType::Regular, &name, &path, size_bytes) };
            entries.push(entry(usage, Thing::Partial(name)));
        }
        for name in list(&self.layout().tmp())?.into_iter().filter(|name| !Layout::is_trial(name)) {
            let path = self.layout().tmp().join(&name);
            let in_use = is_held(&self.layout().leases().join(&name));
            let description = if in_use { "what a running build makes" } else { "what a killed build left" };
            let (description, size_bytes) = (description.to_owned(), measure::on_disk(&path));
            let usage = Usage { description, in_use, ..found(UsageType::Internal, &name, &path, size_bytes) };
            entries.push(Entry { rubbish: true, ..entry(usage, Thing::Strays) });
        }
        entries.push(self.own_entry()?);
        Ok(entries)
    }

    fn cache_mount_entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for mount in self.cache_mounts()? {
            let name = Digest::of(mount.id.as_bytes()).hex();
            let folder = self.layout().mounts().join(&name);
            let size_bytes = measure::on_disk(&folder);
            let locks = list(&folder)?.into_iter().filter(|name| name.ends_with(".lock"));
            let locks: Vec<_> = locks.map(|name| folder.join(name)).collect();
            let usage = Usage {
                description: format!("cache mount {}", mount.id),
                last_used: locks.iter().filter_map(|lock| modified(lock)).max(),
                in_use: cache_mount::hold_all(&folder)?.is_none(),
                mutable: true,
                cost_ms: worth::filling_cost_ms(size_bytes),
                ..found(UsageType::CacheMount, &name, &folder.join(cache_mount::ID), size_bytes)
            };
            entries.push(entry(usage, Thing::CacheMount(mount.id)));
        }
        Ok(entries)
    }

    fn repository_entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for name in list(&self.layout().repositories())? {
            let folder = self.layout().repositories().join(&name);
            // What has no stamp is half a copy, or no copy: the next fetch replaces it.
            let Ok(remote) = fs::read_to_string(folder.join(STAMP)) else { continue };
            let size_bytes = measure::on_disk(&folder);
            let usage = Usage {
                description: format!("a copy of {remote}"),
                in_use: self.is_locked(&LockName::Repository(remote.clone())),
                mutable: true,
                cost_ms: worth::filling_cost_ms(size_bytes),
                ..found(UsageType::GitCheckout, &name, &folder.join(STAMP), size_bytes)
            };
            entries.push(entry(usage, Thing::Repository(remote)));
        }
        Ok(entries)
    }

    /// The database, and all that is small.
    fn own_entry(&self) -> Result<Entry> {
        let mut size_bytes = blocks_of(self.root());
        for name in list(self.root())? {
            let path = self.root().join(&name);
            size_bytes += match name.as_str() {
                "blobs" => blocks_of(&path) + blocks_of(&path.join("sha256")),
                "git" => {
                    let is_copy = |name: &String| path.join(name).join(STAMP).exists();
                    let others = list(&path)?.into_iter().filter(|name| !is_copy(name));
                    blocks_of(&path) + others.map(|name| measure::on_disk(&path.join(name))).sum::<u64>()
                }
                counted if COUNTED.contains(&counted) => blocks_of(&path),
                _ => measure::on_disk(&path),
            };
        }
        let description = "the database, and what is remembered of registries".to_owned();
        let usage = Usage {
            id: "kiln".to_owned(),
            description,
            size_bytes,
            mutable: true,
            ..Usage::of(UsageType::Internal)
        };
        Ok(Entry::new(usage, Thing::Fixed))
    }
}

fn entry(usage: Usage, thing: Thing) -> Entry {
    Entry { cache_bytes: usage.size_bytes, ..Entry::new(usage, thing) }
}

/// What the stamp at `path` tells.
fn found(kind: UsageType, id: &str, path: &Path, size_bytes: u64) -> Usage {
    let at = modified(path);
    Usage { id: id.to_owned(), created: at, last_used: at, size_bytes, ..Usage::of(kind) }
}

fn modified(path: &Path) -> Option<Epoch> {
    let found = fs::symlink_metadata(path).ok()?;
    u64::try_from(found.mtime()).ok().map(Epoch)
}

/// What a name itself takes, without what is below it.
fn blocks_of(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |found| found.blocks() * 512)
}

/// Whether somebody holds the lock of a file, alone or with others. Looking holds it for a moment.
fn is_held(path: &Path) -> bool {
    fs::File::open(path).and_then(|file| flock::try_lock(&file, Hold::Exclusive)).is_ok_and(|free| !free)
}
