//! Folders to test with.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use image::scan::{NoHashCache, Purpose, ScanError, ScanOptions, Visit, scan};
use tree::{Kind, Layer, LayerPath};

/// Whether this test runs as root; says so when it cannot go on without.
pub fn is_root(needs: &str) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // Root of a user namespace has but some owners.
    let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]) || needs == "owners";
    let root = rustix::process::geteuid().is_root() && is_whole;
    if !root {
        let test = std::thread::current().name().unwrap_or("disk").to_owned();
        println!("SKIP {test}: needs root: {needs}");
    }
    root
}

/// A path that is known to be one.
pub fn path(text: &str) -> LayerPath {
    LayerPath::parse(text.as_bytes()).expect("a path")
}

/// Makes files: `d/`, `f`, `f=text`, `l->target`, `a~f` a hard link, each with `:mode` if wanted.
pub fn make(root: &Path, words: &str) {
    for word in words.split_whitespace() {
        let (word, mode) = word.split_once(':').map_or((word, None), |(word, mode)| (word, Some(mode)));
        let name = if let Some(name) = word.strip_suffix('/') {
            fs::create_dir(root.join(name)).expect(word);
            name
        } else if let Some((name, target)) = word.split_once("->") {
            symlink(target, root.join(name)).expect(word);
            continue;
        } else if let Some((name, first)) = word.split_once('~') {
            fs::hard_link(root.join(first), root.join(name)).expect(word);
            name
        } else {
            let (name, text) = word.split_once('=').unwrap_or((word, word));
            fs::write(root.join(name), text).expect(word);
            name
        };
        if let Some(mode) = mode {
            let mode = u32::from_str_radix(mode, 8).expect("octal");
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect(word);
        }
    }
}

/// Scans all of a folder.
pub fn scanned(root: &Path, purpose: Purpose) -> Result<Layer, ScanError> {
    scan(root, &ScanOptions { purpose, filter: &|_, _| Visit::Take, hashes: &NoHashCache })
}

/// A layer in a few words a path.
pub fn shown(layer: &Layer) -> Vec<String> {
    let one = |(path, node): (&LayerPath, &tree::Node)| {
        let kind = match &node.kind {
            _ if node.hardlink.is_some() => "hardlink",
            Kind::Directory { opaque: false } => "dir",
            Kind::Directory { opaque: true } => "opaque",
            Kind::File { .. } => "file",
            Kind::Symlink { .. } => "symlink",
            Kind::CharDevice { .. } => "char",
            Kind::BlockDevice { .. } => "block",
            Kind::Fifo => "fifo",
            Kind::Whiteout => "whiteout",
        };
        format!("{kind} {path}")
    };
    layer.entries.iter().map(one).collect()
}
