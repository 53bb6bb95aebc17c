//! Layers to test with: written as text, or made by proptest.

use std::{collections::BTreeMap, sync::Arc};

use oci::Digest;
use proptest::prelude::*;
use tree::{Kind, Layer, LayerPath, Mtime, Node, Stack};

/// A path that is known to be one.
pub fn path(text: &str) -> LayerPath {
    LayerPath::parse(text.as_bytes()).expect("a path")
}

/// A layer from words: `d/` a folder, `f` a file, `f=x` one that holds `x`, `l->t` a link, `!p` a whiteout,
/// `d/!` an opaque folder, `a~f` another name of the file `f`.
pub fn layer(words: &str) -> Layer {
    let mut layer = Layer::default();
    let mut groups: BTreeMap<LayerPath, Vec<LayerPath>> = BTreeMap::new();
    for word in words.split_whitespace() {
        let (name, node) = if let Some(name) = word.strip_prefix('!') {
            (name, Node::whiteout())
        } else if let Some(name) = word.strip_suffix("/!") {
            (name, Node::new(Kind::Directory { opaque: true }, 0o755))
        } else if let Some(name) = word.strip_suffix('/') {
            (name, Node::directory(0o755))
        } else if let Some((name, target)) = word.split_once("->") {
            (name, Node::new(Kind::Symlink { target: target.into() }, 0o777))
        } else if let Some((name, first)) = word.split_once('~') {
            groups.entry(path(first)).or_insert_with(|| vec![path(first)]).push(path(name));
            (name, layer.get(&path(first)).expect("named before").clone())
        } else {
            let (name, text) = word.split_once('=').unwrap_or((word, word));
            let kind = Kind::File { size: text.len() as u64, content: Digest::of(text.as_bytes()) };
            (name, Node::new(kind, 0o644))
        };
        layer.entries.insert(path(name), node);
    }
    layer.link(groups.into_values());
    layer
}

/// Several of them.
pub fn stack(layers: &[&str]) -> Stack {
    Stack::new(layers.iter().map(|words| Arc::new(layer(words))).collect())
}

/// Any layer that can be, with few names, so that layers meet.
pub fn layers() -> impl Strategy<Value = Layer> {
    let name = prop::sample::select(vec!["a", "b", "a.b", "c", "é", "z z"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| self::path(&parts.join("/")));
    let entries = prop::collection::btree_map(path, node(), 0..12);
    (entries, any::<bool>()).prop_map(|(entries, link)| {
        let mut layer = Layer { entries: entries.into_iter().collect() };
        let files: Vec<LayerPath> = layer.entries.keys().cloned().collect();
        // Nothing lies below what is no folder.
        for path in &files {
            let under = path
                .ancestors()
                .iter()
                .any(|above| layer.get(above).is_some_and(|node| !node.is_directory()));
            if under {
                layer.entries.remove(path);
            }
        }
        let files = layer.entries.iter().filter(|(_, node)| matches!(node.kind, Kind::File { .. }));
        let files: Vec<LayerPath> = files.map(|(path, _)| path.clone()).collect();
        if link && let Some(first) = files.first() {
            let node = layer.entries[first].clone();
            for path in &files {
                layer.entries.insert(path.clone(), node.clone());
            }
            layer.link([files]);
        }
        layer
    })
}

fn node() -> impl Strategy<Value = Node> {
    let bytes = || prop::collection::vec(1u8.., 1..5);
    let kind = prop_oneof![
        4 => any::<bool>().prop_map(|opaque| Kind::Directory { opaque }),
        4 => any::<u64>().prop_map(|size| Kind::File { size, content: Digest::of(&size.to_be_bytes()) }),
        1 => bytes().prop_map(|target| Kind::Symlink { target }),
        1 => any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        1 => any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        1 => Just(Kind::Fifo),
        2 => Just(Kind::Whiteout),
    ];
    let owner = prop_oneof![Just((0, 0)), any::<(u32, u32)>()];
    let mtime = (any::<i64>(), 0..1_000_000_000u32);
    let xattrs = prop::collection::btree_map(bytes(), prop::collection::vec(any::<u8>(), 0..3), 0..3);
    (kind, 0..0o10000u32, owner, mtime, xattrs).prop_map(|(kind, mode, (uid, gid), mtime, xattrs)| {
        if kind == Kind::Whiteout {
            return Node::whiteout();
        }
        let (seconds, nanoseconds) = mtime;
        Node {
            kind,
            mode,
            uid,
            gid,
            mtime: Mtime { seconds, nanoseconds },
            xattrs: xattrs.into(),
            hardlink: None,
        }
    })
}
