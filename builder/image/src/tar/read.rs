//! Reads an archive member by member, without seeking.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use tree::Mtime;

use super::{
    BLOCK, Entry, EntryKind, TarError,
    header::{Block, until_nul},
    padding,
    pax::{self, Records},
    sparse::{self, MAX_PAIRS, Segment},
};

/// The longest extension that is read: a PAX header, a long name, a sparse map.
const MAX_EXTENSION: u64 = 1 << 20;

/// An archive that is read from front to back.
///
/// After an error the reader is at no known place: do not go on.
pub struct Reader<R> {
    source: R,
    /// Bytes taken from `source`.
    position: u64,
    /// What of the current member's contents was not read yet.
    segments: VecDeque<Segment>,
    /// Zeros behind the current member's contents.
    padding: u64,
    done: bool,
}

/// What [`Reader::read_chunk`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// So many bytes were written to the front of the buffer; at least one.
    Data(usize),
    /// So many zeros follow that the archive does not store.
    Hole(u64),
    /// The member's contents have ended.
    End,
}

/// The contents of one member, its holes filled with zeros.
pub struct Contents<'a, R>(&'a mut Reader<R>);

/// What stands before a member and applies to it alone.
#[derive(Default)]
struct Extensions {
    pax: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Reads the tar that `source` gives; a compressed one must be decompressed before.
    pub fn new(source: R) -> Reader<R> {
        Reader { source, position: 0, segments: VecDeque::new(), padding: 0, done: false }
    }

    /// How many bytes of the tar were read: after [`Reader::next_entry`], where the member's contents start.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the current member's contents stand in the archive in one piece, from [`Reader::position`] on.
    pub fn is_contiguous(&self) -> bool {
        let data = |segment: &Segment| matches!(segment, Segment::Data(_));
        self.segments.len() <= 1 && self.segments.iter().all(data)
    }

    /// What is left of the source. Behind the end of the archive there may be more: padding, or anything.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// The next member; what was not read of the current one is skipped. `None` at the end of the archive: two blocks
    /// of zeros, or the end of the source at a member's border, as old archivers leave it.
    ///
    /// # Errors
    /// [`TarError`] where the archive is damaged, hostile, or would be understood differently by another reader.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_contents()?;
        let mut extensions = Extensions::default();
        loop {
            let offset = self.position;
            let Some(bytes) = self.header_block()? else {
                let leftover = extensions.pax.is_some() || extensions.long_name.is_some();
                if leftover || extensions.long_link.is_some() {
                    return Err(TarError::Truncated { offset, what: "an extended header without its entry" });
                }
                return Ok(None);
            };
            let block = Block::new(&bytes, offset)?;
            match block.flag() {
                b'x' => {
                    let records = self.extension(&block, "PAX header")?;
                    let records = pax::parse(&records).map_err(|why| TarError::Pax { offset, why })?;
                    if extensions.pax.replace(records).is_some() {
                        return Err(ambiguous(&block, "two PAX headers stand before one entry"));
                    }
                }
                b'g' => {
                    let records = self.extension(&block, "global PAX header")?;
                    check_global(&block, &records)?;
                }
                b'L' => {
                    let name = self.extension(&block, "long name")?;
                    if extensions.long_name.replace(until_nul(&name).to_vec()).is_some() {
                        return Err(ambiguous(&block, "two long names stand before one entry"));
                    }
                }
                b'K' => {
                    let link = self.extension(&block, "long link target")?;
                    if extensions.long_link.replace(until_nul(&link).to_vec()).is_some() {
                        return Err(ambiguous(&block, "two long link targets stand before one entry"));
                    }
                }
                _ => return self.member(&block, extensions).map(Some),
            }
        }
    }

    /// Reads the current member's contents piece by piece and tells holes from data. `buffer` must not be empty.
    ///
    /// # Errors
    /// [`TarError`] where the archive ends too early.
    pub fn read_chunk(&mut self, buffer: &mut [u8]) -> Result<Chunk, TarError> {
        match self.segments.front_mut() {
            None => Ok(Chunk::End),
            Some(Segment::Hole(length)) => {
                let length = *length;
                self.segments.pop_front();
                Ok(Chunk::Hole(length))
            }
            Some(Segment::Data(length)) => {
                let most = usize::try_from(*length).unwrap_or(usize::MAX).min(buffer.len());
                let read = loop {
                    match self.source.read(&mut buffer[..most]) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(source) => return Err(TarError::Io { offset: self.position, source }),
                        Ok(read) => break read,
                    }
                };
                if read == 0 {
                    return Err(TarError::Truncated { offset: self.position, what: "a file" });
                }
                self.position += read as u64;
                *length -= read as u64;
                if *length == 0 {
                    self.segments.pop_front();
                }
                Ok(Chunk::Data(read))
            }
        }
    }

    /// The current member's contents as a stream.
    pub fn contents(&mut self) -> Contents<'_, R> {
        Contents(self)
    }

    fn skip_contents(&mut self) -> Result<(), TarError> {
        let mut rest = self.padding;
        for segment in self.segments.drain(..) {
            if let Segment::Data(length) = segment {
                rest += length;
            }
        }
        self.padding = 0;
        let skipped = io::copy(&mut (&mut self.source).take(rest), &mut io::sink());
        let skipped = skipped.map_err(|source| TarError::Io { offset: self.position, source })?;
        self.position += skipped;
        if skipped < rest {
            return Err(TarError::Truncated { offset: self.position, what: "a file" });
        }
        Ok(())
    }

    /// The next header block; `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.done {
            return Ok(None);
        }
        let first = self.block("a header")?;
        let Some(first) = first.filter(|block| block.iter().any(|b| *b != 0)) else {
            self.done = true;
            // Only where the first block was there and zero; at the end of the source this reads nothing.
            let second = self.block("the end marker")?;
            return match second {
                Some(block) if block.iter().any(|b| *b != 0) => {
                    Err(TarError::Checksum { offset: self.position - 2 * BLOCK as u64 })
                }
                _ => Ok(None),
            };
        };
        Ok(Some(first))
    }

    /// One block; `None` at the end of the source.
    fn block(&mut self, what: &'static str) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    self.position += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Io { offset: self.position, source }),
            }
        }
        match filled {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(TarError::Truncated { offset: self.position, what }),
        }
    }

    /// A block that must be there.
    fn expect_block(&mut self, what: &'static str) -> Result<[u8; BLOCK], TarError> {
        let offset = self.position;
        self.block(what)?.ok_or(TarError::Truncated { offset, what })
    }

    /// The contents of an extension header. Its length is its own field: PAX's `size` is about the member that follows.
    fn extension(&mut self, block: &Block<'_>, what: &'static str) -> Result<Vec<u8>, TarError> {
        let size = block.size()?;
        if size > MAX_EXTENSION {
            return Err(TarError::TooLarge { offset: block.offset, what, size, limit: MAX_EXTENSION });
        }
        let mut contents = Vec::new();
        while (contents.len() as u64) < size + padding(size) {
            contents.extend_from_slice(&self.expect_block(what)?);
        }
        contents.truncate(usize::try_from(size).expect("at most MAX_EXTENSION"));
        Ok(contents)
    }

    /// Puts the member together and sets the reader before its contents.
    fn member(&mut self, block: &Block<'_>, extensions: Extensions) -> Result<Entry, TarError> {
        let Extensions { pax, long_name, long_link } = extensions;
        let pax = pax.unwrap_or_default();
        let sparse_name = pax.sparse.name.clone();
        let path =
            one_name(block, sparse_name.or(pax.path.clone()), long_name)?.unwrap_or_else(|| block.path());
        let target = one_name(block, pax.link.clone(), long_link)?.unwrap_or_else(|| block.link());
        let stored = match pax.size {
            Some(size) => size,
            None => block.size()?,
        };
        let kind = self.kind(block, &pax, &path, target, stored)?;
        if !matches!(kind, EntryKind::File { .. }) && stored != 0 {
            // Some readers skip so many bytes, others take them for the next header.
            return Err(ambiguous_at(block, &path, "a size on an entry that has no contents"));
        }
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Mtime { seconds: block.mtime()?, nanoseconds: 0 },
        };
        Ok(Entry {
            kind,
            mode: block.mode()?,
            uid: owner(block, pax.uid, || block.uid(), "uid")?,
            gid: owner(block, pax.gid, || block.gid(), "gid")?,
            mtime,
            xattrs: pax.xattrs,
            path,
        })
    }

    fn kind(
        &mut self,
        block: &Block<'_>,
        pax: &Records,
        path: &[u8],
        target: Vec<u8>,
        stored: u64,
    ) -> Result<EntryKind, TarError> {
        let flag = block.flag();
        if pax.sparse.any && !matches!(flag, b'0' | 0 | b'7') {
            return Err(ambiguous_at(block, path, "a sparse map on something that is no regular file"));
        }
        Ok(match flag {
            // V7 had no flag for folders: a trailing slash said it.
            b'0' | 0 | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' if pax.sparse.any => {
                EntryKind::File { size: self.pax_sparse(block, pax, path, stored)? }
            }
            b'0' | 0 | b'7' => {
                if stored > 0 {
                    self.segments.push_back(Segment::Data(stored));
                }
                self.padding = padding(stored);
                EntryKind::File { size: stored }
            }
            b'S' => EntryKind::File { size: self.gnu_sparse(block, path, stored)? },
            b'1' => EntryKind::HardLink { target },
            b'2' => EntryKind::Symlink { target },
            b'3' => {
                let (major, minor) = block.device()?;
                EntryKind::CharDevice { major, minor }
            }
            b'4' => {
                let (major, minor) = block.device()?;
                EntryKind::BlockDevice { major, minor }
            }
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                return Err(TarError::Unsupported {
                    offset: block.offset,
                    path: String::from_utf8_lossy(path).into_owned(),
                    what: format!("type flag `{}`", other.escape_ascii()),
                });
            }
        })
    }

    /// Old GNU: the map starts in the header and goes on in blocks behind it.
    fn gnu_sparse(&mut self, block: &Block<'_>, path: &[u8], stored: u64) -> Result<u64, TarError> {
        let (mut pairs, mut more, real_size) = sparse::old_gnu(block)?;
        while more {
            let extension = self.expect_block("a sparse map")?;
            sparse::collect(block, &extension[..504], &mut pairs)?;
            more = extension[504] != 0;
            if pairs.len() > 2 * MAX_PAIRS {
                return Err(bad_map(block, path, "it has too many pieces"));
            }
        }
        self.set_map(block, path, &pairs, real_size, stored, stored)
    }

    /// PAX 0.0 and 0.1 have the map in records, 1.0 in front of the contents, as decimal lines filled up to a block.
    fn pax_sparse(
        &mut self,
        block: &Block<'_>,
        pax: &Records,
        path: &[u8],
        stored: u64,
    ) -> Result<u64, TarError> {
        let sparse = &pax.sparse;
        let real_size = sparse.real_size.ok_or_else(|| bad_map(block, path, "the file's size is missing"))?;
        match (sparse.major, sparse.minor, &sparse.map) {
            (Some(1), Some(0), None) if sparse.pairs.is_empty() => {
                let (pairs, used) = self.leading_map(block, path, stored)?;
                self.set_map(block, path, &pairs, real_size, stored - used, stored)
            }
            (None | Some(0), _, Some(map)) if sparse.pairs.is_empty() => {
                self.set_map(block, path, map, real_size, stored, stored)
            }
            (None | Some(0), _, None) => self.set_map(block, path, &sparse.pairs, real_size, stored, stored),
            _ => Err(bad_map(block, path, "it is of an unknown version, or there are two")),
        }
    }

    /// The map of PAX 1.0: the number of pieces, then offset and length of each, a line each. Returns the pairs and how
    /// many bytes the map took.
    fn leading_map(
        &mut self,
        block: &Block<'_>,
        path: &[u8],
        stored: u64,
    ) -> Result<(Vec<u64>, u64), TarError> {
        let mut numbers: Vec<u64> = Vec::new();
        let (mut line, mut used) = (Vec::new(), 0u64);
        loop {
            used += BLOCK as u64;
            if used > stored || used > MAX_EXTENSION {
                return Err(bad_map(block, path, "it is longer than the entry"));
            }
            for byte in self.expect_block("a sparse map")? {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let number = pax::decimal(&line).ok_or_else(|| bad_map(block, path, "it holds no number"))?;
                line.clear();
                numbers.push(number);
                if numbers[0] > MAX_PAIRS as u64 {
                    return Err(bad_map(block, path, "it has too many pieces"));
                }
                if numbers.len() as u64 == 1 + 2 * numbers[0] {
                    return Ok((numbers.split_off(1), used));
                }
            }
        }
    }

    /// Sets what of the member is data and what is holes. `data` is how much of the `stored` bytes is not map.
    fn set_map(
        &mut self,
        block: &Block<'_>,
        path: &[u8],
        pairs: &[u64],
        real_size: u64,
        data: u64,
        stored: u64,
    ) -> Result<u64, TarError> {
        let segments = sparse::segments(pairs, real_size, data).map_err(|why| bad_map(block, path, why))?;
        self.segments = segments.into();
        self.padding = padding(stored);
        Ok(real_size)
    }
}

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.0.read_chunk(buffer)? {
            Chunk::End => Ok(0),
            Chunk::Data(read) => Ok(read),
            Chunk::Hole(length) => {
                let zeros = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
                buffer[..zeros].fill(0);
                if length > zeros as u64 {
                    self.0.segments.push_front(Segment::Hole(length - zeros as u64));
                }
                Ok(zeros)
            }
        }
    }
}

/// The one name that two extensions give, if they agree.
fn one_name(
    block: &Block<'_>,
    pax: Option<Vec<u8>>,
    gnu: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, TarError> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            Err(ambiguous_at(block, &pax, "a PAX header and a GNU long name give it different names"))
        }
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

/// An owner: PAX's word before the header's. The kernel's ids have 32 bits, and all ones mean "leave it".
fn owner(
    block: &Block<'_>,
    pax: Option<u64>,
    header: impl Fn() -> Result<i64, TarError>,
    field: &'static str,
) -> Result<u32, TarError> {
    let value = match pax {
        Some(value) => i128::from(value),
        None => i128::from(header()?),
    };
    let id = u32::try_from(value).ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| TarError::Number { offset: block.offset, field, value: value.to_string() })
}

/// Global records are skipped, as Docker and containerd do it; where one would move names or sizes of members, readers
/// that heed it see another archive.
fn check_global(block: &Block<'_>, bytes: &[u8]) -> Result<(), TarError> {
    let records = pax::records(bytes).map_err(|why| TarError::Pax { offset: block.offset, why })?;
    let moves = |key: &[u8]| {
        matches!(key, b"path" | b"linkpath" | b"size" | b"SCHILY.realsize") || key.starts_with(b"GNU.sparse.")
    };
    if records.iter().any(|(key, _)| moves(key)) {
        return Err(ambiguous(block, "a global PAX header sets names or sizes"));
    }
    Ok(())
}

fn ambiguous(block: &Block<'_>, why: &'static str) -> TarError {
    ambiguous_at(block, &block.path(), why)
}

fn ambiguous_at(block: &Block<'_>, path: &[u8], why: &'static str) -> TarError {
    TarError::Ambiguous { offset: block.offset, path: String::from_utf8_lossy(path).into_owned(), why }
}

fn bad_map(block: &Block<'_>, path: &[u8], why: &'static str) -> TarError {
    TarError::Sparse { offset: block.offset, path: String::from_utf8_lossy(path).into_owned(), why }
}
