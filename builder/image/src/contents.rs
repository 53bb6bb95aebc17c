//! Where the bytes of a layer's files come from.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

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
    fn open(&self, path: &LayerPath) -> io::Result<Box<dyn Read + '_>>;
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
    fn open(&self, path: &LayerPath) -> io::Result<Box<dyn Read + '_>> {
        // NONBLOCK: a pipe that took a file's place must not make us wait; its size will be wrong.
        let file = beneath::open(self.0.as_fd(), path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        Ok(Box::new(File::from(file)))
    }
}

/// Files that are all empty: for layers that hold none, and for tests.
pub struct NoContents;

impl Contents for NoContents {
    fn open(&self, _path: &LayerPath) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(io::empty()))
    }
}
