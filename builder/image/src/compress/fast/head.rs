//! What a block of codes of its own begins with: how long they are.

use super::{bits::Bits, code};

/// The order in which the lengths of the code for lengths are written.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Kind 2, and not the last.
const DYNAMIC: u64 = 2 << 1;
/// There is at least a code for the end, which is symbol 256.
const LEAST_SYMBOLS: usize = 257;

/// A symbol of the code for lengths, and a number of some bits behind it.
type Item = (u8, u64, u32);

/// Writes the head of a block.
pub(super) fn write(symbols: &[u8; 286], distances: &[u8; 30], bits: &mut Bits<'_>) {
    let used = |lengths: &[u8], least: usize| {
        lengths.iter().rposition(|length| *length > 0).map_or(least, |last| least.max(last + 1))
    };
    let (symbols, distances) = (&symbols[..used(symbols, LEAST_SYMBOLS)], &distances[..used(distances, 1)]);
    let items = items(&[symbols, distances].concat());
    let mut counts = [0; 19];
    for (symbol, ..) in &items {
        counts[usize::from(*symbol)] += 1;
    }
    let lengths = code::lengths(&counts, 7);
    let codes = code::codes(&lengths);
    let written = ORDER.iter().rposition(|symbol| lengths[*symbol] > 0).map_or(4, |last| 4.max(last + 1));

    bits.add(DYNAMIC, 3);
    bits.add((symbols.len() - LEAST_SYMBOLS) as u64, 5);
    bits.add((distances.len() - 1) as u64, 5);
    bits.add((written - 4) as u64, 4);
    bits.flush();
    for symbol in &ORDER[..written] {
        bits.add(u64::from(lengths[*symbol]), 3);
        bits.flush();
    }
    for (symbol, number, width) in items {
        let symbol = usize::from(symbol);
        bits.add(u64::from(codes[symbol]), u32::from(lengths[symbol]));
        bits.add(number, width);
        bits.flush();
    }
}

/// Lengths, with short forms for those that follow each other.
fn items(lengths: &[u8]) -> Vec<Item> {
    let mut items = Vec::with_capacity(lengths.len());
    for same in lengths.chunk_by(|one, other| one == other) {
        let (length, mut left) = (same[0], same.len());
        if length > 0 {
            items.push((length, 0, 0));
            left -= 1;
        }
        while left >= 3 {
            let (symbol, least, most, width) = match length {
                0 if left > 10 => (18, 11, 138, 7),
                0 => (17, 3, 10, 3),
                _ => (16, 3, 6, 2),
            };
            let times = left.min(most);
            items.push((symbol, (times - least) as u64, width));
            left -= times;
        }
        items.extend(std::iter::repeat_n((length, 0, 0), left));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_follow_each_other() {
        for (length, times, expected) in [
            (0, 2, vec![(0, 0, 0); 2]),
            (0, 3, vec![(17, 0, 3)]),
            (0, 10, vec![(17, 7, 3)]),
            (0, 11, vec![(18, 0, 7)]),
            (0, 140, vec![(18, 127, 7), (0, 0, 0), (0, 0, 0)]),
            (8, 3, vec![(8, 0, 0); 3]),
            (8, 4, vec![(8, 0, 0), (16, 0, 2)]),
            (8, 8, vec![(8, 0, 0), (16, 3, 2), (8, 0, 0)]),
            (8, 144, [vec![(8, 0, 0)], vec![(16, 3, 2); 23], vec![(16, 2, 2)]].concat()),
        ] {
            assert_eq!(items(&vec![length; times]), expected, "{length}, {times} times");
        }
    }
}
