//! Copies the bytes of one file, as cheaply as the file systems let it.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use oci::{Digest, Hasher};
use rustix::{
    fs::{SeekFrom, copy_file_range, fstat, ftruncate, ioctl_ficlone, seek},
    io::{Errno, pread, pwrite},
};

/// Why a file was not copied.
pub(super) enum Fault {
    /// Its length or its bytes are not what was promised.
    Changed,
    /// A call failed.
    Call(&'static str, Errno),
}

fn failed(call: &'static str) -> impl FnOnce(Errno) -> Fault {
    move |errno| Fault::Call(call, errno)
}

/// What copying can do between the file systems at hand, found out by the first file.
#[derive(Default)]
pub(super) struct Means {
    no_clone: AtomicBool,
    no_range: AtomicBool,
}

/// Longest piece that is read at once.
const PIECE: usize = 256 << 10;

impl Means {
    /// Fills the empty `to` with the `size` bytes of `from`. Shares the blocks where it can, else copies in
    /// the kernel; holes stay holes. With `verify` the bytes are read and must have this digest.
    pub(super) fn copy(
        &self,
        from: &OwnedFd,
        to: &OwnedFd,
        size: u64,
        verify: Option<&Digest>,
    ) -> Result<(), Fault> {
        let stat = fstat(from).map_err(failed("fstat"))?;
        if u64::try_from(stat.st_size).ok() != Some(size) {
            return Err(Fault::Changed);
        }
        if size == 0 {
            return Ok(());
        }
        if let Some(digest) = verify {
            return verified(from, to, size, digest);
        }
        if !self.no_clone.load(Ordering::Relaxed) {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(_) => self.no_clone.store(true, Ordering::Relaxed),
            }
        }
        let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        if !sparse {
            return self.range(from, to, 0, size);
        }
        let mut at = 0;
        while let Some((data, hole)) = next_data(from, at, size)? {
            self.range(from, to, data, hole)?;
            at = hole;
        }
        ftruncate(to, size).map_err(failed("ftruncate"))
    }

    /// Copies the bytes from `at` to `end` to the same place.
    fn range(&self, from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> Result<(), Fault> {
        while at < end && !self.no_range.load(Ordering::Relaxed) {
            let (mut source, mut target) = (at, at);
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            match copy_file_range(from, Some(&mut source), to, Some(&mut target), most) {
                Ok(0) => return Err(Fault::Changed),
                Ok(copied) => at += copied as u64,
                Err(Errno::INTR) => {}
                Err(
                    Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::IO,
                ) => {
                    self.no_range.store(true, Ordering::Relaxed);
                }
                Err(errno) => return Err(Fault::Call("copy_file_range", errno)),
            }
        }
        pieces(from, at, end, |at, piece| write_all(to, at, piece))
    }
}

/// Reads what is hashed and writes what was read, so that what is written has the digest whatever happens to
/// the source.
fn verified(from: &OwnedFd, to: &OwnedFd, size: u64, digest: &Digest) -> Result<(), Fault> {
    let mut hasher = Hasher::new();
    pieces(from, 0, size, |at, piece| {
        hasher.update(piece);
        // A block of zeros is as good as a hole.
        let block = 4096;
        for (index, part) in piece.chunks(block).enumerate() {
            if part.iter().any(|byte| *byte != 0) {
                write_all(to, at + (index * block) as u64, part)?;
            }
        }
        Ok(())
    })?;
    if hasher.finish() != *digest {
        return Err(Fault::Changed);
    }
    ftruncate(to, size).map_err(failed("ftruncate"))
}

/// The next part of a sparse file that is no hole.
fn next_data(file: &OwnedFd, at: u64, size: u64) -> Result<Option<(u64, u64)>, Fault> {
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) if data < size => data,
        // No data any more, or a file system that cannot tell.
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) if at < size => return Ok(Some((at, size))),
        Err(errno) => return Err(Fault::Call("lseek", errno)),
    };
    let hole = seek(file, SeekFrom::Hole(data)).map_err(failed("lseek"))?;
    Ok(Some((data, hole.min(size))))
}

fn pieces(
    file: &OwnedFd,
    mut at: u64,
    end: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if at >= end {
        return Ok(());
    }
    let mut buffer = vec![0; usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE)];
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        match pread(file, &mut buffer[..most], at) {
            Ok(0) => return Err(Fault::Changed),
            Ok(length) => {
                each(at, &buffer[..length])?;
                at += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Fault::Call("pread", errno)),
        }
    }
    Ok(())
}

pub(super) fn write_all(file: impl AsFd, mut at: u64, mut bytes: &[u8]) -> Result<(), Fault> {
    while !bytes.is_empty() {
        match pwrite(&file, bytes, at) {
            Ok(written) => {
                at += written as u64;
                bytes = &bytes[written..];
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Fault::Call("pwrite", errno)),
        }
    }
    Ok(())
}
