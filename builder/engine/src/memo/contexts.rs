//! Contexts, known again by what `statx` says of them.
//!
//! The stamp that is written down is of a walk of its own, made after the build has read the context. It describes what the
//! build used because all that it met is compared: each path with the manifest that the build worked from, and each file's
//! inode with the digest that was remembered for it. A file that changed lately has no such digest, because it could
//! change again without a trace (`hash_cache.rs`); then there is no stamp.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use graph::Local;
use image::scan::{KnownFiles, Seen, SeenKind, StampOptions, Visit, stamp_at};
use oci::Digest;
use rustix::fs::{Mode, OFlags, open};
use tree::{Kind, Layer, LayerPath, Node};

use crate::effect::{context::Context as Read, visible::Visible};

/// The stamp of a context as it is now; none where it cannot be walked.
pub(super) fn stamp(folder: &Path, local: &Local) -> Option<Digest> {
    stamp_telling(folder, local, &|_, _| {})
}

/// The stamp of a context that the build has read; none where it is not, or may not be, that any more.
pub(crate) fn stamp_of_read(read: &Read, local: &Local) -> Option<Digest> {
    let check = Check {
        layer: &read.layer,
        known: &*read.known,
        differs: AtomicBool::new(false),
        met: AtomicUsize::new(0),
        linked: Mutex::default(),
    };
    let stamp = stamp_telling(&read.folder, local, &|path, seen| check.take(path, seen))?;
    check.met_all().then_some(stamp)
}

fn stamp_telling(folder: &Path, local: &Local, seen: &(dyn Fn(&LayerPath, &Seen) + Sync)) -> Option<Digest> {
    let root = open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let visible = Visible::of(local, root.as_fd()).ok()?;
    let filter = |path: &LayerPath, is_folder: bool| visible.visit(path, is_folder);
    stamp_at(root.as_fd(), &StampOptions { filter: &filter, seen }).ok()
}

/// Compares a walk with what a build has read.
struct Check<'a> {
    layer: &'a Layer,
    known: &'a dyn KnownFiles,
    differs: AtomicBool,
    /// How many entries of the manifest were met.
    met: AtomicUsize,
    /// The paths of each inode that has several names.
    linked: Mutex<BTreeMap<(u64, u64), Vec<LayerPath>>>,
}

impl Check<'_> {
    fn take(&self, path: &LayerPath, seen: &Seen) {
        match self.layer.get(path) {
            Some(node) if self.is(node, seen) => {
                self.met.fetch_add(1, Ordering::Relaxed);
            }
            // It is only in the manifest if something below it is.
            None if seen.visit == Visit::Descend => {}
            _ => self.differs.store(true, Ordering::Relaxed),
        }
        if seen.names > 1 && seen.kind != SeenKind::Directory {
            let inode = (seen.key.device, seen.key.inode);
            let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
            linked.entry(inode).or_default().push(path.clone());
        }
    }

    fn is(&self, node: &Node, seen: &Seen) -> bool {
        match (&node.kind, &seen.kind) {
            (Kind::Directory { .. }, SeenKind::Directory) => node.mode == seen.mode,
            (Kind::Symlink { target }, SeenKind::Symlink { target: now }) => target == now,
            (Kind::File { size, content }, SeenKind::File) => {
                let same = seen.key.size == 0 || self.known.is(&seen.key, content);
                node.mode == seen.mode && *size == seen.key.size && same
            }
            // Devices, pipes and sockets are too rare in a context to be worth a thought.
            _ => false,
        }
    }

    /// Whether the walk met what was read, all of it and no more.
    fn met_all(self) -> bool {
        let linked = self.linked.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut links: BTreeMap<LayerPath, LayerPath> = BTreeMap::new();
        for mut names in linked.into_values() {
            names.sort();
            let mut names = names.into_iter();
            let first = names.next();
            links.extend(names.filter_map(|name| Some((name, first.clone()?))));
        }
        let entries = self.layer.entries.iter();
        let mut were = entries.clone().filter_map(|(path, node)| Some((path, node.hardlink.as_ref()?)));
        let same_links = were.by_ref().eq(links.iter());
        let own = usize::from(self.layer.get(&LayerPath::root()).is_some());
        let all = self.met.into_inner() + own == self.layer.entries.len();
        !self.differs.into_inner() && same_links && all
    }
}
