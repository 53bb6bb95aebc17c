//! Digests of files' contents, taken once.

use std::os::fd::{AsFd, OwnedFd};

use oci::{Digest, Hasher};
use rustix::{
    fs::{AtFlags, Mode, OFlags, Statx, StatxFlags, openat, statx},
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
        Ok(StatKey::of(&statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?))
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
    let unchanged = || {
        if is_still {
            return Ok(());
        }
        let now =
            statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map_err(failed("statx", path))?;
        let same = StatKey::of(&now) == key && now.stx_mode == stat.stx_mode;
        if same { Ok(()) } else { Err(ScanError::Changed { path: path.clone() }) }
    };
    unchanged()?;
    let (digest, length) = hash(&file, stat.stx_size, is_still).map_err(failed("read", path))?;
    unchanged()?;
    if length != stat.stx_size {
        return Err(ScanError::Changed { path: path.clone() });
    }
    hashes.put(key, digest);
    Ok(Content { digest, file: Some(file) })
}

/// Reads a file to its end, or, where that is known, so many bytes. Gives how many there were.
fn hash(file: &OwnedFd, size: u64, is_still: bool) -> Result<(Digest, u64), Errno> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(256 << 10)];
    let mut length = 0;
    while !is_still || length < size {
        match read(file, buffer.as_mut_slice()) {
            Ok(0) => break,
            Ok(more) => {
                hasher.update(&buffer[..more]);
                length += more as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok((hasher.finish(), length))
}
