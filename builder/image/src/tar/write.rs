//! Writes archives: the same members give the same bytes, for ever.
//!
//! A member is one ustar header where it fits; a PAX header stands before it with sorted records for what does not.
//! User and group names are empty, modes have no type bits, times are whole seconds. A change of anything here changes
//! the digest of every layer: raise [`crate::compress::ENCODER_VERSION`] with it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, Read, Write},
};

use super::{BLOCK, Entry, EntryKind, padding, pax};

/// Something that a tar cannot say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` cannot be written to a tar: {why}")]
pub struct Unwritable {
    /// The member's path.
    pub path: String,
    /// What a tar cannot hold.
    pub why: String,
}

/// The largest numbers of the fields with 7 and with 11 octal digits.
const MAX_SHORT: u64 = 0o7_777_777;
const MAX_LONG: u64 = 0o77_777_777_777;

/// What a header says of a member; nothing of it is copied before it is written.
pub(crate) struct Head<'a> {
    /// A folder's path gets its trailing slash when it is written.
    pub(crate) path: &'a [u8],
    pub(crate) flag: Flag<'a>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_seconds: i64,
    pub(crate) xattrs: &'a BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a member is.
#[derive(Clone, Copy)]
pub(crate) enum Flag<'a> {
    File { size: u64 },
    HardLink { target: &'a [u8] },
    Symlink { target: &'a [u8] },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Directory,
    Fifo,
}

impl<'a> From<&'a Entry> for Head<'a> {
    fn from(entry: &'a Entry) -> Head<'a> {
        let flag = match &entry.kind {
            EntryKind::File { size } => Flag::File { size: *size },
            EntryKind::HardLink { target } => Flag::HardLink { target },
            EntryKind::Symlink { target } => Flag::Symlink { target },
            EntryKind::CharDevice { major, minor } => Flag::CharDevice { major: *major, minor: *minor },
            EntryKind::BlockDevice { major, minor } => Flag::BlockDevice { major: *major, minor: *minor },
            EntryKind::Directory => Flag::Directory,
            EntryKind::Fifo => Flag::Fifo,
        };
        let Entry { path, kind: _, mode, uid, gid, mtime, xattrs } = entry;
        Head { path, flag, mode: *mode, uid: *uid, gid: *gid, mtime_seconds: mtime.seconds, xattrs }
    }
}

/// The blocks that stand before a member's contents. A folder's path gets its trailing slash here; the nanoseconds of
/// the mtime are dropped.
///
/// # Errors
/// [`Unwritable`]: an empty path, a NUL in a name, a device number above 2097151, or an attribute without a name or
/// with `=` in it.
pub fn header(entry: &Entry) -> Result<Vec<u8>, Unwritable> {
    let mut blocks = Vec::with_capacity(BLOCK);
    append_header(&Head::from(entry), &mut blocks)?;
    Ok(blocks)
}

/// Appends the blocks that stand before a member's contents.
///
/// # Errors
/// As [`header`].
pub(crate) fn append_header(head: &Head<'_>, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let bad = |why: String| Unwritable { path: String::from_utf8_lossy(head.path).into_owned(), why };
    if head.path.is_empty() || head.path.contains(&0) {
        return Err(bad("its name is empty or holds a NUL".to_owned()));
    }
    let mut path = Cow::Borrowed(head.path);
    if matches!(head.flag, Flag::Directory) && !path.ends_with(b"/") {
        path.to_mut().push(b'/');
    }
    let (flag, link, size, device) = match head.flag {
        Flag::File { size } => (b'0', &[][..], size, (0, 0)),
        Flag::HardLink { target } => (b'1', target, 0, (0, 0)),
        Flag::Symlink { target } => (b'2', target, 0, (0, 0)),
        Flag::CharDevice { major, minor } => (b'3', &[][..], 0, (major, minor)),
        Flag::BlockDevice { major, minor } => (b'4', &[][..], 0, (major, minor)),
        Flag::Directory => (b'5', &[][..], 0, (0, 0)),
        Flag::Fifo => (b'6', &[][..], 0, (0, 0)),
    };
    if link.contains(&0) || (link.is_empty() && matches!(flag, b'1' | b'2')) {
        return Err(bad("its link target is empty or holds a NUL".to_owned()));
    }
    if u64::from(device.0.max(device.1)) > MAX_SHORT {
        return Err(bad(format!("its device number {}:{} is too large", device.0, device.1)));
    }

    let mut records = Records(BTreeMap::new());
    let mut raw = tar::Header::new_ustar();
    let fields = raw.as_ustar_mut().expect("it was made as ustar");
    match split(&path) {
        Some((prefix, name)) => {
            fields.prefix[..prefix.len()].copy_from_slice(prefix);
            fields.name[..name.len()].copy_from_slice(name);
        }
        None => {
            // Readers without PAX see at least the start of the name.
            fields.name.copy_from_slice(&path[..100]);
            records.0.insert(b"path".to_vec(), path.to_vec());
        }
    }
    if link.len() > fields.linkname.len() {
        records.0.insert(b"linkpath".to_vec(), link.to_vec());
    }
    let shown = link.len().min(fields.linkname.len());
    fields.linkname[..shown].copy_from_slice(&link[..shown]);
    fields.typeflag = [flag];
    octal(&mut fields.mode, u64::from(head.mode & 0o7777));
    octal(&mut fields.uid, records.number("uid", u64::from(head.uid), MAX_SHORT));
    octal(&mut fields.gid, records.number("gid", u64::from(head.gid), MAX_SHORT));
    octal(&mut fields.size, records.number("size", size, MAX_LONG));
    octal(&mut fields.mtime, records.time(head.mtime_seconds));
    octal(&mut fields.dev_major, u64::from(device.0));
    octal(&mut fields.dev_minor, u64::from(device.1));
    raw.set_cksum();
    for (name, value) in head.xattrs {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
            return Err(bad(format!("its attribute `{}` has no valid name", name.escape_ascii())));
        }
        records.0.insert([&b"SCHILY.xattr."[..], name].concat(), value.clone());
    }
    out.extend_from_slice(&records.blocks());
    out.extend_from_slice(raw.as_bytes());
    Ok(())
}

/// What ustar cannot hold.
struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    /// `value` where its field can hold it; else 0, and a record.
    fn number(&mut self, key: &str, value: u64, most: u64) -> u64 {
        if value <= most {
            return value;
        }
        self.0.insert(key.as_bytes().to_vec(), value.to_string().into_bytes());
        0
    }

    fn time(&mut self, seconds: i64) -> u64 {
        match u64::try_from(seconds) {
            Ok(seconds) if seconds <= MAX_LONG => seconds,
            _ => {
                self.0.insert(b"mtime".to_vec(), seconds.to_string().into_bytes());
                0
            }
        }
    }

    /// The extended header and its contents; nothing where there are no records.
    fn blocks(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let contents = pax::encode(&self.0);
        let mut raw = tar::Header::new_ustar();
        let fields = raw.as_ustar_mut().expect("it was made as ustar");
        fields.name[..12].copy_from_slice(b"PaxHeaders.0");
        fields.typeflag = [b'x'];
        for field in [&mut fields.mode, &mut fields.uid, &mut fields.gid] {
            octal(field, 0);
        }
        octal(&mut fields.size, contents.len() as u64);
        octal(&mut fields.mtime, 0);
        octal(&mut fields.dev_major, 0);
        octal(&mut fields.dev_minor, 0);
        raw.set_cksum();
        let mut blocks = raw.as_bytes().to_vec();
        blocks.extend_from_slice(&contents);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        blocks
    }
}

/// Digits to fill the field but for its last byte, which is NUL. The value fits.
fn octal(field: &mut [u8], mut value: u64) {
    let Some((nul, digits)) = field.split_last_mut() else { return };
    *nul = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// Prefix and name of a path that ustar can hold: cut at the last slash that leaves the prefix short enough.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The slash at a folder's end must stay with the name.
    let cuttable = path.strip_suffix(b"/").unwrap_or(path);
    let cuttable = &cuttable[..cuttable.len().min(156)];
    let slash = cuttable.iter().rposition(|b| *b == b'/').filter(|at| *at > 0)?;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    (name.len() <= 100).then_some((prefix, name))
}

/// Contents are handed on in pieces of so many bytes, which end where the archive's length is a multiple of it. A file takes
/// whole pages in three quarters of the time that it takes pieces that begin behind a header, within a page.
const PIECE: usize = 128 << 10;

/// An archive that is written member by member.
pub struct Builder<W> {
    out: W,
    /// How many bytes went to it.
    written: u64,
}

/// Why a member could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A tar cannot say it.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    /// Its contents cannot be read.
    #[error("reading `{path}`: {source}")]
    Read {
        /// The member's path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Its contents are not as long as they were said to be.
    #[error("`{path}` should be {expected} bytes long, and is {}", .found.map_or("longer".to_owned(), |n| n.to_string()))]
    Size {
        /// The member's path.
        path: String,
        /// What was said.
        expected: u64,
        /// What was read; `None` where there was more than expected.
        found: Option<u64>,
    },
    /// The archive cannot be written.
    #[error("writing a tar: {0}")]
    Write(#[source] io::Error),
}

impl<W: Write> Builder<W> {
    /// An archive that goes to `out`.
    pub fn new(out: W) -> Builder<W> {
        Builder { out, written: 0 }
    }

    /// Appends a member; `contents` must give as many bytes as its size says, and is not asked for other kinds.
    ///
    /// # Errors
    /// [`AppendError`]; `out` then holds a partial archive.
    pub fn append(&mut self, entry: &Entry, contents: &mut dyn Read) -> Result<(), AppendError> {
        self.write(&header(entry)?)?;
        let EntryKind::File { size } = entry.kind else { return Ok(()) };
        let path = || String::from_utf8_lossy(&entry.path).into_owned();
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).clamp(1, PIECE)];
        let mut rest = size;
        loop {
            // At the end one more byte is asked for: a file that grew must not pass for whole.
            let most = usize::try_from(rest)
                .unwrap_or(usize::MAX)
                .clamp(1, buffer.len().min(self.to_the_next_piece()));
            match contents.read(&mut buffer[..most]) {
                Ok(0) if rest == 0 => break,
                Ok(0) => {
                    return Err(AppendError::Size { path: path(), expected: size, found: Some(size - rest) });
                }
                Ok(_) if rest == 0 => {
                    return Err(AppendError::Size { path: path(), expected: size, found: None });
                }
                Ok(read) => {
                    self.write(&buffer[..read])?;
                    rest -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(AppendError::Read { path: path(), source }),
            }
        }
        self.write(&[0; BLOCK][..padding(size) as usize])
    }

    /// Where the archive goes.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the end marker, two blocks of zeros, and gives `out` back.
    ///
    /// # Errors
    /// [`AppendError::Write`].
    pub fn finish(mut self) -> Result<W, AppendError> {
        self.write(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(AppendError::Write)
    }

    fn to_the_next_piece(&self) -> usize {
        PIECE - (self.written % PIECE as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_ends_at_a_multiple_of_its_length() {
        #[derive(Default)]
        struct Ends(u64, Vec<u64>);
        impl Write for Ends {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += bytes.len() as u64;
                self.1.push(self.0);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let piece = PIECE as u64;
        let size = 3 * piece;
        let mut builder = Builder::new(Ends::default());
        let entry = Entry {
            path: b"a".to_vec(),
            kind: EntryKind::File { size },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: tree::Mtime::default(),
            xattrs: BTreeMap::new(),
        };
        builder.append(&entry, &mut io::repeat(7).take(size)).expect("written");
        assert_eq!(builder.out().1[..5], [512, piece, 2 * piece, 3 * piece, 3 * piece + 512]);
    }

    #[test]
    fn long_paths_are_cut_at_a_slash() {
        let name = |length: usize| vec![b'n'; length];
        let path = |parts: &[Vec<u8>]| parts.join(&b'/');
        assert_eq!(split(&name(100)).expect("fits").0, b"");
        assert_eq!(split(&name(101)), None);
        let fits = path(&[name(155), name(100)]);
        assert_eq!(split(&fits).expect("fits"), (&name(155)[..], &name(100)[..]));
        assert_eq!(split(&path(&[name(156), name(50)])), None);
        assert_eq!(split(&path(&[name(50), name(101)])), None);
        let folder = [&path(&[name(60), name(60)])[..], b"/"].concat();
        assert_eq!(split(&folder).expect("fits").1.len(), 61);
    }
}
