//! What can be said only when the whole archive was read: whiteouts, folders' attributes, names of one inode.

use std::collections::{BTreeMap, BTreeSet};

use tree::{Kind, Layer, LayerPath, Node};

use super::{ApplyError, WhiteoutNames, unpack::Unpack};

impl Unpack<'_> {
    /// Ends the layer: its manifest, and the folders in it that the archive only implied.
    pub(super) fn finish(mut self) -> Result<(Layer, BTreeSet<LayerPath>), ApplyError> {
        self.place_opaque()?;
        self.place_whiteouts()?;
        // From the inside out: a folder's mode may close it to us.
        for (path, node) in self.nodes.iter().rev() {
            if node.is_directory() {
                self.disk.set_folder(path, node)?;
            }
        }
        let Unpack { nodes, inodes, mut implied, options, .. } = self;
        let mut layer = Layer { entries: nodes.into_iter().collect() };
        link_names(&mut layer, &inodes);
        match options.names {
            WhiteoutNames::Literal => implied.clear(),
            WhiteoutNames::Interpreted => {
                let opaque = Kind::Directory { opaque: true };
                layer.entries.retain(|path, node| !implied.contains(path) || node.kind == opaque);
            }
        }
        Ok((layer, implied))
    }

    fn place_opaque(&mut self) -> Result<(), ApplyError> {
        for folder in std::mem::take(&mut self.opaque) {
            let folder = self.folder(&folder, &folder)?;
            match self.nodes.get_mut(&folder) {
                Some(node) => node.kind = Kind::Directory { opaque: true },
                // Only the root is there without an entry.
                None => {
                    self.implied.insert(folder.clone());
                    self.nodes.insert(folder, Node::new(Kind::Directory { opaque: true }, 0o755));
                }
            }
        }
        Ok(())
    }

    /// A whiteout hides what lower layers have, never what its own layer has (image-spec, layer.md § Whiteouts).
    fn place_whiteouts(&mut self) -> Result<(), ApplyError> {
        // In path order, so that a whiteout is there before those below it.
        for gone in std::mem::take(&mut self.gone) {
            let below_another = gone
                .ancestors()
                .iter()
                .any(|folder| self.nodes.get(folder).is_some_and(|node| node.kind == Kind::Whiteout));
            if below_another {
                continue;
            }
            let folder = self.folder(&gone, &gone.parent().unwrap_or_default())?;
            let path = folder.join(gone.name());
            match self.nodes.get_mut(&path) {
                Some(Node { kind: Kind::Directory { opaque }, .. }) => *opaque = true,
                Some(_) => {}
                None => {
                    self.disk.make_whiteout(&path)?;
                    self.nodes.insert(path, Node::whiteout());
                }
            }
        }
        Ok(())
    }
}

/// Makes the first of an inode's names, in path order, the one that the others are links to.
fn link_names(layer: &mut Layer, inodes: &BTreeMap<LayerPath, u64>) {
    let mut first: BTreeMap<u64, &LayerPath> = BTreeMap::new();
    for (path, inode) in inodes {
        match first.get(inode) {
            Some(first) => {
                let node = layer.entries.get_mut(path).expect("what is removed loses its number");
                node.hardlink = Some((*first).clone());
            }
            None => drop(first.insert(*inode, path)),
        }
    }
}
