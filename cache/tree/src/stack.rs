//! Layers on top of each other, seen as one file system, without making one.
//!
//! A path belongs to the topmost layer that speaks of it. A whiteout, an opaque folder and anything that is
//! no folder hide what lower layers hold below the same path (image-spec, layer.md § Whiteouts; the kernel's
//! overlayfs agrees).

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::{Arc, LazyLock},
};

use crate::{Kind, Layer, LayerPath, Node, layer::subtree_bounds};

/// What a folder is that no layer describes, though something lies below it: as tar readers make it.
static IMPLIED: LazyLock<Node> = LazyLock::new(|| Node::directory(0o755));

/// A root file system as its layers, bottom first.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    layers: Vec<Arc<Layer>>,
}

/// One visible path of a [`Stack`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it is.
    pub path: LayerPath,
    /// Which layer it comes from, counted from the bottom.
    pub layer: usize,
    /// What it is.
    pub node: &'a Node,
}

impl Entry<'_> {
    /// Which inode this is a name of: the layer, and the inode's first name there. Names of one inode are
    /// equal in this; hard links do not cross layers.
    pub fn inode(&self) -> (usize, &LayerPath) {
        (self.layer, self.node.hardlink.as_ref().unwrap_or(&self.path))
    }
}

impl Stack {
    /// A stack of these layers, bottom first. No layers are an empty root.
    pub fn new(layers: Vec<Arc<Layer>>) -> Stack {
        Stack { layers }
    }

    /// This stack with one more layer on top.
    pub fn with(&self, layer: Arc<Layer>) -> Stack {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Stack { layers }
    }

    /// The layers, bottom first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// What is at `path`, and the index of the layer that says so. Symlinks are not followed; the path's
    /// folders must be real ones: see [`Stack::resolve`].
    ///
    /// The root is always a folder. A folder that no layer describes is one of mode 0755 owned by root in
    /// layer 0.
    pub fn lookup(&self, path: &LayerPath) -> Option<(usize, &Node)> {
        let floor = self.floor(path);
        for (index, layer) in self.layers.iter().enumerate().skip(floor).rev() {
            match layer.get(path) {
                Some(Node { kind: Kind::Whiteout, .. }) => return None,
                Some(node) => return Some((index, node)),
                None => {}
            }
        }
        let speaks_of = |layer: &Arc<Layer>| layer.below(path).any(|(_, node)| node.kind != Kind::Whiteout);
        let implied = path.is_root() || self.layers.iter().skip(floor).any(speaks_of);
        implied.then(|| (0, &*IMPLIED))
    }

    /// The lowest layer whose entry at `path` may be seen: what hides lower layers lies above the path.
    fn floor(&self, path: &LayerPath) -> usize {
        let bytes = path.as_bytes();
        let mut floor = 0;
        let folders = (0..bytes.len()).filter(|at| bytes[*at] == b'/').map(|at| &bytes[..at]);
        let root = (!path.is_root()).then_some(&b""[..]);
        for folder in root.into_iter().chain(folders) {
            floor = self.hider(folder, floor);
        }
        floor
    }

    /// The topmost layer, from `floor` up, that hides what layers under it hold below `folder`; `floor` if
    /// none.
    fn hider(&self, folder: &[u8], floor: usize) -> usize {
        let hides = |layer: &Arc<Layer>| {
            let found = layer.entries.get(folder);
            found.is_some_and(|node| node.kind != Kind::Directory { opaque: false })
        };
        self.layers.iter().skip(floor).rposition(hides).map_or(floor, |above| floor + above)
    }

    /// What a folder holds, sorted by name: each name with its layer and node. Empty for what is no folder.
    pub fn children(&self, folder: &LayerPath) -> Vec<Entry<'_>> {
        let floor = self.hider(folder.as_bytes(), self.floor(folder));
        // The topmost layer that has the name itself decides; `None` is a whiteout.
        let mut named: BTreeMap<&[u8], Option<(usize, &Node)>> = BTreeMap::new();
        let mut passed: Vec<&[u8]> = Vec::new();
        for (index, layer) in self.layers.iter().enumerate().skip(floor).rev() {
            for_each_child(layer, folder, |name, node| match node {
                Some(node) => {
                    let seen = (node.kind != Kind::Whiteout).then_some((index, node));
                    named.entry(name).or_insert(seen);
                }
                None => passed.push(name),
            });
        }
        for name in passed {
            named.entry(name).or_insert_with(|| self.lookup(&folder.join(name)));
        }
        let entries = named.into_iter().filter_map(|(name, found)| found.map(|found| (name, found)));
        entries.map(|(name, (layer, node))| Entry { path: folder.join(name), layer, node }).collect()
    }

    /// All that is visible at and below `from`, sorted by path; the root itself only where a layer describes
    /// it. Empty where there is nothing.
    pub fn walk(&self, from: &LayerPath) -> Vec<Entry<'_>> {
        let floor = self.floor(from);
        let mut entries = self.described(floor, from);
        let implied = implied_above(&entries, from);
        if !implied.is_empty() {
            entries.extend(implied.into_values());
            entries.sort_by(|a, b| a.path.cmp(&b.path));
        }
        entries
    }

    /// What [`Stack::walk`] gives, without a list of it: where there is one layer, which has all folders that its entries are in.
    pub fn walk_one(&self, from: &LayerPath) -> Option<impl Iterator<Item = (&LayerPath, &Node)> + Clone> {
        let [layer] = &self.layers[..] else { return None };
        let mut done: Option<&[u8]> = None;
        for (path, node) in layer.subtree(from) {
            // Siblings have their folders in common.
            let above = path.above();
            let is_implied = done.replace(above) != Some(above)
                && above.len() > from.as_bytes().len()
                && !layer.entries.contains_key(above);
            if is_implied || node.kind == Kind::Whiteout {
                return None;
            }
        }
        Some(layer.subtree(from))
    }

    /// What the layers from `floor` up describe at and below `from`, as far as it is visible, sorted by path.
    fn described(&self, floor: usize, from: &LayerPath) -> Vec<Entry<'_>> {
        // Within one layer nothing is hidden, so that the lowest is taken whole.
        let mut layers = self.layers.iter().enumerate().skip(floor);
        let Some((lowest, layer)) = layers.next() else { return Vec::new() };
        let visible = layer.subtree(from).filter(|(_, node)| node.kind != Kind::Whiteout);
        let entry = |path: &LayerPath, node| Entry { path: path.clone(), layer: lowest, node };
        if layers.len() == 0 {
            return visible.map(|(path, node)| entry(path, node)).collect();
        }
        let mut seen: Seen<'_> = visible.map(|(path, node)| (path.as_bytes(), entry(path, node))).collect();
        for (index, layer) in layers {
            for (path, node) in layer.subtree(from) {
                if node.kind != (Kind::Directory { opaque: false }) {
                    remove_below(&mut seen, path);
                }
                if node.kind == Kind::Whiteout {
                    seen.remove(path.as_bytes());
                } else {
                    seen.insert(path.as_bytes(), Entry { path: path.clone(), layer: index, node });
                }
            }
        }
        seen.into_values().collect()
    }

    /// The one layer that looks as this stack does. Opaque flags and whiteouts have gone; hard links remain
    /// among the names that are still visible.
    pub fn flatten(&self) -> Layer {
        let walked = self.walk(&LayerPath::root());
        let mut groups: BTreeMap<(usize, &LayerPath), Vec<LayerPath>> = BTreeMap::new();
        for entry in walked.iter().filter(|entry| entry.node.hardlink.is_some()) {
            groups.entry(entry.inode()).or_default().push(entry.path.clone());
        }
        for ((layer, first), names) in &mut groups {
            let found = walked.binary_search_by(|entry| entry.path.cmp(first));
            if found.is_ok_and(|at| walked[at].layer == *layer) {
                names.push((*first).clone());
            }
        }
        let groups: Vec<Vec<LayerPath>> = groups.into_values().collect();
        let entries = walked.into_iter().map(|entry| {
            let mut node = Node { hardlink: None, ..entry.node.clone() };
            if let Kind::Directory { opaque } = &mut node.kind {
                *opaque = false;
            }
            (entry.path, node)
        });
        let mut flat = Layer { entries: entries.collect() };
        flat.link(groups);
        flat
    }

    /// Adds to `layer`, which is to come on top of this stack, the folders of its entries that neither has:
    /// mode 0755, owned by root, mtime 0, as a reader of its archive makes them.
    ///
    /// A path of `layer` that lies below its own whiteout makes that whiteout an opaque folder: the archive
    /// deleted and made anew.
    pub fn complete(&self, layer: &mut Layer) {
        let mut missing: BTreeMap<LayerPath, Node> = BTreeMap::new();
        let mut done: Option<LayerPath> = None;
        for (path, node) in &layer.entries {
            // A whiteout needs no folder, and siblings need theirs once.
            if node.kind == Kind::Whiteout || path.parent() == done {
                continue;
            }
            done = path.parent();
            self.complete_above(layer, path, &mut missing);
        }
        layer.entries.extend(missing);
    }

    /// Adds to `missing` the folders above `path` that are to be made.
    fn complete_above(&self, layer: &Layer, path: &LayerPath, missing: &mut BTreeMap<LayerPath, Node>) {
        // Folders that this stack has, but that the layer may hide further up.
        let mut below: Vec<LayerPath> = Vec::new();
        let mut next = path.parent();
        while let Some(folder) = next {
            if folder.is_root() {
                return;
            }
            next = folder.parent();
            match missing.get(&folder).or(layer.get(&folder)).map(|node| node.kind.clone()) {
                Some(Kind::Directory { opaque: false }) => return,
                Some(kind) => {
                    missing.extend(below.drain(..).map(|folder| (folder, IMPLIED.clone())));
                    if matches!(kind, Kind::Directory { .. }) {
                        return;
                    }
                    let kind = Kind::Directory { opaque: true };
                    missing.insert(folder, Node { kind, ..IMPLIED.clone() });
                }
                None if self.lookup(&folder).is_some_and(|(_, found)| found.is_directory()) => {
                    below.push(folder);
                }
                None => {
                    missing.insert(folder, IMPLIED.clone());
                }
            }
        }
    }
}

/// Calls `found` with the name of each child that `layer` has in `folder`, and its node, or none where the
/// layer only has something below the child. A name may come twice.
fn for_each_child<'a>(
    layer: &'a Layer,
    folder: &LayerPath,
    mut found: impl FnMut(&'a [u8], Option<&'a Node>),
) {
    let prefix = if folder.is_root() { 0 } else { folder.as_bytes().len() + 1 };
    let end = if folder.is_root() { None } else { Some(subtree_bounds(folder).1) };
    let mut start: Vec<u8> = if folder.is_root() { b"\x01".to_vec() } else { subtree_bounds(folder).0 };
    loop {
        let until = end.as_ref().map_or(Unbounded, |end| Excluded(end.as_slice()));
        let mut jump = None;
        for (path, node) in layer.entries.range((Included(start.as_slice()), until)) {
            let rest = &path.as_bytes()[prefix..];
            match rest.iter().position(|b| *b == b'/') {
                None => found(rest, Some(node)),
                Some(slash) => {
                    found(&rest[..slash], None);
                    // All of this child's paths follow; its siblings come after them.
                    let mut after = path.as_bytes()[..prefix + slash].to_vec();
                    after.push(b'0');
                    jump = Some(after);
                    break;
                }
            }
        }
        match jump {
            Some(after) => start = after,
            None => return,
        }
    }
}

/// Paths to what is visible there.
type Seen<'a> = BTreeMap<&'a [u8], Entry<'a>>;

/// The folders below `from` that no entry describes, though something lies below them.
fn implied_above<'a>(entries: &[Entry<'a>], from: &LayerPath) -> BTreeMap<LayerPath, Entry<'a>> {
    let is_described = |path: &LayerPath| entries.binary_search_by(|entry| entry.path.cmp(path)).is_ok();
    let mut implied: BTreeMap<LayerPath, Entry<'a>> = BTreeMap::new();
    let mut done: Option<&[u8]> = None;
    for entry in entries {
        // Siblings have their folders in common.
        let above = entry.path.above();
        if done.replace(above) == Some(above) {
            continue;
        }
        let mut folder = entry.path.parent();
        while let Some(missing) = folder
            && missing.as_bytes().len() > from.as_bytes().len()
            && !implied.contains_key(&missing)
            && !is_described(&missing)
        {
            folder = missing.parent();
            implied.insert(missing.clone(), Entry { path: missing, layer: 0, node: &IMPLIED });
        }
    }
    implied
}

fn remove_below(seen: &mut Seen<'_>, folder: &LayerPath) {
    if folder.is_root() {
        return seen.retain(|path, _| path.is_empty());
    }
    let bytes = folder.as_bytes();
    let next = seen.range::<[u8], _>((Excluded(bytes), Unbounded)).next();
    if !next.is_some_and(|(path, _)| path.starts_with(bytes)) {
        return;
    }
    let (first, end) = subtree_bounds(folder);
    let bounds = (Included(first.as_slice()), Excluded(end.as_slice()));
    let hidden: Vec<&[u8]> = seen.range::<[u8], _>(bounds).map(|(path, _)| *path).collect();
    for path in hidden {
        seen.remove(path);
    }
}
