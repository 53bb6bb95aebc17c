//! Leaving the host's tree, and sealing the new one.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::mount_point::open_in;
use crate::fault::{At, Fault, Syscall};
use crate::sys;

const PRIVATE: MountPropagationFlags = MountPropagationFlags::PRIVATE.union(MountPropagationFlags::REC);
/// More folders than a path can have.
const DEEPEST: usize = 4096;

/// Cuts this namespace's mounts off from the host's, in both directions.
pub(super) fn make_private() -> Result<(), Fault> {
    mount_change(c"/", PRIVATE).at(Syscall::Mount)
}

/// The same where `/` is not the root of a mount. A process whose working directory is outside its root can
/// climb to the mount's root, change it there, and come back.
pub(super) fn make_private_from_chroot(through: &CStr) -> Result<(), Fault> {
    let back = open_directory(c"/")?;
    chroot(through).at(Syscall::Chroot)?;
    fchdir(&back).at(Syscall::Fchdir)?;
    for _ in 0..DEEPEST {
        let here = statx(CWD, c".", AtFlags::empty(), StatxFlags::empty()).at(Syscall::Fstat)?;
        if here.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            break;
        }
        chdir(c"..").at(Syscall::Chdir)?;
    }
    mount_change(c".", PRIVATE).at(Syscall::Mount)?;
    fchdir(&back).at(Syscall::Fchdir)?;
    chroot(c".").at(Syscall::Chroot)
}

/// Makes `/` a mount that has a parent.
pub(super) fn clone_root() -> Result<(), Fault> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let copy = open_tree(CWD, c"/", flags).at(Syscall::OpenTree)?;
    move_mount(&copy, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Syscall::MoveMount)?;
    fchdir(&copy).at(Syscall::Fchdir)?;
    chroot(c".").at(Syscall::Chroot)
}

/// Pivots to a kept mount, lets the old tree go, and returns the new `/`.
///
/// With "." for both, the old root comes to lie on the new one and is unmounted from there, so no folder
/// is needed for it (pivot_root(2) § NOTES).
pub(super) fn enter(root: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Syscall::MoveMount)?;
    fchdir(root).at(Syscall::Fchdir)?;
    pivot_root(c".", c".").at(Syscall::PivotRoot)?;
    unmount(c".", UnmountFlags::DETACH).at(Syscall::Umount)?;
    chdir(c"/").at(Syscall::Chdir)?;
    open_directory(c"/")
}

/// Hides a path, if it exists.
pub(super) fn mask(root: BorrowedFd<'_>, path: &CStr) -> Result<(), Fault> {
    let Some(hidden) = existing(root, path)? else { return Ok(()) };
    let kind = rustix::fs::fstat(&hidden).at(Syscall::Fstat)?.st_mode;
    if FileType::from_raw_mode(kind) == FileType::Directory {
        fchdir(&hidden).at(Syscall::Fchdir)?;
        return mount(c"tmpfs", c".", c"tmpfs", MountFlags::RDONLY, c"nr_inodes=2,mode=0755")
            .at(Syscall::Mount);
    }
    let null =
        open_tree(CWD, c"/dev/null", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .at(Syscall::OpenTree)?;
    attach(null.as_fd(), hidden.as_fd())
}

/// Makes a path read-only with all below, if it exists.
pub(super) fn make_read_only(root: BorrowedFd<'_>, path: &CStr, remount: bool) -> Result<(), Fault> {
    let Some(found) = existing(root, path)? else { return Ok(()) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(&found, c"", flags).at(Syscall::OpenTree)?;
    if !remount {
        sys::mount_setattr(copy.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, true).at(Syscall::MountSetattr)?;
    }
    attach(copy.as_fd(), found.as_fd())?;
    if remount { remount_read_only(path) } else { Ok(()) }
}

/// Makes all mounts `nodev` but `usable`. What is in `made` becomes a mount, for devices are forbidden mount by mount.
pub(super) fn forbid_devices(
    root: BorrowedFd<'_>,
    made: &[CString],
    usable: &[CString],
) -> Result<(), Fault> {
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    for device in made {
        let device = device.as_c_str();
        let mount = open_tree(CWD, device, copy).at(Syscall::OpenTree)?;
        move_mount(&mount, c"", CWD, device, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .at(Syscall::MoveMount)?;
    }
    sys::mount_setattr(root, libc::MOUNT_ATTR_NODEV, 0, true).at(Syscall::MountSetattr)?;
    for path in usable {
        if let Some(mount) = existing(root, path)? {
            sys::mount_setattr(mount.as_fd(), 0, libc::MOUNT_ATTR_NODEV, false).at(Syscall::MountSetattr)?;
        }
    }
    Ok(())
}

/// Sets or clears read-only for the root mount alone.
pub(super) fn set_root_read_only(readonly: bool, remount: bool) -> Result<(), Fault> {
    if remount {
        let flags = if readonly { MountFlags::RDONLY } else { MountFlags::empty() };
        return mount_remount(c"/", MountFlags::BIND | flags, c"").at(Syscall::Mount);
    }
    let root = open_directory(c"/")?;
    let (set, clear) = if readonly { (libc::MOUNT_ATTR_RDONLY, 0) } else { (0, libc::MOUNT_ATTR_RDONLY) };
    sys::mount_setattr(root.as_fd(), set, clear, false).at(Syscall::MountSetattr)
}

/// Makes the mount at a path read-only, for kernels before `mount_setattr`.
pub(super) fn remount_read_only(path: &CStr) -> Result<(), Fault> {
    mount_remount(path, MountFlags::BIND | MountFlags::RDONLY, c"").at(Syscall::Mount)
}

/// Mounts what is kept on top of an open folder or file.
pub(super) fn attach(mount: BorrowedFd<'_>, at: BorrowedFd<'_>) -> Result<(), Fault> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", at, c"", flags).at(Syscall::MoveMount)
}

fn existing(root: BorrowedFd<'_>, path: &CStr) -> Result<Option<OwnedFd>, Fault> {
    match open_in(root, path) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Fault::new(Syscall::Openat2, errno)),
    }
}

fn open_directory(path: &CStr) -> Result<OwnedFd, Fault> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(Syscall::Openat)
}
