//! Removing a folder that anybody may have written.
//!
//! A `RUN` step decides what is in a layer's folder: folders nested deeper than a process may have files open, names
//! that are links out of it, folders without permissions. And where a mount was left in it, what is mounted is
//! somebody else's.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{self, AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
};

/// Folders below this depth are first moved up, so that few files are open at once.
const DEPTH_MAX: usize = 64;

/// Threads that remove together, at most, and what one of them removes at least.
const REMOVERS: usize = 4;
const SHARE_MIN: usize = 8;

/// Removes what `path` names, with all below it. Links are removed, not followed; nothing that is gone already is an
/// error.
///
/// # Errors
/// The first name that cannot be removed; `EBUSY` where something is mounted, whose content is left alone.
pub(crate) fn tree(path: &Path) -> io::Result<()> {
    match fs::unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let folder = open_folder(CWD, path)?;
    let mut remover = Remover { top: &folder, moved: 0 };
    // Emptied again as long as deep folders were moved to the top.
    loop {
        let before = remover.moved;
        remover.empty(folder.as_fd(), 0)?;
        if remover.moved == before {
            break;
        }
    }
    match fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Removes what is in a folder, by several threads where it is much: a file system that tells the disk of every block that is
/// free again waits for the disk each time, and two can wait at once. What cannot be removed stays.
pub(crate) fn together(folder: &Path) {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    let share = paths.len().div_ceil(REMOVERS).max(SHARE_MIN);
    thread::scope(|scope| {
        for paths in paths.chunks(share) {
            let remove = || paths.iter().for_each(|path| drop(tree(path)));
            // Without a thread, whoever removes the folder does it.
            let _begun = thread::Builder::new().name("remove".to_owned()).spawn_scoped(scope, remove);
        }
    });
}

/// Removes a file; that it is gone already is no error.
pub(crate) fn file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

struct Remover<'a> {
    top: &'a OwnedFd,
    moved: u64,
}

impl Remover<'_> {
    fn empty(&mut self, folder: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        for name in names(folder)? {
            match fs::unlinkat(folder, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // POSIX says EPERM for a folder, Linux says EISDIR.
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(e) => return Err(e.into()),
            }
            if depth < DEPTH_MAX {
                let below = open_folder(folder, &name)?;
                self.empty(below.as_fd(), depth + 1)?;
                match fs::unlinkat(folder, &name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(e.into()),
                }
            } else {
                // Opened for its permissions: moving a folder writes its `..`.
                drop(open_folder(folder, &name)?);
                let to = format!(".deep-{}-{}", std::process::id(), self.moved);
                fs::renameat(folder, &name, self.top, to)?;
                self.moved += 1;
            }
        }
        Ok(())
    }
}

fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Opens a folder to empty it: makes it readable and writable for its owner, refuses links and mount points.
fn open_folder<P: rustix::path::Arg + Copy>(at: impl AsFd, name: P) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match fs::openat(&at, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            fs::chmodat(&at, name, Mode::RWXU, AtFlags::empty())?;
            fs::openat(&at, name, flags, Mode::empty())?
        }
        opened => opened?,
    };
    let stat = fs::statx(&folder, c"", AtFlags::EMPTY_PATH, StatxFlags::MODE)?;
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::BUSY.into());
    }
    if Mode::from_raw_mode(stat.stx_mode.into()) & Mode::RWXU != Mode::RWXU {
        fs::fchmod(&folder, Mode::RWXU)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn links_are_removed_and_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = folder.path().join("kept");
        fs::create_dir(&kept).expect("made");
        fs::write(kept.join("file"), "x").expect("written");
        let gone = folder.path().join("gone");
        fs::create_dir_all(gone.join("a/b")).expect("made");
        std::os::unix::fs::symlink(&kept, gone.join("a/link")).expect("linked");
        fs::set_permissions(gone.join("a/b"), fs::Permissions::from_mode(0o0)).expect("changed");
        tree(&gone).expect("removed");
        assert!(!gone.exists());
        assert!(kept.join("file").exists());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&kept, &link).expect("linked");
        tree(&link).expect("removed");
        assert!(kept.join("file").exists() && link.symlink_metadata().is_err());
        tree(&link).expect("gone is no error");
    }

    #[test]
    fn folders_deeper_than_open_files_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let gone = folder.path().join("gone");
        fs::create_dir(&gone).expect("made");
        // Longer than a path may be, so each part is made on its own.
        let mut at = rustix::fs::openat(CWD, &gone, OFlags::DIRECTORY, Mode::empty()).expect("opened");
        for depth in 0..1500 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).expect("made");
            let flags = OFlags::CREATE | OFlags::WRONLY;
            drop(rustix::fs::openat(&at, format!("file{depth}"), flags, Mode::RWXU).expect("written"));
            at = rustix::fs::openat(&at, "deep", OFlags::DIRECTORY, Mode::empty()).expect("opened");
        }
        tree(&gone).expect("removed");
        assert!(!gone.exists());
    }

    #[test]
    fn what_is_mounted_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (gone, kept): (PathBuf, PathBuf) = (folder.path().join("gone"), folder.path().join("kept"));
        fs::create_dir_all(gone.join("mount")).expect("made");
        fs::create_dir(&kept).expect("made");
        fs::write(kept.join("file"), "x").expect("written");
        if let Err(e) = rustix::mount::mount_bind(&kept, gone.join("mount")) {
            eprintln!("skipped: a bind mount needs root: {e}");
            return;
        }
        let removed = tree(&gone);
        rustix::mount::unmount(gone.join("mount"), rustix::mount::UnmountFlags::DETACH).expect("unmounted");
        assert_eq!(removed.expect_err("it is mounted").kind(), io::ErrorKind::ResourceBusy);
        assert!(kept.join("file").exists());
        tree(&gone).expect("removed");
    }
}
