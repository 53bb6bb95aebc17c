//! Blobs of which single files can be fetched: estargz and zstd:chunked.
//!
//! Both are the blob of an ordinary codec whose compressed stream is cut at the contents of every file, with an index
//! of the files at its end. Whoever knows the index reads it first and fetches what is missing; whoever does not
//! unpacks the whole as it would any other layer, and sees the same files.
//!
//! |           | estargz                                  | zstd:chunked                                     |
//! |-----------|------------------------------------------|--------------------------------------------------|
//! | read by   | stargz-snapshotter, containers/storage   | containers/storage                               |
//! | cut       | at contents, and then each 4 MiB         | at and behind contents, and then by content, 128 KiB to 1 MiB |
//! | a piece is | a gzip member                           | a zstd frame                                     |
//! | index     | a file behind the end of the tar         | a frame that decoders skip                       |
//! | found by  | the last 51 bytes                        | annotations of the descriptor                    |
//! | trusted by | the digest of its text, an annotation   | the digest of its frame, an annotation           |
//! | diff id   | its own: the index is part of the stream | that of the tar                                  |
//!
//! The tar is never changed, only cut. estargz's index and the file that says that nothing is to be prefetched stand
//! behind the mark of the tar's end, where nobody looks who unpacks it.
//!
//! An archive that an index cannot describe truly becomes a blob without one ([`Unindexed`]): a pull is then as slow as
//! that of an ordinary layer, and nothing else.
//!
//! # Source
//! stargz-snapshotter, docs/estargz.md. zstd:chunked is what containers/storage writes and reads
//! (`pkg/chunked/compressor`, `pkg/chunked/internal/minimal`), and tar-split's `tar/storage`.

mod chunked;
mod crc64;
mod estargz;
mod toc;
mod unit;
mod writer;

use std::collections::BTreeMap;

use oci::Digest;

use crate::tar::Member;

pub use estargz::has_index as is_estargz;
pub(crate) use writer::SeekableWriter;

/// Annotations of a layer's descriptor without which its index cannot be used, by how they begin.
pub const ANNOTATIONS: [&str; 3] =
    ["containerd.io/snapshot/stargz/", "io.containers.estargz.", "io.github.containers.zstd-chunked."];

/// Those of a descriptor's annotations that belong to the index of its blob.
pub fn index_annotations(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = |name: &str| ANNOTATIONS.iter().any(|prefix| name.starts_with(prefix));
    let found = annotations.iter().filter(|(name, _)| ours(name));
    found.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether a descriptor's annotations say where the index of a zstd:chunked blob is.
pub fn is_zstd_chunked(annotations: &BTreeMap<String, String>) -> bool {
    annotations.contains_key(chunked::CHECKSUM) && annotations.contains_key(chunked::POSITION)
}

/// Why a blob has no index although its codec has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unindexed {
    /// A name, a link's target or an attribute's name that is not UTF-8: the index is JSON.
    #[error("`{path}` has a name that is not UTF-8")]
    NotUtf8 {
        /// The member.
        path: String,
    },
    /// Two members of the same name: readers of the index would mix them up.
    #[error("`{path}` is in it twice")]
    Twice {
        /// The member.
        path: String,
    },
    /// A name that the form has for itself.
    #[error("`{path}` is a name that the index needs")]
    Reserved {
        /// The member.
        path: String,
    },
    /// A hard link to nothing in the same layer.
    #[error("`{path}` is a hard link to `{target}`, which is no earlier file of the layer")]
    LinkTarget {
        /// The link.
        path: String,
        /// What it names.
        target: String,
    },
    /// A time before year 0 or after year 9999.
    #[error("`{path}` has a time that cannot be written as a date")]
    Time {
        /// The member.
        path: String,
    },
    /// An archive that readers do not agree on, or that is damaged.
    #[error("{why}")]
    Unclear {
        /// What about it.
        why: String,
    },
}

/// What a blob with an index was made into.
pub(crate) struct Finished<W> {
    /// Where the blob went.
    pub(crate) out: W,
    /// What follows the tar in the uncompressed stream, and is part of its diff id.
    pub(crate) behind: Vec<u8>,
    /// For the descriptor.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Why there is no index.
    pub(crate) unindexed: Option<Unindexed>,
}

/// A piece of a file's contents, in the blob.
#[derive(Clone, Debug)]
struct Chunk {
    /// Where its member or frame begins in the blob.
    offset: u64,
    /// Where that ends.
    end: u64,
    /// Where the piece begins in the file.
    file_offset: u64,
    /// Its length.
    size: u64,
    digest: Digest,
    zeros: bool,
}

/// A member of the archive, for the index.
struct Indexed {
    member: Box<Member>,
    /// In the order of the file; all of them once the file was written.
    chunks: Vec<Chunk>,
    /// Digest and CRC-64 of the contents; none where there are none.
    sums: Option<(Digest, u64)>,
}
