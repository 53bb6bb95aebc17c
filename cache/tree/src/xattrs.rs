//! A node's extended attributes.

use std::{collections::BTreeMap, ops::Deref};

/// Values by full name. Most nodes have none, and then it is one pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::box_collection,
    reason = "a node without attributes, as nearly all are, is 16 bytes smaller"
)]
pub struct Xattrs(Option<Box<BTreeMap<Vec<u8>, Vec<u8>>>>);

static NONE: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();

impl Xattrs {
    /// Sets one, and gives back its value before.
    pub fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) -> Option<Vec<u8>> {
        self.0.get_or_insert_default().insert(name, value)
    }
}

impl Deref for Xattrs {
    type Target = BTreeMap<Vec<u8>, Vec<u8>>;

    fn deref(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl From<BTreeMap<Vec<u8>, Vec<u8>>> for Xattrs {
    fn from(all: BTreeMap<Vec<u8>, Vec<u8>>) -> Xattrs {
        Xattrs((!all.is_empty()).then(|| Box::new(all)))
    }
}

impl From<Xattrs> for BTreeMap<Vec<u8>, Vec<u8>> {
    fn from(all: Xattrs) -> BTreeMap<Vec<u8>, Vec<u8>> {
        all.0.map_or_else(BTreeMap::new, |all| *all)
    }
}

impl FromIterator<(Vec<u8>, Vec<u8>)> for Xattrs {
    fn from_iter<T: IntoIterator<Item = (Vec<u8>, Vec<u8>)>>(all: T) -> Xattrs {
        BTreeMap::from_iter(all).into()
    }
}

impl<const COUNT: usize> From<[(Vec<u8>, Vec<u8>); COUNT]> for Xattrs {
    fn from(all: [(Vec<u8>, Vec<u8>); COUNT]) -> Xattrs {
        all.into_iter().collect()
    }
}

impl Extend<(Vec<u8>, Vec<u8>)> for Xattrs {
    fn extend<T: IntoIterator<Item = (Vec<u8>, Vec<u8>)>>(&mut self, all: T) {
        for (name, value) in all {
            self.insert(name, value);
        }
    }
}
