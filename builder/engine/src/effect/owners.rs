//! Whose a step's files are, where they are all one user's: what the sandbox emulates, and what it recorded.
//!
//! The layers below say it by their manifests. What the step wrote says it by records, and by what the manifests say where the
//! file is one of theirs, which overlayfs has copied up.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use dockerfile::text;
use graph::{Mount, MountKind};
use image::copy::CopyError;
use image::diff::Owners;
use rustix::fs::{XattrFlags, lsetxattr};
use sandbox::{
    Ids, Snapshots,
    emulate::{ATTRIBUTE, Below, Device, Emulation, Mounted, Owner, Records},
};
use tree::{Kind, Layer, LayerPath, Node, Stack};

use super::{Effects, Job};
use crate::{error::Cause, result::VertexResult};

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

    fn are_all_root(&self) -> bool {
        self.foreign().is_empty()
    }
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
        match device {
            Some(Device { block: true, major, minor }) => node.kind = Kind::BlockDevice { major, minor },
            Some(Device { block: false, major, minor }) => node.kind = Kind::CharDevice { major, minor },
            None => {}
        }
        Ok(())
    }
}

impl Effects {
    /// How owners are emulated for a step on these layers with these mounts, where they are.
    pub(crate) fn emulation(&self, below: &Stack, mounts: &BTreeMap<PathBuf, Mounted>) -> Option<Emulation> {
        (self.mode.ids == Ids::Single).then(|| Emulation {
            owners: Manifests::of(below.clone()),
            records: Arc::default(),
            mounts: mounts.clone(),
        })
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
