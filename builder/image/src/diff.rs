//! What a step changed: overlayfs's upper folder → a layer.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags, openat};
use tree::{Kind, Layer, LayerPath, Node, Stack, Xattrs};

use crate::{
    beneath,
    folder::prune::prune,
    overlay::OverlayXattrs,
    scan::{HashCache, Purpose, ScanError, ScanOptions, Visit, failed, scan},
};

/// Reads the upper folder of an overlay on `lower`, and leaves out what only looks changed: see [`changes`]. What is left out
/// is removed from the folder too, which then holds the layer and nothing else.
///
/// # Errors
/// [`ScanError`], also where the overlay was mounted with `redirect_dir` or `metacopy`.
pub fn diff(
    upper: &Path,
    lower: &Stack,
    overlay: OverlayXattrs,
    hashes: &dyn HashCache,
) -> Result<Layer, ScanError> {
    diff_with_owners(upper, lower, overlay, hashes, None)
}

/// Whose the files of an upper folder are, where their inodes do not say so.
pub trait Owners {
    /// Corrects owner and type of what a scan has found in a folder; the root is the name `.` in itself. `hidden` says that the
    /// layers below are not seen at this path: what is there is no copy of theirs.
    ///
    /// # Errors
    /// The file cannot be looked at.
    fn correct(
        &self,
        folder: BorrowedFd<'_>,
        path: &LayerPath,
        hidden: bool,
        node: &mut Node,
    ) -> io::Result<()>;
}

/// As [`diff`], of a folder all of whose files are one user's.
///
/// # Errors
/// As [`diff`].
pub fn diff_with_owners(
    upper: &Path,
    lower: &Stack,
    overlay: OverlayXattrs,
    hashes: &dyn HashCache,
    owners: Option<&dyn Owners>,
) -> Result<Layer, ScanError> {
    let options = ScanOptions { purpose: Purpose::Upper(overlay), filter: &|_, _| Visit::Take, hashes };
    let mut scanned = scan(upper, &options)?;
    if let Some(owners) = owners {
        correct(upper, &mut scanned, owners)?;
    }
    // The root itself cannot be taken from the folder.
    let count = |layer: &Layer| {
        let below = layer.entries.iter().filter(|(path, _)| !path.is_root());
        let opaque = layer.entries.values().filter(|node| node.kind == Kind::Directory { opaque: true });
        (below.count(), opaque.count())
    };
    let before = count(&scanned);
    let layer = changes(scanned, lower);
    if count(&layer) != before {
        prune(upper, &layer, overlay)?;
    }
    Ok(layer)
}

/// Gives everything the owner that it has.
pub(crate) fn correct(upper: &Path, layer: &mut Layer, owners: &dyn Owners) -> Result<(), ScanError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, upper, flags, Mode::empty()).map_err(failed("open", &LayerPath::root()))?;
    // In the order of paths a folder comes before what it holds.
    let mut opaque: BTreeSet<LayerPath> = BTreeSet::new();
    let mut open: Option<(LayerPath, OwnedFd)> = None;
    for (path, node) in &mut layer.entries {
        if node.kind == Kind::Whiteout {
            continue;
        }
        if node.kind == (Kind::Directory { opaque: true }) {
            opaque.insert(path.clone());
        }
        let parent = path.parent().unwrap_or_else(LayerPath::root);
        if open.as_ref().is_none_or(|(path, _)| *path != parent) {
            let folder = beneath::open_folder(root.as_fd(), &parent).map_err(failed("open", &parent))?;
            open = Some((parent, folder));
        }
        let hidden = opaque.contains(path)
            || !opaque.is_empty() && path.ancestors().iter().any(|folder| opaque.contains(folder));
        let folder = open.as_ref().map_or(root.as_fd(), |(_, folder)| folder.as_fd());
        let corrected = owners.correct(folder, path, hidden, node);
        corrected.map_err(|source| ScanError::Call { call: "getxattr", path: path.clone(), source })?;
    }
    Ok(())
}

/// What of an upper folder's manifest differs from the layers below it.
///
/// Overlayfs copies a file up when it is opened for writing and a folder when something in it is, whether
/// anything changes or not. So a file stays only if its content, metadata or time differs, and a folder if
/// its mode, owner or attributes do, or if it holds something that stays; its time alone is no change. A
/// whiteout stays only over something, an opaque mark only where it hides something. The root stays if its
/// mode or owner differs. All this is as in BuildKit's differ, but for the root, which that never takes.
pub fn changes(upper: Layer, lower: &Stack) -> Layer {
    // Below an opaque folder there is nothing to compare with.
    let is_opaque = |node: &Node| node.kind == Kind::Directory { opaque: true };
    let opaque: BTreeSet<LayerPath> =
        upper.entries.iter().filter(|(_, node)| is_opaque(node)).map(|(path, _)| path.clone()).collect();
    let below = |path: &LayerPath| {
        let hidden = !opaque.is_empty() && path.ancestors().iter().any(|folder| opaque.contains(folder));
        if hidden { None } else { lower.lookup(path).map(|(_, node)| node) }
    };
    let mut groups: BTreeMap<LayerPath, Vec<LayerPath>> = BTreeMap::new();
    let mut holds: BTreeSet<LayerPath> = BTreeSet::new();
    let mut kept = Layer::default();
    // From the end, so that a folder comes after what it holds.
    for (path, mut node) in upper.entries.into_iter().rev() {
        let before = below(&path);
        let stays = match &mut node.kind {
            Kind::Whiteout => before.is_some(),
            Kind::Directory { opaque } => {
                let was = before.filter(|before| before.is_directory());
                *opaque = *opaque && was.is_some() && !lower.children(&path).is_empty();
                *opaque
                    || holds.contains(&path) && !path.is_root()
                    || was.is_none_or(|was| !same_folder(was, &node))
            }
            _ => before.is_none_or(|before| !same_file(before, &node)),
        };
        if !stays {
            continue;
        }
        if let Some(first) = node.hardlink.take() {
            groups.entry(first.clone()).or_insert_with(|| vec![first]).push(path.clone());
        }
        holds.extend(path.parent());
        kept.entries.insert(path, node);
    }
    kept.link(groups.into_values());
    kept
}

fn same_folder(before: &Node, now: &Node) -> bool {
    let owner = |node: &Node| (node.mode, node.uid, node.gid);
    owner(before) == owner(now) && capability(before) == capability(now)
}

fn same_file(before: &Node, now: &Node) -> bool {
    let plain = |node: &Node| Node { hardlink: None, xattrs: Xattrs::default(), ..node.clone() };
    plain(before) == plain(now) && capability(before) == capability(now)
}

/// The one attribute that a snapshot has; an image made elsewhere may have more.
fn capability(node: &Node) -> Option<&Vec<u8>> {
    node.xattrs.get(&b"security.capability"[..])
}
