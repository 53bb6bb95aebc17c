//! A layer's entries by path, and the layer's two names.

use std::{
    fmt,
    ops::Bound::{Excluded, Included, Unbounded},
};

use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::{Entries, LayerPath, Node, encode};

/// The tree manifest of one layer: sorted by path bytes, because `readdir(3)` promises no order.
///
/// Folders on the way to an entry may be missing: then a lower layer is expected to have them; where none
/// has, [`Stack::complete`](crate::Stack::complete) adds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// The entries. The root folder, where the layer sets its mode or owner, is the empty path.
    pub entries: Entries,
}

/// Names a layer in the store: digest of its encoded manifest, modification times included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(Digest);

/// Names content without its modification times: of a layer, or of what a `COPY` source or a mount can see.
///
/// Two values that are equal are the same to a cache; Docker leaves the times out too, so that a fresh
/// `git clone` hits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentDigest(Digest);

impl LayerId {
    /// The bare digest, for file names.
    pub fn digest(&self) -> Digest {
        self.0
    }

    /// Says that `digest` names a layer: for a name that was written down with [`LayerId::digest`].
    pub fn of_manifest(digest: Digest) -> LayerId {
        LayerId(digest)
    }
}

impl ContentDigest {
    /// The bare digest, for keys.
    pub fn digest(&self) -> Digest {
        self.0
    }

    /// Says that `digest` identifies content: for one that was written down with [`ContentDigest::digest`],
    /// or made of several.
    pub fn of_content(digest: Digest) -> ContentDigest {
        ContentDigest(digest)
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerId({})", self.0)
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentDigest({})", self.0)
    }
}

impl Layer {
    /// The layer's name in the store.
    pub fn id(&self) -> LayerId {
        LayerId(encode::digest(self, encode::Times::Kept))
    }

    /// The layer's content identity: as [`Layer::id`], without modification times.
    pub fn content_digest(&self) -> ContentDigest {
        ContentDigest(encode::digest(self, encode::Times::Left))
    }

    /// What the layer says of one path.
    pub fn get(&self, path: &LayerPath) -> Option<&Node> {
        self.entries.get(path)
    }

    /// The entries below `folder`, without `folder` itself, sorted by path.
    pub fn below(&self, folder: &LayerPath) -> impl Iterator<Item = (&LayerPath, &Node)> + Clone {
        if folder.is_root() {
            // Everything but the root, which sorts first.
            return self.entries.range((Excluded(&b""[..]), Unbounded));
        }
        let (first, end) = subtree_bounds(folder);
        self.entries.range((Included(first.as_slice()), Excluded(end.as_slice())))
    }

    /// The entries at and below `path`, sorted by path.
    pub fn subtree(&self, path: &LayerPath) -> impl Iterator<Item = (&LayerPath, &Node)> + Clone {
        self.entries.get_key_value(path).into_iter().chain(self.below(path))
    }

    /// Sum of the lengths of the files in bytes, each hard-linked file counted once.
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.entries.values().map(|node| match node.kind {
            crate::Kind::File { size, .. } if node.hardlink.is_none() => size,
            _ => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// Sets [`Node::hardlink`] in each group of names of one inode: in the first in path order to none, in
    /// the others to that first name. A group of one name is no group.
    ///
    /// Names that the layer does not hold are ignored.
    pub fn link(&mut self, groups: impl IntoIterator<Item = Vec<LayerPath>>) {
        for mut names in groups {
            names.retain(|name| self.entries.contains_key(name));
            names.sort();
            names.dedup();
            let Some(first) = names.first().cloned() else { continue };
            for name in &names {
                if let Some(node) = self.entries.get_mut(name) {
                    node.hardlink = (*name != first).then(|| first.clone());
                }
            }
        }
    }
}

/// First possible path below `folder`, and the first one after all of them: `/` is followed by `0` in ASCII.
pub(crate) fn subtree_bounds(folder: &LayerPath) -> (Vec<u8>, Vec<u8>) {
    let with = |last: u8| {
        let mut bound = folder.as_bytes().to_vec();
        bound.push(last);
        bound
    };
    (with(b'/'), with(b'0'))
}
