//! Tells the members of an archive apart while it is being written: bytes are pushed in, as many at a time as there are.
//!
//! [`super::Reader`] asks for bytes and therefore needs a thread of its own where they come from a writer. What stands
//! before a member is gathered here and then given to that reader, so that both understand an archive in the same way.
//! An archive that it does not understand is handed through as it is, with the reason.

use std::mem;

use tree::Mtime;

use super::{
    BLOCK, Entry, EntryKind, Reader,
    header::{Block, parse_number},
    padding, pax,
};

/// The longest extension header that is gathered; as of the reader.
const MAX_EXTENSION: u64 = 1 << 20;

/// A member, with what [`Entry`] leaves out because nobody unpacks it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// As the reader gives it.
    pub(crate) entry: Entry,
    /// The mode with all bits that stand there.
    pub(crate) mode: i64,
    /// Device numbers, which may stand on any kind of member.
    pub(crate) device: (u32, u32),
    /// PAX's `atime`.
    pub(crate) accessed: Option<Mtime>,
    /// PAX's `ctime`.
    pub(crate) changed: Option<Mtime>,
}

impl Member {
    /// Length of the contents.
    pub(crate) fn size(&self) -> u64 {
        match self.entry.kind {
            EntryKind::File { size } => size,
            _ => 0,
        }
    }
}

/// A piece of an archive. All pieces in a row are the archive.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// A member begins: everything since the last contents, its header last.
    Member(Box<Member>, Vec<u8>),
    /// Contents of the member that began last.
    Contents(&'a [u8]),
    /// What belongs to no member.
    Gathered(Vec<u8>),
    /// The same, in passing.
    Rest(&'a [u8]),
}

/// How an archive ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// What was gathered and belongs to no member.
    pub(crate) rest: Vec<u8>,
    /// Whether the mark of the end was seen.
    pub(crate) marked: bool,
    /// Why what is known of the members is not all.
    pub(crate) unclear: Option<String>,
}

/// Where in the archive the next byte is.
enum State {
    /// Before contents end and so many bytes of them.
    Contents(u64),
    /// In padding and headers, until `gathered` is this long; a header block is its end.
    Headers(usize),
    /// Behind the end, or behind something that is not understood.
    Rest,
}

/// Takes an archive apart.
pub(crate) struct Scanner {
    state: State,
    gathered: Vec<u8>,
    /// How much of `gathered` is padding.
    padding: usize,
    marked: bool,
    unclear: Option<String>,
}

impl Scanner {
    pub(crate) fn new() -> Scanner {
        Scanner {
            state: State::Headers(BLOCK),
            gathered: Vec::new(),
            padding: 0,
            marked: false,
            unclear: None,
        }
    }

    /// The next part, its bytes taken from the front of `bytes`; `None` once there are no more and no part is whole.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Rest => return Some(Part::Rest(mem::take(bytes))),
                State::Contents(rest) => {
                    let taken = usize::try_from(*rest).unwrap_or(usize::MAX).min(bytes.len());
                    *rest -= taken as u64;
                    if *rest == 0 {
                        self.state = State::Headers(self.padding + BLOCK);
                    }
                    let (contents, left) = bytes.split_at(taken);
                    *bytes = left;
                    return Some(Part::Contents(contents));
                }
                State::Headers(until) => {
                    let taken = (*until - self.gathered.len()).min(bytes.len());
                    self.gathered.extend_from_slice(&bytes[..taken]);
                    *bytes = &bytes[taken..];
                    if self.gathered.len() == *until
                        && let Some(part) = self.header()
                    {
                        return Some(part);
                    }
                }
            }
        }
        None
    }

    /// What is left when no more bytes come.
    pub(crate) fn finish(mut self) -> Ending {
        let at_border = match self.state {
            State::Rest => true,
            State::Headers(_) => self.gathered.len() == self.padding,
            State::Contents(_) => false,
        };
        if !at_border {
            self.unclear.get_or_insert("the archive ends within a member".to_owned());
        }
        Ending { rest: self.gathered, marked: self.marked, unclear: self.unclear }
    }

    /// A header block is whole: the last one of what was gathered.
    fn header(&mut self) -> Option<Part<'static>> {
        let last: &[u8; BLOCK] = self.gathered.last_chunk().expect("at least a block was gathered");
        if last.iter().all(|byte| *byte == 0) {
            self.marked = true;
            self.state = State::Rest;
            return Some(Part::Gathered(mem::take(&mut self.gathered)));
        }
        let block = match Block::new(last, 0) {
            Ok(block) => block,
            Err(error) => return self.give_up(error.to_string()),
        };
        match block.flag() {
            b'x' | b'L' | b'K' => match block.size() {
                Ok(size) if size <= MAX_EXTENSION => {
                    let size = usize::try_from(size + padding(size)).expect("at most the limit");
                    self.state = State::Headers(self.gathered.len() + size + BLOCK);
                    None
                }
                Ok(size) => self.give_up(format!("an extension header has {size} bytes")),
                Err(error) => self.give_up(error.to_string()),
            },
            _ => match self.member() {
                Ok(member) => {
                    let size = member.size();
                    self.padding = usize::try_from(padding(size)).expect("less than a block");
                    self.state = match size {
                        0 => State::Headers(BLOCK),
                        size => State::Contents(size),
                    };
                    Some(Part::Member(Box::new(member), mem::take(&mut self.gathered)))
                }
                Err(why) => self.give_up(why),
            },
        }
    }

    fn give_up(&mut self, why: String) -> Option<Part<'static>> {
        self.unclear = Some(why);
        self.state = State::Rest;
        Some(Part::Gathered(mem::take(&mut self.gathered)))
    }

    /// Reads the headers that were gathered.
    fn member(&self) -> Result<Member, String> {
        let headers = &self.gathered[self.padding..];
        let mut reader = Reader::new(headers);
        let entry = reader.next_entry().map_err(|error| error.to_string())?;
        let entry = entry.ok_or("a header is missing")?;
        let shown = String::from_utf8_lossy(&entry.path);
        if reader.position() != headers.len() as u64 || !reader.is_contiguous() {
            return Err(format!("`{shown}` is stored with holes"));
        }
        let last: &[u8; BLOCK] = headers.last_chunk().expect("it was read");
        let block = Block::new(last, 0).map_err(|error| error.to_string())?;
        let usual = match block.flag() {
            // Readers do not agree on a regular file whose name ends in a slash.
            b'0' => entry.kind != EntryKind::Directory,
            0 | b'1'..=b'6' => true,
            _ => false,
        };
        if !usual {
            return Err(format!("`{shown}` has the type flag `{}`", block.flag().escape_ascii()));
        }
        if last[257..265] == *b"ustar  \0" && (last[345] != 0 || last[357] != 0) {
            return Err(format!("`{shown}` has GNU's times in its header"));
        }
        let mode = parse_number(&last[100..108]).ok_or("a mode is no number")?;
        let device = block.device().map_err(|error| error.to_string())?;
        let (accessed, changed) = times(headers)?;
        Ok(Member { entry, mode, device, accessed, changed })
    }
}

/// PAX's `atime` and `ctime` in the headers of a member.
fn times(headers: &[u8]) -> Result<(Option<Mtime>, Option<Mtime>), String> {
    let mut found = (None, None);
    let mut at = 0;
    while at + BLOCK < headers.len() {
        let block = headers[at..].first_chunk().expect("a block is there");
        let block = Block::new(block, 0).map_err(|error| error.to_string())?;
        let size = block.size().map_err(|error| error.to_string())?;
        let contents = at + BLOCK..at + BLOCK + usize::try_from(size).map_err(|error| error.to_string())?;
        if block.flag() == b'x' {
            for (key, value) in pax::records(headers.get(contents).unwrap_or_default())? {
                let time = match key {
                    b"atime" => &mut found.0,
                    b"ctime" => &mut found.1,
                    _ => continue,
                };
                *time = Some(pax::time(value).ok_or("a time is no number")?);
            }
        }
        at += BLOCK + usize::try_from(size + padding(size)).map_err(|error| error.to_string())?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::header;

    fn entry(path: &[u8], kind: EntryKind) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            xattrs: Default::default(),
        }
    }

    fn archive() -> Vec<u8> {
        let mut tar = header(&entry(b"a", EntryKind::Directory)).expect("a header");
        for (name, size) in [(&b"f"[..], 700usize), (&[b'n'; 200], 0), (b"g", 512)] {
            tar.extend(header(&entry(name, EntryKind::File { size: size as u64 })).expect("a header"));
            tar.extend(vec![b'c'; size]);
            tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        }
        tar.resize(tar.len() + 10 * BLOCK, 0);
        tar
    }

    /// A member's name, and how long its contents were.
    type Seen = (Vec<u8>, usize);

    /// The members, all bytes again, and the end.
    fn scan(tar: &[u8], piece: usize) -> (Vec<Seen>, Vec<u8>, Ending) {
        let mut scanner = Scanner::new();
        let (mut members, mut bytes): (Vec<Seen>, _) = (Vec::new(), Vec::new());
        for mut piece in tar.chunks(piece) {
            while let Some(part) = scanner.next(&mut piece) {
                match part {
                    Part::Member(member, raw) => {
                        members.push((member.entry.path.clone(), 0));
                        bytes.extend(raw);
                    }
                    Part::Contents(contents) => {
                        members.last_mut().expect("a member").1 += contents.len();
                        bytes.extend_from_slice(contents);
                    }
                    Part::Gathered(raw) => bytes.extend(raw),
                    Part::Rest(rest) => bytes.extend_from_slice(rest),
                }
            }
        }
        let ending = scanner.finish();
        bytes.extend_from_slice(&ending.rest);
        (members, bytes, ending)
    }

    #[test]
    fn pieces_do_not_matter_and_nothing_is_lost() {
        let tar = archive();
        for piece in [1, 7, 511, 512, 513, 100_000] {
            let (members, bytes, ending) = scan(&tar, piece);
            let sizes: Vec<_> = members.iter().map(|(name, size)| (name.len(), *size)).collect();
            assert_eq!(sizes, [(2, 0), (1, 700), (200, 0), (1, 512)], "pieces of {piece}");
            assert!(bytes == tar);
            assert!(ending.marked && ending.unclear.is_none());
        }
    }

    #[test]
    fn any_cut_is_told() {
        let tar = archive();
        let end = tar.len() - 10 * BLOCK;
        for cut in 0..tar.len() {
            let (_, bytes, ending) = scan(&tar[..cut], 4096);
            assert!(bytes == tar[..cut]);
            assert_eq!(ending.marked, cut >= end + BLOCK, "cut at {cut}");
            let borders = [0, BLOCK, BLOCK * 4, BLOCK * 7, BLOCK * 9];
            let whole = ending.marked || borders.contains(&cut);
            assert_eq!(ending.unclear.is_none(), whole, "cut at {cut}: {:?}", ending.unclear);
        }
    }

    #[test]
    fn what_is_not_understood_passes_through() {
        let mut global = header(&entry(b"a", EntryKind::File { size: 0 })).expect("a header");
        global[156] = b'g';
        for bytes in [vec![7; 5000], global] {
            let (members, found, ending) = scan(&bytes, 100);
            assert!(members.is_empty() && found == bytes && ending.unclear.is_some());
        }
    }
}
