//! The xz container (The .xz File Format 1.2) around `lzma-rust2`'s LZMA2.
//!
//! Our own, because that crate's container allocates whatever dictionary a header asks for, up to 4 GiB, and takes a
//! short read for the end of the stream. Streams in a row, padding between them, all integrity checks and the
//! branch filters are read; the index is checked to be there, not to be right, as nothing is sought in it.

use std::io::{self, Read};

use lzma_rust2::{
    Lzma2Reader,
    filter::{bcj::BcjReader, delta::DeltaReader},
};
use oci::Hasher;

/// The largest dictionary: `xz -9` wants 64 MiB.
const MAX_DICTIONARY: u32 = 128 << 20;

const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];

/// Decompresses an xz file.
pub struct XzReader<R> {
    state: State<R>,
    check: u8,
}

enum State<R> {
    /// Before a stream; the first must be there.
    Stream { source: R, first: bool },
    /// Before a block or the index.
    Block { source: R },
    /// In a block.
    Data { filters: Filters<R>, digest: Check },
    /// After the last stream, or after an error.
    Ended,
}

/// The chain of a block's filters, outermost last applied.
enum Filters<R> {
    Source(Counted<R>),
    Lzma2(Box<Lzma2Reader<Filters<R>>>),
    Delta(Box<DeltaReader<Filters<R>>>),
    Branch(Box<BcjReader<Filters<R>>>),
}

struct Counted<R> {
    source: R,
    count: u64,
}

enum Check {
    None,
    Crc32(crc32fast::Hasher),
    Crc64(u64),
    Sha256(Box<Hasher>),
}

impl<R: Read> XzReader<R> {
    /// Decompresses `source`, which should be buffered.
    pub fn new(source: R) -> XzReader<R> {
        XzReader { state: State::Stream { source, first: true }, check: 0 }
    }
}

impl<R: Read> Read for XzReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Ok(0),
                State::Stream { mut source, first } => {
                    let Some(check) = stream_header(&mut source, first)? else { return Ok(0) };
                    self.check = check;
                    self.state = State::Block { source };
                }
                State::Block { mut source } => {
                    self.state = match block_header(&mut source)? {
                        Some((header, filters)) => {
                            let source = Counted { source, count: header };
                            State::Data { filters: chain(source, &filters)?, digest: Check::new(self.check)? }
                        }
                        None => {
                            index_and_footer(&mut source, self.check)?;
                            State::Stream { source, first: false }
                        }
                    };
                }
                State::Data { mut filters, mut digest } => {
                    let read = filters.read(buffer)?;
                    if read > 0 {
                        digest.update(&buffer[..read]);
                        self.state = State::Data { filters, digest };
                        return Ok(read);
                    }
                    let Counted { mut source, count } = filters.into_source();
                    zeros(&mut source, count.wrapping_neg() % 4)?;
                    let expected = digest.finish();
                    let mut stored = vec![0; expected.len()];
                    source.read_exact(&mut stored)?;
                    if stored != expected {
                        return Err(bad("the integrity check of a block failed"));
                    }
                    self.state = State::Block { source };
                }
            }
        }
    }
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("broken xz data: {why}"))
}

fn zeros(source: &mut impl Read, count: u64) -> io::Result<()> {
    for _ in 0..count {
        if byte(source)? != 0 {
            return Err(bad("padding is not zero"));
        }
    }
    Ok(())
}

fn byte(source: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    source.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Which check a stream's blocks have; `None` where no further stream follows.
fn stream_header(source: &mut impl Read, first: bool) -> io::Result<Option<u8>> {
    let mut header = [0; 12];
    let mut filled = 0;
    while filled < header.len() {
        match source.read(&mut header[filled..])? {
            0 if filled == 0 && !first => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        // Zeros in fours may stand between streams and at the end.
        while !first && filled >= 4 && header[..4] == [0; 4] {
            header.copy_within(4.., 0);
            filled -= 4;
        }
    }
    let flags = &header[6..8];
    if header[..6] != MAGIC || flags[0] != 0 || flags[1] > 15 {
        return Err(bad("no stream header"));
    }
    if crc32fast::hash(flags).to_le_bytes() != header[8..] {
        return Err(bad("the checksum of a stream header is wrong"));
    }
    Ok(Some(flags[1]))
}

/// A filter's id and its properties.
type Filter = (u64, Vec<u8>);

/// A block's header: its length, and its filters in the order of compressing. `None` where the index follows.
fn block_header(source: &mut impl Read) -> io::Result<Option<(u64, Vec<Filter>)>> {
    let size = byte(source)?;
    if size == 0 {
        return Ok(None);
    }
    let mut header = vec![0; (usize::from(size) + 1) * 4];
    header[0] = size;
    source.read_exact(&mut header[1..])?;
    let (fields, checksum) = header.split_at(header.len() - 4);
    if crc32fast::hash(fields).to_le_bytes() != checksum {
        return Err(bad("the checksum of a block header is wrong"));
    }
    let (flags, mut rest) = (fields[1], &fields[2..]);
    if flags & 0x3c != 0 {
        return Err(bad("a block header has unknown flags"));
    }
    for present in [flags & 0x40, flags & 0x80] {
        if present != 0 {
            number(&mut rest)?;
        }
    }
    let mut filters = Vec::new();
    for _ in 0..=flags & 3 {
        let id = number(&mut rest)?;
        let length = usize::try_from(number(&mut rest)?).unwrap_or(usize::MAX);
        let mut properties = vec![0; length.min(rest.len() + 1)];
        rest.read_exact(&mut properties).map_err(|_| bad("a filter is longer than its header"))?;
        filters.push((id, properties));
    }
    if rest.iter().any(|b| *b != 0) {
        return Err(bad("padding is not zero"));
    }
    Ok(Some((header.len() as u64, filters)))
}

/// Seven bits a byte, lowest first, at most nine bytes.
fn number(source: &mut impl Read) -> io::Result<u64> {
    let mut value = 0;
    for at in 0..9 {
        let byte = byte(source)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(bad("a number is too long"))
}

/// The filters in the order of decompressing. LZMA2 is always the last to compress, and stands nowhere else.
fn chain<R: Read>(source: Counted<R>, filters: &[Filter]) -> io::Result<Filters<R>> {
    let mut chain = Filters::Source(source);
    for (at, (id, properties)) in filters.iter().rev().enumerate() {
        if (at == 0) != (*id == 0x21) {
            return Err(bad("LZMA2 is not the last filter"));
        }
        chain = match (id, &properties[..]) {
            (0x21, [size @ 0..=40]) => {
                let dictionary = match size {
                    40 => u32::MAX,
                    size => (2 | u32::from(size & 1)) << (size / 2 + 11),
                };
                if dictionary > MAX_DICTIONARY {
                    return Err(io::Error::other(format!(
                        "the xz data needs a dictionary of {dictionary} bytes"
                    )));
                }
                Filters::Lzma2(Box::new(Lzma2Reader::new(chain, dictionary, None)))
            }
            (0x03, [distance]) => {
                Filters::Delta(Box::new(DeltaReader::new(chain, usize::from(*distance) + 1)))
            }
            (id @ 0x04..=0x0b, start @ ([] | [_, _, _, _])) => {
                let start = match start {
                    [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
                    _ => 0,
                };
                Filters::Branch(Box::new(match id {
                    0x04 => BcjReader::new_x86(chain, start),
                    0x05 => BcjReader::new_ppc(chain, start),
                    0x06 => BcjReader::new_ia64(chain, start),
                    0x07 => BcjReader::new_arm(chain, start),
                    0x08 => BcjReader::new_arm_thumb(chain, start),
                    0x09 => BcjReader::new_sparc(chain, start),
                    0x0a => BcjReader::new_arm64(chain, start),
                    _ => BcjReader::new_riscv(chain, start),
                }))
            }
            _ => return Err(bad("an unknown filter")),
        };
    }
    Ok(chain)
}

/// Reads over the index, whose first byte has been read, and checks that the footer fits the header.
fn index_and_footer(source: &mut impl Read, check: u8) -> io::Result<()> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[0]);
    let mut index = Tracked { source: &mut *source, crc, count: 1 };
    let records = number(&mut index)?;
    for _ in 0..records {
        number(&mut index)?;
        number(&mut index)?;
    }
    let rest = index.count.wrapping_neg() % 4;
    zeros(&mut index, rest)?;
    let crc = index.crc.finalize().to_le_bytes();
    let mut tail = [0; 16];
    source.read_exact(&mut tail)?;
    if tail[..4] != crc {
        return Err(bad("the checksum of the index is wrong"));
    }
    if tail[12..14] != [0, check]
        || tail[14..] != *b"YZ"
        || crc32fast::hash(&tail[8..14]).to_le_bytes() != tail[4..8]
    {
        return Err(bad("the stream footer does not fit its header"));
    }
    Ok(())
}

/// Sums up what is read through it.
struct Tracked<'a, R> {
    source: &'a mut R,
    crc: crc32fast::Hasher,
    count: u64,
}

impl<R: Read> Read for Tracked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.crc.update(&buffer[..read]);
        self.count += read as u64;
        Ok(read)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

impl<R: Read> Read for Filters<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Filters::Source(reader) => reader.read(buffer),
            Filters::Lzma2(reader) => reader.read(buffer),
            Filters::Delta(reader) => reader.read(buffer),
            Filters::Branch(reader) => reader.read(buffer),
        }
    }
}

impl<R> Filters<R> {
    fn into_source(self) -> Counted<R> {
        match self {
            Filters::Source(source) => source,
            Filters::Lzma2(reader) => reader.into_inner().into_source(),
            Filters::Delta(reader) => reader.into_inner().into_source(),
            Filters::Branch(reader) => reader.into_inner().into_source(),
        }
    }
}

/// The CRC-64 of ECMA-182, bit-reversed as xz has it.
const CRC64: [u64; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut value = at as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xc96c_5795_d787_0f42 } else { value >> 1 };
            bit += 1;
        }
        table[at] = value;
        at += 1;
    }
    table
};

impl Check {
    fn new(id: u8) -> io::Result<Check> {
        Ok(match id {
            0 => Check::None,
            1 => Check::Crc32(crc32fast::Hasher::new()),
            4 => Check::Crc64(u64::MAX),
            10 => Check::Sha256(Box::default()),
            _ => return Err(bad("an unknown integrity check")),
        })
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Check::None => {}
            Check::Crc32(hasher) => hasher.update(bytes),
            Check::Crc64(crc) => {
                *crc = bytes
                    .iter()
                    .fold(*crc, |crc, byte| CRC64[usize::from(byte ^ crc.to_le_bytes()[0])] ^ (crc >> 8));
            }
            Check::Sha256(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Check::None => Vec::new(),
            Check::Crc32(hasher) => hasher.finalize().to_le_bytes().to_vec(),
            Check::Crc64(crc) => (!crc).to_le_bytes().to_vec(),
            Check::Sha256(hasher) => hasher.finish().raw().to_vec(),
        }
    }
}
