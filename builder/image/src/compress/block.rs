//! One block, compressed on its own.

use zlib_rs::{Deflate, DeflateFlush, Status};

use super::{Codec, cut::Sizes};

/// A block's share of a blob.
pub(crate) struct Compressed {
    pub(crate) bytes: Vec<u8>,
    /// CRC-32 of the plain block, for gzip's trailer.
    pub(super) crc: crc32fast::Hasher,
}

impl Codec {
    pub(super) fn sizes(self) -> Sizes {
        match self {
            // A larger block loses less at its start, where the window is empty; a smaller one costs less after an edit.
            // Measured on 300 MB of /usr: half a percent more bytes than with the window primed from the block before.
            Codec::Uncompressed | Codec::Gzip { .. } | Codec::EStargz { .. } => {
                Sizes { least: 256 << 10, most: 1 << 20, bits: 17 }
            }
            // The same, one percent; blocks of gzip's size would cost twelve.
            Codec::Zstd { .. } | Codec::ZstdChunked { .. } => {
                Sizes { least: 2 << 20, most: 8 << 20, bits: 21 }
            }
        }
    }

    /// How many blocks are in memory at once: enough that no thread waits for a slow block at the front.
    pub(super) fn blocks_in_flight(self, threads: usize) -> usize {
        match self {
            Codec::Uncompressed | Codec::Gzip { .. } | Codec::EStargz { .. } => 2 * threads + 2,
            Codec::Zstd { .. } | Codec::ZstdChunked { .. } => threads + 2,
        }
    }

    /// Compresses a block. Depends on nothing but the codec and the block.
    pub(crate) fn block(self, plain: &[u8]) -> Compressed {
        let mut crc = crc32fast::Hasher::new();
        let bytes = match self {
            Codec::Uncompressed => plain.to_vec(),
            Codec::Gzip { level } | Codec::EStargz { level } => {
                crc.update(plain);
                deflate(plain, level)
            }
            Codec::Zstd { level } | Codec::ZstdChunked { level } => {
                let level = i32::try_from(level).expect("a level was checked to be at most 22");
                zstd::bulk::compress(plain, level).expect("zstd compresses any bytes where memory is left")
            }
        };
        Compressed { bytes, crc }
    }
}

/// RFC 1952 § 2.3: deflate, no name, no time, system unknown.
pub(super) const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// An empty last block of deflate, with fixed codes.
pub(super) const DEFLATE_END: [u8; 2] = [3, 0];

/// A whole gzip member (RFC 1952). Depends on nothing but the level and the bytes.
pub(crate) fn gzip_member(plain: &[u8], level: u32) -> Vec<u8> {
    let mut member = GZIP_HEADER.to_vec();
    match compressed(plain, level, DeflateFlush::Finish) {
        Some(bytes) => member.extend(bytes),
        None => {
            member.extend(stored(plain));
            member.extend(DEFLATE_END);
        }
    }
    member.extend(crc32fast::hash(plain).to_le_bytes());
    member.extend((plain.len() as u32).to_le_bytes());
    member
}

/// Deflate blocks (RFC 1951) that end at a byte's border and are not marked as the last; stored ones where the block
/// does not shrink.
fn deflate(plain: &[u8], level: u32) -> Vec<u8> {
    compressed(plain, level, DeflateFlush::SyncFlush).unwrap_or_else(|| stored(plain))
}

/// Deflated bytes; nothing where stored blocks are not longer.
fn compressed(plain: &[u8], level: u32, end: DeflateFlush) -> Option<Vec<u8>> {
    if level == 0 {
        return None;
    }
    // Made anew for each block, so that no state of an earlier one can reach the bytes.
    let level = i32::try_from(level).expect("a level was checked to be at most 9");
    let mut state = Deflate::new(level, false, 15);
    let mut bytes = vec![0; stored_size(plain.len())];
    let status = state.compress(plain, &mut bytes, end);
    let used = usize::try_from(state.total_out()).expect("no more than the buffer");
    let ended = if end == DeflateFlush::Finish { Status::StreamEnd } else { Status::Ok };
    let whole = status == Ok(ended) && state.total_in() == plain.len() as u64;
    // A full buffer may lack the end of the flush.
    (whole && used < bytes.len()).then(|| {
        bytes.truncate(used);
        bytes
    })
}

/// Stored blocks, none of them marked as the last.
fn stored(plain: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(stored_size(plain.len()));
    for piece in plain.chunks(usize::from(u16::MAX)) {
        let length = u16::try_from(piece.len()).expect("a piece is no longer");
        bytes.push(0);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

fn stored_size(length: usize) -> usize {
    length + 5 * length.div_ceil(usize::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn inflate(deflated: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let ended = [deflated, &[3, 0]].concat();
        flate2::read::DeflateDecoder::new(&ended[..]).read_to_end(&mut plain).expect("valid deflate");
        plain
    }

    #[test]
    fn blocks_that_do_not_shrink_are_stored() {
        let mut noise = vec![0u8; 200_000];
        let mut state = 7u64;
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 33) as u8;
        }
        for level in 0..=9 {
            let bytes = deflate(&noise, level);
            assert!(bytes.len() <= stored_size(noise.len()), "level {level}");
            assert_eq!(inflate(&bytes), noise, "level {level}");
        }
        assert_eq!(deflate(&noise, 6), deflate(&noise, 0));
    }

    #[test]
    fn members_are_whole() {
        for length in [0, 1, 100, 65_536, 300_000] {
            let plain: Vec<u8> = (0..length).map(|at: u32| (at / 7 % 251) as u8).collect();
            for level in [0, 1, 6, 9] {
                let member = gzip_member(&plain, level);
                let mut found = Vec::new();
                flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut found).expect("gzip");
                assert_eq!(found, plain, "{length} at {level}");
            }
        }
    }

    #[test]
    fn every_length_survives() {
        for length in [1, 2, 100, 65_535, 65_536, 300_000] {
            let plain: Vec<u8> = (0..length).map(|at: u32| (at / 7 % 251) as u8).collect();
            for level in [0, 1, 6, 9] {
                assert_eq!(inflate(&deflate(&plain, level)), plain, "{length} at {level}");
            }
        }
    }
}
