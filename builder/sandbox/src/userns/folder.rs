//! The state folder's file system: whether it can hold layers, and whether they can be stacked in it.

use std::{
    ffi::CString,
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::fs::{
    CWD, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, XattrFlags, chown, flock, open, renameat_with,
    setxattr, statfs, symlink,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use rustix::process::getuid;
use tempfile::TempDir;

use super::inside::NoOverlay;
use super::lack::Lack;
use super::ranges::{Range, parse_map};

/// File systems that have all that layers need, by the numbers of statfs(2). The others are tried.
const FIT: [i64; 8] = [
    0xEF53,      // ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0x0102_1994, // tmpfs
    0x794C_7630, // overlayfs
    0x2FC1_2FC1, // zfs
    0xF2F5_2010, // f2fs
    0x8584_58F6, // ramfs
];

/// Whether the state folder can hold layers; for who has made no folders in it yet.
pub(super) fn fits(root: &Path) -> Result<(), Lack> {
    if is_known(root) { Ok(()) } else { check(root, Folders::make(root).as_ref(), true) }
}

/// Whether the state folder can hold layers, whose files have the owners of images if `has_owners`. NFS has no names that are taken only
/// once, and lets nobody but its server's root give files away; FAT has neither links nor owners.
pub(super) fn check(root: &Path, folders: Option<&Folders>, has_owners: bool) -> Result<(), Lack> {
    let Some(folders) = folders.filter(|folders| !is_known(folders.top.path())) else { return Ok(()) };
    folders.hold_layers(has_owners).map_err(|(call, errno)| Lack::Unfit {
        root: root.to_owned(),
        call,
        source: io::Error::from(errno),
        other: PathBuf::from("/var/tmp").join(format!("kiln-{}", outer_user())),
    })
}

/// Whether a folder, or that which will hold it, is on a file system that need not be tried.
fn is_known(folder: &Path) -> bool {
    let found = folder.ancestors().find_map(|folder| statfs(folder).ok());
    #[allow(clippy::unnecessary_cast, reason = "f_type has another width on other architectures")]
    found.is_some_and(|found| FIT.contains(&(found.f_type as i64)))
}

/// Who started Kiln, as seen from outside.
fn outer_user() -> u32 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let own = getuid().as_raw();
    let is_own = |range: &&Range| range.inside <= own && own - range.inside < range.count;
    parse_map(&map).iter().find(is_own).map_or(own, |range| range.outside + (own - range.inside))
}

/// Three empty folders in the state folder, locked, and gone when this is dropped.
pub(super) struct Folders {
    top: TempDir,
    paths: [CString; 3],
    lock: Result<OwnedFd, Errno>,
}

impl Folders {
    /// None where they cannot be made: opening the state folder will say why.
    pub(super) fn make(root: &Path) -> Option<Folders> {
        let tmp = root.join("tmp");
        // What is not there yet will most likely be on the same file system as what will hold it.
        let nearest = tmp.ancestors().find(|folder| folder.is_dir())?;
        sweep(nearest);
        (0..TRIES).find_map(|_| Folders::in_folder(nearest))
    }

    /// None where another Kiln took them for a killed one's while they were not locked yet, too. No two have had the same name: each
    /// removes what it has made, or found with nobody's lock, by that.
    fn in_folder(folder: &Path) -> Option<Folders> {
        let top = tempfile::Builder::new().prefix(PREFIX).tempdir_in(folder).ok()?;
        let made = ["lower", "upper", "work"].map(|name| {
            let path = top.path().join(name);
            fs::create_dir(&path).ok()?;
            CString::new(path.as_os_str().as_bytes()).ok()
        });
        let [Some(lower), Some(upper), Some(work)] = made else { return None };
        let folders = Folders { lock: lock(top.path()), top, paths: [lower, upper, work] };
        let is_swept = matches!(folders.lock, Err(Errno::WOULDBLOCK | Errno::NOENT));
        let are_there = ["lower", "upper", "work"].iter().all(|name| folders.top.path().join(name).is_dir());
        (!is_swept && are_there).then_some(folders)
    }

    /// Stacks them, as a step's layers are.
    pub(super) fn stack(&self) -> Result<(), Errno> {
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, path) in [c"lowerdir", c"upperdir", c"workdir"].into_iter().zip(&self.paths) {
            fsconfig_set_string(&context, name, path)?;
        }
        fsconfig_set_string(&context, c"index", c"off")?;
        fsconfig_set_string(&context, c"xino", c"off")?;
        fsconfig_set_flag(&context, c"volatile")?;
        fsconfig_set_flag(&context, c"userxattr")?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map(drop)
    }

    /// What layers and their locks are made of, done once.
    fn hold_layers(&self, has_owners: bool) -> Result<(), (&'static str, Errno)> {
        let [lower, _, work] = &self.paths;
        let failed = |call| move |errno| (call, errno);
        if let Err(errno) = self.lock {
            return Err(("flock", errno));
        }
        let link = self.top.path().join("link");
        symlink(c"there", &link).map_err(failed("symlink"))?;
        if has_owners {
            let one = (Some(Uid::from_raw(1)), Some(Gid::from_raw(1)));
            chown(lower, one.0, one.1).map_err(failed("chown"))?;
        }
        let renamed = self.top.path().join("renamed");
        renameat_with(CWD, work, CWD, &renamed, RenameFlags::NOREPLACE)
            .map_err(failed("renameat2(RENAME_NOREPLACE)"))?;
        renameat_with(CWD, &renamed, CWD, work, RenameFlags::NOREPLACE)
            .map_err(failed("renameat2(RENAME_NOREPLACE)"))
    }

    /// Whether an opaque folder cannot be marked.
    pub(super) fn no_marks(&self) -> Option<NoOverlay> {
        let [_, upper, _] = &self.paths;
        let marked = setxattr(upper.as_c_str(), c"user.overlay.opaque", b"y", XattrFlags::empty());
        marked
            .err()
            .map(|errno| NoOverlay { call: "setxattr(user.overlay.opaque)", errno: errno.raw_os_error() })
    }
}

/// How often folders are made anew that another Kiln removed.
const TRIES: u32 = 8;

/// How the names begin of the folders in which it is tried. The state folder's keeper leaves them alone (`cache/store/src/layout.rs`).
const PREFIX: &str = ".kiln-look.";

/// Removes the folders of processes that were killed meanwhile: nobody holds their lock.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Held until it is gone: who has just made it sees by that what becomes of it.
        let held = is_ours.then(|| lock(&entry.path()).ok()).flatten();
        if held.is_some() {
            let _gone = fs::remove_dir_all(entry.path());
        }
    }
}

/// Locks a folder, unless somebody else has.
fn lock(folder: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = open(folder, flags, Mode::empty())?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_holds_layers_and_nothing_is_left() {
        let place = tempfile::tempdir().expect("a folder");
        let root = place.path().join("a/state/folder");
        let folders = Folders::make(&root).expect("the folder can be written");
        // Only root gives files away, and who has more than one id.
        let map = parse_map(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default());
        let has_owners = getuid().is_root() && map.iter().any(|range| range.count > 1);
        assert_eq!(folders.hold_layers(has_owners), Ok(()));
        // Another process's are not swept away while it looks.
        let others = Folders::make(&root);
        assert!(folders.top.path().exists());
        drop((folders, others));
        assert_eq!(fs::read_dir(place.path()).expect("it is there").count(), 0);
    }

    #[test]
    fn what_cannot_be_locked_holds_none() {
        let place = tempfile::tempdir().expect("a folder");
        let mut folders = Folders::make(place.path()).expect("the folder can be written");
        folders.lock = Err(Errno::NOLCK);
        assert_eq!(folders.hold_layers(false), Err(("flock", Errno::NOLCK)));
    }
}
