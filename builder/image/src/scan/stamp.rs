//! What `statx` says of a folder, as one digest: by it a context is known again without a list of its files.
//!
//! Two walks with one stamp have met the same paths, and at each the same inode, type, mode, length, times of change and
//! link target. What a file holds follows as far as it does for a [`HashCache`](super::HashCache): the kernel sets the
//! time of change, and nobody else can. A folder's own times are left out, because they tell of names that the filter may
//! leave out; its names are walked. Nothing is opened but folders.
//!
//! Few names are walked by the thread that asks; a pool of threads is only started for many.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
};

use oci::{Digest, Hasher};
use rayon::prelude::*;
use rustix::fs::{FileType, Statx, readlinkat};
use tree::LayerPath;

use super::{ScanError, StatKey, Visit, child, failed, names, stat};
use crate::beneath;

/// So many names are walked before a second thread is worth its start.
const FEW: usize = 2_000;

/// How a folder is walked.
#[derive(Clone, Copy)]
pub struct StampOptions<'a> {
    /// What to take, as [`ScanOptions::filter`](super::ScanOptions::filter).
    pub filter: &'a (dyn Fn(&LayerPath, bool) -> Visit + Sync),
    /// Told of each name that the filter does not skip, in any order and from many threads.
    pub seen: &'a (dyn Fn(&LayerPath, &Seen) + Sync),
}

/// A name, as the walk met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the filter said.
    pub visit: Visit,
    /// What is there.
    pub kind: SeenKind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// How many names the inode has.
    pub names: u32,
    /// The inode, its length and its times.
    pub key: StatKey,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A link.
    Symlink {
        /// Its target.
        target: Vec<u8>,
    },
    /// A device, a pipe, a socket.
    Special,
}

/// Walks an open folder as [`scan_at`](super::scan_at) would walk a context. Two calls a name: one for what it is, and for
/// a link one for its target.
///
/// # Errors
/// [`ScanError`].
pub fn stamp_at(root: BorrowedFd<'_>, options: &StampOptions<'_>) -> Result<Digest, ScanError> {
    let walk = Walk { root, options, walked: AtomicUsize::new(0) };
    let own = stat(&root, b".", &LayerPath::root())?;
    let mut whole = Hasher::new();
    let StatKey { device, inode, .. } = StatKey::of(&own);
    whole.field(&device.to_be_bytes());
    whole.field(&inode.to_be_bytes());
    let mut level = vec![LayerPath::root()];
    while !level.is_empty() {
        let folders: Vec<Folder> = match walk.is_long(level.len()) {
            false => level.iter().map(|path| walk.folder(path)).collect::<Result<_, _>>()?,
            true => level.par_iter().map(|path| walk.folder(path)).collect::<Result<_, _>>()?,
        };
        // In the order of the folders, whoever walked them.
        for (path, folder) in level.iter().zip(&folders) {
            whole.field(path.as_bytes());
            whole.field(folder.stamp.raw());
        }
        level = folders.into_iter().flat_map(|folder| folder.below).collect();
    }
    Ok(whole.finish())
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    options: &'a StampOptions<'a>,
    walked: AtomicUsize,
}

struct Folder {
    stamp: Digest,
    /// The folders in it.
    below: Vec<LayerPath>,
}

/// A name with what goes into the stamp.
struct Stamped {
    path: LayerPath,
    seen: Seen,
    /// The type as the kernel has it, with the mode.
    raw_mode: u16,
    device_number: (u32, u32),
}

impl Walk<'_> {
    /// Whether this many more names are work for several threads.
    fn is_long(&self, more: usize) -> bool {
        more > 1 && self.walked.load(Ordering::Relaxed) + more > FEW
    }

    fn folder(&self, path: &LayerPath) -> Result<Folder, ScanError> {
        let folder = beneath::open_folder(self.root, path).map_err(failed("open", path))?;
        let names = names(&folder, path)?;
        let long = self.is_long(names.len()) && names.len() > FEW;
        self.walked.fetch_add(names.len(), Ordering::Relaxed);
        let one = |(name, kind): (Vec<u8>, FileType)| self.name(&folder, path, name, kind).transpose();
        let found: Vec<Stamped> = match long {
            false => names.into_iter().filter_map(one).collect::<Result<_, _>>()?,
            true => names.into_par_iter().with_min_len(256).filter_map(one).collect::<Result<_, _>>()?,
        };
        let mut stamp = Hasher::new();
        let mut below = Vec::new();
        for one in found {
            one.add_to(&mut stamp);
            if one.seen.kind == SeenKind::Directory {
                below.push(one.path);
            }
        }
        Ok(Folder { stamp: stamp.finish(), below })
    }

    /// Looks at a name, unless it is skipped.
    fn name(
        &self,
        folder: &OwnedFd,
        above: &LayerPath,
        name: Vec<u8>,
        kind: FileType,
    ) -> Result<Option<Stamped>, ScanError> {
        let path = child(above, name)?;
        let skipped = |visit, is_folder: bool| visit == Visit::Skip || visit == Visit::Descend && !is_folder;
        let mut is_folder = kind == FileType::Directory;
        let mut visit = Visit::Take;
        if kind != FileType::Unknown {
            visit = (self.options.filter)(&path, is_folder);
            if skipped(visit, is_folder) {
                return Ok(None);
            }
        }
        let found = stat(folder, path.name(), &path)?;
        let now = FileType::from_raw_mode(found.stx_mode.into());
        if kind != now {
            is_folder = now == FileType::Directory;
            visit = (self.options.filter)(&path, is_folder);
            if skipped(visit, is_folder) {
                return Ok(None);
            }
        }
        let seen = Seen::of(folder, &path, &found, visit)?;
        (self.options.seen)(&path, &seen);
        let device_number = (found.stx_rdev_major, found.stx_rdev_minor);
        Ok(Some(Stamped { path, seen, raw_mode: found.stx_mode, device_number }))
    }
}

impl Seen {
    fn of(folder: &impl AsFd, path: &LayerPath, found: &Statx, visit: Visit) -> Result<Seen, ScanError> {
        let kind = match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::RegularFile => SeenKind::File,
            FileType::Directory => SeenKind::Directory,
            FileType::Symlink => {
                let target = readlinkat(folder, path.name(), Vec::new()).map_err(failed("readlink", path))?;
                SeenKind::Symlink { target: target.into_bytes() }
            }
            _ => SeenKind::Special,
        };
        let mode = u32::from(found.stx_mode) & 0o7777;
        Ok(Seen { visit, kind, mode, names: found.stx_nlink, key: StatKey::of(found) })
    }
}

impl Stamped {
    fn add_to(&self, hasher: &mut Hasher) {
        let Stamped { path, seen, raw_mode, device_number } = self;
        // The mode is in the raw one. How many names an inode has elsewhere is of no interest; those that were met share it.
        let Seen { visit, kind, mode: _, names: _, key } = seen;
        let StatKey { device, inode, size, mtime_ns, ctime_ns } = *key;
        hasher.field(path.name());
        let mut fixed = Vec::with_capacity(64);
        fixed.push(u8::from(*visit == Visit::Descend));
        fixed.extend(raw_mode.to_be_bytes());
        fixed.extend(device.to_be_bytes());
        fixed.extend(inode.to_be_bytes());
        if *kind != SeenKind::Directory {
            fixed.extend(size.to_be_bytes());
            fixed.extend(mtime_ns.to_be_bytes());
            fixed.extend(ctime_ns.to_be_bytes());
            fixed.extend(device_number.0.to_be_bytes());
            fixed.extend(device_number.1.to_be_bytes());
        }
        hasher.field(&fixed);
        if let SeenKind::Symlink { target } = kind {
            hasher.field(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
        sync::Mutex,
        time::{Duration, SystemTime},
    };

    use super::*;

    fn stamp(root: &Path, left_out: &[u8]) -> (Digest, Vec<String>) {
        let names = Mutex::new(Vec::new());
        let filter = |path: &LayerPath, _: bool| match path.as_bytes() == left_out {
            true => Visit::Skip,
            false => Visit::Take,
        };
        let seen = |path: &LayerPath, _: &Seen| names.lock().expect("no panic").push(path.to_string());
        let root = File::open(root).expect("a folder");
        let stamp = stamp_at(root.as_fd(), &StampOptions { filter: &filter, seen: &seen }).expect("walked");
        let mut names = names.into_inner().expect("no panic");
        names.sort();
        (stamp, names)
    }

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("a/b")).expect("made");
        for name in ["a/b/f", "a/f", "left-out"] {
            fs::write(at(name), name).expect("written");
        }
        symlink("a/f", at("l")).expect("linked");
        folder
    }

    #[test]
    fn every_change_of_what_is_taken_shows_and_no_other() {
        let day = Duration::from_secs(86_400);
        type Change = fn(&Path);
        let set_time = |path: &Path, time| File::options().write(true).open(path)?.set_modified(time);
        let changes: [(&str, bool, Change); 9] = [
            ("nothing", false, |_| {}),
            ("another length", true, |root| fs::write(root.join("a/f"), "longer").expect("written")),
            ("a new file", true, |root| fs::write(root.join("a/b/g"), "").expect("written")),
            ("a file less", true, |root| fs::remove_file(root.join("a/b/f")).expect("removed")),
            ("another mode", true, |root| {
                fs::set_permissions(root.join("a/f"), PermissionsExt::from_mode(0o600)).expect("set");
            }),
            ("a folder's mode", true, |root| {
                fs::set_permissions(root.join("a/b"), PermissionsExt::from_mode(0o700)).expect("set");
            }),
            ("another target", true, |root| {
                fs::remove_file(root.join("l")).expect("removed");
                symlink("a/b", root.join("l")).expect("linked");
            }),
            ("a file that is left out", false, |root| {
                fs::write(root.join("left-out"), "changed").expect("written");
            }),
            ("a name that is left out", false, |root| {
                fs::remove_file(root.join("left-out")).expect("removed");
            }),
        ];
        for (what, shows, change) in changes {
            let folder = tree();
            let before = stamp(folder.path(), b"left-out").0;
            change(folder.path());
            assert_eq!(stamp(folder.path(), b"left-out").0 != before, shows, "{what}");
        }
        // Length and time as before: the inode's own time of change tells.
        let folder = tree();
        let path = folder.path().join("a/f");
        let old = SystemTime::now() - day;
        set_time(&path, old).expect("set");
        let before = stamp(folder.path(), b"").0;
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, "A/F").expect("written");
        set_time(&path, old).expect("set");
        assert_ne!(stamp(folder.path(), b"").0, before);
    }

    #[test]
    fn a_stamp_is_the_same_however_many_walk() {
        let folder = tempfile::tempdir().expect("a folder");
        for at in 0..3 {
            fs::create_dir(folder.path().join(at.to_string())).expect("made");
        }
        for at in 0..FEW + 10 {
            fs::write(folder.path().join(format!("{}/{at}", at % 2)), "").expect("written");
        }
        let of = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| stamp(folder.path(), b"2"))
        };
        let (one, names) = of(1);
        assert_eq!((one, names.len()), (of(4).0, FEW + 12));
        assert_eq!(names, of(4).1);
    }
}
