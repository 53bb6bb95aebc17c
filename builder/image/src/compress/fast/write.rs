//! Literals and matches as bits.

use super::{
    bits::Bits,
    code, head,
    search::{Found, LENGTH_SYMBOL, LENGTHS, Sequence, distance_symbol},
};

/// Four literals' codes have to fit into a word beside the seven bits that may be left in it.
const LONGEST_CODE: usize = 14;
const LONGEST_DISTANCE_CODE: usize = 15;
/// The symbol that ends a block.
const END: usize = 256;

/// A code, and how many bits it has in the lowest byte.
#[derive(Clone, Copy, Default)]
struct Code(u32);

impl Code {
    fn new(code: u32, width: u32) -> Code {
        Code(code << 8 | width)
    }

    #[inline(always)]
    fn bits(self) -> u64 {
        u64::from(self.0 >> 8)
    }

    #[inline(always)]
    fn width(self) -> u32 {
        self.0 & 63
    }
}

/// The codes of a block by what they stand for.
struct Codes {
    literals: [Code; 256],
    /// By length, with the bits that follow.
    lengths: [Code; 512],
    /// By symbol; what follows depends on the distance.
    distances: [Code; 32],
}

/// Writes a block: these bytes, which are made of what was found.
pub(super) fn block(plain: &[u8], found: &Found, bits: &mut Bits<'_>) {
    let mut counts = [0; 286];
    counts[..256].copy_from_slice(&found.literals);
    counts[END] = 1;
    counts[END + 1..].copy_from_slice(&found.lengths[..29]);
    let symbol_lengths = code::lengths(&counts, LONGEST_CODE);
    let distance_counts = found.distances.first_chunk::<30>().expect("32 are more than 30");
    let distance_lengths = code::lengths(distance_counts, LONGEST_DISTANCE_CODE);
    head::write(&symbol_lengths, &distance_lengths, bits);

    let symbols = code::codes(&symbol_lengths);
    let symbol = |symbol: usize| (u32::from(symbols[symbol]), u32::from(symbol_lengths[symbol]));
    let mut codes = Codes { literals: [Code(0); 256], lengths: [Code(0); 512], distances: [Code(0); 32] };
    for (literal, code) in codes.literals.iter_mut().enumerate() {
        let (bits, width) = symbol(literal);
        *code = Code::new(bits, width);
    }
    for (length, of_length) in LENGTH_SYMBOL.iter().enumerate().skip(3) {
        let (shortest, more) = LENGTHS[usize::from(*of_length)];
        let (bits, width) = symbol(END + 1 + usize::from(*of_length));
        let rest = length as u32 - u32::from(shortest);
        codes.lengths[length] = Code::new(bits | rest << width, width + u32::from(more));
    }
    for ((to, code), width) in
        codes.distances.iter_mut().zip(code::codes(&distance_lengths)).zip(distance_lengths)
    {
        *to = Code::new(u32::from(code), u32::from(width));
    }
    sequences(plain, &found.sequences, &codes, bits);
    let (end, width) = symbol(END);
    bits.add(u64::from(end), width);
    bits.flush();
}

/// By how many literals are left over: all bits of those.
const MEANT: [[u32; 3]; 4] = [[0, 0, 0], [!0, 0, 0], [!0, !0, 0], [!0, !0, !0]];

fn sequences(plain: &[u8], sequences: &[Sequence], codes: &Codes, bits: &mut Bits<'_>) {
    let mut rest = plain;
    for Sequence { literals, length, distance } in sequences {
        let (these, behind) = rest.split_at(*literals as usize);
        let (fours, odd) = these.as_chunks();
        for four in fours {
            four_literals(four.map(|literal| codes.literals[usize::from(literal)]), bits);
        }
        // How many are left over cannot be foreseen: four are looked up, and those that are not meant have no bits.
        let mut four = [Code::default(); 4];
        if let Some(more) = rest.get(fours.len() * 4..).and_then(|more| more.first_chunk::<3>()) {
            let meant = MEANT[odd.len() % 4];
            for at in 0..3 {
                four[at] = Code(codes.literals[usize::from(more[at])].0 & meant[at]);
            }
        } else {
            for (code, literal) in four.iter_mut().zip(odd) {
                *code = codes.literals[usize::from(*literal)];
            }
        }
        four_literals(four, bits);
        if *length > 0 {
            a_match(*length, *distance, codes, bits);
        }
        rest = &behind[usize::from(*length)..];
    }
}

#[inline(always)]
fn four_literals([first, second, third, fourth]: [Code; 4], bits: &mut Bits<'_>) {
    // In pairs, so that none has to wait for the one before.
    let one = first.bits() | second.bits() << first.width();
    let one_width = first.width() + second.width();
    let other = third.bits() | fourth.bits() << third.width();
    bits.add(one | other << one_width, one_width + third.width() + fourth.width());
    bits.flush();
}

#[inline(always)]
fn a_match(length: u16, distance: u16, codes: &Codes, bits: &mut Bits<'_>) {
    let code = codes.lengths[usize::from(length) % 512];
    bits.add(code.bits(), code.width());
    let (symbol, more) = distance_symbol(distance);
    let code = codes.distances[symbol % 32];
    let rest = (u64::from(distance) - 1) & ((1 << more) - 1);
    bits.add(code.bits() | rest << code.width(), code.width() + more);
    bits.flush();
}
