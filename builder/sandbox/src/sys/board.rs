//! The board as memory that two processes share.

use std::mem;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;

use super::map;
use crate::board::Board;

/// A [`Board`] that a child shares.
pub(crate) struct SharedBoard {
    start: NonNull<Board>,
}

// SAFETY: a board is all atomics, so it may be read and written from any thread.
unsafe impl Send for SharedBoard {}
// SAFETY: as above.
unsafe impl Sync for SharedBoard {}

impl SharedBoard {
    /// A board of zeros, shared with processes that are cloned from now on.
    pub fn new() -> Result<SharedBoard, Errno> {
        map(mem::size_of::<Board>(), libc::MAP_SHARED, None).map(|start| SharedBoard { start: start.cast() })
    }

    /// A board of zeros, and the file that it is for those who open it.
    pub fn with_file() -> Result<(SharedBoard, OwnedFd), Errno> {
        let file = memfd_create(c"board", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, mem::size_of::<Board>() as u64)?;
        Ok((SharedBoard::open(file.as_fd())?, file))
    }

    /// The board that a file is, as [`SharedBoard::with_file`] made it.
    pub fn open(file: BorrowedFd<'_>) -> Result<SharedBoard, Errno> {
        let start = map(mem::size_of::<Board>(), libc::MAP_SHARED, Some(file))?;
        Ok(SharedBoard { start: start.cast() })
    }
}

impl Deref for SharedBoard {
    type Target = Board;

    fn deref(&self) -> &Board {
        // SAFETY: the mapping is page-aligned, large enough, zeroed by the kernel, which is valid for
        // atomics, and lives as long as `self`. Nobody cuts the file behind it.
        unsafe { self.start.as_ref() }
    }
}

impl Drop for SharedBoard {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and no reference outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), mem::size_of::<Board>()) };
    }
}
