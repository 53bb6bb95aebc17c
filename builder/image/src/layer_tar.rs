//! A layer's tree manifest and its files' bytes → the layer's tar (image-spec v1.1, layer.md).
//!
//! Members are in the order of their paths' bytes, so that a folder precedes what is in it; a folder's opaque marker
//! follows it at once. A name that starts with `.wh.` is written as it is and therefore means a whiteout to whoever
//! applies the layer, as it does in every other builder.

use std::io::{self, Read, Write};

use oci::{Digest, Epoch, Hasher};
use tree::{Kind, Layer, LayerPath, Mtime, Node};

use crate::{
    contents::Contents,
    tar::{AppendError, Builder, Entry, EntryKind},
};

/// How a tar is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct TarOptions {
    /// `SOURCE_DATE_EPOCH`: later times are written as this one.
    pub epoch: Option<Epoch>,
    /// Whether every file's bytes are compared with the digest in its manifest. Wanted where they come from a place
    /// that others write to, as a build context is; it costs one more pass of SHA-256.
    pub verify: bool,
}

/// A layer that cannot be written as a tar.
#[derive(Debug, thiserror::Error)]
pub enum LayerTarError {
    /// A member that cannot be read or written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A file that cannot be opened.
    #[error("opening `{path}`: {source}")]
    Open {
        /// Its path in the layer.
        path: LayerPath,
        /// Why.
        source: io::Error,
    },
    /// A file that is not what its manifest says.
    #[error("`{path}` changed while it was used: its content is {found}, not {expected}")]
    Changed {
        /// Its path in the layer.
        path: LayerPath,
        /// The manifest's digest.
        expected: Digest,
        /// The digest of what was read.
        found: Digest,
    },
    /// A hard link whose first name is not in the layer, or is not before it.
    #[error("`{path}` is a hard link to `{target}`, which is no earlier file of the layer")]
    LinkTarget {
        /// The link.
        path: LayerPath,
        /// What it names.
        target: LayerPath,
    },
    /// A whiteout in what should be a whole file system.
    #[error("`{path}` is a whiteout, and a root file system has none")]
    Whiteout {
        /// Its path.
        path: LayerPath,
    },
}

/// Writes a layer as an uncompressed OCI layer tar, whiteouts included.
///
/// The same layer and options give the same bytes on any host, at any time.
///
/// # Errors
/// [`LayerTarError`], the first in path order; `out` then holds a partial tar.
///
/// # Source
/// image-spec v1.1, layer.md § Whiteouts, § File Types; mtimes in whole seconds, as Docker writes them.
pub fn write_layer(
    layer: &Layer,
    contents: &dyn Contents,
    options: TarOptions,
    out: &mut dyn Write,
) -> Result<(), LayerTarError> {
    write(layer, contents, options, out, true)
}

/// Writes a flattened layer as a plain archive of a root file system, for `-o type=tar`: opaque marks, which mean
/// nothing there, are left out.
///
/// # Errors
/// As [`write_layer`]; [`LayerTarError::Whiteout`] where the layer was not flattened.
pub fn write_rootfs(
    layer: &Layer,
    contents: &dyn Contents,
    options: TarOptions,
    out: &mut dyn Write,
) -> Result<(), LayerTarError> {
    write(layer, contents, options, out, false)
}

fn write(
    layer: &Layer,
    contents: &dyn Contents,
    options: TarOptions,
    out: &mut dyn Write,
    whiteouts: bool,
) -> Result<(), LayerTarError> {
    let mut builder = Builder::new(out);
    for (path, node) in &layer.entries {
        if let Some(target) = &node.hardlink {
            let first = layer.entries.get(target).filter(|first| first.hardlink.is_none());
            if first.is_none_or(|first| first.kind != node.kind) || target >= path {
                return Err(LayerTarError::LinkTarget { path: path.clone(), target: target.clone() });
            }
            let mut entry =
                entry(path, node, options.epoch, EntryKind::HardLink { target: target.as_bytes().to_vec() });
            // A link has its attributes from what it names.
            entry.xattrs.clear();
            builder.append(&entry, &mut io::empty())?;
            continue;
        }
        match &node.kind {
            Kind::File { size, content } => {
                let entry = entry(path, node, options.epoch, EntryKind::File { size: *size });
                append_file(&mut builder, path, &entry, *content, contents, options.verify)?;
            }
            Kind::Whiteout if !whiteouts => return Err(LayerTarError::Whiteout { path: path.clone() }),
            Kind::Whiteout => builder.append(&marker(path, path.name()), &mut io::empty())?,
            kind => {
                let entry = entry(path, node, options.epoch, other_kind(kind));
                builder.append(&entry, &mut io::empty())?;
                if whiteouts && *kind == (Kind::Directory { opaque: true }) {
                    builder.append(&marker(&path.join(b"-"), b".wh..opq"), &mut io::empty())?;
                }
            }
        }
    }
    builder.finish()?;
    Ok(())
}

/// The kinds that need nothing but a header.
fn other_kind(kind: &Kind) -> EntryKind {
    match kind {
        Kind::Directory { .. } => EntryKind::Directory,
        Kind::File { size, .. } => EntryKind::File { size: *size },
        Kind::Symlink { target } => EntryKind::Symlink { target: target.clone() },
        Kind::CharDevice { major, minor } => EntryKind::CharDevice { major: *major, minor: *minor },
        Kind::BlockDevice { major, minor } => EntryKind::BlockDevice { major: *major, minor: *minor },
        Kind::Fifo => EntryKind::Fifo,
        Kind::Whiteout => EntryKind::File { size: 0 },
    }
}

/// `.wh.NAME` beside `path`, of mode, owner and time zero.
fn marker(path: &LayerPath, name: &[u8]) -> Entry {
    let folder = path.parent().unwrap_or_default();
    let path = folder.join(&[b".wh.", name].concat()).as_bytes().to_vec();
    let zero = Node::whiteout();
    Entry {
        path,
        kind: EntryKind::File { size: 0 },
        mode: zero.mode,
        uid: zero.uid,
        gid: zero.gid,
        mtime: zero.mtime,
        xattrs: zero.xattrs,
    }
}

fn entry(path: &LayerPath, node: &Node, epoch: Option<Epoch>, kind: EntryKind) -> Entry {
    let latest = epoch.and_then(|epoch| i64::try_from(epoch.0).ok()).unwrap_or(i64::MAX);
    let seconds = node.mtime.seconds.min(latest);
    Entry {
        path: if path.is_root() { b"./".to_vec() } else { path.as_bytes().to_vec() },
        kind,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: Mtime { seconds, nanoseconds: 0 },
        xattrs: node.xattrs.clone(),
    }
}

fn append_file(
    builder: &mut Builder<&mut dyn Write>,
    path: &LayerPath,
    entry: &Entry,
    expected: Digest,
    contents: &dyn Contents,
    verify: bool,
) -> Result<(), LayerTarError> {
    let open = || contents.open(path).map_err(|source| LayerTarError::Open { path: path.clone(), source });
    if !verify {
        return Ok(builder.append(entry, &mut *open()?)?);
    }
    let mut hashing = Hashing { reader: open()?, hasher: Hasher::new() };
    builder.append(entry, &mut hashing)?;
    let found = hashing.hasher.finish();
    if found == expected {
        Ok(())
    } else {
        Err(LayerTarError::Changed { path: path.clone(), expected, found })
    }
}

struct Hashing<'a> {
    reader: Box<dyn Read + 'a>,
    hasher: Hasher,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
