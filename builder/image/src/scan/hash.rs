//! Digests of files' contents, taken once.

use std::{
    cell::RefCell,
    os::fd::{AsFd, OwnedFd},
};

use oci::{Digest, Hasher};
use rustix::{
    buffer::spare_capacity,
    fs::{Mode, OFlags, Stat, Statx, fstat, openat},
    io::{Errno, read},
};
use tree::LayerPath;

use super::{ScanError, device, failed};

/// By what a file's content is known again without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatKey {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last modification, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of the inode, in nanoseconds since 1970. Nobody can set it, so that a write with the old
    /// time restored shows.
    pub ctime_ns: i64,
}

/// Remembers the digests of contents.
///
/// The clock of a file system moves in steps. A file that is written twice within one step has the same key
/// both times, so that an implementation must not keep a digest whose `ctime_ns` was less than a step ago, by
/// the clock of that file system, when it was put.
pub trait HashCache: Sync {
    /// The digest of the file with this key, if it is known.
    fn get(&self, key: &StatKey) -> Option<Digest>;
    /// The digest of the file with this key.
    fn put(&self, key: StatKey, digest: Digest);
}

/// Tells the files that did not change since their digests were taken.
pub trait KnownFiles: Sync {
    /// Whether the file with this key is known to have this digest.
    fn is(&self, key: &StatKey, digest: &Digest) -> bool;
}

/// Remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHashCache;

impl HashCache for NoHashCache {
    fn get(&self, _key: &StatKey) -> Option<Digest> {
        None
    }

    fn put(&self, _key: StatKey, _digest: Digest) {}
}

impl StatKey {
    /// What an open file is known by now.
    pub(crate) fn of_file(file: &impl AsFd) -> Result<StatKey, Errno> {
        Ok(StatKey::of_open(&fstat(file)?))
    }

    fn of_open(stat: &Stat) -> StatKey {
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        StatKey {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    pub(super) fn of(stat: &Statx) -> StatKey {
        let nanoseconds =
            |seconds: i64, rest: u32| seconds.saturating_mul(1_000_000_000).saturating_add(rest.into());
        StatKey {
            device: device(stat),
            inode: stat.stx_ino,
            size: stat.stx_size,
            mtime_ns: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime_ns: nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }
}

/// A content that was looked at.
pub(super) struct Content {
    pub(super) digest: Digest,
    /// The file, where it had to be opened.
    pub(super) file: Option<OwnedFd>,
}

/// The content of the regular file that `stat` was taken of. `is_still` says that nobody can be writing to it.
pub(super) fn content(
    folder: &impl AsFd,
    name: &[u8],
    path: &LayerPath,
    stat: &Statx,
    hashes: &dyn HashCache,
    is_still: bool,
) -> Result<Content, ScanError> {
    if stat.stx_size == 0 {
        return Ok(Content { digest: Digest::of(b""), file: None });
    }
    let key = StatKey::of(stat);
    if let Some(digest) = hashes.get(&key) {
        return Ok(Content { digest, file: None });
    }
    // NONBLOCK: a pipe that took the file's place must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::LOOP) => return Err(ScanError::Changed { path: path.clone() }),
        other => other.map_err(failed("open", path))?,
    };
    // Once, behind the last byte: the key holds a time that only goes on, so that what it is then it was before.
    let unchanged = || {
        if is_still {
            return Ok(());
        }
        let now = fstat(&file).map_err(failed("fstat", path))?;
        let same = StatKey::of_open(&now) == key && now.st_mode == u32::from(stat.stx_mode);
        if same { Ok(()) } else { Err(ScanError::Changed { path: path.clone() }) }
    };
    let hashed = hash(&file, stat.stx_size);
    unchanged()?;
    let (digest, length) = hashed.map_err(failed("read", path))?;
    if length != stat.stx_size {
        return Err(ScanError::Changed { path: path.clone() });
    }
    hashes.put(key, digest);
    Ok(Content { digest, file: Some(file) })
}

/// How much of a file is read at once.
const PIECE: usize = 256 << 10;

/// Reads so many bytes of a file, or as many as there are. Gives how many there were.
fn hash(file: &OwnedFd, size: u64) -> Result<(Digest, u64), Errno> {
    thread_local! {
        // Most files are small, and room for each would cost as much as reading it.
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        buffer.reserve(usize::try_from(size).unwrap_or(PIECE).min(PIECE));
        let mut hasher = Hasher::new();
        let mut length = 0;
        while length < size {
            buffer.clear();
            match read(file, spare_capacity(buffer)) {
                Ok(0) => break,
                Ok(_) => {
                    hasher.update(buffer);
                    length += buffer.len() as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok((hasher.finish(), length))
    })
}
