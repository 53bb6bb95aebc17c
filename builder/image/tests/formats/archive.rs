//! Layers and archives that tests make.
use std::{collections::BTreeMap, io, process::Command};

use image::{
    contents::{Bytes, Contents},
    layer_tar::{TarOptions, write_layer},
    tar::{Entry, EntryKind, header},
};
use oci::Digest;
use tree::{Kind, Layer, LayerPath, Mtime, Node};

/// Files' bytes by path.
#[derive(Clone, Debug, Default)]
pub struct Memory(pub BTreeMap<LayerPath, Vec<u8>>);

impl Contents for Memory {
    fn open(&self, path: &LayerPath) -> io::Result<Box<dyn Bytes + '_>> {
        match self.0.get(path) {
            Some(bytes) => Ok(Box::new(io::Cursor::new(bytes))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

pub fn path(text: &str) -> LayerPath {
    LayerPath::parse(text.as_bytes()).expect("a path")
}

/// A layer that is put together.
#[derive(Clone, Debug, Default)]
pub struct Made {
    pub layer: Layer,
    pub contents: Memory,
}

impl Made {
    pub fn node(mut self, at: &str, node: Node) -> Made {
        self.layer.entries.insert(path(at), node);
        self
    }

    pub fn folder(self, at: &str, mode: u32) -> Made {
        self.node(at, Node::directory(mode))
    }

    pub fn file(self, at: &str, bytes: &[u8]) -> Made {
        self.file_with(at, bytes, |_| {})
    }

    pub fn file_with(mut self, at: &str, bytes: &[u8], change: impl FnOnce(&mut Node)) -> Made {
        self.contents.0.insert(path(at), bytes.to_vec());
        let mut node = Node::new(Kind::File { size: bytes.len() as u64, content: Digest::of(bytes) }, 0o644);
        change(&mut node);
        self.node(at, node)
    }

    pub fn tar(&self) -> Vec<u8> {
        let mut tar = Vec::new();
        write_layer(&self.layer, &self.contents, TarOptions::default(), &mut tar).expect("a tar");
        tar
    }
}

/// A layer with everything in it that a layer can have.
pub fn everything() -> Made {
    let with = |kind, mode, seconds| {
        let mut node = Node::new(kind, mode);
        node.mtime = Mtime { seconds, nanoseconds: 0 };
        node
    };
    let long = format!("long/{}/{}", "d".repeat(120), "f".repeat(120));
    let mut opaque = with(Kind::Directory { opaque: true }, 0o1777, 5);
    opaque.uid = 7;
    let mut made = Made::default()
        .node("", with(Kind::Directory { opaque: false }, 0o755, 1))
        .folder("bin", 0o755)
        .file_with("bin/tool", &[0x7f; 70_000], |node| {
            node.mode = 0o4755;
            node.mtime.seconds = 1_700_000_000;
            node.xattrs.insert(b"security.capability".to_vec(), capability());
        })
        .file_with("bin/aaa", b"x", |node| (node.uid, node.gid) = (3_000_000, 4_000_000_000))
        .folder("dev", 0o755)
        .node("dev/null", with(Kind::CharDevice { major: 1, minor: 3 }, 0o666, 0))
        .node("dev/loop0", with(Kind::BlockDevice { major: 7, minor: 0 }, 0o660, 0))
        .node("dev/pipe", with(Kind::Fifo, 0o600, -5))
        .file("empty", b"")
        .node("link", with(Kind::Symlink { target: b"bin/tool".to_vec() }, 0o777, 9))
        .node("longlink", with(Kind::Symlink { target: vec![b't'; 300] }, 0o777, 9))
        .folder(long.rsplit_once('/').expect("a slash").0, 0o700)
        .file(&long, b"deep")
        .folder("long", 0o755)
        .node("gone", Node::whiteout())
        .node("opaque", opaque)
        .file("opaque/kept", b"kept");
    let mut hard = made.layer.entries[&path("bin/tool")].clone();
    hard.hardlink = Some(path("bin/tool"));
    made.layer.entries.insert(path("zhard"), hard);
    let odd = LayerPath::parse(b"odd/\xff\xfe \n name").expect("a path");
    made.contents.0.insert(odd.clone(), b"odd".to_vec());
    let mut node = Node::new(Kind::File { size: 3, content: Digest::of(b"odd") }, 0o600);
    node.mtime.seconds = 1 << 34;
    made.layer.entries.insert(odd, node);
    made
}

/// A file capability with a newline byte in it, which cuts records where they are read by lines.
pub fn capability() -> Vec<u8> {
    vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0]
}

/// A member with simple attributes.
pub fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        xattrs: BTreeMap::new(),
    }
}

/// An archive of members as they are, however hostile: header, then contents, filled up.
pub fn archive(members: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (entry, contents) in members {
        bytes.extend(header(entry).expect("a header"));
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

pub fn file(at: &str, contents: &'static [u8]) -> (Entry, &'static [u8]) {
    (entry(at, EntryKind::File { size: contents.len() as u64 }), contents)
}

pub fn folder(at: &str) -> (Entry, &'static [u8]) {
    (entry(at, EntryKind::Directory), b"")
}

pub fn symlink(at: &str, target: &str) -> (Entry, &'static [u8]) {
    (entry(at, EntryKind::Symlink { target: target.as_bytes().to_vec() }), b"")
}

pub fn hard_link(at: &str, target: &str) -> (Entry, &'static [u8]) {
    (entry(at, EntryKind::HardLink { target: target.as_bytes().to_vec() }), b"")
}

/// Says whether a test can run a program; prints why not.
pub fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("skipped: the program `{program}` is not there");
    }
    there
}

/// Says whether a test may make devices and change owners; prints why not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: making devices and changing owners needs root");
    }
    root
}

/// As [`is_root`], and not root of a user namespace, who may make no devices, has no attributes of root's, and not every id.
pub fn is_machines_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    if !is_whole {
        let test = std::thread::current().name().unwrap_or("formats").to_owned();
        println!("SKIP {test}: needs root: devices, attributes and all ids");
    }
    is_whole && is_root()
}

/// Runs a program that must succeed, and gives its standard output.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{error}", output.status);
    output.stdout
}
