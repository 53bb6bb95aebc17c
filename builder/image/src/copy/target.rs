//! The destination of a file op while it is being changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use tree::{Entries, Kind, Layer, LayerPath, Mtime, Node, Stack};

use super::{ContentSource, CopiedFolder, CopyError, Plan, PlannedContents};

/// A file system and the layer that is being made on top of it.
///
/// Above everything that the layer holds, it holds the folders too, as they are in the file system: that is
/// what overlayfs's upper folder looks like, and BuildKit's layers with it.
pub(super) struct Target<'a> {
    base: &'a Stack,
    placed: Entries,
    contents: PlannedContents,
    /// Names of one inode have the same number.
    groups: BTreeMap<LayerPath, u64>,
    /// The placed folders below which something of the base is seen.
    merged: BTreeSet<LayerPath>,
    last_group: u64,
}

impl<'a> Target<'a> {
    pub(super) fn new(base: &'a Stack) -> Target<'a> {
        Target {
            base,
            placed: Entries::new(),
            contents: PlannedContents::default(),
            groups: BTreeMap::new(),
            merged: BTreeSet::new(),
            last_group: 0,
        }
    }

    /// What is at a resolved path by now.
    pub(super) fn lookup(&self, path: &LayerPath) -> Option<&Node> {
        match self.placed.get(path) {
            Some(Node { kind: Kind::Whiteout, .. }) => None,
            Some(node) => Some(node),
            None => self.in_base(path),
        }
    }

    /// What the base has at a path, if the layer hides nothing above it.
    fn in_base(&self, path: &LayerPath) -> Option<&Node> {
        let bytes = path.as_bytes();
        let folders = (0..bytes.len()).rev().filter(|at| bytes[*at] == b'/').map(|at| &bytes[..at]);
        // The nearest folder in the layer decides: those above it are in the layer as well.
        let nearest = folders.filter_map(|folder| self.placed.get_key_value(folder)).next();
        if nearest.is_some_and(|(folder, node)| !self.merged.contains(folder) || !node.is_directory()) {
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
        self.placed.iter()
    }

    /// A number for a new group of hard links.
    pub(super) fn new_group(&mut self) -> u64 {
        self.last_group += 1;
        self.last_group
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
        let mut merged = false;
        if let Kind::Directory { opaque } = &mut node.kind {
            let base_is_folder = self.in_base(path).is_some_and(Node::is_directory);
            *opaque = match self.placed.get(path).map(|before| &before.kind) {
                None => {
                    merged = base_is_folder;
                    false
                }
                Some(Kind::Directory { opaque }) => {
                    merged = self.merged.contains(path);
                    *opaque
                }
                Some(_) => base_is_folder,
            };
        } else {
            self.forget_below(path);
        }
        self.forget(path);
        if merged {
            self.merged.insert(path.clone());
        }
        self.place(path.clone(), node, content, group);
    }

    /// Whether a resolved path is a folder in which there is nothing.
    pub(super) fn is_bare(&self, path: &LayerPath) -> bool {
        if path.is_root() {
            let is_empty = |layer: &Arc<Layer>| layer.entries.is_empty();
            return self.placed.is_empty() && self.base.layers().iter().all(is_empty);
        }
        let is_folder = self.placed.get(path).is_some_and(Node::is_directory);
        is_folder && !self.merged.contains(path) && self.placed_below(path).next().is_none()
    }

    /// Puts a node into a folder that was bare, with all folders that it is in, where nothing is yet.
    pub(super) fn place(
        &mut self,
        path: LayerPath,
        node: Node,
        content: Option<ContentSource>,
        group: Option<u64>,
    ) {
        if let Some(group) = group {
            self.groups.insert(path.clone(), group);
        }
        if let Some(content) = content {
            self.contents.insert(path.clone(), content);
        }
        self.placed.insert(path, Node { hardlink: None, ..node });
    }

    /// Says that all files that will be placed below a bare folder come from one.
    pub(super) fn copies(&mut self, path: LayerPath, from: CopiedFolder) {
        self.contents.insert_folder(path, from);
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
        self.forget(path);
        self.placed.remove(path);
        if self.in_base(path).is_some() && !path.is_root() {
            self.place_parents(path);
            self.placed.insert(path.clone(), Node::whiteout());
        }
    }

    /// Hides what the base has in a folder, and keeps what this layer has put there.
    pub(super) fn empty_of_base(&mut self, folder: &LayerPath) {
        if self.in_base(folder).is_some_and(Node::is_directory) {
            self.change(folder, |_| ());
            if let Some(placed) = self.placed.get_mut(folder) {
                placed.kind = Kind::Directory { opaque: true };
                self.merged.remove(folder);
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
        let after = self.placed.range((Excluded(bytes), Unbounded)).map(|(below, _)| below);
        // Siblings such as `a.b` sort between `a` and `a/b`.
        let near = after.take_while(move |below| below.as_bytes().starts_with(bytes));
        near.filter(move |below| below.below(path).is_some())
    }

    fn forget_below(&mut self, path: &LayerPath) {
        let below: Vec<LayerPath> = self.placed_below(path).cloned().collect();
        for path in below {
            self.forget(&path);
            self.placed.remove(&path);
        }
    }

    /// Forgets what is known of a path beside its node.
    fn forget(&mut self, path: &LayerPath) {
        self.contents.remove(path);
        self.groups.remove(path);
        self.merged.remove(path);
    }

    pub(super) fn finish(self) -> Plan {
        let Target { placed, mut contents, groups, .. } = self;
        let mut names: BTreeMap<u64, Vec<LayerPath>> = BTreeMap::new();
        for (path, group) in groups {
            names.entry(group).or_default().push(path);
        }
        let groups = names.into_values().filter(|names| names.len() > 1);
        let groups: Vec<Vec<LayerPath>> = groups.collect();
        // The bytes of an inode are written once, for its first name; names are in path order.
        for other in groups.iter().flat_map(|names| &names[1..]) {
            contents.remove(other);
        }
        let mut layer = Layer { entries: placed };
        layer.link(groups);
        Plan { layer, contents }
    }
}
