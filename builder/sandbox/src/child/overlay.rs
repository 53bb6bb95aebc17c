//! Stacking layers.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount as mount_at, open_tree, unmount,
};
use rustix::process::chdir;

use crate::board::Board;
use crate::fault::{At, Fault, Syscall};
use crate::{OverlayCall, OverlayMethod};

/// Detail of a fault at the upper folder; lower layer *n* has the detail *n* + 1.
pub(crate) const UPPER: u32 = 1_000_001;
/// Detail of a fault at the work folder.
pub(crate) const WORK: u32 = 1_000_002;

/// `fsconfig` takes strings of this length at most, NUL included.
const STRING_BYTES: usize = 256;

/// Options of a writable stack; see `plan/roots.rs`, where the same stand as text.
const WRITABLE: [(&CStr, &CStr); 4] =
    [(c"index", c"off"), (c"xino", c"off"), (c"redirect_dir", c"off"), (c"metacopy", c"off")];
/// As many of them are said with `userxattr`, which makes the others so and does not bear that they are said.
const WITH_USER_MARKS: usize = 2;

/// A detached mount of the stack.
pub(super) fn mount(overlay: &OverlayCall, board: &Board) -> Result<OwnedFd, Fault> {
    match &overlay.method {
        OverlayMethod::Append => append(overlay, board),
        OverlayMethod::Options { directory, options, at } => by_options(directory, options, at),
    }
}

fn append(overlay: &OverlayCall, board: &Board) -> Result<OwnedFd, Fault> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Syscall::Fsopen)?;
    let configured = configure(overlay, context.as_fd());
    if configured.is_err() {
        keep_message(context.as_fd(), board);
    }
    configured?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).at(Syscall::Fsmount)
}

fn configure(overlay: &OverlayCall, context: BorrowedFd<'_>) -> Result<(), Fault> {
    for (index, lower) in overlay.lowers.iter().enumerate() {
        set_folder(context, c"lowerdir+", lower).map_err(|fault| fault.with(index as u32 + 1))?;
    }
    if let Some((upper, work)) = &overlay.writable {
        set_folder(context, c"upperdir", upper).map_err(|fault| fault.with(UPPER))?;
        set_folder(context, c"workdir", work).map_err(|fault| fault.with(WORK))?;
        let said = if overlay.user_marks { WITH_USER_MARKS } else { WRITABLE.len() };
        for (name, value) in WRITABLE.into_iter().take(said) {
            fsconfig_set_string(context, name, value).at(Syscall::Fsconfig)?;
        }
        fsconfig_set_flag(context, c"volatile").at(Syscall::Fsconfig)?;
    }
    if overlay.user_marks {
        fsconfig_set_flag(context, c"userxattr").at(Syscall::Fsconfig)?;
    }
    fsconfig_create(context).at(Syscall::FsconfigCreate)
}

/// Names a folder to overlayfs. A name that is too long for `fsconfig`, or has a backslash, which overlayfs
/// takes for an escape in some options and not in others, is entered and named ".".
fn set_folder(context: BorrowedFd<'_>, option: &CStr, path: &CStr) -> Result<(), Fault> {
    let bytes = path.to_bytes_with_nul();
    if bytes.len() <= STRING_BYTES && !bytes.contains(&b'\\') {
        return fsconfig_set_string(context, option, path).at(Syscall::FsconfigLayer);
    }
    chdir(path).at(Syscall::Chdir)?;
    let set = fsconfig_set_string(context, option, c".").at(Syscall::FsconfigLayer);
    chdir(c"/").at(Syscall::Chdir)?;
    set
}

/// What the kernel wrote into the context about the failure, one message a read.
fn keep_message(context: BorrowedFd<'_>, board: &Board) {
    let mut text = [0_u8; 192];
    let mut last = 0;
    while let Ok(length @ 1..) = rustix::io::read(context, text.as_mut_slice()) {
        last = length;
    }
    if let Some(text) = text.get(..last) {
        board.set_message(text);
    }
}

/// One `mount(2)` on a folder of the caller's, in this namespace only, from where the mount is taken off again.
fn by_options(directory: &CStr, options: &CStr, at: &CStr) -> Result<OwnedFd, Fault> {
    chdir(directory).at(Syscall::Chdir)?;
    let mounted = mount_at(c"overlay", at, c"overlay", MountFlags::empty(), options).at(Syscall::Mount);
    chdir(c"/").at(Syscall::Chdir)?;
    mounted?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, at, flags).at(Syscall::OpenTree)?;
    unmount(at, UnmountFlags::DETACH).at(Syscall::Umount)?;
    Ok(copy)
}
