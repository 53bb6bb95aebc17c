//! The bytes of a tree manifest.
//!
//! They name a layer in the store and travel to other machines, so there is exactly one encoding of each
//! layer, and the reader refuses every other. Paths are sorted, so each is written as what it shares with the
//! one before it and the rest; that, and times as differences, make a manifest of 40,000 files about 2 MB.
//!
//! | Part | Form |
//! |---|---|
//! | format | one byte: [`FORMAT`]; without times [`FORMAT`] with the high bit |
//! | count of entries | varint |
//! | per entry: path | varint of bytes shared with the path before, varint of further bytes, those |
//! | kind and flags | one byte: [`tag`], [`OWNED`], [`XATTRS`], [`LINKED`]; a whiteout ends here |
//! | mode; uid and gid if `OWNED` | varints |
//! | mtime | zigzag varint of the seconds since the entry before, varint of nanoseconds |
//! | file | varint of the size, 32 bytes of digest |
//! | symlink | varint of the length, target |
//! | device | varints of major and minor |
//! | xattrs if `XATTRS` | varint of the count; per attribute varint and name, varint and value |
//! | hard link if `LINKED` | varint and path of the first name |
//!
//! Varints are LEB128 in their shortest form.

use oci::{Digest, Hasher};

use crate::{Kind, Layer, LayerPath, Node};

/// The version of the encoding. A change of anything above raises it.
pub const FORMAT: u8 = 1;

/// Bit: owner is not 0:0 and follows.
pub(crate) const OWNED: u8 = 0x10;
/// Bit: extended attributes follow.
pub(crate) const XATTRS: u8 = 0x20;
/// Bit: the first name of the hard-linked inode follows.
pub(crate) const LINKED: u8 = 0x40;

/// The low four bits of an entry's kind byte.
pub(crate) mod tag {
    pub(crate) const DIRECTORY: u8 = 0;
    pub(crate) const OPAQUE: u8 = 1;
    pub(crate) const FILE: u8 = 2;
    pub(crate) const SYMLINK: u8 = 3;
    pub(crate) const CHAR: u8 = 4;
    pub(crate) const BLOCK: u8 = 5;
    pub(crate) const FIFO: u8 = 6;
    pub(crate) const WHITEOUT: u8 = 7;
}

/// Whether modification times are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    Kept,
    Left,
}

impl Layer {
    /// The one encoding of this layer, in the form that the module's documentation describes.
    pub fn encode(&self) -> Vec<u8> {
        let mut all = Vec::new();
        self.encode_to(&mut |bytes| all.extend_from_slice(bytes));
        all
    }

    /// The same, handed on piece by piece: nobody need hold that of a million entries.
    pub fn encode_to(&self, take: &mut dyn FnMut(&[u8])) {
        layer(self, Times::Kept, take);
    }
}

/// How much is gathered before it is handed on.
const PIECE: usize = 64 << 10;

/// The digest of a layer's encoding.
pub(crate) fn digest(of: &Layer, times: Times) -> Digest {
    let mut hasher = Hasher::new();
    layer(of, times, &mut |bytes| hasher.update(bytes));
    hasher.finish()
}

/// Hands the encoding to `take` piece by piece.
fn layer(layer: &Layer, times: Times, take: &mut dyn FnMut(&[u8])) {
    let mut out = Vec::with_capacity(PIECE + 8 * 1024);
    out.push(if times == Times::Kept { FORMAT } else { FORMAT | 0x80 });
    varint(&mut out, layer.entries.len() as u64);
    let mut before: &[u8] = b"";
    let mut seconds = 0i64;
    for (path, entry) in &layer.entries {
        let path = path.as_bytes();
        let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
        varint(&mut out, shared as u64);
        bytes(&mut out, &path[shared..]);
        before = path;
        let first = entry.hardlink.as_ref().map(LayerPath::as_bytes);
        node(&mut out, entry, (times == Times::Kept).then_some(&mut seconds), first);
        if out.len() >= PIECE {
            take(&out);
            out.clear();
        }
    }
    take(&out);
}

/// Writes all of a node; its time, where `seconds` of the entry before are given; `first` as the hard link.
pub(crate) fn node(out: &mut Vec<u8>, node: &Node, seconds: Option<&mut i64>, first: Option<&[u8]>) {
    let kind = match &node.kind {
        Kind::Directory { opaque: false } => tag::DIRECTORY,
        Kind::Directory { opaque: true } => tag::OPAQUE,
        Kind::File { .. } => tag::FILE,
        Kind::Symlink { .. } => tag::SYMLINK,
        Kind::CharDevice { .. } => tag::CHAR,
        Kind::BlockDevice { .. } => tag::BLOCK,
        Kind::Fifo => tag::FIFO,
        Kind::Whiteout => return out.push(tag::WHITEOUT),
    };
    let owned = if (node.uid, node.gid) == (0, 0) { 0 } else { OWNED };
    let xattrs = if node.xattrs.is_empty() { 0 } else { XATTRS };
    out.push(kind | owned | xattrs | if first.is_some() { LINKED } else { 0 });
    varint(out, node.mode.into());
    if owned != 0 {
        varint(out, node.uid.into());
        varint(out, node.gid.into());
    }
    if let Some(before) = seconds {
        let step = node.mtime.seconds.wrapping_sub(*before);
        varint(out, ((step << 1) ^ (step >> 63)) as u64);
        varint(out, node.mtime.nanoseconds.into());
        *before = node.mtime.seconds;
    }
    match &node.kind {
        Kind::File { size, content } => {
            varint(out, *size);
            out.extend_from_slice(content.raw());
        }
        Kind::Symlink { target } => bytes(out, target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            varint(out, (*major).into());
            varint(out, (*minor).into());
        }
        Kind::Directory { .. } | Kind::Fifo | Kind::Whiteout => {}
    }
    if xattrs != 0 {
        varint(out, node.xattrs.len() as u64);
        for (name, value) in node.xattrs.iter() {
            bytes(out, name);
            bytes(out, value);
        }
    }
    if let Some(first) = first {
        bytes(out, first);
    }
}

pub(crate) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
