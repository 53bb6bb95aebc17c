//! Paths below an open folder, which no link can lead out of.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

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

/// A name in an open folder as a path, for the calls on attributes, which take no folder's descriptor.
pub(crate) fn proc_path(folder: impl AsFd, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).as_bytes(), name].concat()
}

/// Calls with a buffer that grows until the result fits: attributes have no length that is known before.
pub(crate) fn growing(
    mut call: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Vec<u8>, io::Error> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // The kernel takes no list or value above 64 KiB.
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            Err(errno) => return Err(errno.into()),
        }
    }
}
