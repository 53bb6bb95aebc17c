//! Reads a tree manifest's bytes, which may come from anywhere.
//!
//! What it accepts encodes to the same bytes again, so that a manifest's digest and its meaning cannot drift
//! apart. Memory is bounded by [`MAX_PATH_BYTES`]: paths that share nearly all their bytes are the only part
//! that can grow in reading.

use std::collections::BTreeMap;

use oci::Digest;

use crate::{
    BadPath, Entries, Kind, Layer, LayerPath, Mtime, Node, Xattrs,
    encode::{FORMAT, LINKED, OWNED, XATTRS, tag},
};

/// The most bytes that all paths of one layer may have together.
pub const MAX_PATH_BYTES: usize = 1 << 30;

/// Bytes that are no tree manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLayer {
    /// Written by a newer program, or no manifest at all.
    #[error("the tree manifest has format {found}; this program reads format {FORMAT}")]
    Format {
        /// The first byte.
        found: u8,
    },
    /// The bytes end too early.
    #[error("the tree manifest ends early, at byte {at}")]
    Truncated {
        /// Where more bytes were needed.
        at: usize,
    },
    /// A field holds what no layer has, or not in its one form.
    #[error("the tree manifest has a bad {field} before byte {at}")]
    Field {
        /// Which field.
        field: &'static str,
        /// The byte after it.
        at: usize,
    },
    /// A path is no path inside a root.
    #[error("the tree manifest has a bad path before byte {at}")]
    Path {
        /// The byte after it.
        at: usize,
        /// What is wrong with it.
        source: BadPath,
    },
    /// Entries are not strictly sorted by path.
    #[error("`{path}` is out of order in the tree manifest")]
    Order {
        /// The entry that came too late.
        path: LayerPath,
    },
    /// An entry lies below one that is no folder.
    #[error("`{path}` lies below `{above}`, which is no folder")]
    BelowFile {
        /// The entry.
        path: LayerPath,
        /// What is above it.
        above: LayerPath,
    },
    /// A hard link does not name an earlier entry with the same fields.
    #[error("the hard link `{path}` does not match its first name `{first}`")]
    Hardlink {
        /// The link.
        path: LayerPath,
        /// What it names.
        first: LayerPath,
    },
    /// The paths are longer than [`MAX_PATH_BYTES`] together.
    #[error("the tree manifest's paths are longer than {MAX_PATH_BYTES} bytes together")]
    TooBig,
}

impl Layer {
    /// Reads what [`Layer::encode`] wrote.
    ///
    /// # Errors
    /// [`BadLayer`] for all other bytes. Never panics; takes time linear in `bytes` and memory as the
    /// module's documentation says.
    pub fn decode(bytes: &[u8]) -> Result<Layer, BadLayer> {
        let mut reader = Reader { bytes, at: 0, path: Vec::new(), seconds: 0, path_bytes: 0 };
        let format = reader.byte()?;
        if format != FORMAT {
            return Err(BadLayer::Format { found: format });
        }
        let count = reader.varint("count")?;
        let mut entries = Entries::new();
        // The folder whose entries are being read, once it is known to be one.
        let mut folder: Option<LayerPath> = None;
        for _ in 0..count {
            let (path, node) = reader.entry()?;
            if let Some((last, _)) = entries.last_key_value()
                && *last >= path
            {
                return Err(BadLayer::Order { path });
            }
            let parent = path.parent();
            if parent != folder {
                check_above(&entries, &path)?;
                folder = parent;
            }
            check_link(&entries, &path, &node)?;
            entries.insert(path, node);
        }
        if reader.at != bytes.len() {
            return Err(BadLayer::Field { field: "end", at: reader.at });
        }
        Ok(Layer { entries })
    }
}

/// Folders above an entry may be missing, but what is there must be a folder.
fn check_above(entries: &Entries, path: &LayerPath) -> Result<(), BadLayer> {
    let bytes = path.as_bytes();
    let slashes = (0..bytes.len()).rev().filter(|at| bytes[*at] == b'/');
    // What is above the nearest one was checked with that.
    match slashes.filter_map(|at| entries.get_key_value(&bytes[..at])).next() {
        Some((above, node)) if !node.is_directory() => {
            Err(BadLayer::BelowFile { path: path.clone(), above: above.clone() })
        }
        _ => Ok(()),
    }
}

/// A hard link equals its first name, which is no folder.
fn check_link(entries: &Entries, path: &LayerPath, node: &Node) -> Result<(), BadLayer> {
    let Some(first) = &node.hardlink else { return Ok(()) };
    let same = entries.get(first).is_some_and(|head| {
        head.hardlink.is_none() && !head.is_directory() && Node { hardlink: None, ..node.clone() } == *head
    });
    if same { Ok(()) } else { Err(BadLayer::Hardlink { path: path.clone(), first: first.clone() }) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The path before.
    path: Vec<u8>,
    /// The time before.
    seconds: i64,
    path_bytes: usize,
}

impl<'a> Reader<'a> {
    fn entry(&mut self) -> Result<(LayerPath, Node), BadLayer> {
        let shared = self.varint("path")?;
        let rest = self.field("path")?;
        let shared = usize::try_from(shared).ok().filter(|shared| *shared <= self.path.len());
        let Some(shared) = shared else { return Err(self.bad("path")) };
        if !rest.is_empty() && self.path.get(shared) == rest.first() {
            return Err(self.bad("path"));
        }
        self.path.truncate(shared);
        self.path.extend_from_slice(rest);
        self.path_bytes = self.path_bytes.saturating_add(self.path.len());
        if self.path_bytes > MAX_PATH_BYTES {
            return Err(BadLayer::TooBig);
        }
        let at = self.at;
        let path = LayerPath::exact(self.path.clone()).map_err(|source| BadLayer::Path { at, source })?;
        let node = self.node()?;
        Ok((path, node))
    }

    fn node(&mut self) -> Result<Node, BadLayer> {
        let byte = self.byte()?;
        if byte == tag::WHITEOUT {
            return Ok(Node::whiteout());
        }
        if byte & 0x80 != 0 {
            return Err(self.bad("kind"));
        }
        let mode = self.number("mode", 0o7777)?;
        let (mut uid, mut gid) = (0, 0);
        if byte & OWNED != 0 {
            uid = self.number("uid", u32::MAX)?;
            gid = self.number("gid", u32::MAX)?;
            if (uid, gid) == (0, 0) {
                return Err(self.bad("owner"));
            }
        }
        let step = self.varint("mtime")?;
        let step = (step >> 1) as i64 ^ -((step & 1) as i64);
        self.seconds = self.seconds.wrapping_add(step);
        let mtime = Mtime { seconds: self.seconds, nanoseconds: self.number("mtime", 999_999_999)? };
        let kind = self.kind(byte & 0x0f)?;
        let xattrs = if byte & XATTRS != 0 { self.xattrs()?.into() } else { Xattrs::default() };
        let mut hardlink = None;
        if byte & LINKED != 0 {
            let first = self.field("hard link")?.to_vec();
            let at = self.at;
            hardlink = Some(LayerPath::exact(first).map_err(|source| BadLayer::Path { at, source })?);
        }
        Ok(Node { kind, mode, uid, gid, mtime, xattrs, hardlink })
    }

    fn kind(&mut self, tag: u8) -> Result<Kind, BadLayer> {
        Ok(match tag {
            tag::DIRECTORY => Kind::Directory { opaque: false },
            tag::OPAQUE => Kind::Directory { opaque: true },
            tag::FILE => {
                let size = self.varint("size")?;
                let raw = self.take(32)?.try_into().map_err(|_| self.bad("digest"))?;
                Kind::File { size, content: Digest::from_raw(raw) }
            }
            tag::SYMLINK => {
                let target = self.field("target")?;
                if target.is_empty() || target.len() > 4095 || target.contains(&0) {
                    return Err(self.bad("target"));
                }
                Kind::Symlink { target: target.to_vec() }
            }
            tag::CHAR | tag::BLOCK => {
                let major = self.number("major", u32::MAX)?;
                let minor = self.number("minor", u32::MAX)?;
                if tag == tag::CHAR {
                    Kind::CharDevice { major, minor }
                } else {
                    Kind::BlockDevice { major, minor }
                }
            }
            tag::FIFO => Kind::Fifo,
            _ => return Err(self.bad("kind")),
        })
    }

    fn xattrs(&mut self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, BadLayer> {
        let mut xattrs: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let count = self.varint("xattrs")?;
        for _ in 0..count {
            let name = self.field("xattr")?;
            let value = self.field("xattr")?;
            let sorted = xattrs.last_key_value().is_none_or(|(last, _)| last.as_slice() < name);
            if !sorted || name.is_empty() || name.contains(&0) {
                return Err(self.bad("xattr"));
            }
            xattrs.insert(name.to_vec(), value.to_vec());
        }
        if count == 0 { Err(self.bad("xattrs")) } else { Ok(xattrs) }
    }

    fn bad(&self, field: &'static str) -> BadLayer {
        BadLayer::Field { field, at: self.at }
    }

    fn number(&mut self, field: &'static str, most: u32) -> Result<u32, BadLayer> {
        let value = self.varint(field)?;
        u32::try_from(value).ok().filter(|value| *value <= most).ok_or(self.bad(field))
    }

    fn varint(&mut self, field: &'static str) -> Result<u64, BadLayer> {
        let mut value = 0u64;
        for shift in (0..=63u32).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.bad(field));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero would be a longer form of the same number.
                return if byte == 0 && shift > 0 { Err(self.bad(field)) } else { Ok(value) };
            }
        }
        Err(self.bad(field))
    }

    fn field(&mut self, field: &'static str) -> Result<&'a [u8], BadLayer> {
        let length = self.varint(field)?;
        let length = usize::try_from(length).map_err(|_| self.bad(field))?;
        self.take(length)
    }

    fn byte(&mut self) -> Result<u8, BadLayer> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BadLayer> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { return Err(BadLayer::Truncated { at: self.bytes.len() }) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}
