//! Which bytes stood shortly before: a search that is quick and finds less than others.

use std::ops::Range;

/// How far back a match may be.
const WINDOW: u16 = 32 << 10;
/// The fewest bytes that are worth a match: as many as are hashed.
const SHORTEST: u32 = 5;
/// What one match can stand for.
const LONGEST: usize = 258;
/// A position for each hash: 32 KiB of them, so that most of the window is in the first cache too.
const SLOTS: u32 = 14;

/// Where bytes of each hash stood last: the low 16 bits of the place.
pub(super) type Table = [u16; 1 << SLOTS];

pub(super) fn table() -> Box<Table> {
    Box::new([0; 1 << SLOTS])
}

/// Some bytes as they are, and a match behind them.
#[derive(Clone, Copy)]
pub(super) struct Sequence {
    pub(super) literals: u32,
    /// 0 where there is no match.
    pub(super) length: u16,
    pub(super) distance: u16,
}

/// What some bytes are made of.
pub(super) struct Found {
    pub(super) sequences: Vec<Sequence>,
    /// How often each byte stands for itself.
    pub(super) literals: [u32; 256],
    /// How often each symbol for a length is needed.
    pub(super) lengths: [u32; 32],
    /// And for a distance.
    pub(super) distances: [u32; 32],
}

impl Found {
    pub(super) fn new() -> Found {
        Found { sequences: Vec::new(), literals: [0; 256], lengths: [0; 32], distances: [0; 32] }
    }

    pub(super) fn clear(&mut self) {
        self.sequences.clear();
        (self.literals, self.lengths, self.distances) = ([0; 256], [0; 32], [0; 32]);
    }

    /// How many bytes are in matches.
    pub(super) fn matched(&self) -> usize {
        self.sequences.iter().map(|sequence| usize::from(sequence.length)).sum()
    }

    /// How many values the bytes have that stand for themselves.
    pub(super) fn values(&self) -> usize {
        self.literals.iter().filter(|times| **times > 0).count()
    }
}

/// The shortest length of each symbol behind 257, and how many bits follow it.
pub(super) const LENGTHS: [(u16, u8); 29] = {
    let mut lengths = [(258, 0); 29];
    let (mut at, mut length) = (0, 3);
    while at < 28 {
        let bits = if at < 8 { 0 } else { (at / 4 - 1) as u8 };
        lengths[at] = (length, bits);
        length += 1 << bits;
        at += 1;
    }
    lengths
};

/// Which of [`LENGTHS`] a length has.
pub(super) const LENGTH_SYMBOL: [u8; LONGEST + 1] = {
    let mut symbols = [0; LONGEST + 1];
    let mut at = 0;
    while at < LENGTHS.len() {
        let mut length = LENGTHS[at].0 as usize;
        while length < symbols.len() {
            symbols[length] = at as u8;
            length += 1;
        }
        at += 1;
    }
    symbols
};

/// The symbol of a distance, and how many bits follow it.
#[inline(always)]
pub(super) fn distance_symbol(distance: u16) -> (usize, u32) {
    let below = u32::from(distance) - 1;
    if below < 2 {
        return (below as usize, 0);
    }
    let top = below.ilog2();
    ((2 * top + (below >> (top - 1) & 1)) as usize, top - 1)
}

#[inline(always)]
fn eight(plain: &[u8], at: usize) -> Option<u64> {
    plain.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Of the lowest [`SHORTEST`] bytes.
#[inline(always)]
fn hash(bytes: u64) -> usize {
    ((bytes << (64 - 8 * SHORTEST)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS)) as usize
}

/// Searches some bytes, of which those before were searched with the same table, and adds what they are made of. A match
/// may reach over the end of them: where it did is the result.
pub(super) fn search(plain: &[u8], bytes: Range<usize>, table: &mut Table, found: &mut Found) -> usize {
    // Eight bytes are read at once: the last place from which that is done is the last one of those asked for.
    let inside = &plain[..plain.len().min(bytes.end + 7)];
    let (mut at, mut literals_from) = (bytes.start, bytes.start);
    while let Some(Match { at: mut start, distance, mut length }) =
        next(inside, &mut at, table, &mut found.literals)
    {
        let from = start - usize::from(distance);
        if length == 8 {
            let longest = LONGEST.min(plain.len() - start);
            length += common(&plain[start + 8..start + longest], &plain[from + 8..from + longest]);
        }
        // The byte before was not looked at alone. Whether it belongs to it cannot be foreseen, so no branch is taken for it.
        let before = plain[start.saturating_sub(1)];
        let longer =
            start > literals_from && from > 0 && length < LONGEST && before == plain[from.saturating_sub(1)];
        found.literals[usize::from(before)] -= u32::from(longer);
        start -= usize::from(longer);
        length += usize::from(longer);

        let literals = (start - literals_from) as u32;
        found.sequences.push(Sequence { literals, length: length as u16, distance });
        found.lengths[usize::from(LENGTH_SYMBOL[length]) % 32] += 1;
        found.distances[distance_symbol(distance).0 % 32] += 1;
        at = start + length;
        if let Some(last) = eight(plain, at - 2) {
            table[hash(last)] = (at - 2) as u16;
            table[hash(last >> 8)] = (at - 1) as u16;
        }
        literals_from = at;
    }
    let end = at.max(bytes.end);
    for byte in &plain[at..end] {
        found.literals[usize::from(*byte)] += 1;
    }
    found.sequences.push(Sequence { literals: (end - literals_from) as u32, length: 0, distance: 0 });
    end
}

struct Match {
    at: usize,
    distance: u16,
    /// 8 stands for as many or more.
    length: usize,
}

/// The next match at `at` or every second byte behind it. Bytes that are passed over are counted as literals, and `at`
/// is behind them.
#[inline(always)]
fn next(plain: &[u8], at: &mut usize, table: &mut Table, literals: &mut [u32; 256]) -> Option<Match> {
    while let Some(here) = eight(plain, *at) {
        let slot = &mut table[hash(here)];
        // What is in the table is the place modulo 64 KiB, or 0: a place before this one in any case.
        let distance = (*at as u16).wrapping_sub(*slot);
        *slot = *at as u16;
        table[hash(here >> 8)] = (*at + 1) as u16;
        let there = eight(plain, at.wrapping_sub(usize::from(distance)))?;
        let different = here ^ there;
        // Together, as each of the two is harder to foresee. A distance of 0 is too far.
        let too_far = u64::from(distance.wrapping_sub(1) >= WINDOW);
        if different << (64 - 8 * SHORTEST) | too_far == 0 {
            let length = (different.trailing_zeros() / 8) as usize;
            return Some(Match { at: *at, distance, length });
        }
        literals[usize::from(here as u8)] += 1;
        literals[usize::from((here >> 8) as u8)] += 1;
        *at += 2;
    }
    None
}

/// How many bytes both begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    let ((ones, one), (others, other)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    for (at, (one, other)) in ones.iter().zip(others).enumerate() {
        let different = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if different != 0 {
            return at * 8 + (different.trailing_zeros() / 8) as usize;
        }
    }
    ones.len() * 8 + one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_those_of_the_rfc() {
        for (length, symbol, bits) in [
            (3, 0, 0),
            (10, 7, 0),
            (11, 8, 1),
            (12, 8, 1),
            (13, 9, 1),
            (130, 23, 4),
            (131, 24, 5),
            (257, 27, 5),
            (258, 28, 0),
        ] {
            let found = usize::from(LENGTH_SYMBOL[length]);
            assert_eq!((found, LENGTHS[found].1), (symbol, bits), "length {length}");
        }
        for (distance, symbol, bits) in [
            (1, 0, 0),
            (2, 1, 0),
            (3, 2, 0),
            (4, 3, 0),
            (5, 4, 1),
            (7, 5, 1),
            (9, 6, 2),
            (24_577, 29, 13),
            (32_768, 29, 13),
        ] {
            assert_eq!(distance_symbol(distance), (symbol, bits), "distance {distance}");
        }
    }

    #[test]
    fn all_bytes_are_accounted_for() {
        let plain = b"one two three one two three four four four four one two".repeat(900);
        let (mut table, mut found) = (table(), Found::new());
        let mut end = 0;
        for piece in [10, 100, 5_000, 5_001, 20_000, plain.len()] {
            end = search(&plain, end..piece.max(end), &mut table, &mut found);
            assert!((piece..plain.len() + 1).contains(&end), "{end} of {piece}");
        }
        let literals: u32 = found.literals.iter().sum();
        let in_sequences: u32 = found.sequences.iter().map(|sequence| sequence.literals).sum();
        let matches = found.sequences.iter().filter(|sequence| sequence.length > 0).count() as u32;
        assert_eq!(literals, in_sequences);
        assert_eq!(literals as usize + found.matched(), plain.len());
        assert_eq!(found.lengths.iter().sum::<u32>(), matches);
        assert_eq!(found.distances.iter().sum::<u32>(), matches);
        assert!(found.matched() > plain.len() * 9 / 10, "{} of {}", found.matched(), plain.len());
    }
}
