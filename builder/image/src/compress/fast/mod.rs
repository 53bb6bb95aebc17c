//! Deflate in half of the time that `libdeflate` takes at its lowest level, for bytes of which little came before.
//!
//! Where most bytes are literals, as in numbers, digests and base64, a search for matches finds little and takes most of
//! the time. So this one looks for little: at every other byte only, at one place for each hash, and not for matches of less than
//! five bytes, which are as long as the literals they stand for. What it remembers fits into the first cache of a
//! core beside the window. On such bytes its streams are also smaller than those of level 1; on programs and sources,
//! where matches are most of it, they are larger, and the library is asked. Which of the two it is, the first bytes tell
//! ([`Begun::beginning`]): nothing is done twice where this encoder goes on.
//!
//! A stream ends at a byte's border and is not marked as the last, so that another one can follow.
//!
//! | file        | what                                                       |
//! |-------------|------------------------------------------------------------|
//! | `search.rs` | bytes to literals and matches, with the counts of all symbols |
//! | `code.rs`   | counts to the lengths of codes, lengths to codes               |
//! | `head.rs`   | the head of a block, which says the lengths of its codes          |
//! | `bits.rs`   | bits on their way into bytes                               |
//! | `write.rs`  | literals and matches to bits                                  |
//!
//! Frozen: bytes follow from the plain bytes alone. There are no floating point numbers in it, and nothing asks for the CPU.
//!
//! # Source
//! RFC 1951.

mod bits;
mod code;
mod head;
mod search;
mod write;

use bits::Bits;
use search::{Found, Table};

/// How many bytes are looked at before it is decided who compresses.
pub(super) const SAMPLE: usize = 16 << 10;

/// So many bytes have codes of their own. The last block of a stream may be half as long again.
const BLOCK: usize = 64 << 10;

/// Encodes one stream after the other; what it keeps from one to the next is memory.
pub(super) struct Fast {
    table: Box<Table>,
    found: Found,
}

/// A stream of which the first [`SAMPLE`] bytes were searched.
pub(super) struct Begun<'a> {
    plain: &'a [u8],
    /// What was searched.
    searched: usize,
    table: &'a mut Table,
    found: &'a mut Found,
}

/// What the first bytes of a stream are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    /// How many there are.
    pub(super) bytes: usize,
    /// How many of them came before.
    pub(super) matched: usize,
    /// How many values the others have.
    pub(super) values: usize,
}

impl Fast {
    pub(super) fn new() -> Fast {
        Fast { table: search::table(), found: Found::new() }
    }

    pub(super) fn begin<'a>(&'a mut self, plain: &'a [u8]) -> Begun<'a> {
        let Fast { table, found } = self;
        table.fill(0);
        found.clear();
        let searched = search::search(plain, 0..SAMPLE.min(plain.len()), table, found);
        Begun { plain, searched, table, found }
    }
}

impl Begun<'_> {
    pub(super) fn beginning(&self) -> Beginning {
        Beginning { bytes: self.searched, matched: self.found.matched(), values: self.found.values() }
    }

    /// Compresses all of the plain bytes. The length of the stream; `None` where it is longer than `room`. The last eight bytes of
    /// `room` cannot be used.
    pub(super) fn finish(self, room: &mut [u8]) -> Option<usize> {
        let Begun { plain, mut searched, table, found } = self;
        let mut bits = Bits::new(room);
        let mut start = 0;
        while start < plain.len() {
            let left = plain.len() - start;
            let end = if left < BLOCK + BLOCK / 2 { plain.len() } else { start + BLOCK };
            searched = search::search(plain, searched..end.max(searched), table, found);
            write::block(&plain[start..searched], found, &mut bits);
            found.clear();
            start = searched;
        }
        bits.end()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn deflated(plain: &[u8]) -> Vec<u8> {
        let mut room = vec![0; plain.len() * 2 + 1000];
        let mut fast = Fast::new();
        // What it kept must not be seen.
        fast.begin(&b"something else ".repeat(100)).finish(&mut room);
        let length = fast.begin(plain).finish(&mut room).expect("room enough");
        room.truncate(length);
        let mut other = vec![1; length + 8];
        assert_eq!(Fast::new().begin(plain).finish(&mut other), Some(length));
        assert!(other[..length] == room, "the same from an encoder that was not used before");
        room
    }

    /// Both readers take it, twice in a row.
    fn check(plain: &[u8]) -> Vec<u8> {
        let stream = deflated(plain);
        let twice = [&stream[..], &stream, &[3, 0]].concat();
        let mut found = Vec::new();
        flate2::read::DeflateDecoder::new(&twice[..]).read_to_end(&mut found).expect("zlib-rs reads it");
        assert!(found == plain.repeat(2), "zlib-rs reads something else");
        let mut found = vec![0; plain.len() * 2];
        let length = libdeflater::Decompressor::new().deflate_decompress(&twice, &mut found);
        assert_eq!(length, Ok(plain.len() * 2));
        assert!(found == plain.repeat(2), "libdeflate reads something else");
        stream
    }

    fn numbers(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 32
        };
        let words = ["import", "digest", "layer", "fn", ";", "return"];
        let mut plain = Vec::new();
        while plain.len() < length {
            let word = words[next() as usize % words.len()];
            plain.extend(format!("{word}{:08x} ", next()).bytes());
        }
        plain.truncate(length);
        plain
    }

    #[test]
    fn any_length_around_the_borders() {
        let plain = numbers(300_000);
        let borders = [0, SAMPLE, BLOCK, BLOCK + BLOCK / 2];
        for border in borders {
            for length in border.saturating_sub(9)..border + 9 {
                check(&plain[..length]);
            }
        }
        check(&plain);
    }

    #[test]
    fn long_matches_and_far_ones() {
        let noise: Vec<u8> = numbers(100_000).chunks(2).map(|two| two[0].wrapping_mul(31) ^ two[1]).collect();
        check(&vec![0; 300_000]);
        check(&b"ab".repeat(70_000));
        for length in [1, 4, 5, 6, 255, 258, 259, 1000, 32_766, 32_768, 32_769, 40_000] {
            check(&noise[..length].repeat(200_000 / length));
        }
    }

    #[test]
    fn numbers_become_smaller_than_by_the_library() {
        let plain = numbers(320 << 10);
        let mut room = vec![0; plain.len()];
        let mut library = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(1).expect("a level"));
        let theirs = library.deflate_compress(&plain, &mut room).expect("room enough");
        let ours = check(&plain).len();
        assert!(ours < theirs, "{ours} and {theirs}");
    }

    #[test]
    fn where_there_is_no_room_nothing_is_said_to_be_written() {
        let plain = numbers(100_000);
        let length = deflated(&plain).len();
        for room in [0, 7, 8, 9, 1000, length - 1, length, length + 7] {
            assert_eq!(Fast::new().begin(&plain).finish(&mut vec![0; room]), None, "{room} bytes");
        }
        assert_eq!(Fast::new().begin(&plain).finish(&mut vec![0; length + 8]), Some(length));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            pieces in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..400), 1u8..=255, 1usize..300), 1..8,
            ),
        ) {
            let piece = |(bytes, values, times): &(Vec<u8>, u8, usize)| -> Vec<u8> {
                bytes.iter().map(|byte| byte % values).collect::<Vec<u8>>().repeat(*times)
            };
            check(&pieces.iter().flat_map(piece).collect::<Vec<u8>>());
        }
    }
}
