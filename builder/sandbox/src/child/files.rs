//! What is mounted into the root: parts of the host, files in memory, devices.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, makedev, mkdirat, mknodat, openat};
use rustix::io::{Errno, write};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsmount,
    fsopen, move_mount, open_tree,
};

use super::mount_point::open_in;
use crate::fault::{At, Fault, Syscall};
use crate::sys;

/// Detail of a fault which says that the source, and not the target, is at fault.
pub(crate) const SOURCE: u32 = 1;

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE
    .union(OpenTreeFlags::OPEN_TREE_CLOEXEC)
    .union(OpenTreeFlags::AT_EMPTY_PATH)
    .union(OpenTreeFlags::AT_RECURSIVE);

/// A mount of a path which is resolved as if `root` were `/`.
pub(super) fn bind(root: &CStr, path: &CStr, readonly: bool) -> Result<OwnedFd, Fault> {
    let root = openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .at(Syscall::Openat)
        .map_err(|fault| fault.with(SOURCE))?;
    let copy = select(root.as_fd(), path)?;
    if readonly {
        sys::mount_setattr(copy.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, true).at(Syscall::MountSetattr)?;
    }
    Ok(copy)
}

/// A mount of a path inside an open folder; of the folder itself if the path names nothing.
pub(super) fn select(within: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Fault> {
    if path.to_bytes().iter().all(|byte| *byte == b'/') {
        return copy_of(within, within);
    }
    let found = open_in(within, path).at(Syscall::Openat2).map_err(|fault| fault.with(SOURCE))?;
    copy_of(found.as_fd(), within)
}

/// A copy of a mount from a folder on. Before Linux 6.15 nothing is copied that is attached nowhere: it is attached over `/` then, and goes
/// with the tree that the root is entered from.
fn copy_of(folder: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    let copied = match open_tree(folder, c"", CLONE) {
        Err(Errno::INVAL) => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(mount, c"", CWD, c"/", flags).at(Syscall::MoveMount)?;
            open_tree(folder, c"", CLONE)
        }
        copied => copied,
    };
    copied.at(Syscall::OpenTree)
}

/// A file system of the kernel's, of this type.
pub(super) fn kernel_files(kind: &CStr, readonly: bool) -> Result<OwnedFd, Fault> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).at(Syscall::Fsopen)?;
    fsconfig_create(&context).at(Syscall::FsconfigCreate)?;
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, readonly);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).at(Syscall::Fsmount)
}

/// A file system in memory that is never swapped.
pub(super) fn store() -> Result<OwnedFd, Fault> {
    let context = fsopen(c"ramfs", FsOpenFlags::FSOPEN_CLOEXEC).at(Syscall::Fsopen)?;
    fsconfig_create(&context).at(Syscall::FsconfigCreate)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).at(Syscall::Fsmount)
}

/// A file to make.
pub(super) struct NewFile<'a> {
    pub name: &'a CStr,
    pub content: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A mount of a new file in the store.
pub(super) fn create(store: BorrowedFd<'_>, new: &NewFile<'_>, readonly: bool) -> Result<OwnedFd, Fault> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(store, new.name, flags, Mode::RUSR).at(Syscall::Openat)?;
    let mut left = new.content;
    while !left.is_empty() {
        match write(&file, left) {
            Ok(length) => left = left.get(length..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Fault::new(Syscall::Write, errno)),
        }
    }
    fchown(&file, Some(Uid::from_raw(new.uid)), Some(Gid::from_raw(new.gid))).at(Syscall::Fchown)?;
    fchmod(&file, Mode::from_raw_mode(new.mode)).at(Syscall::Fchmod)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(store, new.name, flags).at(Syscall::OpenTree)?;
    if readonly {
        let no_exec = if new.mode & 0o111 == 0 { libc::MOUNT_ATTR_NOEXEC } else { 0 };
        sys::mount_setattr(mount.as_fd(), libc::MOUNT_ATTR_RDONLY | no_exec, 0, false)
            .at(Syscall::MountSetattr)?;
    }
    Ok(mount)
}

/// A folder with exactly this mode (the mask is empty here).
pub(super) fn make_directory(path: &CStr, mode: u32) -> Result<(), Fault> {
    mkdirat(CWD, path, Mode::from_raw_mode(mode)).at(Syscall::Mkdirat)
}

/// A character device for everybody.
pub(super) fn make_device(path: &CStr, major: u32, minor: u32) -> Result<(), Fault> {
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, path, FileType::CharacterDevice, mode, makedev(major, minor)).at(Syscall::Mknodat)
}
