//! One block, compressed on its own.

use std::{cell::RefCell, collections::BTreeMap};

use libdeflater::{CompressionLvl, Compressor};

use super::{
    Codec,
    cut::Sizes,
    ends::{Last, last_block},
    fast::{Beginning, Fast, SAMPLE},
    segment::{Run, runs},
};

impl Codec {
    pub(super) fn sizes(self) -> Sizes {
        match self {
            // A larger block loses less at its start, where the window is empty; a smaller one is found again in other
            // company. Measured on tars of texts and of /usr: two in a thousand more bytes than at twice the size.
            Codec::Uncompressed | Codec::Gzip { .. } | Codec::EStargz { .. } => {
                Sizes { least: 128 << 10, most: 512 << 10, bits: 16 }
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
            Codec::Uncompressed | Codec::Gzip { .. } | Codec::EStargz { .. } => 4 * threads + 4,
            Codec::Zstd { .. } | Codec::ZstdChunked { .. } => threads + 2,
        }
    }

    /// Compresses a block. Depends on nothing but the codec and the block.
    pub(crate) fn block(self, plain: &[u8]) -> Vec<u8> {
        match self {
            Codec::Gzip { level } | Codec::EStargz { level } => deflate(plain, level, &self.runs(plain)),
            other => other.frame(plain),
        }
    }

    /// What of a block is stored as it is; for zstd nothing, as that finds out by itself.
    pub(super) fn runs(self, plain: &[u8]) -> Vec<Run> {
        let whole = |stored| vec![Run { bytes: 0..plain.len(), stored }];
        match self {
            Codec::Uncompressed | Codec::Gzip { level: Some(0) } | Codec::EStargz { level: Some(0) } => {
                whole(true)
            }
            Codec::Gzip { .. } | Codec::EStargz { .. } => runs(plain),
            Codec::Zstd { .. } | Codec::ZstdChunked { .. } => whole(false),
        }
    }

    /// Compresses a block of which it is known what to store.
    pub(super) fn block_by(self, plain: &[u8], runs: &[Run]) -> Vec<u8> {
        match self {
            Codec::Gzip { level } | Codec::EStargz { level } => deflate(plain, level, runs),
            other => other.frame(plain),
        }
    }

    fn frame(self, plain: &[u8]) -> Vec<u8> {
        match self {
            Codec::Zstd { level } | Codec::ZstdChunked { level } => {
                let level = i32::try_from(level).expect("a level was checked to be at most 22");
                zstd::bulk::compress(plain, level).expect("zstd compresses any bytes where memory is left")
            }
            _ => plain.to_vec(),
        }
    }
}

/// RFC 1952 § 2.3: deflate, no name, no time, system unknown.
pub(super) const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// An empty last block of deflate, with fixed codes.
pub(super) const DEFLATE_END: [u8; 2] = [3, 0];

/// A whole gzip member (RFC 1952). Depends on nothing but the level and the bytes.
pub(crate) fn gzip_member(plain: &[u8], level: Option<u32>) -> Vec<u8> {
    let mut member = GZIP_HEADER.to_vec();
    let end = compressed(plain, level, &mut member);
    if end.is_none() {
        stored(plain, &mut member);
    }
    if end != Some(End::Marked) {
        member.extend(DEFLATE_END);
    }
    member.extend(crc32fast::hash(plain).to_le_bytes());
    member.extend((plain.len() as u32).to_le_bytes());
    member
}

/// Deflate blocks (RFC 1951) that end at a byte's border and are not marked as the last.
fn deflate(plain: &[u8], level: Option<u32>, runs: &[Run]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for run in runs {
        let plain = &plain[run.bytes.clone()];
        let start = bytes.len();
        let end = if run.stored { None } else { compressed(plain, level, &mut bytes) };
        let can_go_on = match end {
            None => false,
            Some(End::Open) => true,
            Some(End::Marked) => go_on(&mut bytes, start),
        };
        let shrunk = can_go_on && bytes.len() - start < stored_size(plain.len());
        if !shrunk {
            bytes.truncate(start);
            stored(plain, &mut bytes);
        }
    }
    bytes
}

/// How a deflate stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its last block is marked as the last of all.
    Marked,
    /// At a byte's border, and another one can follow.
    Open,
}

/// Appends a deflate stream, unless stored blocks would not be longer; then what was appended is of no use.
fn compressed(plain: &[u8], level: Option<u32>, bytes: &mut Vec<u8>) -> Option<End> {
    if level == Some(0) {
        return None;
    }
    let start = bytes.len();
    let room = stored_size(plain.len());
    // Eight bytes more, as those are written at once.
    bytes.resize(start + room + 8, 0);
    let to = &mut bytes[start..];
    let (used, end) = ENCODERS.with_borrow_mut(|encoders| {
        let level = match level {
            Some(level) => level,
            None => {
                let begun = encoders.fast.begin(plain);
                if suits_fast(begun.beginning()) {
                    return (begun.finish(to), End::Open);
                }
                THOROUGH
            }
        };
        (encoders.library(level).deflate_compress(plain, &mut to[..room]).ok(), End::Marked)
    });
    bytes.truncate(start + used.unwrap_or(0));
    used.map(|_| end)
}

/// The library's level for what gains much by a search for better matches.
const THOROUGH: u32 = 5;

/// Whether the encoder that finds few matches suits some bytes, of which this is the beginning: less than half of it came
/// before, and no more than half of all values are among the rest. So it is with digits, words of digits and base64. Programs use all values, and
/// have matches that it does not see, or has not come to yet: those become a sixth larger by it (decision 0027).
fn suits_fast(Beginning { bytes, matched, values }: Beginning) -> bool {
    bytes >= SAMPLE && matched * 2 < bytes && values <= 128
}

/// What a thread compresses with. Each keeps its own: they are large, and keep nothing from one stream to the next.
struct Encoders {
    fast: Fast,
    by_level: BTreeMap<u32, Compressor>,
}

thread_local! {
    static ENCODERS: RefCell<Encoders> =
        RefCell::new(Encoders { fast: Fast::new(), by_level: BTreeMap::new() });
}

impl Encoders {
    fn library(&mut self, level: u32) -> &mut Compressor {
        self.by_level.entry(level).or_insert_with(|| {
            let checked = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
            Compressor::new(checked.expect("a level was checked to be at most 9"))
        })
    }
}

/// Takes the mark off the last block of the stream that begins at `start`, and fills it up to a byte's border with an
/// empty stored block, so that another stream can follow. Whether it could be understood.
fn go_on(bytes: &mut Vec<u8>, start: usize) -> bool {
    let Some(Last { mark, end }) = last_block(&bytes[start..]) else { return false };
    if start + end.div_ceil(8) != bytes.len() {
        return false;
    }
    bytes[start + mark / 8] &= !(1 << (mark % 8));
    if !end.is_multiple_of(8) {
        // Its header is three bits of zero: what is left of the last byte, if that is enough.
        if end % 8 > 5 {
            bytes.push(0);
        }
        bytes.extend([0, 0, 0xff, 0xff]);
    }
    true
}

/// Stored blocks, none of them marked as the last.
fn stored(plain: &[u8], bytes: &mut Vec<u8>) {
    bytes.reserve(stored_size(plain.len()));
    for piece in plain.chunks(usize::from(u16::MAX)) {
        let length = u16::try_from(piece.len()).expect("a piece is no longer");
        bytes.push(0);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
}

fn stored_size(length: usize) -> usize {
    length + 5 * length.div_ceil(usize::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::{super::ends::last_block_by_walking, *};

    fn inflate(deflated: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let ended = [deflated, &DEFLATE_END].concat();
        flate2::read::DeflateDecoder::new(&ended[..]).read_to_end(&mut plain).expect("valid deflate");
        plain
    }

    fn gzip(level: u32) -> Codec {
        Codec::Gzip { level: Some(level) }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn blocks_that_do_not_shrink_are_stored() {
        // Too short for a sample, and long enough.
        for length in [1, 20_000, 200_000] {
            let noise = noise(length);
            for level in 0..=9 {
                let bytes = gzip(level).block(&noise);
                assert!(bytes.len() <= stored_size(length), "{length} bytes, level {level}");
                assert_eq!(inflate(&bytes), noise, "{length} bytes, level {level}");
            }
        }
        let noise = noise(200_000);
        assert_eq!(gzip(6).block(&noise), gzip(0).block(&noise));
    }

    #[test]
    fn what_is_stored_costs_the_rest_nothing() {
        let noise = noise(128 << 10);
        let text: Vec<u8> = noise.iter().map(|byte| b"etaoin shrdlu\nKM"[usize::from(byte % 16)]).collect();
        let (alone, mixed) = (gzip(6).block(&text), [&noise[..], &text, &noise].concat());
        let bytes = gzip(6).block(&mixed);
        assert_eq!(bytes.len(), alone.len() + 2 * stored_size(noise.len()));
        assert_eq!(inflate(&bytes), mixed);
    }

    #[test]
    fn what_compresses_well_is_compressed_thoroughly() {
        let text: Vec<u8> =
            noise(100_000).iter().map(|byte| b"etaoin shrdlu\nKM"[usize::from(byte % 16)]).collect();
        let source = b"    let value = compute(input)?;\n    check(&value)?;\n".repeat(2000);
        let suits = |plain: &[u8]| suits_fast(Fast::new().begin(plain).beginning());
        assert!(suits(&text));
        assert!(Codec::GZIP.block(&text).len() < text.len() * 11 / 20, "four bits a byte, and few codes");
        // As in programs: hardly a match of five bytes, and most values.
        let program: Vec<u8> = noise(100_000).iter().map(|byte| byte.saturating_sub(100)).collect();
        for plain in [&source, &program, &text[..10_000], b""] {
            assert!(!suits(plain));
            assert_eq!(Codec::GZIP.block(plain), gzip(5).block(plain));
        }
        let beginning = Beginning { bytes: SAMPLE, matched: SAMPLE / 2 - 1, values: 128 };
        assert!(suits_fast(beginning));
        for other in [
            Beginning { bytes: SAMPLE - 1, ..beginning },
            Beginning { matched: SAMPLE / 2, ..beginning },
            Beginning { values: 129, ..beginning },
        ] {
            assert!(!suits_fast(other), "{other:?}");
        }
    }

    #[test]
    fn members_are_whole() {
        for length in [0, 1, 100, 65_536, 300_000] {
            let plain: Vec<u8> = (0..length).map(|at: u32| (at / 7 % 251) as u8).collect();
            for level in [Some(0), Some(1), Some(6), Some(9), None] {
                let member = gzip_member(&plain, level);
                let mut found = Vec::new();
                flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut found).expect("gzip");
                assert_eq!(found, plain, "{length} at {level:?}");
            }
        }
    }

    #[test]
    fn every_length_survives() {
        for length in [0, 1, 2, 100, 65_535, 65_536, 300_000] {
            let plain: Vec<u8> = (0..length).map(|at: u32| (at / 7 % 251) as u8).collect();
            for level in [0, 1, 6, 9] {
                assert_eq!(inflate(&gzip(level).block(&plain)), plain, "{length} at {level}");
            }
        }
    }

    proptest! {
        #[test]
        fn streams_follow_each_other(
            pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), 1usize..400, proptest::option::of(1u32..10)), 1..6),
        ) {
            let (mut bytes, mut all) = (Vec::new(), Vec::new());
            for (piece, times, level) in pieces {
                let plain = piece.repeat(times);
                bytes.extend(Codec::Gzip { level }.block(&plain));
                all.extend(plain);
            }
            prop_assert!(inflate(&bytes) == all);
        }

        #[test]
        fn the_last_block_of_any_stream_is_found(
            plain in proptest::collection::vec(0u8..20, 0..3000), times in 1usize..60, level in 1u32..10, by_zlib in any::<bool>(),
        ) {
            let plain = plain.repeat(times);
            let mut stream = Vec::new();
            if by_zlib {
                let level = flate2::Compression::new(level);
                flate2::read::DeflateEncoder::new(&plain[..], level).read_to_end(&mut stream).expect("deflated");
            } else if compressed(&plain, Some(level), &mut stream).is_none() {
                return Ok(());
            }
            prop_assert!(go_on(&mut stream, 0));
            prop_assert!(inflate(&stream) == plain);
        }

        #[test]
        fn the_end_is_where_a_walk_ends(
            plain in proptest::collection::vec(any::<u8>(), 0..2000), values in 1u8..=255, times in 1usize..200, level in 1u32..10,
        ) {
            // From one value to all of them: codes of any length, and blocks of any kind.
            let plain: Vec<u8> = plain.iter().map(|byte| byte % values).collect::<Vec<u8>>().repeat(times);
            let mut stream = Vec::new();
            if compressed(&plain, Some(level), &mut stream).is_some() {
                prop_assert_eq!(last_block(&stream), last_block_by_walking(&stream));
            }
        }

        #[test]
        fn no_bytes_make_the_search_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = last_block(&bytes);
            let _ = last_block_by_walking(&bytes);
        }
    }
}
