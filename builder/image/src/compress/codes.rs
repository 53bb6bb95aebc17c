//! Deflate's codes, passed over as fast as their lengths can be told.
//!
//! What is asked is where a block ends, and for that only how many bits each code has, with those that belong to it. A
//! table tells it for the next [`LOOKED_UP`] bits at once, for as many codes as those bits hold, and whether a distance comes
//! next: so there is no branch to be guessed wrong at each code, and a step is one look. Codes that are too long for the
//! table, and the end, are read one by one.

/// A stream's bits, the lowest of each byte first.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The first byte that is not held yet.
    next: usize,
    hold: u64,
    /// How many bits of `hold` count. Above them it may hold more of the stream already.
    held: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, next: 0, hold: 0, held: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.next * 8 - self.held as usize
    }

    /// Holds at least 56 bits, if there are as many.
    pub(super) fn refill(&mut self) {
        if self.refill_whole().is_some() {
            return;
        }
        while self.held <= 56
            && let Some(byte) = self.bytes.get(self.next)
        {
            self.hold |= u64::from(*byte) << self.held;
            self.next += 1;
            self.held += 8;
        }
    }

    /// Holds at least 56 bits; `None` where fewer than 64 are left.
    fn refill_whole(&mut self) -> Option<()> {
        let word = self.bytes.get(self.next..)?.first_chunk::<8>()?;
        self.hold |= u64::from_le_bytes(*word) << self.held;
        self.next += (63 - self.held as usize) / 8;
        self.held |= 56;
        Some(())
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        self.held = self.held.checked_sub(count)?;
        self.hold >>= count;
        Some(())
    }

    pub(super) fn take(&mut self, count: u32) -> Option<usize> {
        let value = self.hold & ((1 << count) - 1);
        self.skip(count)?;
        usize::try_from(value).ok()
    }

    /// A stored block behind its header: up to a byte's border, the length twice, the bytes.
    pub(super) fn skip_stored(&mut self) -> Option<()> {
        let at = self.position().div_ceil(8);
        let lengths = self.bytes.get(at..)?.first_chunk::<4>()?;
        let [length, check] = [[lengths[0], lengths[1]], [lengths[2], lengths[3]]].map(u16::from_le_bytes);
        self.next = at + 4 + usize::from(length);
        (self.hold, self.held) = (0, 0);
        (length == !check && self.next <= self.bytes.len()).then_some(())
    }
}

/// The codes of one block.
pub(super) struct Codes {
    symbols: Code,
    distances: Code,
}

/// The order in which the lengths of the code for lengths stand there.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The symbol that ends a block.
const END: u16 = 256;

impl Codes {
    fn new(symbols: &[u8], distances: &[u8]) -> Option<Codes> {
        Some(Codes { symbols: Code::new(symbols)?, distances: Code::new(distances)? })
    }

    pub(super) fn fixed() -> Option<Codes> {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        Codes::new(&lengths, &[5; 30])
    }

    /// The codes that stand at the head of a block.
    pub(super) fn read(bits: &mut Bits<'_>) -> Option<Codes> {
        let (symbols, distances, count) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
        let mut lengths = [0; 19];
        for at in &ORDER[..count] {
            bits.refill();
            lengths[*at] = bits.take(3)? as u8;
        }
        let code = Code::new(&lengths)?;
        let mut lengths = [0u8; 288 + 32];
        let all = symbols + distances;
        let mut at = 0;
        while at < all {
            bits.refill();
            let (symbol, width) = code.first(bits.hold)?;
            bits.skip(width)?;
            let (length, times) = match symbol {
                16 => (*lengths.get(at.checked_sub(1)?)?, 3 + bits.take(2)?),
                17 => (0, 3 + bits.take(3)?),
                18 => (0, 11 + bits.take(7)?),
                length => (length as u8, 1),
            };
            lengths.get_mut(at..at + times)?.fill(length);
            at += times;
        }
        (at == all && symbols <= 286).then(|| Codes::new(&lengths[..symbols], &lengths[symbols..all]))?
    }

    /// Where a whole stream ends whose last block has these codes: behind the last bit that is set come the zeros that the
    /// code of its end has at its own end, and those that fill the byte. `None` where that code has zeros alone.
    pub(super) fn end_in(&self, stream: &[u8]) -> Option<usize> {
        let zeros = self.symbols.code_of(END).filter(|code| *code != 0)?.trailing_zeros() as usize;
        let last = stream.iter().rposition(|byte| *byte != 0)?;
        Some(last * 8 + 8 - stream[last].leading_zeros() as usize + zeros)
    }

    /// Passes over what the block holds, with its end.
    pub(super) fn skip(&self, bits: &mut Bits<'_>) -> Option<()> {
        let steps = Steps::of(self);
        let mut expected = 0;
        loop {
            steps.pass(bits, &mut expected);
            // What the table does not tell, or what is too near to the end of the stream.
            bits.refill();
            let step = if expected == DISTANCE {
                let (distance, width) = self.distances.first(bits.hold)?;
                after_distance(distance, width)?
            } else {
                let (symbol, width) = self.symbols.first(bits.hold)?;
                if symbol == END {
                    return bits.skip(width);
                }
                after_symbol(symbol, width)?
            };
            bits.skip(step.bits())?;
            expected = step.expected();
        }
    }
}

/// How many bits are looked up at once.
const LOOKED_UP: u32 = 11;
/// Says that a distance comes next. Added to the bits it makes the place in the second half of the table.
const DISTANCE: usize = 1 << LOOKED_UP;
/// No step is longer: two of them leave enough of 56 bits to look the next one up.
const LONGEST: u32 = 22;

/// How far to go: the number of bits in the lowest six; at [`DISTANCE`] whether a distance comes next; above that, as long as it
/// is of one code, how many bits the code itself has. 0 where that is not known.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Step(u16);

impl Step {
    const NONE: Step = Step(0);

    fn of_code(width: u32, extra: u32, expected: usize) -> Step {
        Step(((width << (LOOKED_UP + 1)) | (width + extra)) as u16 | expected as u16)
    }

    fn bits(self) -> u32 {
        u32::from(self.0 & 63)
    }

    fn expected(self) -> usize {
        usize::from(self.0) & DISTANCE
    }

    fn width(self) -> u32 {
        u32::from(self.0) >> (LOOKED_UP + 1)
    }
}

fn after_symbol(symbol: u16, width: u32) -> Option<Step> {
    Some(match symbol {
        0..=255 => Step::of_code(width, 0, 0),
        257..=264 | 285 => Step::of_code(width, 0, DISTANCE),
        265..=284 => Step::of_code(width, u32::from(symbol - 261) / 4, DISTANCE),
        _ => return None,
    })
}

fn after_distance(symbol: u16, width: u32) -> Option<Step> {
    (symbol < 30).then(|| Step::of_code(width, u32::from(symbol.saturating_sub(2)) / 2, 0))
}

/// What comes of the next bits: where a symbol is expected, and in the second half where a distance is.
struct Steps([Step; 2 * DISTANCE]);

impl Steps {
    fn of(codes: &Codes) -> Steps {
        let mut alone = [Step::NONE; 2 * DISTANCE];
        let (symbols, distances) = alone.split_at_mut(DISTANCE);
        codes.symbols.fill(symbols, after_symbol);
        codes.distances.fill(distances, after_distance);
        // A literal or a length, and what follows it: of most texts there is no room for more.
        let mut steps = alone;
        for (at, step) in steps[..DISTANCE].iter_mut().enumerate() {
            let next = alone[((at >> step.bits()) % DISTANCE) | step.expected()];
            let is_told = step.bits() + next.width() <= LOOKED_UP && *step != Step::NONE;
            let bits = step.bits() + next.bits();
            if is_told && next != Step::NONE && bits <= LONGEST {
                *step = Step(bits as u16 | next.expected() as u16);
            }
        }
        Steps(steps)
    }

    /// Goes on as long as the table tells how far.
    fn pass(&self, bits: &mut Bits<'_>, expected: &mut usize) {
        let look = |hold: u64, expected: usize| self.0[(hold as usize % DISTANCE) | expected];
        if bits.refill_whole().is_none() {
            return;
        }
        let Bits { bytes, mut next, mut hold, mut held } = *bits;
        let mut step = look(hold, *expected);
        // What is held when this begins anew is enough to have looked the first step up.
        while step != Step::NONE
            && let Some(word) = bytes.get(next..).and_then(|rest| rest.first_chunk::<8>())
        {
            hold |= u64::from_le_bytes(*word) << held;
            next += (63 - held as usize) / 8;
            held |= 56;
            (hold, held, *expected) = (hold >> step.bits(), held - step.bits(), step.expected());
            step = look(hold, *expected);
            if step == Step::NONE {
                break;
            }
            (hold, held, *expected) = (hold >> step.bits(), held - step.bits(), step.expected());
            step = look(hold, *expected);
        }
        *bits = Bits { bytes, next, hold, held };
    }
}

/// A canonical prefix code.
struct Code {
    /// How many codes have this many bits.
    counts: [u16; 16],
    /// The symbols in the order of their codes.
    symbols: [u16; 288],
}

impl Code {
    /// The canonical code of these lengths.
    fn new(lengths: &[u8]) -> Option<Code> {
        let mut counts = [0u16; 16];
        for length in lengths {
            *counts.get_mut(usize::from(*length))? += 1;
        }
        counts[0] = 0;
        let mut places = [0u16; 16];
        let mut room = 1u32;
        for width in 1..16 {
            places[width] = places[width - 1] + counts[width - 1];
            room = (room << 1).checked_sub(u32::from(counts[width]))?;
        }
        let mut symbols = [0; 288];
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let place = &mut places[usize::from(*length)];
            symbols[usize::from(*place)] = symbol as u16;
            *place += 1;
        }
        Some(Code { counts, symbols })
    }

    /// The widths, each with its first code, and the symbols of its codes.
    fn by_width(&self) -> impl Iterator<Item = (u32, u32, &[u16])> {
        let (mut code, mut rest) = (0u32, &self.symbols[..]);
        (1u32..16).zip(&self.counts[1..]).map(move |(width, count)| {
            let (own, after) = rest.split_at(usize::from(*count));
            let first = code;
            (code, rest) = ((code + u32::from(*count)) << 1, after);
            (width, first, own)
        })
    }

    /// The code of a symbol, its first bit the highest.
    fn code_of(&self, symbol: u16) -> Option<u32> {
        self.by_width().find_map(|(_, first, own)| {
            let at = own.iter().position(|one| *one == symbol)?;
            Some(first + at as u32)
        })
    }

    /// The symbol that comes first in these bits, and how many of them are its code.
    fn first(&self, bits: u64) -> Option<(u16, u32)> {
        let ahead = u32::from((bits as u16).reverse_bits());
        self.by_width().find_map(|(width, first, own)| {
            let at = (ahead >> (16 - width)).checked_sub(first)?;
            Some((*own.get(at as usize)?, width))
        })
    }

    /// Fills a table that is looked up by the next bits, as far as the codes are short enough for it.
    fn fill(&self, table: &mut [Step], means: impl Fn(u16, u32) -> Option<Step>) {
        // By width: what is known until then stands in the table once for each value of the further bit.
        for (width, first, own) in self.by_width().take(LOOKED_UP as usize) {
            let half = 1usize << (width - 1);
            table.copy_within(..half, half);
            for (code, symbol) in (first..).zip(own) {
                let step = means(*symbol, width).filter(|step| step.bits() <= LONGEST);
                let at = (code as u16).reverse_bits() >> (16 - width);
                table[usize::from(at)] = step.unwrap_or(Step::NONE);
            }
        }
    }
}
