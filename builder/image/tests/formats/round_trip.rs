//! A layer that is written and read again is the same layer: in memory, and through a folder on disk.

use std::collections::BTreeMap;

use crate::archive::{Made, Memory, everything, is_machines_root};
use image::{
    apply::{ApplyOptions, apply},
    contents::Folder,
    layer_tar::{LayerTarError, TarOptions, write_layer, write_rootfs},
    tar::{EntryKind, Reader},
};
use oci::{Digest, Epoch};
use proptest::prelude::*;
use tree::{Kind, Layer, LayerPath, Mtime, Node};

/// What an entry may be, before it is known whether its path is free.
#[derive(Clone, Debug)]
enum Wish {
    Directory(bool),
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Device(bool, u32, u32),
    Fifo,
    Whiteout,
    HardLink(prop::sample::Index),
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        3 => any::<bool>().prop_map(Wish::Directory),
        4 => proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Wish::File),
        1 => proptest::collection::vec(1u8..=255, 1..150).prop_map(Wish::Symlink),
        1 => (any::<bool>(), 1u32..4096, 0u32..1_048_576).prop_map(|(c, a, b)| Wish::Device(c, a, b)),
        1 => Just(Wish::Fifo),
        1 => Just(Wish::Whiteout),
        2 => any::<prop::sample::Index>().prop_map(Wish::HardLink),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![9 => b'a'..=b'd', 1 => Just(b'\n'), 1 => Just(b'-'), 1 => Just(0xff)];
    let short = proptest::collection::vec(byte, 1..3);
    prop_oneof![8 => short, 1 => Just(vec![b'l'; 90]), 1 => Just(vec![b'm'; 255])]
}

fn attributes() -> impl Strategy<Value = (u32, u32, u32, i64, BTreeMap<Vec<u8>, Vec<u8>>)> {
    let id = prop_oneof![4 => 0u32..3000, 1 => 2_097_150u32..2_097_155, 1 => Just(u32::MAX - 1)];
    let seconds = prop_oneof![4 => 0i64..2_000_000_000, 1 => -9i64..9, 1 => 8_589_934_590i64..8_589_934_600];
    let xattr = (
        "[a-z.]{1,9}".prop_map(|n| format!("user.{n}").into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..60),
    );
    (0u32..0o10000, id.clone(), id, seconds, proptest::collection::btree_map(xattr.0, xattr.1, 0..3))
}

/// Layers of all kinds of entries, folders on the way sometimes missing.
fn made() -> impl Strategy<Value = Made> {
    let entry = (proptest::collection::vec(name(), 0..4), wish(), attributes());
    proptest::collection::vec(entry, 0..30).prop_map(|entries| {
        let mut made = Made::default();
        for (parts, wish, attributes) in entries {
            insert(&mut made, &LayerPath::parse(&parts.join(&b'/')).expect("a path"), wish, attributes);
        }
        made
    })
}

type Attributes = (u32, u32, u32, i64, BTreeMap<Vec<u8>, Vec<u8>>);

fn insert(made: &mut Made, path: &LayerPath, wish: Wish, (mode, uid, gid, seconds, xattrs): Attributes) {
    let entries = &made.layer.entries;
    let folders_above =
        path.ancestors().iter().all(|above| entries.get(above).is_none_or(Node::is_directory));
    let holds_some = entries.keys().any(|other| other != path && other.below(path).is_some());
    let is_folder = matches!(wish, Wish::Directory(_));
    if entries.contains_key(path)
        || !folders_above
        || (holds_some && !is_folder)
        || (path.is_root() && !is_folder)
    {
        return;
    }
    let mut contents = None;
    let kind = match wish {
        Wish::Directory(opaque) => Kind::Directory { opaque },
        Wish::File(bytes) => {
            let kind = Kind::File { size: bytes.len() as u64, content: Digest::of(&bytes) };
            contents = Some(bytes);
            kind
        }
        Wish::Symlink(target) => Kind::Symlink { target },
        Wish::Device(true, major, minor) => Kind::CharDevice { major, minor },
        Wish::Device(false, major, minor) => Kind::BlockDevice { major, minor },
        Wish::Fifo => Kind::Fifo,
        Wish::Whiteout => {
            made.layer.entries.insert(path.clone(), Node::whiteout());
            return;
        }
        Wish::HardLink(index) => {
            let linkable = |(first, node): &(&LayerPath, &Node)| {
                *first < path
                    && !node.is_directory()
                    && node.kind != Kind::Whiteout
                    && node.hardlink.is_none()
            };
            let firsts: Vec<_> = entries.iter().filter(linkable).collect();
            if !firsts.is_empty() {
                let (first, node) = firsts[index.index(firsts.len())];
                let node = Node { hardlink: Some(first.clone()), ..node.clone() };
                made.layer.entries.insert(path.clone(), node);
            }
            return;
        }
    };
    let special = !matches!(kind, Kind::Directory { .. } | Kind::File { .. });
    let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { mode };
    let mtime = Mtime { seconds, nanoseconds: 0 };
    // Only folders and files may have attributes of users.
    let xattrs = if special { BTreeMap::new() } else { xattrs };
    let node = Node { kind, mode, uid, gid, mtime, xattrs: xattrs.into(), hardlink: None };
    made.layer.entries.insert(path.clone(), node);
    made.contents.0.extend(contents.map(|bytes| (path.clone(), bytes)));
}

/// Puts a layer together from what the reader finds in its tar.
fn read(tar: &[u8]) -> (Layer, Memory) {
    let mut reader = Reader::new(tar);
    let (mut layer, mut contents) = (Layer::default(), Memory::default());
    while let Some(entry) = reader.next_entry().expect("a sound tar") {
        // A whiteout's name may be longer than a path may be.
        let name = entry.path.rsplit(|b| *b == b'/').next().expect("a part");
        let folder = LayerPath::parse(&entry.path[..entry.path.len() - name.len()]).expect("a path");
        if let Some(gone) = name.strip_prefix(b".wh.").filter(|gone| *gone != b".wh..opq") {
            layer.entries.insert(folder.join(gone), Node::whiteout());
            continue;
        }
        let path = LayerPath::parse(&entry.path).expect("a path");
        if path.name() == b".wh..wh..opq" {
            let folder =
                layer.entries.get_mut(&path.parent().expect("a parent")).expect("its folder is before it");
            folder.kind = Kind::Directory { opaque: true };
            continue;
        }
        let kind = match entry.kind {
            EntryKind::Directory => Kind::Directory { opaque: false },
            EntryKind::File { size } => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut reader.contents(), &mut bytes).expect("contents");
                assert_eq!(bytes.len() as u64, size);
                let content = Digest::of(&bytes);
                contents.0.insert(path.clone(), bytes);
                Kind::File { size, content }
            }
            EntryKind::HardLink { target } => {
                let target = LayerPath::parse(&target).expect("a path");
                let node = Node { hardlink: Some(target.clone()), ..layer.entries[&target].clone() };
                layer.entries.insert(path, node);
                continue;
            }
            EntryKind::Symlink { target } => Kind::Symlink { target },
            EntryKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            EntryKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            EntryKind::Fifo => Kind::Fifo,
        };
        let (mode, uid, gid, mtime, xattrs) =
            (entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs.into());
        layer.entries.insert(path, Node { kind, mode, uid, gid, mtime, xattrs, hardlink: None });
    }
    (layer, contents)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_is_written_is_read(made in made()) {
        let (layer, contents) = read(&made.tar());
        prop_assert_eq!(&layer, &made.layer);
        prop_assert_eq!(contents.0, made.contents.0);
    }

    #[test]
    fn what_is_unpacked_is_packed_again(made in made()) {
        if is_machines_root() {
            let folder = tempfile::tempdir().expect("a folder");
            let tar = made.tar();
            let applied = apply(&tar[..], folder.path(), &ApplyOptions::default()).expect("unpacked");
            prop_assert_eq!(applied.diff_id.digest(), Digest::of(&tar));
            prop_assert_eq!(applied.diff_size_bytes, tar.len() as u64);
            prop_assert_eq!(&applied.layer, &made.layer);
            let mut again = Vec::new();
            let contents = Folder::open(folder.path()).expect("a folder");
            let options = TarOptions { epoch: None, verify: true };
            write_layer(&applied.layer, &contents, options, &mut again).expect("written");
            prop_assert!(again == tar);
        }
    }
}

#[test]
fn everything_survives() {
    let made = everything();
    let (layer, contents) = read(&made.tar());
    assert_eq!(layer, made.layer);
    assert_eq!(contents.0, made.contents.0);
}

#[test]
fn times_after_the_epoch_are_clamped_and_others_are_not() {
    let made = everything();
    let mut tar = Vec::new();
    let options = TarOptions { epoch: Some(Epoch(1000)), verify: false };
    write_layer(&made.layer, &made.contents, options, &mut tar).expect("written");
    for (path, node) in read(&tar).0.entries {
        assert_eq!(node.mtime.seconds, made.layer.entries[&path].mtime.seconds.min(1000), "{path}");
    }
}

#[test]
fn files_that_changed_are_named() {
    let write = |made: &Made, verify| {
        write_layer(&made.layer, &made.contents, TarOptions { epoch: None, verify }, &mut Vec::new())
    };
    let made = |bytes: &[u8]| {
        let mut made = Made::default().file("a", b"before").file("b", b"");
        made.contents.0.insert(crate::archive::path("a"), bytes.to_vec());
        made
    };
    write(&made(b"before"), true).expect("unchanged");
    for (bytes, part) in [(&b"befor"[..], "and is 5"), (b"before!", "and is longer"), (b"", "and is 0")] {
        let error = write(&made(bytes), false).expect_err("another length").to_string();
        assert!(error.contains("`a` should be 6 bytes long") && error.contains(part), "{error}");
    }
    write(&made(b"BEFORE"), false).expect("not looked at");
    assert!(
        matches!(write(&made(b"BEFORE"), true), Err(LayerTarError::Changed { path, .. }) if path == crate::archive::path("a"))
    );
    let mut missing = made(b"before");
    missing.contents.0.remove(&crate::archive::path("b"));
    assert!(
        matches!(write(&missing, false), Err(LayerTarError::Open { path, .. }) if path == crate::archive::path("b"))
    );
}

#[test]
fn layers_that_no_tar_can_hold_are_refused() {
    let write = |made: Made| write_layer(&made.layer, &made.contents, TarOptions::default(), &mut Vec::new());
    let mut link = Node::new(Kind::Fifo, 0o600);
    link.hardlink = Some(crate::archive::path("nowhere"));
    assert!(matches!(write(Made::default().node("a", link)), Err(LayerTarError::LinkTarget { .. })));
    let attribute = |name: &[u8]| {
        Made::default().file_with("a", b"", |node| drop(node.xattrs.insert(name.to_vec(), b"v".to_vec())))
    };
    for name in [&b"user.a=b"[..], b"", b"user.\0"] {
        assert!(matches!(write(attribute(name)), Err(LayerTarError::Append(_))));
    }
    let device = Node::new(Kind::CharDevice { major: 1 << 30, minor: 0 }, 0o600);
    assert!(matches!(write(Made::default().node("a", device)), Err(LayerTarError::Append(_))));
}

#[test]
fn a_root_file_system_has_no_marks() {
    let mut made = everything();
    let write = |made: &Made| {
        let mut tar = Vec::new();
        write_rootfs(&made.layer, &made.contents, TarOptions::default(), &mut tar).map(|()| tar)
    };
    assert!(matches!(write(&made), Err(LayerTarError::Whiteout { .. })));
    made.layer.entries.remove(&crate::archive::path("gone"));
    let tar = write(&made).expect("written");
    made.layer.entries.get_mut(&crate::archive::path("opaque")).expect("there").kind =
        Kind::Directory { opaque: false };
    assert_eq!(read(&tar).0, made.layer);
}
