//! Makes an upper folder hold what its manifest says, and nothing else.
//!
//! A layer is named by its manifest, and whoever needs it is given the folder of that name. What overlayfs copied up without
//! need must therefore go: it would be seen on top of another base, where it never was.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, Mode, OFlags, StatxFlags, Timespec, Timestamps, fremovexattr, futimens, openat,
        statx,
    },
    io::Errno,
};
use tree::{Kind, Layer, LayerPath};

use super::remove::remove_in;
use crate::{beneath, overlay::OverlayXattrs, scan::ScanError};

/// Removes what `layer` does not have, and marks of opaque folders that it does not have. Times of folders stay.
///
/// # Errors
/// [`ScanError::Call`]; a part is then removed.
pub(crate) fn prune(folder: &Path, layer: &Layer, overlay: OverlayXattrs) -> Result<(), ScanError> {
    let root = LayerPath::root();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = openat(CWD, folder, flags, Mode::empty()).map_err(failed("open", &root))?;
    let pruner = Pruner { layer, overlay };
    // A list and no recursion: how deep a tree is, is up to whoever made it.
    let mut left = pruner.folder(&open, &root)?;
    while let Some(path) = left.pop() {
        let below = beneath::open_folder(open.as_fd(), &path).map_err(failed("open", &path))?;
        left.extend(pruner.folder(&below, &path)?);
    }
    Ok(())
}

struct Pruner<'a> {
    layer: &'a Layer,
    overlay: OverlayXattrs,
}

impl Pruner<'_> {
    /// Prunes one folder; gives those in it.
    fn folder(&self, open: &OwnedFd, path: &LayerPath) -> Result<Vec<LayerPath>, ScanError> {
        let mut folders = Vec::new();
        let before =
            statx(open, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map_err(failed("statx", path))?;
        let mut removed = false;
        for name in names(open).map_err(failed("getdents", path))? {
            let below = path.join(&name);
            match self.layer.get(&below).map(|node| &node.kind) {
                None => {
                    remove_in(open, &name).map_err(failed("remove", &below))?;
                    removed = true;
                }
                Some(Kind::Directory { opaque }) => {
                    let inner = beneath::open_folder(open.as_fd(), &LayerPath::root().join(&name));
                    let inner = inner.map_err(failed("open", &below))?;
                    if !opaque {
                        self.unmark(&inner).map_err(failed("fremovexattr", &below))?;
                    }
                    folders.push(below);
                }
                Some(_) => {}
            }
        }
        if removed {
            let time =
                |seconds: i64, nanoseconds: u32| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
            let times = Timestamps {
                last_access: time(before.stx_atime.tv_sec, before.stx_atime.tv_nsec),
                last_modification: time(before.stx_mtime.tv_sec, before.stx_mtime.tv_nsec),
            };
            futimens(open, &times).map_err(failed("futimens", path))?;
        }
        Ok(folders)
    }

    fn unmark(&self, folder: &OwnedFd) -> Result<(), Errno> {
        let Some(mark) = self.overlay.opaque() else { return Ok(()) };
        match fremovexattr(folder, mark) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }
}

fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn failed(call: &'static str, path: &LayerPath) -> impl FnOnce(Errno) -> ScanError {
    let path = path.clone();
    move |errno| ScanError::Call { call, path, source: errno.into() }
}
