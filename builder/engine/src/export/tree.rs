//! The root file system itself, as a folder or a tar: that of one platform, or of several, each in its folder or all in
//! one.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use image::{
    contents::{Bytes, Contents, Folder},
    layer_tar::{TarOptions, write_rootfs},
};
use oci::{Epoch, Platform};
use tree::{Kind, Layer, LayerPath, Node, Stack};

use super::Built;
use crate::{
    effect::Effects,
    error::Cause,
    result::{Mounted, mtime},
};

/// What was built for one platform, ready to be read.
pub(crate) struct PlatformTree {
    platform: Platform,
    mounted: Mounted,
    /// The folder that it is put into; the root where platforms are not split.
    prefix: LayerPath,
}

impl PlatformTree {
    /// The tree of a result. Split, it has a folder of its own: `linux_arm_v7`.
    pub(crate) fn of(effects: &Effects, built: &Built, split: bool) -> Result<PlatformTree, Cause> {
        let name = built.platform.to_string().replace('/', "_");
        let prefix = if split { LayerPath::root().join(name.as_bytes()) } else { LayerPath::root() };
        let mounted = effects.mounted(&built.result)?;
        Ok(PlatformTree { platform: built.platform.clone(), mounted, prefix })
    }

    /// Its entries as one layer, where they are put.
    fn layer(&self, epoch: Option<Epoch>) -> Layer {
        let flat = self.mounted.stack.flatten();
        if self.prefix.is_root() {
            return flat;
        }
        let moved = flat.entries.into_iter().map(|(path, node)| {
            let hardlink = node.hardlink.map(|first| self.prefix.append(&first));
            (self.prefix.append(&path), Node { hardlink, ..node })
        });
        let folder = Node { mtime: mtime(epoch.unwrap_or(Epoch(0))), ..Node::directory(0o755) };
        // The image's own root gives the folder nothing: it stands for the platform.
        let entries = moved.chain([(self.prefix.clone(), folder)]);
        Layer { entries: entries.collect() }
    }
}

/// Writes all files into a folder, over what is there.
///
/// # Errors
/// [`Cause::PlatformConflict`] where two trees that are not split have one path; nothing is written then.
pub(crate) fn write_folder(
    effects: &Effects,
    trees: &[PlatformTree],
    epoch: Option<Epoch>,
    to: &Path,
) -> Result<(), Cause> {
    merged(trees, epoch)?;
    for tree in trees {
        let folder = below(to, &tree.prefix);
        fs::create_dir_all(&folder).map_err(Cause::io("make the folder", &folder))?;
        let stack = clamped(&tree.mounted.stack, epoch);
        for left_out in image::folder::export_local(&stack, tree.mounted.sources()?, &folder)? {
            let left_out = format!("the device {left_out} cannot be made here and is left out");
            effects.warn_once("left-out", &left_out);
        }
        if !tree.prefix.is_root() {
            set_time(&folder, epoch.unwrap_or(Epoch(0)))?;
        }
    }
    Ok(())
}

/// The same files, none of them later than `epoch`.
fn clamped(stack: &Stack, epoch: Option<Epoch>) -> Stack {
    let Some(latest) = epoch.map(mtime) else { return stack.clone() };
    let clamp = |layer: &Arc<Layer>| {
        let entries = layer.entries.iter().map(|(path, node)| {
            let mtime = node.mtime.min(latest);
            (path.clone(), Node { mtime, ..node.clone() })
        });
        Arc::new(Layer { entries: entries.collect() })
    };
    Stack::new(stack.layers().iter().map(clamp).collect())
}

fn below(to: &Path, prefix: &LayerPath) -> PathBuf {
    prefix.parts().fold(to.to_owned(), |path, part| path.join(String::from_utf8_lossy(part).as_ref()))
}

fn set_time(folder: &Path, epoch: Epoch) -> Result<(), Cause> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch.0);
    let set = |folder: &Path| fs::File::open(folder)?.set_modified(time);
    set(folder).map_err(Cause::io("set the time of", folder))
}

/// Writes all files as a tar.
///
/// # Errors
/// As [`write_folder`].
pub(crate) fn write_tar(
    trees: &[PlatformTree],
    epoch: Option<Epoch>,
    out: &mut dyn Write,
) -> Result<(), Cause> {
    let (layer, owners) = merged(trees, epoch)?;
    let stacks = trees.iter().map(|tree| Stacked::open(&tree.mounted)).collect::<Result<Vec<_>, _>>()?;
    let contents = Merged { trees, stacks, owners };
    let options = TarOptions { epoch, verify: false };
    write_rootfs(&layer, &contents, options, out).map_err(|error| Cause::Encode(error.into()))
}

/// All trees as one layer, and for each file the number of the tree that it is of.
fn merged(
    trees: &[PlatformTree],
    epoch: Option<Epoch>,
) -> Result<(Layer, BTreeMap<LayerPath, usize>), Cause> {
    let mut layer = Layer::default();
    let mut owners: BTreeMap<LayerPath, usize> = BTreeMap::new();
    for (at, tree) in trees.iter().enumerate() {
        for (path, node) in tree.layer(epoch).entries {
            let folder = |node: &Node| matches!(node.kind, Kind::Directory { .. });
            let before = layer.entries.get(&path);
            if before.is_some_and(|before| !folder(before) || !folder(&node)) {
                let first = Box::new(trees[owners[&path]].platform.clone());
                let second = Box::new(tree.platform.clone());
                return Err(Cause::PlatformConflict { path: path.to_string(), first, second });
            }
            owners.insert(path.clone(), at);
            layer.entries.insert(path, node);
        }
    }
    Ok((layer, owners))
}

/// The files of all trees.
struct Merged<'a> {
    trees: &'a [PlatformTree],
    stacks: Vec<Stacked<'a>>,
    owners: BTreeMap<LayerPath, usize>,
}

impl Contents for Merged<'_> {
    fn open(&self, path: &LayerPath) -> io::Result<Box<dyn Bytes + '_>> {
        let at = *self.owners.get(path).ok_or(io::ErrorKind::NotFound)?;
        let inside = path.below(&self.trees[at].prefix).ok_or(io::ErrorKind::NotFound)?;
        self.stacks[at].open(&inside)
    }
}

/// The files of stacked layers.
struct Stacked<'a> {
    stack: &'a Stack,
    folders: Vec<Folder>,
}

impl<'a> Stacked<'a> {
    fn open(mounted: &'a Mounted) -> Result<Stacked<'a>, Cause> {
        let open = |path: &PathBuf| Folder::open(path).map_err(Cause::io("open", path));
        let folders = mounted.folders.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Stacked { stack: &mounted.stack, folders })
    }
}

impl Contents for Stacked<'_> {
    fn open(&self, path: &LayerPath) -> io::Result<Box<dyn Bytes + '_>> {
        let (layer, node) = self.stack.lookup(path).ok_or(io::ErrorKind::NotFound)?;
        self.folders[layer].open(node.hardlink.as_ref().unwrap_or(path))
    }
}
