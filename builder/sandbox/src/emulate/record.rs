//! What a file is beyond its inode, and how that is written down.
//!
//! A file of its own, or a folder, carries its record in an extended attribute: it goes where the inode goes, over renames and
//! hard links and when overlayfs copies a file up, and ends with it. Links, pipes and sockets can have no such attribute, nor
//! has every file system: of those a table is kept, by inode and time of birth, for an inode's number is used again.
//! Where a root is one folder and no overlay, what of the layers below is not root's is in it from the beginning.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, lgetxattr, openat2, statx,
};
use rustix::io::Errno;

use super::owners::Below;

/// The attribute that holds a record.
pub const ATTRIBUTE: &CStr = c"user.kiln.owner";

/// The longest record.
const LONGEST: usize = 64;

/// Whose a file is, and what stands for a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device that this empty file stands for.
    pub device: Option<Device>,
}

/// A device by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// A block device, otherwise a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Owner {
    /// Of root, and no device: what an inode without a record is.
    pub const ROOT: Owner = Owner { uid: 0, gid: 0, device: None };

    /// As the attribute's value: `UID:GID`, and for a device `:b` or `:c`, `MAJOR:MINOR`.
    pub fn encode(&self) -> String {
        let Owner { uid, gid, device } = self;
        match device {
            None => format!("{uid}:{gid}"),
            Some(Device { block, major, minor }) => {
                format!("{uid}:{gid}:{}{major}:{minor}", if *block { 'b' } else { 'c' })
            }
        }
    }

    /// What this value says; none for what no [`Owner::encode`] wrote.
    pub fn parse(value: &[u8]) -> Option<Owner> {
        let text = str::from_utf8(value).ok()?;
        let mut words = text.split(':');
        let (uid, gid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let device = match words.next() {
            None => None,
            Some(word) => {
                let (block, major) = match word.split_at_checked(1)? {
                    ("b", major) => (true, major),
                    ("c", major) => (false, major),
                    _ => return None,
                };
                Some(Device { block, major: major.parse().ok()?, minor: words.next()?.parse().ok()? })
            }
        };
        let owner = Owner { uid, gid, device };
        // One form of each, so that `+1` or `01` are none.
        (owner.encode() == text).then_some(owner)
    }
}

/// Which inode it is, while the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Inode {
    device: (u32, u32),
    number: u64,
    birth: (i64, u32),
}

impl Inode {
    /// Of what [`INODE`] was asked for.
    pub fn of(found: &Statx) -> Inode {
        Inode {
            device: (found.stx_dev_major, found.stx_dev_minor),
            number: found.stx_ino,
            birth: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
        }
    }
}

/// Device, by its two numbers, and number of an inode.
pub(crate) type Number = (u32, u32, u64);

/// Which inode it is, apart from when it was made.
pub(crate) fn number(found: &Statx) -> Number {
    (found.stx_dev_major, found.stx_dev_minor, found.stx_ino)
}

/// Which kind of file it is.
pub(crate) fn kind(found: &Statx) -> FileType {
    FileType::from_raw_mode(found.stx_mode.into())
}

/// When a file was changed.
pub(crate) fn time(found: &Statx) -> (i64, u32) {
    (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec)
}

/// What tells an inode.
pub(crate) const INODE: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// What the table says of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    owner: Owner,
    /// Of another kind is another file, made in the same tick of the clock with the number of one that is gone.
    kind: FileType,
    /// The time of what may be another file by now: its number is used again, and its file system does not say when it was made.
    modified: Option<(i64, u32)>,
}

impl Noted {
    fn fits(&self, found: &Statx) -> bool {
        let is_folder = self.kind == FileType::Directory;
        self.kind == kind(found) && self.modified.is_none_or(|modified| is_folder || modified == time(found))
    }
}

/// What a step recorded, to be read when it has ended.
#[derive(Debug, Default)]
pub struct Records {
    /// Inodes that cannot have an attribute, or were noted.
    others: Mutex<BTreeMap<Inode, Noted>>,
    has_others: AtomicBool,
    has_devices: AtomicBool,
}

impl Records {
    /// What was recorded of a name in a folder: in the upper folder of the step's root, or in the root itself where that is no
    /// overlay. A link is not followed.
    ///
    /// # Errors
    /// The name cannot be looked at.
    pub fn of(&self, folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Owner>> {
        let found = statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, INODE)?;
        if matches!(kind(&found), FileType::RegularFile | FileType::Directory) {
            let path = [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat();
            if let Some(owner) = value(|value| lgetxattr(&path, ATTRIBUTE, value))? {
                return Ok(Some(owner));
            }
        }
        Ok(self.other(&found))
    }

    /// Whether a file of an upper folder is a copy that overlayfs made of one of the layers below, and not one that the step
    /// made under the same name. A folder is, unless something hides the layers below there.
    ///
    /// # Errors
    /// The name cannot be looked at.
    pub fn is_copy(&self, folder: BorrowedFd<'_>, name: &[u8], below: &Below) -> io::Result<bool> {
        let found = statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, INODE)?;
        let path = [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat();
        Ok(is_copy(&found, below, |attribute, value| lgetxattr(&path, attribute, value)))
    }

    /// Whether the step made what stands for a device, though its owners are not emulated.
    pub fn has_devices(&self) -> bool {
        self.has_devices.load(Ordering::Acquire)
    }

    /// From now on it has.
    pub(crate) fn set_devices(&self) {
        self.has_devices.store(true, Ordering::Release);
    }

    /// Puts a file of the layers below into the table, before the step begins: of a root that is one folder, where a file
    /// keeps its inode whatever becomes of its name. The path is below the folder; one that is not there is left out.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn note(&self, folder: BorrowedFd<'_>, path: &[u8], owner: Owner) -> io::Result<()> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = if path.is_empty() { b"." } else { path };
        let file = match openat2(folder, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other?,
        };
        let found = statx(&file, c"", AtFlags::EMPTY_PATH, INODE)?;
        let is_certain = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        self.put(&found, owner, (!is_certain).then(|| time(&found)));
        Ok(())
    }

    /// What the table says.
    pub(crate) fn other(&self, found: &Statx) -> Option<Owner> {
        if !self.has_others.load(Ordering::Acquire) {
            return None;
        }
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = others.get(&Inode::of(found))?;
        noted.fits(found).then_some(noted.owner)
    }

    /// Puts it into the table.
    pub(crate) fn set_other(&self, found: &Statx, owner: Owner) {
        self.put(found, owner, None);
    }

    /// Before a file that may have been noted gets another time.
    pub(crate) fn hold(&self, found: &Statx) {
        if let Some(owner) = self.other(found) {
            self.set_other(found, owner);
        }
    }

    fn put(&self, found: &Statx, owner: Owner, modified: Option<(i64, u32)>) {
        let noted = Noted { owner, kind: kind(found), modified };
        self.others.lock().unwrap_or_else(PoisonError::into_inner).insert(Inode::of(found), noted);
        self.has_others.store(true, Ordering::Release);
    }

    /// Which inodes the table is about.
    pub(crate) fn numbers(&self) -> Vec<Number> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.keys().map(|inode| (inode.device.0, inode.device.1, inode.number)).collect()
    }

    /// Whether the table holds anything.
    pub(crate) fn has_others(&self) -> bool {
        self.has_others.load(Ordering::Acquire)
    }
}

/// As [`Records::is_copy`]. Overlayfs marks its copies of files, but not where the file has several names; and a link, for a
/// user, cannot be marked. There the time tells, which a copy keeps. What else may have a mark or that time where the layers below have
/// a file has a record, see [`super::owners::Ledger::is_taken`].
pub(crate) fn is_copy(
    found: &Statx,
    below: &Below,
    read: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> bool {
    let marked = |attribute: &CStr| read(attribute, &mut [0; 256]).is_ok();
    kind(found) == FileType::Directory
        || time(found) == below.modified
        || [c"trusted.overlay.origin", c"user.overlay.origin"].into_iter().any(marked)
}

/// The record in a file's attribute, which this reads. A value that is none counts as nothing: the step may write it as it likes.
pub(crate) fn value(read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Result<Option<Owner>, Errno> {
    let mut value = [0_u8; LONGEST];
    match read(&mut value) {
        Ok(length) => Ok(value.get(..length).and_then(Owner::parse)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::PERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_noted_is_known_by_its_inode_whatever_its_name() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a"), "").expect("it is the test's");
        std::fs::create_dir(at("d")).expect("it is the test's");
        let open = |path| std::fs::File::open(path).expect("it is the test's");
        let (top, below) = (open(folder.path().to_owned()), open(at("d")));
        let (records, owner) = (Records::default(), Owner { uid: 5, gid: 6, device: None });
        for path in [&b"a"[..], b"gone", b"a/gone"] {
            records.note(top.as_fd(), path, owner).expect("what is not there is left out");
        }
        std::fs::rename(at("a"), at("d/b")).expect("it is the test's");
        assert_eq!(records.of(below.as_fd(), b"b").expect("it is there"), Some(owner));
        // A file system that does not say when a file was made.
        let look = || statx(&below, c"b", AtFlags::SYMLINK_NOFOLLOW, INODE).expect("it is there");
        let before = look();
        records.put(&before, owner, Some(time(&before)));
        let file = std::fs::OpenOptions::new().write(true).open(at("d/b")).expect("it is the test's");
        file.set_modified(std::time::UNIX_EPOCH).expect("it is the test's");
        assert_eq!((records.other(&before), records.other(&look())), (Some(owner), None));
        records.hold(&before);
        assert_eq!(records.other(&look()), Some(owner));
        // The number is another file's by now.
        let mut link = look();
        link.stx_mode = libc::S_IFLNK as u16;
        assert_eq!(records.other(&link), None);
    }

    #[test]
    fn a_record_has_one_form() {
        let device = |block, major, minor| Some(Device { block, major, minor });
        let table = [
            ("0:0", Owner::ROOT),
            ("33:4294967294", Owner { uid: 33, gid: 4_294_967_294, device: None }),
            ("0:6:b8:1", Owner { uid: 0, gid: 6, device: device(true, 8, 1) }),
            ("1:2:c0:0", Owner { uid: 1, gid: 2, device: device(false, 0, 0) }),
        ];
        for (text, owner) in table {
            assert_eq!(owner.encode(), text);
            assert_eq!(Owner::parse(text.as_bytes()), Some(owner));
        }
        for bad in [
            "",
            "1",
            "1:",
            "+1:2",
            "01:2",
            "1:2:",
            "1:2:x1:2",
            "1:2:b1",
            "1:2:b1:2:3",
            "1:2 ",
            "1:-2",
            "4294967296:0",
        ] {
            assert_eq!(Owner::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
