//! A tar that is cut, compressed on all cores, joined, and described.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, Write},
    mem,
    sync::mpsc::Receiver,
};

use oci::Hasher;

use super::{
    Chunk, Finished, Indexed, Unindexed, chunked,
    crc64::Crc64,
    estargz, toc,
    unit::{self, Done, Piece, Unit},
};
use crate::{
    compress::{BadLevel, Codec, Cutter, wait},
    tar::{EntryKind, Member, Part, Scanner},
};

/// How many plain bytes a job has at least: files are small, and jobs have a price.
const JOB: usize = 1 << 20;

/// How much that belongs to no file goes into one unit.
const GATHERED: usize = 4 << 20;

/// Compresses a tar that is written to it into a blob with an index. Jobs run on the `rayon` pool that the caller is
/// in; a few for each of its threads are held in memory.
///
/// Dropped before [`SeekableWriter::finish`], it leaves a truncated blob.
pub(crate) struct SeekableWriter<W> {
    out: W,
    codec: Codec,
    /// How many bytes went to `out`.
    position: u64,
    plain_size: u64,
    scanner: Scanner,
    unit: Unit,
    /// Units that wait for a job, and their length.
    waiting: (Vec<Unit>, usize),
    /// Oldest first.
    running: VecDeque<Receiver<Vec<Done>>>,
    /// The file that is being written.
    file: Option<Current>,
    members: Vec<Indexed>,
    /// All names, as a reader compares them.
    names: BTreeSet<Vec<u8>>,
    split: chunked::TarSplit,
    unindexed: Option<Unindexed>,
}

/// A file whose contents are coming.
struct Current {
    member: usize,
    size: u64,
    written: u64,
    cut: Cut,
    /// Of the whole contents; none where they are one piece, which has the same sums.
    sums: Option<(Hasher, Crc64)>,
}

/// Where contents are cut.
enum Cut {
    /// After so many bytes.
    At(usize),
    ByContent(Box<Cutter>),
}

impl<W: Write> SeekableWriter<W> {
    /// A blob that goes to `out`; `codec` is one with an index.
    pub(crate) fn new(out: W, codec: Codec) -> Result<SeekableWriter<W>, BadLevel> {
        Ok(SeekableWriter {
            out,
            codec: codec.check()?,
            position: 0,
            plain_size: 0,
            scanner: Scanner::new(),
            unit: Unit::default(),
            waiting: (Vec::new(), 0),
            running: VecDeque::new(),
            file: None,
            members: Vec::new(),
            names: BTreeSet::new(),
            split: chunked::TarSplit::new(codec),
            unindexed: None,
        })
    }

    /// Compresses what is left, writes the index, and says what was made.
    pub(crate) fn finish(mut self) -> io::Result<Finished<W>> {
        let ending = mem::replace(&mut self.scanner, Scanner::new()).finish();
        self.behind(&ending.rest)?;
        if let Some(why) = ending.unclear {
            self.unindexed.get_or_insert(Unindexed::Unclear { why });
        }
        self.end_unit()?;
        self.start()?;
        while !self.running.is_empty() {
            self.join_oldest()?;
        }
        let tail = match (&self.unindexed, self.codec) {
            // Nothing at all would be no gzip and no zstd.
            (Some(_), _) if self.position == 0 => {
                Tail { bytes: unit::compress(self.codec, b""), ..Tail::default() }
            }
            (Some(_), _) => Tail::default(),
            (None, Codec::EStargz { level }) => {
                estargz::tail(&self.members, level, self.position, self.plain_size, ending.marked)
            }
            (None, codec) => chunked::tail(&self.members, self.split, codec, self.position),
        };
        self.out.write_all(&tail.bytes)?;
        self.out.flush()?;
        Ok(Finished {
            out: self.out,
            behind: tail.behind,
            annotations: tail.annotations,
            unindexed: self.unindexed,
        })
    }

    fn part(&mut self, part: Part<'_>) -> io::Result<()> {
        match part {
            Part::Member(member, raw) => {
                self.gathered(&raw)?;
                self.member(member, raw);
                Ok(())
            }
            Part::Contents(bytes) => self.contents(bytes),
            Part::Gathered(raw) => self.behind(&raw),
            Part::Rest(bytes) => self.behind(bytes),
        }
    }

    fn member(&mut self, member: Box<Member>, raw: Vec<u8>) {
        if self.unindexed.is_none()
            && let Err(why) = self.admit(&member)
        {
            self.unindexed = Some(why);
        }
        let (at, size) = (self.members.len(), member.size());
        if size > 0 {
            let (one_piece, cut) = match self.codec {
                Codec::EStargz { .. } => (estargz::CHUNK, Cut::At(estargz::CHUNK)),
                _ => (chunked::SIZES.least, Cut::ByContent(Box::new(Cutter::new(chunked::SIZES)))),
            };
            let sums = (size > one_piece as u64).then(|| (Hasher::new(), Crc64::default()));
            self.file = Some(Current { member: at, size, written: 0, cut, sums });
        }
        if self.unindexed.is_none() {
            self.split.header(raw);
        }
        self.members.push(Indexed { member, chunks: Vec::new(), sums: None });
    }

    /// Whether the index can have this member.
    fn admit(&mut self, member: &Member) -> Result<(), Unindexed> {
        toc::check(member)?;
        let shown = || String::from_utf8_lossy(&member.entry.path).into_owned();
        let name = cleaned(&member.entry.path);
        if estargz::RESERVED.iter().any(|reserved| name == reserved.as_bytes()) {
            return Err(Unindexed::Reserved { path: shown() });
        }
        if let EntryKind::HardLink { target } = &member.entry.kind
            && !self.names.contains(&cleaned(target))
        {
            let target = String::from_utf8_lossy(target).into_owned();
            return Err(Unindexed::LinkTarget { path: shown(), target });
        }
        self.names.insert(name).then_some(()).ok_or_else(|| Unindexed::Twice { path: shown() })
    }

    fn contents(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let Some(file) = &mut self.file else {
                return Err(io::Error::other("contents of no member"));
            };
            // The unit may still hold the file before, and what followed that.
            let starts = file.written == 0 || self.unit.piece.is_none();
            let (member, file_offset) = (file.member, file.written);
            let filled = self.unit.piece.filter(|_| !starts).map_or(0, |piece| piece.size);
            let (taken, cut) = match &mut file.cut {
                Cut::At(size) => {
                    let taken = bytes.len().min(*size - filled);
                    (taken, filled + taken == *size)
                }
                Cut::ByContent(cutter) => cutter.advance(bytes),
            };
            if let Some((digest, crc64)) = &mut file.sums {
                digest.update(&bytes[..taken]);
                crc64.update(&bytes[..taken]);
            }
            file.written += taken as u64;
            let ended = file.written == file.size;
            if starts {
                self.end_unit()?;
                self.unit.piece = Some(Piece { member, file_offset, size: 0 });
            }
            self.unit.plain.extend_from_slice(&bytes[..taken]);
            if let Some(piece) = &mut self.unit.piece {
                piece.size += taken;
            }
            bytes = &bytes[taken..];
            if ended {
                self.end_file();
            }
            // What follows the last piece stays with it in estargz; there is no place for a member's border.
            if (cut && !ended) || (ended && matches!(self.codec, Codec::ZstdChunked { .. })) {
                self.end_unit()?;
            }
        }
        Ok(())
    }

    fn end_file(&mut self) {
        if let Some(Current { member, sums: Some((digest, crc64)), .. }) = self.file.take() {
            self.members[member].sums = Some((digest.finish(), crc64.value()));
        }
    }

    /// Bytes of no member.
    fn behind(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.unindexed.is_none() {
            self.unindexed = self.split.rest(bytes).err();
        }
        self.gathered(bytes)
    }

    /// Bytes that are no contents: headers, padding, what cannot be understood.
    fn gathered(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = (GATHERED + self.unit.piece.map_or(0, |piece| piece.size))
                .saturating_sub(self.unit.plain.len());
            if room == 0 {
                self.end_unit()?;
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.unit.plain.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn end_unit(&mut self) -> io::Result<()> {
        if self.unit.plain.is_empty() {
            return Ok(());
        }
        let unit = mem::take(&mut self.unit);
        self.waiting.1 += unit.plain.len();
        self.waiting.0.push(unit);
        if self.waiting.1 >= JOB { self.start() } else { Ok(()) }
    }

    /// Hands what waits to the pool.
    fn start(&mut self) -> io::Result<()> {
        let (units, length) = mem::take(&mut self.waiting);
        if length == 0 {
            return Ok(());
        }
        self.plain_size += length as u64;
        if self.running.len() >= 2 * rayon::current_num_threads() + 2 {
            self.join_oldest()?;
        }
        self.running.push_back(unit::start(self.codec, units));
        Ok(())
    }

    /// Waits for the oldest job, writes what it made and notes where.
    fn join_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.running.pop_front() else { return Ok(()) };
        for done in wait(&oldest)? {
            let offset = self.position;
            self.out.write_all(&done.bytes)?;
            self.position += done.bytes.len() as u64;
            let Some((piece, sums)) = done.piece else { continue };
            let indexed = &mut self.members[piece.member];
            if piece.size as u64 == indexed.member.size() {
                indexed.sums = Some((sums.digest, sums.crc64));
            }
            indexed.chunks.push(Chunk {
                offset,
                end: self.position,
                file_offset: piece.file_offset,
                size: piece.size as u64,
                digest: sums.digest,
                zeros: sums.zeros,
            });
        }
        if self.unindexed.is_none() {
            self.split.advance(&self.members);
        }
        Ok(())
    }
}

impl<W: Write> Write for SeekableWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(part) = self.scanner.next(&mut rest) {
            self.part(part)?;
        }
        Ok(bytes.len())
    }

    /// Does not end a unit, as that would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What stands behind the last unit.
#[derive(Default)]
pub(super) struct Tail {
    /// As it is written.
    pub(super) bytes: Vec<u8>,
    /// As it is uncompressed, where decoders see it.
    pub(super) behind: Vec<u8>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// A name as readers of an index compare it: from the root, without `.`, `..` and double slashes.
fn cleaned(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::cleaned;

    #[test]
    fn names_are_compared_from_the_root() {
        for (name, expected) in
            [("./a/b/", "a/b"), ("/a//b", "a/b"), ("../a/./c/../b", "a/b"), ("./", ""), ("a", "a")]
        {
            assert_eq!(cleaned(name.as_bytes()), expected.as_bytes());
        }
    }
}
