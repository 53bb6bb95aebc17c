//! Whose a step's files are, where they are all one user's: what the sandbox emulates, and what it recorded.
//!
//! The layers below say it by their manifests. What the step wrote says it by records, and by what the manifests say where the
//! file is one of theirs, which overlayfs has copied up.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use dockerfile::text;
use graph::{Mount, MountKind};
use image::copy::CopyError;
use image::diff::Owners;
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags, XattrFlags, lsetxattr, open};
use sandbox::{
    Ids, Snapshots,
    emulate::{ATTRIBUTE, Below, Device, Emulation, Mounted, Owner, Records},
};
use tree::{Kind, Layer, LayerPath, Node, Stack};

use super::{Effects, Job, roots::Ground};
use crate::{error::Cause, result::VertexResult};

/// To look at so many files before a step begins takes longer than most steps do.
const MANY: usize = 4000;

/// Manifests as the sandbox asks them, thousands of times in a step: those few files that are not root's, once it asks.
#[derive(Debug)]
struct Manifests {
    stack: Stack,
    foreign: OnceLock<BTreeMap<LayerPath, Below>>,
}

/// Writes down whose a copy of a layer's file is, if it can have a record.
pub(crate) fn record(path: &Path, node: &Node) -> io::Result<()> {
    let Below { owner, .. } = below(node);
    let is_plain = matches!(node.kind, Kind::File { .. } | Kind::Directory { .. }) || owner.device.is_some();
    if owner == Owner::ROOT || !is_plain {
        return Ok(());
    }
    Ok(lsetxattr(path, ATTRIBUTE, owner.encode().as_bytes(), XattrFlags::empty())?)
}

impl Manifests {
    fn of(stack: Stack) -> Arc<Manifests> {
        Arc::new(Manifests { stack, foreign: OnceLock::new() })
    }

    fn foreign(&self) -> &BTreeMap<LayerPath, Below> {
        self.foreign.get_or_init(|| {
            let paths = self.stack.layers().iter().map(foreign_paths);
            let paths: BTreeSet<LayerPath> = paths.flat_map(|paths| paths.to_vec()).collect();
            // Something may hide it, or give it to root.
            let seen = |path: LayerPath| {
                let found = self.stack.lookup(&path).map(|(_, node)| below(node));
                Some((path, found.filter(|found| found.owner != Owner::ROOT)?))
            };
            paths.into_iter().filter_map(seen).collect()
        })
    }
}

impl sandbox::emulate::Owners for Manifests {
    fn of(&self, path: &[u8]) -> Option<Below> {
        self.foreign().get(path).copied()
    }

    fn foreign(&self) -> Option<Vec<(Vec<u8>, Below)>> {
        let all = self.foreign();
        let each = |(path, below): (&LayerPath, &Below)| (path.as_bytes().to_vec(), *below);
        (all.len() <= MANY).then(|| all.iter().map(each).collect())
    }

    fn are_all_root(&self) -> bool {
        self.foreign().is_empty()
    }
}

/// Notes whose the files of a root are that is one folder.
fn note(records: &Records, root: &Path, foreign: &BTreeMap<LayerPath, Below>) -> Result<(), Cause> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(root, flags, Mode::empty()).map_err(|errno| Cause::io("open", root)(errno.into()))?;
    let note = |(path, below): (&LayerPath, &Below)| {
        let noted = records.note(folder.as_fd(), path.as_bytes(), below.owner);
        noted.map_err(|source| Cause::io("statx", root.join(OsStr::from_bytes(path.as_bytes())))(source))
    };
    foreign.par_iter().try_for_each(note)
}

/// The paths of a layer that are not root's, or devices. Remembered as long as the layer is in memory: the next step has it too.
fn foreign_paths(layer: &Arc<Layer>) -> Arc<[LayerPath]> {
    type Known = Vec<(Weak<Layer>, Arc<[LayerPath]>)>;
    static KNOWN: Mutex<Known> = Mutex::new(Vec::new());
    // The list is whole at any time, also after a panic.
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |(held, _): &&(Weak<Layer>, _)| std::ptr::eq(held.as_ptr(), Arc::as_ptr(layer));
    if let Some((_, paths)) = known().iter().find(same) {
        return paths.clone();
    }
    let is_foreign = |(path, node): (&LayerPath, &Node)| {
        (node.kind != Kind::Whiteout && below(node).owner != Owner::ROOT).then(|| path.clone())
    };
    let paths: Arc<[LayerPath]> = layer.entries.iter().filter_map(is_foreign).collect();
    let mut known = known();
    known.retain(|(held, _)| held.strong_count() > 0);
    known.push((Arc::downgrade(layer), paths.clone()));
    paths
}

/// What a manifest's node is beyond its inode.
fn below(node: &Node) -> Below {
    let device = match node.kind {
        Kind::CharDevice { major, minor } => Some(Device { block: false, major, minor }),
        Kind::BlockDevice { major, minor } => Some(Device { block: true, major, minor }),
        _ => None,
    };
    let owner = Owner { uid: node.uid, gid: node.gid, device };
    Below { owner, modified: (node.mtime.seconds, node.mtime.nanoseconds) }
}

/// A device as a manifest has it.
pub(crate) fn kind(Device { block, major, minor }: Device) -> Kind {
    if block { Kind::BlockDevice { major, minor } } else { Kind::CharDevice { major, minor } }
}

/// What a step recorded, on the layers that were below it.
pub(crate) struct Recorded<'a> {
    records: &'a Records,
    below: &'a Stack,
    /// One folder for all: whoever asks knows whether a file was there before the step.
    is_copied: bool,
}

impl<'a> Recorded<'a> {
    /// Of a step that had this; none of one whose owners stand in inodes.
    pub(crate) fn of(
        emulation: Option<&'a Emulation>,
        below: &'a Stack,
        is_copied: bool,
    ) -> Option<Recorded<'a>> {
        emulation.map(|emulation| Recorded { records: &emulation.records, below, is_copied })
    }
}

impl Owners for Recorded<'_> {
    fn correct(
        &self,
        folder: BorrowedFd<'_>,
        path: &LayerPath,
        hidden: bool,
        node: &mut Node,
    ) -> io::Result<()> {
        let name = if path.is_root() { b"." } else { path.name() };
        let mut owner = self.records.of(folder, name)?;
        if owner.is_none() && !hidden {
            let before = self.below.lookup(path).map(|(_, before)| below(before));
            let before = before.filter(|before| before.owner != Owner::ROOT);
            if let Some(before) = before
                && (self.is_copied || self.records.is_copy(folder, name, &before)?)
            {
                owner = Some(before.owner);
            }
        }
        let Some(Owner { uid, gid, device }) = owner else { return Ok(()) };
        (node.uid, node.gid) = (uid, gid);
        if let Some(device) = device {
            node.kind = kind(device);
        }
        Ok(())
    }
}

impl Effects {
    /// How owners are emulated for a step on these layers with these mounts, or devices alone, where they are.
    pub(crate) fn emulation(
        &self,
        below: &Stack,
        ground: &Ground,
        mounts: &BTreeMap<PathBuf, Mounted>,
    ) -> Result<Option<Emulation>, Cause> {
        let devices = || Emulation { owners: Arc::new(()), records: Arc::default(), mounts: BTreeMap::new() };
        match self.mode.ids {
            Ids::Host => return Ok(None),
            Ids::Mapped => return Ok(Some(devices())),
            Ids::Single => {}
        }
        let manifests = Manifests::of(below.clone());
        let (records, mounts) = (Arc::default(), mounts.clone());
        Ok(Some(match ground {
            Ground::Stacked(_) => Emulation { owners: manifests, records, mounts },
            Ground::Copied(root) => {
                note(&records, &root.path, manifests.foreign())?;
                Emulation { owners: Arc::new(()), records, mounts }
            }
        }))
    }

    /// Whose what is mounted is, where that does not stand in inodes.
    pub(crate) fn mounted_owners(&self, mount: &Mount, job: &Job) -> Result<Option<Mounted>, Cause> {
        if self.mode.ids != Ids::Single {
            return Ok(None);
        }
        Ok(match mount.kind {
            MountKind::Cache { uid, gid, .. }
            | MountKind::Secret { uid, gid, .. }
            | MountKind::Ssh { uid, gid, .. } => Some(Mounted::One(Owner { uid, gid, device: None })),
            MountKind::Bind if self.mode.snapshots == Snapshots::Overlay => {
                match mount.input.map(|input| &job.inputs[input].0) {
                    Some(VertexResult::Layers { layers, .. }) => {
                        let stack = self.stack(layers)?;
                        let selector = LayerPath::clamp(&text::encode(&mount.selector));
                        let from = stack.resolve(&selector.map_err(CopyError::from)?, true)?;
                        let from = from.as_bytes().to_vec();
                        Some(Mounted::Layers { owners: Manifests::of(stack), from })
                    }
                    // Of a context all is root's.
                    _ => None,
                }
            }
            MountKind::Bind | MountKind::Tmpfs { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use image::apply::{STANDS_FOR, stands_for};

    use super::*;

    #[test]
    fn what_stands_for_a_device_says_so_in_one_form() {
        assert_eq!(STANDS_FOR.as_bytes(), ATTRIBUTE.to_bytes());
        let device = |kind| Node { uid: 7, gid: 8, ..Node::new(kind, 0o640) };
        for kind in [Kind::CharDevice { major: 1, minor: 3 }, Kind::BlockDevice { major: 8, minor: 300 }] {
            let node = device(kind.clone());
            let value = stands_for(&node).expect("it is a device");
            assert_eq!(value, below(&node).owner.encode());
            let device = Owner::parse(value.as_bytes()).and_then(|owner| owner.device);
            assert_eq!(device.map(super::kind), Some(kind));
        }
        assert_eq!(stands_for(&device(Kind::Fifo)), None);
    }
}
