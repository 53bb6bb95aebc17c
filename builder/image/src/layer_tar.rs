//! A layer's tree manifest and its files' bytes → the layer's tar (image-spec v1.1, layer.md).
//!
//! Members are in the order of their paths' bytes, so that a folder precedes what is in it; a folder's opaque marker
//! follows it at once. A name that starts with `.wh.` is written as it is and therefore means a whiteout to whoever
//! applies the layer, as it does in every other builder.
//!
//! Files are read ahead by several threads, a few hundred KiB of them at once ([`pass`]); what comes out is in order.

mod members;
mod pass;

use std::io::{self, Write};

use oci::{Digest, Epoch};
use tree::{Layer, LayerPath};

pub(crate) use self::pass::Out;
use self::pass::Source;
use crate::{contents::Contents, tar::AppendError};

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
    /// A file that somebody wrote to while it was read.
    #[error("`{path}` was written to while it was used")]
    Written {
        /// Its path in the layer.
        path: LayerPath,
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
    write_chunks(layer, contents, options, &mut |chunk| out.write_all(&chunk))
}

/// [`write_layer`], in chunks that several threads may read.
pub(crate) fn write_chunks(
    layer: &Layer,
    contents: &dyn Contents,
    options: TarOptions,
    out: &mut Out<'_>,
) -> Result<(), LayerTarError> {
    Source { layer, contents, options, whiteouts: true }.write(out)
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
    let source = Source { layer, contents, options, whiteouts: false };
    source.write(&mut |chunk| out.write_all(&chunk))
}
