//! Where a deflate stream's last block begins and ends: read bit by bit, without making the bytes it stands for.
//!
//! The library that compresses marks the last block of what it makes as the last of all, and says nothing of where that
//! block begins. Blocks of ours are joined into one stream, so the mark has to go. Codes are looked up by several
//! symbols at once; what is not needed, the bytes themselves and their distances, is passed over.
//!
//! # Source
//! RFC 1951 § 3.2.

/// The last block of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// The number of the bit that marks it as the last.
    pub(super) mark: usize,
    /// The number of bits of the whole stream.
    pub(super) end: usize,
}

/// Reads a stream up to the end of its last block. `None` where it is no deflate.
pub(super) fn last_block(stream: &[u8]) -> Option<Last> {
    let mut bits = Bits { bytes: stream, next: 0, hold: 0, held: 0 };
    loop {
        let mark = bits.position();
        bits.refill();
        let header = bits.take(3)?;
        match header >> 1 {
            0 => bits.skip_stored()?,
            1 => Codes::fixed()?.skip(&mut bits)?,
            2 => Codes::read(&mut bits)?.skip(&mut bits)?,
            _ => return None,
        }
        if header & 1 == 1 {
            return Some(Last { mark, end: bits.position() });
        }
    }
}

/// A stream's bits, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// The first byte that is not held yet.
    next: usize,
    hold: u64,
    /// How many bits of `hold` count. Above them it may hold more of the stream already.
    held: u32,
}

impl Bits<'_> {
    fn position(&self) -> usize {
        self.next * 8 - self.held as usize
    }

    /// Holds at least 56 bits, if there are as many.
    fn refill(&mut self) {
        if let Some(word) = self.bytes[self.next..].first_chunk::<8>() {
            self.hold |= u64::from_le_bytes(*word) << self.held;
            self.next += (63 - self.held as usize) / 8;
            self.held |= 56;
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

    fn skip(&mut self, count: u32) -> Option<()> {
        self.held = self.held.checked_sub(count)?;
        self.hold >>= count;
        Some(())
    }

    /// [`Bits::skip`] for who asks [`Bits::is_overdrawn`] before the next refill.
    fn pass(&mut self, entry: Entry) {
        self.hold >>= entry.bits();
        self.held = self.held.wrapping_sub(entry.bits());
    }

    /// Whether more was passed over than there was.
    fn is_overdrawn(&self) -> bool {
        self.held > 64
    }

    fn take(&mut self, count: u32) -> Option<usize> {
        let value = self.hold & ((1 << count) - 1);
        self.skip(count)?;
        usize::try_from(value).ok()
    }

    /// A stored block behind its header: up to a byte's border, the length twice, the bytes.
    fn skip_stored(&mut self) -> Option<()> {
        let at = self.position().div_ceil(8);
        let lengths = self.bytes.get(at..)?.first_chunk::<4>()?;
        let [length, check] = [[lengths[0], lengths[1]], [lengths[2], lengths[3]]].map(u16::from_le_bytes);
        self.next = at + 4 + usize::from(length);
        (self.hold, self.held) = (0, 0);
        (length == !check && self.next <= self.bytes.len()).then_some(())
    }
}

/// The codes of one block.
struct Codes {
    symbols: Code,
    distances: Code,
}

/// The order in which the lengths of the code for lengths stand there.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

impl Codes {
    fn new(symbols: &[u8], distances: &[u8]) -> Option<Codes> {
        let mut codes =
            Codes { symbols: Code::new(symbols, symbol)?, distances: Code::new(distances, distance)? };
        codes.symbols.pack();
        Some(codes)
    }

    fn fixed() -> Option<Codes> {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        Codes::new(&lengths, &[5; 30])
    }

    /// The codes that stand at the head of a block.
    fn read(bits: &mut Bits<'_>) -> Option<Codes> {
        let (symbols, distances, count) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
        let mut lengths = [0; 19];
        for at in &ORDER[..count] {
            bits.refill();
            lengths[*at] = bits.take(3)? as u8;
        }
        let code = Code::new(&lengths, |symbol| Some((Kind::Symbol(symbol), 0)))?;
        let mut lengths = [0u8; 288 + 32];
        let all = symbols + distances;
        let mut at = 0;
        while at < all {
            bits.refill();
            let entry = code.next(bits)?;
            let (length, times) = match entry.symbol() {
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

    /// Passes over what the block holds, with its end.
    fn skip(&self, bits: &mut Bits<'_>) -> Option<()> {
        loop {
            // A length with its distance has no more than 48 bits.
            if bits.held < 48 {
                bits.refill();
            }
            let entry = self.symbols.look(bits)?;
            bits.pass(entry);
            if entry.is_copy() {
                let distance = self.distances.look(bits)?;
                bits.pass(distance);
            }
            if bits.is_overdrawn() {
                return None;
            }
            if entry.is_end() {
                return Some(());
            }
        }
    }
}

/// What a code stands for.
#[derive(Clone, Copy)]
enum Kind {
    Literals,
    End,
    /// A length or a distance.
    Copy,
    Symbol(u16),
}

/// A symbol, and how many bits follow its code.
fn symbol(symbol: u16) -> Option<(Kind, u32)> {
    Some(match symbol {
        0..=255 => (Kind::Literals, 0),
        256 => (Kind::End, 0),
        257..=264 | 285 => (Kind::Copy, 0),
        265..=284 => (Kind::Copy, u32::from(symbol - 261) / 4),
        _ => return None,
    })
}

fn distance(symbol: u16) -> Option<(Kind, u32)> {
    (symbol < 30).then_some((Kind::Copy, u32::from(symbol.saturating_sub(2)) / 2))
}

/// What to do with the next bits: how many they are in the lowest five, then two of the kind, then the symbol. 0 is no
/// code, or one that is too long for the table.
#[derive(Clone, Copy, Default)]
struct Entry(u16);

impl Entry {
    fn new(kind: Kind, bits: u32) -> Entry {
        let kind = match kind {
            Kind::Literals => 0,
            Kind::End => 1,
            Kind::Copy => 2,
            Kind::Symbol(symbol) => 3 | symbol << 2,
        };
        Entry(kind << 5 | bits as u16)
    }

    fn bits(self) -> u32 {
        u32::from(self.0 & 31)
    }

    fn is_literals(self) -> bool {
        self.0 >> 5 == 0
    }

    fn is_end(self) -> bool {
        self.0 >> 5 == 1
    }

    fn is_copy(self) -> bool {
        self.0 >> 5 == 2
    }

    fn symbol(self) -> u16 {
        self.0 >> 7
    }
}

/// How many bits are looked up at once. Longer codes are rare.
const LOOKED_UP: u32 = 11;

/// A prefix code.
struct Code {
    table: [Entry; 1 << LOOKED_UP],
    /// Codes that are too long for the table: their bits in the order of the stream, how many they are, and what to do.
    long: Vec<(u16, u32, Entry)>,
}

impl Code {
    /// The canonical code of these lengths.
    fn new(lengths: &[u8], means: impl Fn(u16) -> Option<(Kind, u32)>) -> Option<Code> {
        let mut counts = [0u32; 16];
        for length in lengths.iter().filter(|length| **length > 0) {
            *counts.get_mut(usize::from(*length))? += 1;
        }
        // The first code of each length.
        let mut next = [0u32; 16];
        for length in 1..16 {
            next[length] = (next[length - 1] + counts[length - 1]) << 1;
        }
        let mut code = Code { table: [Entry::default(); 1 << LOOKED_UP], long: Vec::new() };
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let width = u32::from(*length);
            let value = next[usize::from(*length)];
            next[usize::from(*length)] += 1;
            if value >> width != 0 {
                return None;
            }
            let reversed = (value as u16).reverse_bits() >> (16 - width);
            // Symbols that no stream may use have codes of their own in the fixed one.
            let Some((kind, extra)) = means(symbol as u16) else { continue };
            let entry = Entry::new(kind, width + extra);
            if width > LOOKED_UP {
                code.long.push((reversed, width, entry));
                continue;
            }
            for at in (usize::from(reversed)..1 << LOOKED_UP).step_by(1 << width) {
                code.table[at] = entry;
            }
        }
        Some(code)
    }

    /// Lets an entry of a literal stand for the literals behind it, too, as far as its bits tell them.
    fn pack(&mut self) {
        let alone = self.table;
        for (at, entry) in self.table.iter_mut().enumerate() {
            let mut known = LOOKED_UP;
            let mut rest = at;
            while entry.0 != 0 && entry.is_literals() {
                let bits = alone[rest].bits();
                if bits > known {
                    break;
                }
                (known, rest) = (known - bits, rest >> bits);
                let next = alone[rest];
                if next.0 == 0 || !next.is_literals() || next.bits() > known {
                    break;
                }
                *entry = Entry(entry.0 + next.bits() as u16);
            }
        }
    }

    /// Passes over the next code and what belongs to it.
    fn next(&self, bits: &mut Bits<'_>) -> Option<Entry> {
        let entry = self.look(bits)?;
        bits.skip(entry.bits())?;
        Some(entry)
    }

    /// What to do with the next code.
    fn look(&self, bits: &Bits<'_>) -> Option<Entry> {
        let entry = self.table[(bits.hold & ((1 << LOOKED_UP) - 1)) as usize];
        if entry.0 != 0 {
            return Some(entry);
        }
        let starts =
            |(code, width, _): &&(u16, u32, Entry)| bits.hold & ((1 << width) - 1) == u64::from(*code);
        Some(self.long.iter().find(starts)?.2)
    }
}
