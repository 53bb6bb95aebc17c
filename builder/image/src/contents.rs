//! Where the bytes of a layer's files come from.

use std::{
    fs::File,
    io::{self, Cursor, Empty, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use oci::Digest;
use rustix::fs::{CWD, Mode, OFlags, openat};
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
    /// Their digest, where that is known without reading them.
    fn known(&self) -> Option<Digest> {
        None
    }

    /// Whether what was read until now is what [`Bytes::known`] spoke of: nobody has written to the file meanwhile.
    fn is_still(&self) -> bool {
        true
    }
}

impl Bytes for File {}
impl Bytes for Empty {}
impl<T: AsRef<[u8]>> Bytes for Cursor<T> {}

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
