//! Pages for what is confidential: the kernel neither swaps them, nor dumps them, nor copies them into a child.

use std::ffi::c_void;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use rustix::io::Errno;

use super::map;

/// Memory of its own mapping.
pub(crate) struct Pages {
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: nobody else knows of the mapping, and what is in it is reached through `&self` and `&mut self` only.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// So many bytes of 0, and at least one. What keeps them where they are may be refused, for want of `RLIMIT_MEMLOCK` say:
    /// then they are as other memory is.
    pub fn new(length: usize) -> Result<Pages, Errno> {
        let length = length.max(1);
        let start = map(length, libc::MAP_PRIVATE, None)?;
        for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: the mapping is ours and of this length; what is in it stays as it is.
            unsafe { libc::madvise(start.as_ptr(), length, advice) };
        }
        // SAFETY: as above.
        unsafe { libc::mlock(start.as_ptr(), length) };
        Ok(Pages { start, length })
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has this length, is filled with 0 by the kernel, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and there is no other reference.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and no reference outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
}
