//! A checked-out folder as a layer wants it: modes, times, and no traces of git.

use std::{
    fs::{self, DirEntry, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::Error;

/// Gives all below a folder, and itself, the modes that BuildKit's umask gives, and one time. Links get the time only.
///
/// Of files that git keeps read-only, which are its own, that stays.
pub(super) fn normalise(folder: &Path, seconds: u64) -> Result<(), Error> {
    // A list and no recursion: how deep a tree is, is up to whoever owns the repository.
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in entries(&folder)? {
            let path = entry.path();
            let found = fs::symlink_metadata(&path).map_err(Error::io("read", &path))?;
            if found.is_dir() {
                left.push(path);
                continue;
            }
            if found.is_file() {
                set_mode(&path, file_mode(found.permissions().mode()))?;
            }
            set_time(&path, seconds)?;
        }
        set_mode(&folder, 0o755)?;
        set_time(&folder, seconds)?;
    }
    Ok(())
}

fn file_mode(mode: u32) -> u32 {
    match mode {
        _ if mode & 0o100 != 0 => 0o755,
        _ if mode & 0o200 == 0 => 0o444,
        _ => 0o644,
    }
}

/// Removes every `.git` below a folder: the repository of the top, and the files by which submodules find theirs. Git
/// tracks no file of that name.
pub(super) fn without_git(folder: &Path) -> Result<(), Error> {
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in entries(&folder)? {
            let path = entry.path();
            let is_dir = entry.file_type().map_err(Error::io("read", &path))?.is_dir();
            match (entry.file_name() == ".git", is_dir) {
                (true, true) => fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?,
                (true, false) => fs::remove_file(&path).map_err(Error::io("remove", &path))?,
                (false, true) => left.push(path),
                (false, false) => {}
            }
        }
    }
    Ok(())
}

/// A repository and those of its submodules, which are in its `modules`.
pub(super) fn repositories(git_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = vec![git_dir.to_owned()];
    let mut left = vec![git_dir.join("modules")];
    while let Some(folder) = left.pop() {
        if !folder.is_dir() {
            continue;
        }
        if folder.join("HEAD").is_file() {
            left.push(folder.join("modules"));
            found.push(folder);
            continue;
        }
        // A submodule's name may hold slashes.
        left.extend(entries(&folder)?.into_iter().map(|entry| entry.path()));
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<DirEntry>, Error> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    listed.map_err(Error::io("list", folder))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io("change the mode of", path))
}

fn set_time(path: &Path, seconds: u64) -> Result<(), Error> {
    let at = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    let times = Timestamps { last_access: at, last_modification: at };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| Error::io("change the time of", path)(errno.into()))
}
