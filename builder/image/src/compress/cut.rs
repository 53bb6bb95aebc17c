//! Where a stream is cut: after 64 bytes that look a certain way.
//!
//! Such a place is found again when bytes before it were inserted or removed, so that blocks behind an edit stay what
//! they were. A gear hash (FastCDC's), one shift and one addition a byte, and none for the first bytes of each block.

/// Bounds of a block's length in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// A block is at least this long, but for the last. At least 64.
    pub(crate) least: usize,
    /// And at most this long.
    pub(crate) most: usize,
    /// Past `least`, a cut is found after 2 to this power bytes on average.
    pub(crate) bits: u32,
}

/// What the hash sees: as many bytes as it has bits.
const WINDOW: usize = 64;

/// One random number for each byte value. Frozen: splitmix64 from seed 0.
const GEAR: [u64; 256] = {
    let mut gear = [0; 256];
    let mut state = 0u64;
    let mut at = 0;
    while at < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        gear[at] = z ^ (z >> 31);
        at += 1;
    }
    gear
};

/// Finds the cuts of a stream that comes in pieces.
pub(crate) struct Cutter {
    sizes: Sizes,
    length: usize,
    hash: u64,
}

impl Cutter {
    pub(crate) fn new(sizes: Sizes) -> Cutter {
        Cutter { sizes, length: 0, hash: 0 }
    }

    /// How many of the next `bytes` belong to the current block, and whether it ends there. Where it does not, they all
    /// do.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> (usize, bool) {
        let Sizes { least, most, bits } = self.sizes;
        let mask = u64::MAX << (64 - bits);
        // Too early to cut: not even seen, and then seen by the hash alone.
        let unseen = (least - WINDOW).saturating_sub(self.length).min(bytes.len());
        let early = (least - 1).saturating_sub(self.length).clamp(unseen, bytes.len());
        let last = (most - self.length).min(bytes.len());
        let mut hash = self.hash;
        for byte in &bytes[unseen..early] {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
        }
        let cut = self::cut(&bytes[early..last], &mut hash, mask);
        let taken = cut.map_or(last, |at| early + at + 1);
        if cut.is_some() || self.length + taken >= most {
            (self.length, self.hash) = (0, 0);
            return (taken, true);
        }
        (self.length, self.hash) = (self.length + taken, hash);
        (taken, false)
    }
}

/// The first byte behind which the hash has none of the mask's bits. Four bytes at a time, as most are no cut.
fn cut(bytes: &[u8], hash: &mut u64, mask: u64) -> Option<usize> {
    let step = |hash: u64, byte: u8| (hash << 1).wrapping_add(GEAR[usize::from(byte)]);
    let (fours, rest) = bytes.as_chunks::<4>();
    let behind = |hash: u64, four: &[u8; 4]| {
        let first = step(hash, four[0]);
        let second = step(first, four[1]);
        let third = step(second, four[2]);
        [first, second, third, step(third, four[3])]
    };
    for (at, four) in fours.iter().enumerate() {
        let hashes = behind(*hash, four);
        if hashes.iter().any(|hash| hash & mask == 0) {
            let first = hashes.iter().position(|hash| hash & mask == 0)?;
            *hash = hashes[first];
            return Some(at * 4 + first);
        }
        *hash = hashes[3];
    }
    let found = rest.iter().position(|byte| {
        *hash = step(*hash, *byte);
        *hash & mask == 0
    });
    found.map(|at| fours.len() * 4 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { least: 1024, most: 8192, bits: 10 };

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn blocks(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::new(SIZES);
        let (mut found, mut block) = (Vec::new(), Vec::new());
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                let (taken, ends) = cutter.advance(piece);
                block.extend_from_slice(&piece[..taken]);
                piece = &piece[taken..];
                if ends {
                    found.push(std::mem::take(&mut block));
                }
            }
        }
        found.push(block);
        found
    }

    #[test]
    fn pieces_do_not_matter_and_sizes_hold() {
        let bytes = noise(300_000, 1);
        let whole = blocks(&bytes, bytes.len());
        assert!(whole.len() > 50);
        for piece in [1, 7, 1000, 65536] {
            assert_eq!(blocks(&bytes, piece), whole);
        }
        assert_eq!(whole.concat(), bytes);
        assert!(whole[..whole.len() - 1].iter().all(|block| (1024..=8192).contains(&block.len())));
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let bytes = noise(300_000, 2);
        let mut edited = bytes.clone();
        edited.splice(100_000..100_000, *b"one more line\n");
        let (before, after) = (blocks(&bytes, 4096), blocks(&edited, 4096));
        let new = after.iter().filter(|block| !before.contains(block)).count();
        assert!((1..=4).contains(&new), "{new} of {} blocks are new", after.len());
    }
}
