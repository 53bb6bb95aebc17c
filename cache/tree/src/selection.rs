//! The content identity of what a `COPY` source or a mount can see.
//!
//! It decides whether a step runs again after something below it changed, so it takes in all that the step
//! can tell apart and, short of that, as little as possible: not the layers that the files come from, not
//! times, not what a link that is copied as a link points to.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Included},
};

use oci::Hasher;

use crate::{
    ContentDigest, Entry, LayerPath, Node, ResolveError, Stack, encode,
    glob::{Glob, contains_wildcard},
};

/// Chooses a part of a file system.
pub struct Selector<'a> {
    /// The path as it was written; a leading slash changes nothing and `..` stops at the root.
    pub path: &'a [u8],
    /// Whether `*`, `?` and `[…]` in the path are wildcards.
    pub wildcard: bool,
    /// Whether a symbolic link at the path's own end is followed. Links on the way to it always are.
    pub follow_links: bool,
    /// If given, takes only the paths below the chosen folder for which this is true, with the folders above
    /// them.
    pub include: Option<&'a dyn Fn(&LayerPath) -> bool>,
    /// Leaves out the paths below the chosen folder for which this is true; without `include`, also the files that
    /// a wildcard matches, by [`Stack::matches_without`].
    pub exclude: Option<&'a dyn Fn(&LayerPath) -> bool>,
}

impl<'a> Selector<'a> {
    /// Chooses all at and below one path, following a link at its end.
    pub fn path(path: &'a [u8]) -> Selector<'a> {
        Selector { path, wildcard: false, follow_links: true, include: None, exclude: None }
    }
}

impl Stack {
    /// Digest of all that `selector` can see: names below the selection, types, modes, owners, contents,
    /// links, devices, xattrs and which names are one inode. Not times, layers, or where the selection lies.
    ///
    /// For a wildcard, the names that it matched count too. A path that does not exist, and a wildcard that
    /// matches nothing, have values of their own.
    ///
    /// # Errors
    /// [`ResolveError`] where the path's links go in a circle.
    pub fn selection_digest(&self, selector: &Selector<'_>) -> Result<ContentDigest, ResolveError> {
        let mut hasher = Hasher::new();
        hasher.field(b"selection 1");
        let matched = match selector.include {
            Some(_) => self.matches(selector.path, selector.wildcard)?,
            None => self.matches_without(selector.path, selector.wildcard, selector.exclude)?,
        };
        let wild = selector.wildcard && contains_wildcard(selector.path);
        for path in matched {
            if wild {
                hasher.field(b"match");
                hasher.field(path.name());
            }
            let path = self.resolve(&path, selector.follow_links)?;
            self.digest_at(&mut hasher, &path, selector);
        }
        Ok(ContentDigest::of_content(hasher.finish()))
    }

    /// The paths that a source names, in the order of a walk: itself where it has no wildcard, whether it
    /// exists or not; else what it matches below its last folder without wildcards, in which links are
    /// followed. A pattern that Go calls bad matches nothing.
    ///
    /// # Errors
    /// [`ResolveError`] where the folder's links go in a circle, or `path` is none.
    pub fn matches(&self, path: &[u8], wildcard: bool) -> Result<Vec<LayerPath>, ResolveError> {
        self.matches_without(path, wildcard, None)
    }

    /// As [`Stack::matches`], without the files that a wildcard matches and `exclude` takes: it is asked for their paths
    /// below the folder that the wildcard looks in. A folder that is matched stays, because `exclude` says what is
    /// copied of it; so does a path without a wildcard.
    ///
    /// # Errors
    /// As [`Stack::matches`], and where the links of what is matched go in a circle.
    pub fn matches_without(
        &self,
        path: &[u8],
        wildcard: bool,
        exclude: Option<&dyn Fn(&LayerPath) -> bool>,
    ) -> Result<Vec<LayerPath>, ResolveError> {
        let clean = clamp(path)?;
        if !wildcard || !contains_wildcard(clean.as_bytes()) {
            return Ok(vec![clean]);
        }
        let plain = clean.parts().take_while(|part| !contains_wildcard(part)).count();
        let join = |path: LayerPath, part: &[u8]| path.join(part);
        let folder = clean.parts().take(plain).fold(LayerPath::root(), join);
        let rest = clean.parts().skip(plain).fold(LayerPath::root(), join);
        let folder = self.resolve(&folder, true)?;
        let mut found = Vec::new();
        if let Ok(glob) = Glob::parse(rest.as_bytes()) {
            // No part of a pattern but a class can match a slash, and a class matches at most one.
            let depth = rest.parts().count() + rest.as_bytes().iter().filter(|b| **b == b'[').count();
            self.match_below(&folder, &folder, &glob, depth, &mut found);
        }
        let Some(exclude) = exclude else { return Ok(found) };
        let mut kept = Vec::with_capacity(found.len());
        for path in found {
            let leads_to = self.resolve(&path, true)?;
            let is_folder = self.lookup(&leads_to).is_some_and(|(_, node)| node.is_directory());
            if is_folder || !exclude(&path.below(&folder).unwrap_or_default()) {
                kept.push(path);
            }
        }
        Ok(kept)
    }

    fn match_below(
        &self,
        at: &LayerPath,
        base: &LayerPath,
        glob: &Glob,
        depth: usize,
        found: &mut Vec<LayerPath>,
    ) {
        for entry in self.children(at) {
            let below = entry.path.below(base).unwrap_or_default();
            if glob.matches(below.as_bytes()) {
                found.push(entry.path);
            } else if depth > 1 && entry.node.is_directory() {
                self.match_below(&entry.path, base, glob, depth - 1, found);
            }
        }
    }

    fn digest_at(&self, hasher: &mut Hasher, path: &LayerPath, selector: &Selector<'_>) {
        let Some((_, node)) = self.lookup(path) else { return hasher.field(b"missing") };
        if !node.is_directory() {
            return digest_node(hasher, &mut Vec::new(), b"", node, None);
        }
        let entries: Vec<Entry<'_>> = self.walk(path);
        let taken: Vec<&Entry<'_>> = match (selector.include, selector.exclude) {
            (None, None) => entries.iter().collect(),
            _ => chosen(&entries, path, selector),
        };
        let mut bytes = Vec::new();
        if taken.first().is_none_or(|first| first.path != *path) {
            digest_node(hasher, &mut bytes, b"", node, None);
        }
        // Of most inodes there is one name, and nothing to find out.
        let linked = taken.iter().filter(|entry| entry.node.hardlink.is_some());
        let linked: BTreeSet<(usize, &LayerPath)> = linked.map(|entry| entry.inode()).collect();
        let mut inodes: BTreeMap<(usize, &LayerPath), &[u8]> = BTreeMap::new();
        for entry in &taken {
            let below = rest(&entry.path, path);
            let mut first = None;
            if !linked.is_empty() && !entry.node.is_directory() && linked.contains(&entry.inode()) {
                let head = *inodes.entry(entry.inode()).or_insert(below);
                first = (head != below).then_some(head);
            }
            digest_node(hasher, &mut bytes, below, entry.node, first);
        }
    }
}

/// The entries at and below `top` that a selector takes, with the folders above them.
fn chosen<'e, 'n>(entries: &'e [Entry<'n>], top: &LayerPath, selector: &Selector<'_>) -> Vec<&'e Entry<'n>> {
    let mut taken: BTreeMap<LayerPath, &Entry<'_>> = BTreeMap::new();
    // From the end, so that a folder follows what it holds: an excluded one stays if something below it
    // does.
    for entry in entries.iter().rev() {
        let below = entry.path.below(top).unwrap_or_default();
        let include = below.is_root()
            || selector.include.is_none_or(|include| include(&below))
                && !selector.exclude.is_some_and(|exclude| exclude(&below));
        let holds = entry.node.is_directory() && holds_any(&taken, &below);
        if include || holds {
            taken.insert(below, entry);
        }
    }
    taken.into_values().collect()
}

/// What remains of a path at or below `folder`.
fn rest<'p>(path: &'p LayerPath, folder: &LayerPath) -> &'p [u8] {
    let start = if folder.is_root() { 0 } else { folder.as_bytes().len() + 1 };
    path.as_bytes().get(start..).unwrap_or_default()
}

fn clamp(path: &[u8]) -> Result<LayerPath, ResolveError> {
    LayerPath::clamp(path).map_err(|source| ResolveError::BadTarget { path: LayerPath::root(), source })
}

fn holds_any(taken: &BTreeMap<LayerPath, &Entry<'_>>, folder: &LayerPath) -> bool {
    let (first, end) = crate::layer::subtree_bounds(folder);
    let bounds = (Included(first.as_slice()), Excluded(end.as_slice()));
    taken.range::<[u8], _>(bounds).next().is_some()
}

/// `bytes` is room to work in.
fn digest_node(hasher: &mut Hasher, bytes: &mut Vec<u8>, path: &[u8], node: &Node, first: Option<&[u8]>) {
    bytes.clear();
    encode::bytes(bytes, path);
    let opaque = crate::Kind::Directory { opaque: true };
    if node.kind == opaque {
        // The flag speaks of lower layers; what it hid is gone from the walk already.
        let plain = Node { kind: crate::Kind::Directory { opaque: false }, ..node.clone() };
        encode::node(bytes, &plain, None, first);
    } else {
        encode::node(bytes, node, None, first);
    }
    hasher.field(bytes);
}
