//! Which parts of a block are worth compressing.
//!
//! Bytes that are compressed or encrypted already do not shrink, and cost a compressor more than others. They are known
//! by a sample: each value is about as frequent as any other, and no stretch comes twice within deflate's window. Decided
//! by segments, so that a text beside an archive is still compressed.
//!
//! Of the bytes, never of the machine: what is decided here is in the digest of every blob.

use std::ops::Range;

/// What is decided at once.
const SEGMENT: usize = 16 << 10;
/// Fewer segments in a row are not worth the codes that a compressor has to begin anew behind them.
const LEAST_STORED: usize = 2;
/// A sample of a segment is this many pieces of this length.
const PIECES: usize = 8;
const PIECE: usize = 256;
/// The most that the squares of all frequencies in a sample add up to where it is noise. Noise has 18424 on average with a
/// deviation of 181; at this bound the frequencies are worth less than one per cent of the length.
const NOISE: u32 = 19_700;

/// Some bytes of a block, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) bytes: Range<usize>,
    pub(super) stored: bool,
}

/// Cuts a block into what is stored and what is compressed, in turns.
pub(super) fn runs(plain: &[u8]) -> Vec<Run> {
    // What is left at the end belongs to the last segment.
    let count = plain.len() / SEGMENT;
    let bounds = |at: usize| if at < count { at * SEGMENT } else { plain.len() };
    let mut stored = vec![false; count];
    let mut repeats = Repeats::new();
    for at in 0..count {
        let segment = bounds(at)..bounds(at + 1);
        if !is_noise(&plain[segment.clone()]) {
            continue;
        }
        stored[at] = true;
        if let Some(first) = repeats.look(plain, segment) {
            // Where it comes from has to be in the window.
            stored[first / SEGMENT..=at].fill(false);
        }
    }
    let mut runs: Vec<Run> = Vec::new();
    for same in stored.chunk_by(|one, other| one == other) {
        let start = runs.last().map_or(0, |run| run.bytes.end) / SEGMENT;
        let bytes = bounds(start)..bounds(start + same.len());
        let stored = same[0] && same.len() >= LEAST_STORED;
        match runs.last_mut() {
            Some(last) if last.stored == stored => last.bytes.end = bytes.end,
            _ => runs.push(Run { bytes, stored }),
        }
    }
    if runs.is_empty() {
        runs.push(Run { bytes: 0..plain.len(), stored: false });
    }
    runs
}

/// Whether all values are about as frequent in a sample.
fn is_noise(segment: &[u8]) -> bool {
    let mut counts = [0u16; 256];
    for piece in segment.chunks(segment.len() / PIECES).take(PIECES) {
        for byte in &piece[..PIECE] {
            counts[usize::from(*byte)] += 1;
        }
    }
    counts.iter().map(|count| u32::from(*count).pow(2)).sum::<u32>() <= NOISE
}

/// Finds stretches that come again, by the eight bytes behind each byte of one value.
struct Repeats {
    /// The eight bytes, and where they stood, from 1.
    seen: Vec<(u64, usize)>,
}

impl Repeats {
    /// One byte of 256 in noise.
    const MARK: u8 = 0xa5;
    const WINDOW: usize = 32 << 10;
    const SLOTS: u32 = 10;
    /// So many of the 64 places that are looked at in a segment of noise.
    const LEAST: usize = 2;

    fn new() -> Repeats {
        Repeats { seen: vec![(0, 0); 1 << Repeats::SLOTS] }
    }

    /// Where the first stretch begins that comes again in this segment; none where hardly any does.
    fn look(&mut self, plain: &[u8], segment: Range<usize>) -> Option<usize> {
        let (mut found, mut first) = (0, usize::MAX);
        for at in memchr::memchr_iter(Repeats::MARK, &plain[segment.clone()]) {
            let at = segment.start + at;
            let Some(behind) = plain[at..].get(1..9).and_then(<[u8]>::first_chunk) else { break };
            let behind = u64::from_le_bytes(*behind);
            let slot = behind.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Repeats::SLOTS);
            let seen = &mut self.seen[slot as usize];
            if seen.0 == behind && seen.1 > 0 && at + 1 - seen.1 <= Repeats::WINDOW {
                found += 1;
                first = first.min(seen.1 - 1);
            }
            *seen = (behind, at + 1);
        }
        (found >= Repeats::LEAST).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn text(length: usize) -> Vec<u8> {
        noise(length, 3).iter().map(|byte| b'a' + byte % 26).collect()
    }

    fn shown(plain: &[u8]) -> Vec<(usize, bool)> {
        let runs = runs(plain);
        assert_eq!(runs.first().map(|run| run.bytes.start), Some(0));
        assert_eq!(runs.last().map(|run| run.bytes.end), Some(plain.len()));
        assert!(
            runs.windows(2)
                .all(|two| two[0].bytes.end == two[1].bytes.start && two[0].stored != two[1].stored)
        );
        runs.into_iter().map(|run| (run.bytes.len(), run.stored)).collect()
    }

    #[test]
    fn noise_is_stored_and_what_repeats_is_not() {
        let long = noise(640 * KIB, 1);
        assert_eq!(shown(&long), [(640 * KIB, true)]);
        for (what, plain, expected) in [
            ("nothing", Vec::new(), vec![(0, false)]),
            ("too little to tell", noise(20_000, 1), vec![(20_000, false)]),
            ("a text", text(300_001), vec![(300_001, false)]),
            ("zeros", vec![0; 300_000], vec![(300_000, false)]),
            ("64 values", long.iter().map(|byte| byte & 63).collect(), vec![(640 * KIB, false)]),
            ("240 values", long.iter().map(|byte| byte % 240).collect(), vec![(640 * KIB, false)]),
            (
                "a text behind noise",
                [noise(64 * KIB, 1), text(64 * KIB)].concat(),
                vec![(64 * KIB, true), (64 * KIB, false)],
            ),
            (
                "the odd end",
                [text(32 * KIB), noise(64 * KIB + 7, 1)].concat(),
                vec![(32 * KIB, false), (64 * KIB + 7, true)],
            ),
            (
                "one segment alone",
                [text(32 * KIB), noise(16 * KIB, 1), text(32 * KIB)].concat(),
                vec![(80 * KIB, false)],
            ),
        ] {
            assert_eq!(shown(&plain), expected, "{what}");
        }
    }

    #[test]
    fn repeats_within_the_window_are_compressed() {
        for length in [1_000, 5_000, 16 * KIB, 20_000, 30_000] {
            let plain = noise(length, 5).repeat(400 * KIB / length);
            assert_eq!(shown(&plain), [(plain.len(), false)], "every {length} bytes");
        }
        let far = noise(40 * KIB, 5).repeat(10);
        assert_eq!(shown(&far), [(far.len(), true)], "too far away");
        // The one before comes again: both, and what stands between.
        let (once, twice) = (noise(64 * KIB, 6), noise(16 * KIB, 7));
        let plain = [&once[..], &twice, &twice, &once].concat();
        assert_eq!(shown(&plain), [(64 * KIB, true), (32 * KIB, false), (64 * KIB, true)]);
    }
}
