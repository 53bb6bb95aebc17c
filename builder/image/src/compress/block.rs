//! One block, compressed on its own.

use zlib_rs::{Deflate, DeflateFlush, Status};

use super::{Codec, cut::Sizes};

/// A block's share of a blob.
pub(super) struct Compressed {
    pub(super) bytes: Vec<u8>,
    /// CRC-32 of the plain block, for gzip's trailer.
    pub(super) crc: crc32fast::Hasher,
}

impl Codec {
    pub(super) fn sizes(self) -> Sizes {
        match self {
            // A larger block loses less at its start, where the window is empty; a smaller one costs less after an edit.
            // Measured on 300 MB of /usr: half a percent more bytes than with the window primed from the block before.
            Codec::Uncompressed | Codec::Gzip { .. } => Sizes { least: 256 << 10, most: 1 << 20, bits: 17 },
            // The same, one percent; blocks of gzip's size would cost twelve.
            Codec::Zstd { .. } => Sizes { least: 2 << 20, most: 8 << 20, bits: 21 },
        }
    }

    /// How many blocks are in memory at once: enough that no thread waits for a slow block at the front.
    pub(super) fn blocks_in_flight(self, threads: usize) -> usize {
        match self {
            Codec::Uncompressed | Codec::Gzip { .. } => 2 * threads + 2,
            Codec::Zstd { .. } => threads + 2,
        }
    }

    /// Compresses a block. Depends on nothing but the codec and the block.
    pub(super) fn block(self, plain: &[u8]) -> Compressed {
        let mut crc = crc32fast::Hasher::new();
        let bytes = match self {
            Codec::Uncompressed => plain.to_vec(),
            Codec::Gzip { level } => {
                crc.update(plain);
                deflate(plain, level)
            }
            Codec::Zstd { level } => {
                let level = i32::try_from(level).expect("a level was checked to be at most 22");
                zstd::bulk::compress(plain, level).expect("zstd compresses any bytes where memory is left")
            }
        };
        Compressed { bytes, crc }
    }
}

/// Deflate blocks (RFC 1951) that end at a byte's border and are not marked as the last; stored ones where the block
/// does not shrink.
fn deflate(plain: &[u8], level: u32) -> Vec<u8> {
    if level > 0 {
        // Made anew for each block, so that no state of an earlier one can reach the bytes.
        let level = i32::try_from(level).expect("a level was checked to be at most 9");
        let mut state = Deflate::new(level, false, 15);
        let mut bytes = vec![0; stored_size(plain.len())];
        let status = state.compress(plain, &mut bytes, DeflateFlush::SyncFlush);
        let used = usize::try_from(state.total_out()).expect("no more than the buffer");
        let whole = status == Ok(Status::Ok) && state.total_in() == plain.len() as u64;
        // A full buffer may lack the end of the flush.
        if whole && used < bytes.len() {
            bytes.truncate(used);
            return bytes;
        }
    }
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
    fn every_length_survives() {
        for length in [1, 2, 100, 65_535, 65_536, 300_000] {
            let plain: Vec<u8> = (0..length).map(|at: u32| (at / 7 % 251) as u8).collect();
            for level in [0, 1, 6, 9] {
                assert_eq!(inflate(&deflate(&plain, level)), plain, "{length} at {level}");
            }
        }
    }
}
