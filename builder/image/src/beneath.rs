//! Paths below an open folder, which no link can lead out of.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};
use tree::LayerPath;

/// Opens what is at `path` below `root` without following any link.
///
/// Takes a path of any length by its parts where the kernel takes no whole one.
pub(crate) fn open(root: BorrowedFd<'_>, path: &LayerPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.is_root() {
        return openat(root, ".", flags, Mode::empty());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path.as_bytes(), flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and seccomp filters older than the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut folder = openat(root, ".", through, Mode::empty())?;
            for part in path.parent().unwrap_or_default().parts() {
                folder = openat(&folder, part, through, Mode::empty())?;
            }
            openat(&folder, path.name(), flags, Mode::empty())
        }
        other => other,
    }
}

/// Opens a folder below `root`, to read it and to name what it holds.
pub(crate) fn open_folder(root: BorrowedFd<'_>, path: &LayerPath) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}
