//! A layer's entries: a map from path to node that is small, and built in order without a copy of it.
//!
//! Contexts of hundreds of thousands of files are held in memory once as they were read and once as they are copied. A
//! `BTreeMap` is as small, but it is made of a list of all entries, which doubles what is held while it is made; and one that
//! is filled in order stays half empty. This is a list of short sorted lists.

use std::{
    cmp::Ordering,
    fmt,
    iter::{Flatten, Map},
    ops::{Bound, Index},
    slice, vec,
};

use crate::{LayerPath, Node};

/// So many entries are in one list at most: what is moved when one is put between others, some KiB.
const FULL: usize = 64;

type Pair = (LayerPath, Node);

/// Nodes by path, in the order of the paths' bytes.
#[derive(Clone, Default)]
pub struct Entries {
    /// None of them is empty; each sorted, and all of one before all of the next.
    lists: Vec<Vec<Pair>>,
    length: usize,
}

/// The entries in order.
pub type Iter<'a> = Map<Flatten<slice::Iter<'a, Vec<Pair>>>, fn(&'a Pair) -> (&'a LayerPath, &'a Node)>;

fn borrowed((path, node): &Pair) -> (&LayerPath, &Node) {
    (path, node)
}

impl Entries {
    /// No entries.
    pub fn new() -> Entries {
        Entries::default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> Iter<'_> {
        self.lists.iter().flatten().map(borrowed as fn(&Pair) -> (&LayerPath, &Node))
    }

    /// All of them, in order, to be changed.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&LayerPath, &mut Node)> {
        self.lists.iter_mut().flatten().map(|(path, node)| (&*path, node))
    }

    /// The paths, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &LayerPath> + Clone {
        self.iter().map(|(path, _)| path)
    }

    /// The nodes, in the order of their paths.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Node> + Clone {
        self.iter().map(|(_, node)| node)
    }

    /// The nodes, in the order of their paths, to be changed.
    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Node> {
        self.iter_mut().map(|(_, node)| node)
    }

    /// What is at a path, given as such or as its bytes.
    pub fn get(&self, path: &(impl AsRef<[u8]> + ?Sized)) -> Option<&Node> {
        self.get_key_value(path).map(|(_, node)| node)
    }

    /// What is at a path, with the path.
    pub fn get_key_value(&self, path: &(impl AsRef<[u8]> + ?Sized)) -> Option<(&LayerPath, &Node)> {
        let (list, at) = self.find(path.as_ref()).ok()?;
        Some(borrowed(&self.lists[list][at]))
    }

    /// What is at a path, to be changed.
    pub fn get_mut(&mut self, path: &(impl AsRef<[u8]> + ?Sized)) -> Option<&mut Node> {
        let (list, at) = self.find(path.as_ref()).ok()?;
        Some(&mut self.lists[list][at].1)
    }

    /// Whether there is something at a path.
    pub fn contains_key(&self, path: &(impl AsRef<[u8]> + ?Sized)) -> bool {
        self.find(path.as_ref()).is_ok()
    }

    /// The last entry.
    pub fn last_key_value(&self) -> Option<(&LayerPath, &Node)> {
        self.lists.last()?.last().map(borrowed)
    }

    /// The entries whose paths' bytes are between the bounds, in order; none where the first bound is behind the second.
    pub fn range<'a>(
        &'a self,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&'a LayerPath, &'a Node)> + Clone + use<'a> {
        let at = |path: &[u8]| self.find(path).unwrap_or_else(|place| place);
        let after = |path: &[u8]| self.find(path).map_or_else(|place| place, |(list, at)| (list, at + 1));
        let from = match from {
            Bound::Unbounded => (0, 0),
            Bound::Included(path) => at(path),
            Bound::Excluded(path) => after(path),
        };
        let to = match to {
            Bound::Unbounded => (self.lists.len(), 0),
            Bound::Excluded(path) => at(path),
            Bound::Included(path) => after(path),
        };
        let part = |list: usize, from: usize, to: usize| -> &'a [Pair] {
            self.lists.get(list).and_then(|list| list.get(from..to.min(list.len()))).unwrap_or_default()
        };
        let (first, between, last): (_, &'a [Vec<Pair>], &'a [Pair]) = match from.0.cmp(&to.0) {
            Ordering::Less => (
                part(from.0, from.1, usize::MAX),
                self.lists.get(from.0 + 1..to.0).unwrap_or_default(),
                part(to.0, 0, to.1),
            ),
            Ordering::Equal => (part(from.0, from.1, to.1), &[], &[]),
            Ordering::Greater => (&[], &[], &[]),
        };
        first.iter().chain(between.iter().flatten()).chain(last).map(borrowed)
    }

    /// Puts a node at a path, and gives back what was there.
    pub fn insert(&mut self, path: LayerPath, node: Node) -> Option<Node> {
        // In order is how most come.
        if self.last_key_value().is_none_or(|(last, _)| *last < path) {
            self.push((path, node));
            return None;
        }
        match self.find(path.as_bytes()) {
            Ok((list, at)) => Some(std::mem::replace(&mut self.lists[list][at].1, node)),
            Err((mut list, mut at)) => {
                if self.lists[list].len() >= FULL {
                    let half = self.lists[list].split_off(FULL / 2);
                    self.lists.insert(list + 1, half);
                    if at > FULL / 2 {
                        (list, at) = (list + 1, at - FULL / 2);
                    }
                }
                self.lists[list].insert(at, (path, node));
                self.length += 1;
                None
            }
        }
    }

    /// Takes away what is at a path.
    pub fn remove(&mut self, path: &(impl AsRef<[u8]> + ?Sized)) -> Option<Node> {
        let (list, at) = self.find(path.as_ref()).ok()?;
        let (_, node) = self.lists[list].remove(at);
        if self.lists[list].is_empty() {
            self.lists.remove(list);
        }
        self.length -= 1;
        Some(node)
    }

    /// Takes away all of which this is not true.
    pub fn retain(&mut self, mut stays: impl FnMut(&LayerPath, &mut Node) -> bool) {
        for list in &mut self.lists {
            list.retain_mut(|(path, node)| stays(path, node));
        }
        self.lists.retain(|list| !list.is_empty());
        self.length = self.lists.iter().map(Vec::len).sum();
    }

    /// Appends an entry behind all others.
    fn push(&mut self, pair: Pair) {
        self.length += 1;
        match self.lists.last_mut() {
            Some(last) if last.len() < FULL => last.push(pair),
            // The first one grows as it is filled: most layers are of a few entries.
            None => self.lists.push(vec![pair]),
            Some(_) => {
                let mut list = Vec::with_capacity(FULL);
                list.push(pair);
                self.lists.push(list);
            }
        }
    }

    /// Where a path is, or where it would be: in which list, and where there. Behind all others that is in the last list.
    fn find(&self, path: &[u8]) -> Result<(usize, usize), (usize, usize)> {
        let after = self.lists.partition_point(|list| list[0].0.as_bytes() <= path);
        let Some(list) = after.checked_sub(1) else { return Err((0, 0)) };
        match self.lists[list].binary_search_by(|(known, _)| known.as_bytes().cmp(path)) {
            Ok(at) => Ok((list, at)),
            Err(at) => Err((list, at)),
        }
    }
}

/// # Panics
/// Where there is nothing at the path, as by every index.
impl<P: AsRef<[u8]> + ?Sized> Index<&P> for Entries {
    type Output = Node;

    fn index(&self, path: &P) -> &Node {
        self.get(path).expect("an entry at the path")
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        self.length == other.length && self.iter().eq(other.iter())
    }
}

impl Eq for Entries {}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Extend<Pair> for Entries {
    fn extend<T: IntoIterator<Item = Pair>>(&mut self, pairs: T) {
        for (path, node) in pairs {
            self.insert(path, node);
        }
    }
}

impl FromIterator<Pair> for Entries {
    fn from_iter<T: IntoIterator<Item = Pair>>(pairs: T) -> Entries {
        let mut entries = Entries::new();
        entries.extend(pairs);
        entries
    }
}

impl<const COUNT: usize> From<[Pair; COUNT]> for Entries {
    fn from(pairs: [Pair; COUNT]) -> Entries {
        pairs.into_iter().collect()
    }
}

/// Each list's memory is given back when its last entry was taken.
impl IntoIterator for Entries {
    type Item = Pair;
    type IntoIter = Flatten<vec::IntoIter<Vec<Pair>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.lists.into_iter().flatten()
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = (&'a LayerPath, &'a Node);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Entries {
    type Item = (&'a LayerPath, &'a mut Node);
    type IntoIter =
        Map<Flatten<slice::IterMut<'a, Vec<Pair>>>, fn(&'a mut Pair) -> (&'a LayerPath, &'a mut Node)>;

    fn into_iter(self) -> Self::IntoIter {
        self.lists.iter_mut().flatten().map(|(path, node)| (&*path, node))
    }
}
