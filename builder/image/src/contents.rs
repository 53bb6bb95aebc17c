//! Where the bytes of a layer's files come from.

use std::{
    fs::File,
    io::{self, Cursor, Empty, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use oci::Digest;
use rustix::{
    buffer::spare_capacity,
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};
use tree::LayerPath;

use crate::beneath;

/// Gives the bytes of files by their path in a layer.
///
/// A file of several names is asked for by its first.
pub trait Contents: Sync {
    /// The bytes of the file at `path`, from its start.
    ///
    /// # Errors
    /// Whatever stands in the way; the caller adds the path.
    fn open(&self, path: &LayerPath) -> io::Result<Box<dyn Bytes + '_>>;
}

/// The bytes of one file.
pub trait Bytes: Read {
    /// Whether the file, as it is now, is known to have this digest without its bytes being looked at. What was read of it
    /// before it was asked for this is then of that digest, too: nobody has written to it meanwhile.
    fn is_known(&self, _digest: &Digest) -> bool {
        false
    }

    /// Appends all that is left, and says how much that is. Of more than `expected` bytes it need not be all.
    ///
    /// # Errors
    /// Those of reading.
    fn append_to(&mut self, out: &mut Vec<u8>, expected: usize) -> io::Result<usize> {
        let start = out.len();
        let most = expected.saturating_add(1);
        out.resize(start.saturating_add(most), 0);
        let mut filled = 0;
        while filled < most {
            match self.read(&mut out[start + filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.truncate(start + filled);
        Ok(filled)
    }
}

impl Bytes for Empty {}
impl<T: AsRef<[u8]>> Bytes for Cursor<T> {}

impl Bytes for File {
    /// In one call, where the file is as long as expected: room for a byte more tells that it ends there.
    fn append_to(&mut self, out: &mut Vec<u8>, expected: usize) -> io::Result<usize> {
        let start = out.len();
        out.reserve(expected.saturating_add(1));
        loop {
            let room = out.capacity() - out.len();
            let read = match rustix::io::read(&*self, spare_capacity(out)) {
                Err(Errno::INTR) => continue,
                read => read?,
            };
            let filled = out.len() - start;
            // Few file systems give less than they have before the end.
            if read == 0 || filled > expected || filled == expected && read < room {
                return Ok(filled);
            }
            out.reserve(1);
        }
    }
}

/// A layer's files below one folder, each at its own path.
pub struct Folder(OwnedFd);

impl Folder {
    /// The files below `root`.
    ///
    /// # Errors
    /// When `root` is no folder that can be opened.
    pub fn open(root: &Path) -> io::Result<Folder> {
        Ok(Folder(openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// The files below an open folder.
    pub fn at(root: OwnedFd) -> Folder {
        Folder(root)
    }
}

impl Contents for Folder {
    fn open(&self, path: &LayerPath) -> io::Result<Box<dyn Bytes + '_>> {
        // NONBLOCK: a pipe that took a file's place must not make us wait; its size will be wrong.
        let file = beneath::open(self.0.as_fd(), path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        Ok(Box::new(File::from(file)))
    }
}

/// Files that are all empty: for layers that hold none, and for tests.
pub struct NoContents;

impl Contents for NoContents {
    fn open(&self, _path: &LayerPath) -> io::Result<Box<dyn Bytes + '_>> {
        Ok(Box::new(io::empty()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_appended_tells_of_a_file_that_is_longer_or_shorter() {
        for length in [0, 1, 1000, 300_000] {
            let bytes: Vec<u8> = (0..length).map(|at: usize| (at % 251) as u8).collect();
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(&bytes).expect("written");
            for expected in [0, length.saturating_sub(1), length, length + 1, length + 10_000] {
                let opened = File::open(file.path()).expect("there");
                let readers: [Box<dyn Bytes>; 2] = [Box::new(opened), Box::new(Cursor::new(bytes.clone()))];
                for mut reader in readers {
                    let mut out = b"before".to_vec();
                    let found = reader.append_to(&mut out, expected).expect("read");
                    assert_eq!(found == expected, length == expected, "{length} {expected}: {found}");
                    assert_eq!(found < expected, length < expected, "{length} {expected}: {found}");
                    assert!(out[6..] == bytes[..found] && out.starts_with(b"before"));
                }
            }
        }
    }
}
