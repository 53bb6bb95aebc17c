//! The tar reader: no more comes out than went in, and what it takes is written and read again as the same.

use std::io::{self, Cursor};

use image::tar::{BLOCK, Builder, Chunk, Entry, EntryKind, Reader, TarError};

/// How many wrong checksums are mended. Without that, nearly every mutation would end at the first header.
const MENDED: usize = 16;

/// The most bytes of contents that are kept to be written again; files of nothing but holes may be endless.
const KEPT: u64 = 1 << 20;

/// Reads an archive, first as it is, then with the checksums of its headers put right.
pub fn tar(data: &[u8]) {
    let mut data = data.to_vec();
    for _ in 0..MENDED {
        match read(&data) {
            Ok(members) => return write_again(&members),
            Err(error) => {
                let _shown = error.to_string();
                match error {
                    TarError::Checksum { offset } | TarError::Number { offset, field: "checksum", .. } => {
                        mend(&mut data, offset);
                    }
                    _ => return,
                }
            }
        }
    }
}

/// An entry and its contents: `None` where they are more than [`KEPT`].
type Member = (Entry, Option<Vec<u8>>);

fn read(data: &[u8]) -> Result<Vec<Member>, TarError> {
    let mut reader = Reader::new(data);
    let mut members = Vec::new();
    let mut buffer = [0; 700];
    let mut before = 0;
    while let Some(entry) = reader.next_entry()? {
        assert!(reader.position() > before && reader.position() <= data.len() as u64, "no header was read");
        assert!(reader.position().is_multiple_of(BLOCK as u64));
        assert!(entry.mode <= 0o7777 && entry.mtime.nanoseconds < 1_000_000_000);
        assert!(entry.xattrs.keys().all(|name| !name.is_empty() && !name.contains(&0)));
        assert!(entry.path.len() + xattr_bytes(&entry) <= data.len(), "more came out than went in");
        let (mut contents, mut length, mut stored) = (Vec::new(), 0u64, 0u64);
        let start = reader.position();
        let in_one_piece = reader.is_contiguous();
        loop {
            let added = match reader.read_chunk(&mut buffer)? {
                Chunk::End => break,
                Chunk::Data(read) => {
                    assert!(read > 0 && read <= buffer.len());
                    stored += read as u64;
                    contents.extend_from_slice(&buffer[..read]);
                    read as u64
                }
                Chunk::Hole(hole) => {
                    assert!(hole > 0);
                    let kept = usize::try_from(hole.min(KEPT)).expect("at most KEPT");
                    contents.resize(contents.len() + kept, 0);
                    hole
                }
            };
            length += added;
            contents.truncate(KEPT as usize + 1);
        }
        assert_eq!(reader.position() - start, stored, "data and holes are told apart");
        assert!(!in_one_piece || stored == length, "contents in one piece have no holes");
        match entry.kind {
            EntryKind::File { size } => assert_eq!(size, length),
            _ => assert_eq!(length, 0, "contents of something that is no file"),
        }
        before = reader.position();
        members.push((entry, (length <= KEPT).then_some(contents)));
    }
    Ok(members)
}

fn xattr_bytes(entry: &Entry) -> usize {
    entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Writes what was read, reads that, and compares.
fn write_again(members: &[Member]) {
    let mut builder = Builder::new(Vec::new());
    let mut written = Vec::new();
    for (entry, contents) in members {
        let Some(contents) = contents else { continue };
        let before = builder.out().len();
        match builder.append(entry, &mut Cursor::new(contents)) {
            Ok(()) => written.push((normal(entry), contents)),
            // What other archivers may say, and ours does not.
            Err(_) => builder.out().truncate(before),
        }
    }
    let bytes = builder.finish().expect("a vector takes everything");
    let again = read(&bytes).unwrap_or_else(|error: TarError| panic!("what was written is refused: {error}"));
    assert_eq!(again.len(), written.len());
    for ((entry, contents), (expected, bytes)) in again.iter().zip(&written) {
        assert_eq!(normal(entry), *expected);
        assert_eq!(contents.as_ref(), Some(*bytes));
    }
}

/// An entry as a tar of ours has it: whole seconds, and a slash behind a folder.
fn normal(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    entry.mtime.nanoseconds = 0;
    if entry.kind == EntryKind::Directory && !entry.path.ends_with(b"/") {
        entry.path.push(b'/');
    }
    // A file whose name ends in a slash is a folder to every reader.
    entry
}

/// Puts the checksum of a header right.
fn mend(data: &mut [u8], offset: u64) {
    let start = usize::try_from(offset).expect("it was read from memory");
    let Some(block) = data.get_mut(start..start + BLOCK) else { return };
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Reads a few bytes at a time, to find out what depends on how much comes at once.
pub(crate) struct Trickle<'a> {
    pub(crate) rest: &'a [u8],
    pub(crate) step: usize,
}

impl io::Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.step.min(self.rest.len()).min(buffer.len());
        let (now, rest) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.rest = rest;
        Ok(length)
    }
}
