//! Extended attributes of a name in an open folder, which no system call before Linux 6.13 takes.
//!
//! The name is reached through `/proc/self/fd`. Where no `/proc` is mounted, as in an empty chroot, files and folders are
//! opened instead; other things then have no attributes, which for a layer is the truth: only `security.capability` and
//! overlayfs's marks count, and they are on files and folders.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    sync::OnceLock,
};

use rustix::{
    fs::{
        Mode, OFlags, XattrFlags, fgetxattr, flistxattr, fsetxattr, lgetxattr, llistxattr, lsetxattr, openat,
    },
    io::Errno,
};

/// Something that has attributes.
pub(crate) enum Attributes {
    /// By a path below `/proc`.
    Path(Vec<u8>),
    /// By its own descriptor.
    Open(OwnedFd),
    /// A link or a special file, without `/proc`.
    None,
}

impl Attributes {
    /// The attributes of `name` in `folder`; a link is not followed.
    pub(crate) fn of(folder: impl AsFd, name: &[u8]) -> Result<Attributes, Errno> {
        static PROC: OnceLock<bool> = OnceLock::new();
        if *PROC.get_or_init(|| Path::new("/proc/self/fd").exists()) {
            let folder = folder.as_fd().as_raw_fd();
            return Ok(Attributes::Path([format!("/proc/self/fd/{folder}/").as_bytes(), name].concat()));
        }
        // NONBLOCK: a pipe must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(folder, name, flags, Mode::empty()) {
            Ok(open) => Ok(Attributes::Open(open)),
            // A link, a device without a driver, a socket.
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => Ok(Attributes::None),
            Err(errno) => Err(errno),
        }
    }

    /// The names, each ended by a NUL.
    pub(crate) fn list(&self) -> io::Result<Vec<u8>> {
        growing(|buffer| match self {
            Attributes::Path(path) => llistxattr(&path[..], buffer.as_mut_slice()),
            Attributes::Open(fd) => flistxattr(fd, buffer.as_mut_slice()),
            Attributes::None => Ok(0),
        })
    }

    /// A value.
    pub(crate) fn get(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        growing(|buffer| match self {
            Attributes::Path(path) => lgetxattr(&path[..], name, buffer.as_mut_slice()),
            Attributes::Open(fd) => fgetxattr(fd, name, buffer.as_mut_slice()),
            Attributes::None => Err(Errno::NODATA),
        })
    }

    /// Sets a value.
    pub(crate) fn set(&self, name: impl rustix::path::Arg, value: &[u8]) -> Result<(), Errno> {
        match self {
            Attributes::Path(path) => lsetxattr(&path[..], name, value, XattrFlags::empty()),
            Attributes::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            Attributes::None => Err(Errno::OPNOTSUPP),
        }
    }
}

/// Calls with a buffer that grows until the result fits: attributes have no length that is known before.
fn growing(mut call: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>) -> io::Result<Vec<u8>> {
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
