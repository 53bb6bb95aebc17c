//! The destination of a file op while it is being changed.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use tree::{Kind, Layer, LayerPath, Mtime, Node, Stack};

use super::{ContentSource, CopyError, Plan};

/// A file system and the layer that is being made on top of it.
///
/// Above everything that the layer holds, it holds the folders too, as they are in the file system: that is
/// what overlayfs's upper folder looks like, and BuildKit's layers with it.
pub(super) struct Target<'a> {
    base: &'a Stack,
    placed: BTreeMap<LayerPath, Placed>,
    groups: u64,
}

/// A path of the layer that is being made.
struct Placed {
    node: Node,
    content: Option<ContentSource>,
    /// Names of one inode have the same number.
    group: Option<u64>,
    /// For a folder: whether nothing of the base is seen below it.
    fresh: bool,
}

impl<'a> Target<'a> {
    pub(super) fn new(base: &'a Stack) -> Target<'a> {
        Target { base, placed: BTreeMap::new(), groups: 0 }
    }

    /// What is at a resolved path by now.
    pub(super) fn lookup(&self, path: &LayerPath) -> Option<&Node> {
        match self.placed.get(path) {
            Some(Placed { node: Node { kind: Kind::Whiteout, .. }, .. }) => None,
            Some(placed) => Some(&placed.node),
            None => self.in_base(path),
        }
    }

    /// What the base has at a path, if the layer hides nothing above it.
    fn in_base(&self, path: &LayerPath) -> Option<&Node> {
        let bytes = path.as_bytes();
        let folders = (0..bytes.len()).rev().filter(|at| bytes[*at] == b'/').map(|at| &bytes[..at]);
        // The nearest folder in the layer decides: those above it are in the layer as well.
        let nearest = folders.filter_map(|folder| self.placed.get(folder)).next();
        if nearest.is_some_and(|placed| placed.fresh || !placed.node.is_directory()) {
            return None;
        }
        self.base.lookup(path).map(|(_, node)| node)
    }

    /// Follows links as [`Stack::resolve`] does.
    pub(super) fn resolve(&self, path: &LayerPath, follow_last: bool) -> Result<LayerPath, CopyError> {
        let target = |path: &LayerPath| match self.lookup(path).map(|node| &node.kind) {
            Some(Kind::Symlink { target }) => Some(target.clone()),
            _ => None,
        };
        Ok(tree::resolve(path, follow_last, target)?)
    }

    /// The file system as it was before.
    pub(super) fn base_stack(&self) -> &Stack {
        self.base
    }

    /// The layer as it is so far.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&LayerPath, &Node)> {
        self.placed.iter().map(|(path, placed)| (path, &placed.node))
    }

    /// A number for a new group of hard links.
    pub(super) fn new_group(&mut self) -> u64 {
        self.groups += 1;
        self.groups
    }

    /// Puts a node at a resolved path, replacing what is there. A folder on a folder keeps what that holds.
    pub(super) fn put(
        &mut self,
        path: &LayerPath,
        mut node: Node,
        content: Option<ContentSource>,
        group: Option<u64>,
    ) {
        if path.is_root() {
            return;
        }
        self.place_parents(path);
        let mut fresh = true;
        if let Kind::Directory { opaque } = &mut node.kind {
            let before = self.placed.get(path);
            let base_is_folder = self.in_base(path).is_some_and(Node::is_directory);
            *opaque = match before {
                None => {
                    fresh = !base_is_folder;
                    false
                }
                Some(Placed { node: Node { kind: Kind::Directory { opaque }, .. }, fresh: was, .. }) => {
                    fresh = *was;
                    *opaque
                }
                Some(_) => base_is_folder,
            };
        } else {
            self.forget_below(path);
        }
        self.placed.insert(path.clone(), Placed { node, content, group, fresh });
    }

    /// Whether a resolved path is a folder in which there is nothing.
    pub(super) fn is_bare(&self, path: &LayerPath) -> bool {
        if path.is_root() {
            let is_empty = |layer: &Arc<Layer>| layer.entries.is_empty();
            return self.placed.is_empty() && self.base.layers().iter().all(is_empty);
        }
        let fresh = self.placed.get(path).is_some_and(|placed| placed.fresh && placed.node.is_directory());
        fresh && self.placed_below(path).next().is_none()
    }

    /// Puts nodes into a folder that is bare, with all folders that they are in: a path comes once.
    pub(super) fn put_all(
        &mut self,
        nodes: impl IntoIterator<Item = (LayerPath, Node, Option<ContentSource>, Option<u64>)>,
    ) {
        let placed = |(path, node, content, group)| (path, Placed { node, content, group, fresh: true });
        self.placed.append(&mut nodes.into_iter().map(placed).collect());
    }

    /// Changes the metadata of a folder.
    pub(super) fn change(&mut self, path: &LayerPath, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.lookup(path) {
            let mut node = node.clone();
            change(&mut node);
            self.put(path, node, None, None);
        }
    }

    /// Removes what is at a resolved path, with all below it.
    pub(super) fn remove(&mut self, path: &LayerPath) {
        self.forget_below(path);
        self.placed.remove(path);
        if self.in_base(path).is_some() && !path.is_root() {
            self.place_parents(path);
            let placed = Placed { node: Node::whiteout(), content: None, group: None, fresh: true };
            self.placed.insert(path.clone(), placed);
        }
    }

    /// Hides what the base has in a folder, and keeps what this layer has put there.
    pub(super) fn empty_of_base(&mut self, folder: &LayerPath) {
        if self.in_base(folder).is_some_and(Node::is_directory) {
            self.change(folder, |_| ());
            if let Some(placed) = self.placed.get_mut(folder) {
                placed.node.kind = Kind::Directory { opaque: true };
                placed.fresh = true;
            }
        }
    }

    /// Makes a resolved path a folder, with all folders above it that are missing. What is there already
    /// stays as it is.
    pub(super) fn mkdir_all(
        &mut self,
        path: &LayerPath,
        mode: u32,
        owner: Option<(u32, u32)>,
        created: Mtime,
    ) -> Result<(), CopyError> {
        let mut folders = path.ancestors();
        folders.push(path.clone());
        for folder in folders {
            match self.lookup(&folder) {
                Some(node) if node.is_directory() => {}
                Some(_) => return Err(CopyError::NotAFolder { path: folder }),
                None => {
                    let (uid, gid) = owner.unwrap_or((0, 0));
                    let node = Node { uid, gid, mtime: created, ..Node::directory(mode) };
                    self.put(&folder, node, None, None);
                }
            }
        }
        Ok(())
    }

    fn place_parents(&mut self, path: &LayerPath) {
        let Some(parent) = path.parent() else { return };
        if parent.is_root() || self.placed.contains_key(&parent) {
            return;
        }
        let node = self.in_base(&parent).cloned().unwrap_or_else(|| Node::directory(0o755));
        self.put(&parent, Node { hardlink: None, ..node }, None, None);
    }

    /// The paths below a path, as far as this layer has placed them.
    fn placed_below(&self, path: &LayerPath) -> impl Iterator<Item = &LayerPath> {
        let bytes = path.as_bytes();
        let after = self.placed.range::<[u8], _>((Excluded(bytes), Unbounded)).map(|(below, _)| below);
        // Siblings such as `a.b` sort between `a` and `a/b`.
        let near = after.take_while(move |below| below.as_bytes().starts_with(bytes));
        near.filter(move |below| below.below(path).is_some())
    }

    fn forget_below(&mut self, path: &LayerPath) {
        let below: Vec<LayerPath> = self.placed_below(path).cloned().collect();
        for path in below {
            self.placed.remove(&path);
        }
    }

    pub(super) fn finish(self) -> Plan {
        let mut groups: BTreeMap<u64, Vec<LayerPath>> = BTreeMap::new();
        for (path, placed) in &self.placed {
            if let Some(group) = placed.group {
                groups.entry(group).or_default().push(path.clone());
            }
        }
        let mut contents = Vec::with_capacity(self.placed.len());
        let entries = self.placed.into_iter().map(|(path, placed)| {
            contents.extend(placed.content.map(|content| (path.clone(), content)));
            (path, Node { hardlink: None, ..placed.node })
        });
        let mut layer = Layer { entries: entries.collect() };
        let mut contents: BTreeMap<LayerPath, ContentSource> = contents.into_iter().collect();
        let groups = groups.into_values().filter(|names| names.len() > 1);
        let groups: Vec<Vec<LayerPath>> = groups.collect();
        // The bytes of an inode are written once, for its first name; names are in path order.
        for other in groups.iter().flat_map(|names| &names[1..]) {
            contents.remove(other);
        }
        layer.link(groups);
        Plan { layer, contents }
    }
}
