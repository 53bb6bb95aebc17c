//! Prefix codes: how long each symbol's is, and what it is.

/// No alphabet of deflate has more symbols.
const MOST: usize = 288;

/// The lengths of an optimal code whose codes are no longer than `longest`, but for what that bound costs. A symbol that is not
/// counted has none; two at least have one, as some readers take no code of a single symbol.
pub(super) fn lengths<const N: usize>(counts: &[u32; N], longest: usize) -> [u8; N] {
    let mut lengths = [0; N];
    let mut used = [(0u32, 0u16); MOST];
    let mut count = 0;
    for (symbol, times) in (0..).zip(counts).filter(|(_, times)| **times > 0) {
        used[count] = (*times, symbol);
        count += 1;
    }
    if count < 2 {
        let only = if count == 1 { usize::from(used[0].1) } else { 0 };
        lengths[only] = 1;
        lengths[usize::from(only == 0)] = 1;
        return lengths;
    }
    let used = &mut used[..count];
    // By frequency, then by symbol: no two are equal.
    used.sort_unstable();
    let of_length = how_many(used, longest);
    let mut often_first = used.iter().rev();
    for (length, many) in (0..).zip(of_length) {
        for (_, symbol) in often_first.by_ref().take(many) {
            lengths[usize::from(*symbol)] = length;
        }
    }
    lengths
}

/// How many codes have each length. `used` is sorted and has two symbols at least.
fn how_many(used: &[(u32, u16)], longest: usize) -> [usize; 16] {
    let mut of_length = [0; 16];
    for depth in depths(used) {
        of_length[depth.min(longest)] += 1;
    }
    // What was cut short takes too much of the code space, in units of the longest codes: one of those becomes the
    // neighbour of a shorter code, which gets longer by one bit.
    let space = |of_length: &[usize; 16]| -> usize {
        (1..=longest).map(|length| of_length[length] << (longest - length)).sum()
    };
    for _ in 1 << longest..space(&of_length) {
        let shorter = (1..longest).rev().find(|length| of_length[*length] > 0);
        let shorter = shorter.expect("codes of the longest length alone do not take too much");
        of_length[longest] -= 1;
        of_length[shorter] -= 1;
        of_length[shorter + 1] += 2;
    }
    of_length
}

/// The depth of each leaf in Huffman's tree, in no order that matters.
fn depths(used: &[(u32, u16)]) -> impl Iterator<Item = usize> {
    // Nodes are made in the order of their weights, so two queues, of leaves and of nodes, have the lightest in front.
    let leaves = used.len();
    let mut weights = [0u32; MOST];
    let mut parents = [0u16; 2 * MOST];
    let (mut leaf, mut node) = (0, 0);
    for made in 0..leaves - 1 {
        for _ in 0..2 {
            let is_node = node < made && (leaf == leaves || weights[node] < used[leaf].0);
            let (weight, lightest) =
                if is_node { (weights[node], leaves + node) } else { (used[leaf].0, leaf) };
            node += usize::from(is_node);
            leaf += usize::from(!is_node);
            weights[made] += weight;
            parents[lightest] = made as u16;
        }
    }
    // The last node is the root; parents come behind their children.
    let mut depths = [0u16; MOST];
    for node in (0..leaves - 2).rev() {
        depths[node] = depths[usize::from(parents[leaves + node])] + 1;
    }
    (0..leaves).map(move |leaf| usize::from(depths[usize::from(parents[leaf])]) + 1)
}

/// The codes that follow from lengths, their first bit lowest (RFC 1951 § 3.2.2).
pub(super) fn codes<const N: usize>(lengths: &[u8; N]) -> [u16; N] {
    let mut next = [0u16; 17];
    for length in lengths.iter().filter(|length| **length > 0) {
        next[usize::from(*length) + 1] += 1;
    }
    for length in 1..next.len() {
        next[length] = (next[length] + next[length - 1]) << 1;
    }
    lengths.map(|length| {
        if length == 0 {
            return 0;
        }
        let code = &mut next[usize::from(length)];
        let reversed = code.reverse_bits() >> (16 - length);
        *code += 1;
        reversed
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space(lengths: &[u8], longest: u32) -> u32 {
        lengths.iter().filter(|length| **length > 0).map(|length| 1 << (longest - u32::from(*length))).sum()
    }

    #[test]
    fn the_example_of_the_rfc() {
        let lengths = [3, 3, 3, 3, 3, 2, 4, 4];
        let expected = [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111u16];
        let codes = codes(&lengths);
        for at in 0..8 {
            assert_eq!(codes[at], expected[at].reverse_bits() >> (16 - lengths[at]), "symbol {at}");
        }
    }

    #[test]
    fn lengths_of_some_counts() {
        for (counts, longest, expected) in [
            ([0, 0, 0, 0, 0, 0], 7, [1, 1, 0, 0, 0, 0]),
            ([9, 0, 0, 0, 0, 0], 7, [1, 1, 0, 0, 0, 0]),
            ([0, 0, 9, 0, 0, 0], 7, [1, 0, 1, 0, 0, 0]),
            ([1, 1, 1, 1, 0, 0], 7, [2, 2, 2, 2, 0, 0]),
            ([32, 16, 8, 4, 2, 1], 7, [1, 2, 3, 4, 5, 5]),
            ([32, 16, 8, 4, 2, 1], 4, [1, 2, 4, 4, 4, 4]),
            ([32, 16, 8, 4, 2, 1], 3, [2, 2, 3, 3, 3, 3]),
        ] {
            assert_eq!(lengths(&counts, longest), expected, "{counts:?} up to {longest}");
        }
    }

    proptest! {
        #[test]
        fn codes_take_the_whole_space_and_are_short_where_counts_are_high(
            counts in proptest::collection::vec(prop_oneof![Just(0u32), 1..9u32, 1..1_000_000u32], 286), longest in 9u8..=15,
        ) {
            let counts: [u32; 286] = counts.try_into().expect("as many");
            let lengths = lengths(&counts, usize::from(longest));
            prop_assert_eq!(space(&lengths, u32::from(longest)), 1 << longest);
            prop_assert!(lengths.iter().all(|length| *length <= longest));
            for (one, count) in lengths.iter().zip(counts) {
                prop_assert!(count == 0 || *one > 0);
                let shorter = lengths.iter().zip(counts).find(|(other, less)| less < &count && **other > 0 && *other < one);
                prop_assert!(count == 0 || shorter.is_none());
            }
        }
    }
}
