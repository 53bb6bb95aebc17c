//! Locks on files that the kernel releases when their holder dies, however it dies.
//!
//! A lock belongs to an open file, so that two threads of one process exclude each other as two processes do, if each
//! opens the file itself. A file that a lock was taken on may have been removed, or replaced, between `open` and
//! `flock`; [`open_and_try`] looks again after it has the lock.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::FlockOperation,
    io::{Errno, retry_on_intr},
};

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// With others that hold it shared.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock that the threads of this process hold shared, by one open file: taken with the first that wants it, released
/// with the last.
#[derive(Debug)]
pub(crate) struct TogetherLock {
    path: PathBuf,
    held: Mutex<(usize, Option<File>)>,
}

/// A [`TogetherLock`] that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Together<'a>(&'a TogetherLock);

impl TogetherLock {
    /// Opens nothing yet.
    pub(crate) fn new(path: PathBuf) -> TogetherLock {
        TogetherLock { path, held: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock, waiting for it. The file, which is never removed, is made when missing.
    pub(crate) fn hold(&self) -> io::Result<Together<'_>> {
        // Who comes while another waits would wait as long.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (holders, file) = &mut *held;
        if *holders == 0 {
            let file = match file {
                Some(file) => file,
                none => none.insert(open(&self.path)?),
            };
            retry_on_intr(|| rustix::fs::flock(&*file, FlockOperation::LockShared))?;
        }
        *holders += 1;
        Ok(Together(self))
    }
}

impl Drop for Together<'_> {
    fn drop(&mut self) {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (holders, file) = &mut *held;
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        // Closed, it is released as well.
        if let Some(open) = file
            && rustix::fs::flock(&*open, FlockOperation::Unlock).is_err()
        {
            *file = None;
        }
    }
}

/// Takes the lock if that needs no waiting; whether it did.
pub(crate) fn try_lock(file: &File, hold: Hold) -> io::Result<bool> {
    let operation = match hold {
        Hold::Shared => FlockOperation::NonBlockingLockShared,
        Hold::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match retry_on_intr(|| rustix::fs::flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Opens the file, made when missing, and takes the lock, waiting for it.
///
/// For files that are never removed.
pub(crate) fn open_and_wait(path: &Path, hold: Hold) -> io::Result<File> {
    let file = open(path)?;
    let operation = match hold {
        Hold::Shared => FlockOperation::LockShared,
        Hold::Exclusive => FlockOperation::LockExclusive,
    };
    retry_on_intr(|| rustix::fs::flock(&file, operation))?;
    Ok(file)
}

/// Opens the file, made when missing, and takes the lock; `None` when another holds it.
///
/// For files that are removed by who holds them: the file that is returned is the one at `path`.
pub(crate) fn open_and_try(path: &Path, hold: Hold) -> io::Result<Option<File>> {
    loop {
        let file = open(path)?;
        if !try_lock(&file, hold)? {
            return Ok(None);
        }
        if is_at(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Whether `path` still names this file.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_holders_keep_an_exclusive_one_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let one = open_and_try(&path, Hold::Shared).expect("opens").expect("free");
        let two = open_and_try(&path, Hold::Shared).expect("opens").expect("shared");
        assert!(open_and_try(&path, Hold::Exclusive).expect("opens").is_none());
        drop((one, two));
        assert!(open_and_try(&path, Hold::Exclusive).expect("opens").is_some());
    }

    #[test]
    fn together_it_is_held_until_the_last_lets_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let lock = TogetherLock::new(path.clone());
        let is_free = || open_and_try(&path, Hold::Exclusive).expect("opens").is_some();
        for _ in 0..2 {
            let (one, two) = (lock.hold().expect("free"), lock.hold().expect("shared"));
            drop(one);
            assert!(!is_free());
            drop(two);
            assert!(is_free());
        }
    }

    #[test]
    fn a_file_that_was_replaced_is_not_the_one_at_the_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let held = open_and_try(&path, Hold::Exclusive).expect("opens").expect("free");
        fs::remove_file(&path).expect("removed");
        assert!(!is_at(&held, &path).expect("looked"));
        let other = open_and_try(&path, Hold::Exclusive).expect("opens").expect("another file, free");
        assert!(is_at(&other, &path).expect("looked"));
        assert!(!is_at(&held, &path).expect("looked"));
    }
}
