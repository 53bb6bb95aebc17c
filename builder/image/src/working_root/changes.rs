//! Two walks of one folder → what changed between them, as overlayfs would have it in its upper folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::BorrowedFd,
    path::Path,
};

use rustix::fs::FileType;
use tree::{Kind, Layer, LayerPath, Node, Stack};

use super::stamps::{Stamp, Stamps};
use crate::{
    diff::{self, Owners, correct},
    scan::{NoHashCache, Purpose, ScanError, ScanOptions, Visit, scan},
};

/// What has changed in `root` since `before`, which was taken when it looked as `lower`; `after` was taken since, and nobody
/// has written to it after that.
///
/// `owners` is asked where inodes do not say whose files are. What has the inode that it had counts as seen from below.
///
/// # Errors
/// [`ScanError`].
pub fn changes(
    root: &Path,
    before: &Stamps,
    after: &Stamps,
    lower: &Stack,
    owners: Option<&dyn Owners>,
) -> Result<Layer, ScanError> {
    let moved = Moved::between(before, after);
    let filter = |path: &LayerPath, is_folder: bool| match () {
        () if moved.paths.contains(path) => Visit::Take,
        () if is_folder && moved.above.contains(path) => Visit::Descend,
        () => Visit::Skip,
    };
    let mut upper = if moved.paths.is_empty() {
        Layer::default()
    } else {
        let purpose = Purpose::Snapshot;
        scan(root, &ScanOptions { purpose, filter: &filter, hashes: &NoHashCache })?
    };
    for (path, node) in &mut upper.entries {
        match &mut node.kind {
            Kind::Directory { opaque } => *opaque = moved.anew.contains(path),
            // What overlayfs refuses to make: in a layer's folder it is a whiteout.
            Kind::CharDevice { major: 0, minor: 0 } => *node = Node::whiteout(),
            _ => {}
        }
    }
    if let Some(owners) = owners {
        correct(root, &mut upper, &OfKept { owners, before, after })?;
    }
    unlink_old_names(&mut upper, before, after);
    upper.entries.extend(moved.gone.into_iter().map(|path| (path, Node::whiteout())));
    Ok(diff::changes(upper, lower))
}

/// Owners, told of each path whether it is the file that was there.
struct OfKept<'a> {
    owners: &'a dyn Owners,
    before: &'a Stamps,
    after: &'a Stamps,
}

impl Owners for OfKept<'_> {
    fn correct(
        &self,
        folder: BorrowedFd<'_>,
        path: &LayerPath,
        hidden: bool,
        node: &mut Node,
    ) -> io::Result<()> {
        let inode = |stamps: &Stamps| stamps.by_path.get(path).map(|stamp| stamp.inode);
        let is_kept = inode(self.before).is_some() && inode(self.before) == inode(self.after);
        self.owners.correct(folder, path, hidden || !is_kept, node)
    }
}

/// Which paths are not what they were.
#[derive(Default)]
struct Moved {
    /// New ones, and those with another stamp.
    paths: BTreeSet<LayerPath>,
    /// Folders above them.
    above: BTreeSet<LayerPath>,
    /// Folders that were removed and made anew.
    anew: BTreeSet<LayerPath>,
    /// Paths that are gone from a folder that stayed.
    gone: Vec<LayerPath>,
}

impl Moved {
    fn between(before: &Stamps, after: &Stamps) -> Moved {
        let mut moved = Moved::default();
        let mut is_kept = BTreeMap::<&LayerPath, bool>::new();
        let stayed = |is_kept: &BTreeMap<&LayerPath, bool>, path: &LayerPath| {
            path.parent().is_none_or(|parent| is_kept.get(&parent) == Some(&true))
        };
        // Whether there is a folder where something else was: most often there is none, and no parent is asked for.
        let mut is_any_other = false;
        // Both are in path order, in which a folder comes before what it holds.
        let mut olds = before.by_path.iter().peekable();
        let mut gone = Vec::new();
        for (path, now) in &after.by_path {
            while let Some((old, _)) = olds.next_if(|(old, _)| *old < path) {
                gone.push(old);
            }
            let known = olds.next_if(|(old, _)| *old == path).map(|(_, was)| was);
            let was = known.filter(|_| !is_any_other || stayed(&is_kept, path));
            if now.is_folder() {
                let same = was.is_some_and(|was| was.is_folder() && was.inode == now.inode) || path.is_root();
                is_kept.insert(path, same);
                is_any_other |= !same && known.is_some();
                if !same && known.is_some_and(Stamp::is_folder) {
                    moved.anew.insert(path.clone());
                }
            }
            // A socket is in no layer, and hides nothing.
            if now.kind == FileType::Socket {
                continue;
            }
            if was.is_none_or(|was| was != now || !before.is_certain(was)) {
                moved.above.extend(path.ancestors());
                moved.paths.insert(path.clone());
            }
        }
        for path in gone.into_iter().chain(olds.map(|(path, _)| path)) {
            if stayed(&is_kept, path) {
                moved.above.extend(path.ancestors());
                // Overlayfs copies the folder up too.
                moved.paths.extend(path.parent());
                moved.gone.push(path.clone());
            }
        }
        moved
    }
}

/// Overlayfs breaks links between names of the layers below when it copies one of them up.
fn unlink_old_names(upper: &mut Layer, before: &Stamps, after: &Stamps) {
    let is_old = |path: &LayerPath| match (before.by_path.get(path), after.by_path.get(path)) {
        (Some(was), Some(now)) => was.inode == now.inode,
        _ => false,
    };
    let mut groups: BTreeMap<LayerPath, Vec<LayerPath>> = BTreeMap::new();
    for (path, node) in &upper.entries {
        if let Some(first) = &node.hardlink {
            groups.entry(first.clone()).or_insert_with(|| vec![first.clone()]).push(path.clone());
        }
    }
    for names in groups.values_mut() {
        for name in names.iter() {
            if let Some(node) = upper.entries.get_mut(name) {
                node.hardlink = None;
            }
        }
        let mut olds = 0;
        names.retain(|name| {
            olds += usize::from(is_old(name));
            !is_old(name) || olds == 1
        });
    }
    upper.link(groups.into_values().filter(|names| names.len() > 1));
}
