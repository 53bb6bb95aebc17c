//! A file that grows, with room that was reserved for it before.
//!
//! Room that is reserved costs the kernel a quarter less for each page that is written. And ext4 gives a file that takes
//! another's name no room then and there, which costs as much again as to write it.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

use rustix::fs::{FallocateFlags, fallocate, ftruncate};

/// The room that is reserved at once, in bytes: as much as was written, but no less and no more than this.
const LEAST: u64 = 1 << 20;
const MOST: u64 = 64 << 20;

/// A file that is written from its start. What was reserved and not needed stays reserved until [`Growing::end`] or until the
/// file is gone.
#[derive(Debug)]
pub struct Growing {
    file: File,
    /// How much of it there is, in bytes.
    size: u64,
    /// How much has room.
    reserved: u64,
    /// A file of no more bytes than this is not worth it.
    small: u64,
    /// Whether room can be reserved: not on every file system, and not on one that is almost full.
    can_reserve: bool,
}

impl Growing {
    /// An empty file. Room is reserved for it once it is longer than `small`, in bytes.
    pub fn new(file: File, small: u64) -> Growing {
        Growing { file, size: 0, reserved: 0, small, can_reserve: true }
    }

    /// How much was written so far, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file, which may have more room than it needs.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The file, and its length in bytes. It has no more room than that.
    ///
    /// # Errors
    /// The room cannot be given back.
    pub fn end(&mut self) -> io::Result<(&File, u64)> {
        if self.reserved > self.size {
            ftruncate(&self.file, self.size)?;
            self.reserved = self.size;
        }
        Ok((&self.file, self.size))
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.size.saturating_add(more as u64);
        if needed <= self.reserved.max(self.small) || !self.can_reserve {
            return;
        }
        self.reserved = self.reserved.max(self.size);
        let more = self.size.clamp(LEAST, MOST).max(needed - self.reserved);
        // The length stays that of what was written: a file that a power cut has left is seen to be short.
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.reserved, more) {
            Ok(()) => self.reserved += more,
            Err(_) => self.can_reserve = false,
        }
    }
}

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reserve(bytes.len());
        let written = self.file.write_at(bytes, self.size)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_was_written_is_there_and_no_room_besides() {
        let sizes = [0, 1, 5_000, LEAST, 3 * LEAST + 1, 5 * LEAST];
        for (size, small) in sizes.into_iter().flat_map(|size| [(size, 0), (size, LEAST)]) {
            let mut growing = Growing::new(tempfile::tempfile().expect("a file"), small);
            let piece = [7; 4000];
            let mut rest = size as usize;
            while rest > 0 {
                let taken = growing.write(&piece[..rest.min(piece.len())]).expect("written");
                rest -= taken;
            }
            let (file, length) = growing.end().expect("ended");
            let found = file.metadata().expect("there");
            assert_eq!((length, found.size()), (size, size));
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, 0).expect("readable");
            assert!(bytes.iter().all(|byte| *byte == 7), "{size}");
            // A block of 64 KiB at most is not filled, and some file systems count their own blocks to it.
            assert!(found.blocks() * 512 <= size + (128 << 10), "{size}: {} blocks", found.blocks());
        }
    }
}
