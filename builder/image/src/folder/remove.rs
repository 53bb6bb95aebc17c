//! Removes a folder with all that is in it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, openat, renameat, unlinkat},
    io::Errno,
};

/// As many folders are open at once as this, however deep the tree is.
const DEEPEST: u32 = 64;

/// Removes the folder at `path` and all below it, or the file; links are removed and never followed. What is
/// already gone, or goes meanwhile, is no error.
///
/// A folder that forbids it by its mode, as a step's leftovers may to anyone but root, is first allowed.
///
/// # Errors
/// What the kernel says, for instance where something is still mounted below.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path without a name cannot be removed"));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    Ok(remove_in(&parent, name.as_encoded_bytes())?)
}

/// Removes one name of an open folder, with all below it.
pub(super) fn remove_in(folder: &impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let Some(top) = unlink(folder, name)? else { return Ok(()) };
    // What lay too deep is moved up here, and is found the next time.
    while empty(&top, &top, 0)? {}
    remove_folder(folder, name)
}

/// Removes a name that is no folder, or opens the folder.
fn unlink(folder: &impl AsFd, name: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        // What Linux says of a folder, what POSIX says, and what a folder that forbids it says.
        Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
        Err(errno) => return Err(errno),
    }
    match open_allowed(folder, name) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

fn remove_folder(folder: &impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Removes what an open folder holds. Says whether a folder was moved up to `top`.
fn empty(top: &OwnedFd, folder: &OwnedFd, depth: u32) -> Result<bool, Errno> {
    let mut moved = false;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let Some(inner) = unlink(folder, name)? else { continue };
        if depth < DEEPEST {
            moved |= empty(top, &inner, depth + 1)?;
            remove_folder(folder, name)?;
        } else {
            move_up(folder, name, top, entry.ino())?;
            moved = true;
        }
    }
    Ok(moved)
}

/// Moves a folder to `top` under a name that is free there.
fn move_up(folder: &OwnedFd, name: &[u8], top: &OwnedFd, inode: u64) -> Result<(), Errno> {
    for number in 0u64.. {
        let new = format!(".deep-{inode}-{number}");
        match renameat(folder, name, top, &new) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
            other => return other,
        }
    }
    Err(Errno::EXIST)
}

/// Opens a folder to empty it, after giving ourselves the right to if need be.
fn open_allowed(folder: &impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !rustix::process::geteuid().is_root() {
        // Follows no link that we could have opened: a link's own mode is never looked at, and its target is
        // ours at most.
        let path = openat(
            folder,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // May fail on what is not ours; then so does what follows, and says why.
        let _ = chmodat(&path, ".", Mode::RWXU, AtFlags::empty());
    }
    openat(folder, name, flags, Mode::empty())
}
