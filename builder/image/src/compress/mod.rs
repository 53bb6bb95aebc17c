//! The frozen encoders: the same plain bytes give the same blob, with any number of threads, for ever.
//!
//! The plain stream is cut by its content ([`cut`]) into blocks that are compressed each on its own, without a
//! dictionary from the block before, and joined in order. So a block's result depends on nothing but the encoder and the
//! block: blocks are compressed in parallel, and one that was compressed before, in this blob or in an earlier one, is
//! not compressed again ([`known`]). An edit costs what changed.
//!
//! | Codec | blocks                  | a block becomes                                             | joined into |
//! |-------|-------------------------|-------------------------------------------------------------|-------------|
//! | gzip  | 128 KiB to 512 KiB      | deflate, filled up to a byte; stored where it is noise ([`segment`]) or that is shorter | one member, RFC 1952, no name, mtime 0, OS 255 |
//! | zstd  | 2 MiB to 8 MiB          | one frame that names its size, without a checksum            | frames in a row, RFC 8878 |
//!
//! One gzip member, as some readers stop at the end of the first. A window of zstd never exceeds 8 MiB, which is what
//! every decoder must take.
//!
//! The two codecs with an index, estargz and zstd:chunked, are cut at files instead: see [`crate::seekable`].

mod block;
mod codes;
mod cut;
mod ends;
mod fast;
mod known;
mod segment;
mod writer;

use std::{fmt, sync::Arc};

use oci::media_type::Compression;
use serde::{Deserialize, Serialize};

pub(crate) use block::gzip_member;
pub(crate) use cut::{Cutter, Sizes};
pub use known::{Blocks, Earlier};
pub use writer::CompressWriter;
pub(crate) use writer::wait;

/// Raised with every change of what the tar writer or an encoder makes of the same input: of their code, of the pinned
/// versions of `libdeflater` and `zstd`, of the sizes of blocks. `tests/vectors.txt` notices such a change.
pub const ENCODER_VERSION: u32 = 4;

/// How a layer is compressed. Part of the name of a blob beside its diff id, epoch and [`ENCODER_VERSION`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// The tar as it is.
    Uncompressed,
    /// gzip.
    Gzip {
        /// 0, which stores, to 9, as `libdeflate` has them; none for what suits each block ([`block`]).
        level: Option<u32>,
    },
    /// zstd.
    Zstd {
        /// 1 to 22.
        level: u32,
    },
    /// gzip with a member for each file, and an index of them.
    EStargz {
        /// As of gzip.
        level: Option<u32>,
    },
    /// zstd with a frame for each file, and an index of them.
    #[serde(rename = "zstd:chunked")]
    ZstdChunked {
        /// As of zstd.
        level: u32,
    },
}

/// A codec, and where blocks may be found that it has compressed before. The blob's bytes are those of the codec alone.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// How a layer is compressed.
    pub codec: Codec,
    /// Blobs that it has made, perhaps.
    pub earlier: Arc<Earlier>,
}

impl From<Codec> for Encoder {
    fn from(codec: Codec) -> Encoder {
        Encoder { codec, earlier: Arc::default() }
    }
}

/// A level that a codec does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} has no level {level}: {lowest} is the lowest, {highest} the highest", codec.name())]
pub struct BadLevel {
    /// What was asked for.
    pub codec: Codec,
    /// At which level.
    pub level: u32,
    /// The lowest there is.
    pub lowest: u32,
    /// The highest there is.
    pub highest: u32,
}

impl Codec {
    /// gzip at what suits each block: about as small as everybody else's level 6.
    pub const GZIP: Codec = Codec::Gzip { level: None };

    /// zstd at its own default.
    pub const ZSTD: Codec = Codec::Zstd { level: 3 };

    /// estargz as gzip.
    pub const ESTARGZ: Codec = Codec::EStargz { level: None };

    /// zstd:chunked at zstd's level.
    pub const ZSTD_CHUNKED: Codec = Codec::ZstdChunked { level: 3 };

    /// What a media type says of it.
    pub fn compression(self) -> Compression {
        match self {
            Codec::Uncompressed => Compression::Uncompressed,
            Codec::Gzip { .. } | Codec::EStargz { .. } => Compression::Gzip,
            Codec::Zstd { .. } | Codec::ZstdChunked { .. } => Compression::Zstd,
        }
    }

    /// What users call it: the value of the key `compression`.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Uncompressed => "uncompressed",
            Codec::Gzip { .. } => "gzip",
            Codec::Zstd { .. } => "zstd",
            Codec::EStargz { .. } => "estargz",
            Codec::ZstdChunked { .. } => "zstd:chunked",
        }
    }

    /// Whether its blobs hold a CRC-32 of the plain bytes.
    fn has_crc(self) -> bool {
        self.compression() == Compression::Gzip
    }

    /// The codec itself, when its level exists.
    ///
    /// # Errors
    /// [`BadLevel`].
    pub fn check(self) -> Result<Codec, BadLevel> {
        let (level, lowest, highest) = match self {
            Codec::Uncompressed | Codec::Gzip { level: None } | Codec::EStargz { level: None } => {
                return Ok(self);
            }
            Codec::Gzip { level: Some(level) } | Codec::EStargz { level: Some(level) } => (level, 0, 9),
            Codec::Zstd { level } | Codec::ZstdChunked { level } => (level, 1, 22),
        };
        let valid = (lowest..=highest).contains(&level);
        valid.then_some(self).ok_or(BadLevel { codec: self, level, lowest, highest })
    }
}

impl fmt::Display for Codec {
    /// `uncompressed`, `gzip`, `gzip-6`, `zstd-3`, `estargz`, `zstd:chunked-3`: stable, for keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match *self {
            Codec::Uncompressed => None,
            Codec::Gzip { level } | Codec::EStargz { level } => level,
            Codec::Zstd { level } | Codec::ZstdChunked { level } => Some(level),
        };
        f.write_str(self.name())?;
        level.map_or(Ok(()), |level| write!(f, "-{level}"))
    }
}
