//! Removes a folder with all that is in it.

use std::{io, os::fd::AsFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, unlinkat},
    io::Errno,
};

/// As many folders are open at once as this, however deep the tree is.
const DEEPEST: u32 = 64;

/// Removes the folder at `path` and all below it, or the file; links are removed and never followed. What is already gone, or
/// goes meanwhile, is no error.
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
    let mut hoisted = 0;
    remove(folder, name, 0, &mut |deep, inner| {
        hoisted += 1;
        let new = format!(".removing-{}-{hoisted}", std::process::id()).into_bytes();
        renameat(deep, inner, folder, &new[..])?;
        Ok(new)
    })
    .and_then(|mut later| {
        // What lay too deep has become a neighbour, and may itself be deep.
        while let Some(name) = later.pop() {
            remove_in(folder, &name)?;
        }
        Ok(())
    })
}

type Hoist<'a> = &'a mut dyn FnMut(rustix::fd::BorrowedFd<'_>, &[u8]) -> Result<Vec<u8>, Errno>;

/// Removes a name, and gives those of the folders that were moved out of the depth.
fn remove(folder: &impl AsFd, name: &[u8], depth: u32, hoist: Hoist<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(Vec::new()),
        // Linux says the first, POSIX the second.
        Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
        Err(errno) => return Err(errno),
    }
    let inner = match open_allowed(folder, name) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut later = Vec::new();
    for entry in Dir::read_from(&inner)? {
        let entry = entry?;
        let below = entry.file_name().to_bytes();
        if below == b"." || below == b".." {
            continue;
        }
        if depth >= DEEPEST && entry.file_type() == FileType::Directory {
            later.push(hoist(inner.as_fd(), below)?);
        } else {
            later.extend(remove(&inner, below, depth + 1, hoist)?);
        }
    }
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(later),
        Err(errno) => Err(errno),
    }
}

/// Opens a folder to empty it, after giving ourselves the right to if need be.
fn open_allowed(folder: &impl AsFd, name: &[u8]) -> Result<rustix::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !rustix::process::geteuid().is_root() {
        // Follows no link that we could have opened: a link's own mode is never looked at, and its target is ours at most.
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
