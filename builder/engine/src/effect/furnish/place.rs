//! Where something is put into a root: found as the root's own processes would find it, and nowhere else.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, readlinkat, statat},
    io::Errno,
};

/// As many links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

const THROUGH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A name in a folder, which is there or not.
pub(super) struct Place {
    pub(super) parent: OwnedFd,
    pub(super) name: OsString,
    /// Folders that were made on the way, outermost first.
    pub(super) made: Vec<(OwnedFd, OsString)>,
}

/// Finds the place of a path in a root; links, also those that lead nowhere yet, and `..` stay inside. Folders on the way to it
/// are made.
pub(super) fn find(root: &Path, path: &Path) -> Result<Place, Errno> {
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut folders = vec![root];
    let mut left = names(path);
    let (mut made, mut links) = (Vec::new(), 0);
    while let Some(name) = left.pop_front() {
        let Some(folder) = folders.last() else { return Err(Errno::INVAL) };
        if name == ".." {
            folders.truncate(folders.len().saturating_sub(1).max(1));
            continue;
        }
        let found = match statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Some(FileType::from_raw_mode(found.st_mode)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
        match found {
            Some(FileType::Symlink) => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(folder, &name, Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    folders.truncate(1);
                }
                for name in names(Path::new(OsStr::from_bytes(&target))).into_iter().rev() {
                    left.push_front(name);
                }
            }
            _ if left.is_empty() => {
                let parent = folders.pop().ok_or(Errno::INVAL)?;
                return Ok(Place { parent, name, made });
            }
            Some(FileType::Directory) => {
                let inner = openat(folder, &name, THROUGH, Mode::empty())?;
                folders.push(inner);
            }
            Some(_) => return Err(Errno::NOTDIR),
            None => {
                mkdirat(folder, &name, Mode::from_raw_mode(0o755))?;
                let inner = openat(folder, &name, THROUGH, Mode::empty())?;
                made.push((rustix::io::fcntl_dupfd_cloexec(folder, 0)?, name));
                folders.push(inner);
            }
        }
    }
    // The root itself.
    Err(Errno::INVAL)
}

fn names(path: &Path) -> VecDeque<OsString> {
    let of = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_place_is_found_inside_whatever_the_links_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("etc")).expect("made");
        fs::create_dir(folder.path().join("outside")).expect("made");
        symlink("/run/resolve/stub", root.join("etc/resolv.conf")).expect("linked");
        symlink("../../../../outside", root.join("out")).expect("linked");
        symlink("loop", root.join("loop")).expect("linked");
        fs::write(root.join("file"), "").expect("written");
        let found = |path: &str| find(&root, Path::new(path)).map(|place| (place.name, place.made.len()));
        assert_eq!(found("/etc/hosts"), Ok(("hosts".into(), 0)));
        assert_eq!(found("/etc/resolv.conf"), Ok(("stub".into(), 2)));
        assert!(root.join("run/resolve").is_dir());
        assert_eq!(found("/a/b/../c"), Ok(("c".into(), 2)));
        assert_eq!(found("/out/x"), Ok(("x".into(), 1)));
        assert!(root.join("outside").is_dir(), "made inside");
        assert_eq!(fs::read_dir(folder.path().join("outside")).expect("there").count(), 0);
        assert_eq!(found("/../../etc"), Ok(("etc".into(), 0)));
        assert_eq!(found("/loop/x"), Err(Errno::LOOP));
        assert_eq!(found("/file/x"), Err(Errno::NOTDIR));
        assert_eq!(found("/"), Err(Errno::INVAL));
    }
}
