//! What a step's mounts are where nothing can be mounted: things that lie in its root while it runs.
//!
//! | Mount               | Lies there as                                                                             |
//! |---------------------|-------------------------------------------------------------------------------------------|
//! | `/dev`              | device nodes                                                                              |
//! | `/proc`             | copies of the files that are no process's; what else there is a step is given as it opens it (`sandbox::procfs`) |
//! | `/sys`              | an empty folder                                                                           |
//! | a file              | a copy                                                                                    |
//! | a tree of the graph | a copy that was made for this step, moved in                                              |
//! | a cache             | itself, moved in and back: it is locked, and who is killed meanwhile leaves a note of it    |
//! | a socket            | another name of it                                                                        |
//! | `tmpfs`             | a folder                                                                                  |
//! | a secret            | a file, where the root is in memory; otherwise nothing, for a step of root is given it when it opens its path (`sandbox::procfs`), and for one of another user it is an error |
//!
//! What was there before lies aside meanwhile, as it does below a mount, and comes back with the times of the folders around
//! it, so that nothing of all that is in the step's layer. Nobody is kept from writing to what is read-only: that is thrown
//! away.

mod kernel_files;
mod kit;
mod place;

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use image::folder::remove_tree;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, fchmod,
        fchown, linkat, mkdirat, mknodat, openat, renameat, statat, statfs, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use sandbox::{Isolation, Mount, MountKind, Rootfs, Spec};
use store::CacheMount;

pub(crate) use self::kit::Kits;
use self::{
    kit::Lent,
    place::{Place, find},
};
use super::{Effects, mounts::Mounts};
use crate::error::Cause;

const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// What is said once of steps in a chroot.
const NOT_ISOLATED: &str = "RUN steps are kept in by chroot alone, for no namespace can be made here: they see this \
     container's network, processes, host name and kernel, and may end its processes";

/// What lies in a root in place of mounts. Dropped, it is as it was before.
pub(crate) struct Furnished {
    /// Those things, in the order in which they were put.
    put: Vec<Put>,
    /// What was there before them.
    aside: PathBuf,
    /// Of what is among them and other steps may have after this one.
    lent: Option<Lent>,
}

struct Put {
    parent: OwnedFd,
    name: OsString,
    what: What,
    /// What was there, in the folder aside.
    before: Option<PathBuf>,
    /// When the folder was modified before and after this.
    times: (Timespec, Timespec),
}

enum What {
    /// A folder on the way to something, which goes if nothing is in it.
    Way,
    /// Something to throw away.
    Ours,
    /// A folder that is moved back to where it was, to be given to another step: to who looks at one that failed.
    Moved(PathBuf),
    /// A cache, to be given back.
    Cache(Arc<CacheMount>, PathBuf),
}

impl Effects {
    /// Puts a step's mounts into its root, where they cannot be mounted; the spec to start is then without them.
    pub(crate) fn furnish(&self, spec: &Spec, mounts: &Mounts) -> Result<Option<(Furnished, Spec)>, Cause> {
        let Rootfs::Directory { path: root } = &spec.rootfs else { return Ok(None) };
        if self.mode.isolation != Isolation::Chroot {
            return Ok(None);
        }
        self.warn_once("chroot", NOT_ISOLATED);
        let is_shown = sandbox::procfs::serves(spec);
        // Who is not shown /proc itself reads copies that are of now.
        let lent = match is_shown {
            true => Some(self.roots.kits.lend(|| Ok(self.lease.new_folder()?))?),
            false => None,
        };
        let mut furnished = Furnished { put: Vec::new(), aside: self.lease.new_folder()?, lent };
        self.put_kernel_files(&mut furnished, root)?;
        let mut list: Vec<&Mount> = spec.mounts.iter().collect();
        // Parents first; of two at one target the later one is seen.
        list.sort_by_key(|mount| mount.target.components().count());
        let serves = is_shown && !is_in_memory(root);
        let mut served = Vec::new();
        for mount in list {
            let is_served = serves && matches!(mount.kind, MountKind::File { .. });
            self.put(&mut furnished, root, mount, mounts, is_served)?;
            served.extend(is_served.then(|| mount.clone()));
        }
        Ok(Some((furnished, Spec { mounts: served, ..spec.clone() })))
    }

    fn put_kernel_files(&self, furnished: &mut Furnished, root: &Path) -> Result<(), Cause> {
        for name in ["dev", "proc", "sys"] {
            let target = Path::new("/").join(name);
            let failed = |errno: Errno| Cause::io("make", &target)(errno.into());
            let place = find(root, &target).map_err(failed)?;
            // As after a mount: the folder stays.
            match mkdirat(&place.parent, &place.name, Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => {}
                made => made.map_err(failed)?,
            }
            let is_usable = match (name, &mut furnished.lent) {
                ("dev" | "proc", Some(_)) => furnished.lent(place, name).map_err(failed)?,
                _ => {
                    let folder = furnished.folder(place, 0o755).map_err(failed)?;
                    match name {
                        "dev" => kernel_files::fill_dev(&folder).map_err(failed)?,
                        "proc" => {
                            kernel_files::fill_proc(&folder).map_err(Cause::io("fill", &target))?;
                            true
                        }
                        _ => true,
                    }
                }
            };
            if !is_usable {
                let why = "the devices of /dev cannot be used in RUN steps: CAP_MKNOD is missing, or the file system of \
                           the state folder is mounted `nodev`";
                self.warn_once("no-devices", why);
            }
        }
        Ok(())
    }

    fn put(
        &self,
        furnished: &mut Furnished,
        root: &Path,
        mount: &Mount,
        mounts: &Mounts,
        is_served: bool,
    ) -> Result<(), Cause> {
        let target = &mount.target;
        let failed = |errno: Errno| Cause::io("put something at", target)(errno.into());
        let not = |what| Cause::Sandbox(sandbox::Error::NotInChroot { what });
        let place = || find(root, target).map_err(failed);
        match &mount.kind {
            MountKind::Tmpfs { mode, .. } => {
                let place = place()?;
                // Over a folder that is there it takes that folder's.
                let there = mode_of(&place.parent, &place.name).map_err(failed)?;
                let mode = there.map_or(*mode, |(_, mode)| mode);
                furnished.folder(place, mode).map(drop).map_err(failed)
            }
            MountKind::File { content, mode, uid, gid } => {
                if is_served {
                    // What the step is given in its place is in memory. Who is not, finds nothing that can be read.
                    let socket = |parent: &OwnedFd, name: &OsStr| {
                        mknodat(parent, name, FileType::Socket, Mode::empty(), 0)
                    };
                    return furnished.add(place()?, false, What::Ours, socket).map_err(failed);
                }
                if !is_in_memory(root) {
                    return Err(Cause::SecretOnDisk { target: target.display().to_string() });
                }
                furnished.file(place()?, content, *mode, (*uid, *gid)).map_err(failed)
            }
            MountKind::Bind { root: source, path, .. } if mounts.caches().any(|cache| cache == source) => {
                let cache = mounts.cache_at(source).ok_or_else(|| not("this cache"))?;
                if !path.as_os_str().is_empty() && path != Path::new("/") {
                    let file = source.join(path);
                    if !file.symlink_metadata().is_ok_and(|found| found.is_file()) {
                        return Err(not("a folder of a cache"));
                    }
                    // What is written to it is written to the cache.
                    let link =
                        |parent: &OwnedFd, name: &OsStr| linkat(CWD, &file, parent, name, AtFlags::empty());
                    return furnished.add(place()?, false, What::Ours, link).map_err(failed);
                }
                if let Some(at) = furnished.cache_in(source) {
                    let link = |parent: &OwnedFd, name: &OsStr| symlinkat(&at, parent, name);
                    return furnished.add(place()?, true, What::Ours, link).map_err(failed);
                }
                furnished.cache(place()?, cache, target).map_err(Cause::io("put a cache at", target))
            }
            MountKind::Bind { root: source, path, .. } if self.lease.holds(source) => {
                furnished.moved(place()?, &source.join(path)).map_err(Cause::io("put something at", target))
            }
            MountKind::Bind { .. } => Err(not("a folder of the host")),
            MountKind::Overlay { .. } => Err(not("a stack of layers")),
        }
    }
}

fn is_in_memory(root: &Path) -> bool {
    #[allow(clippy::unnecessary_cast, reason = "f_type has another width on other architectures")]
    statfs(root).is_ok_and(|found| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&(found.f_type as u64)))
}

impl Furnished {
    /// Takes everything out again.
    ///
    /// # Errors
    /// Something cannot be put back as it was: the root is not to be used any more.
    pub(crate) fn clear(mut self) -> Result<(), Cause> {
        self.take_out()
    }

    fn take_out(&mut self) -> Result<(), Cause> {
        let mut first = Ok(());
        while let Some(put) = self.put.pop() {
            let out = self.aside.join(format!("out-{}", self.put.len()));
            let taken = put.take_out(&out);
            if first.is_ok() {
                first = taken.map_err(Cause::io("take out", Path::new(&put.name)));
            }
        }
        first?;
        if let Some(lent) = self.lent.take() {
            lent.give_back()?;
        }
        remove_tree(&self.aside).map_err(Cause::io("remove", &self.aside))
    }

    /// Where a cache lies already.
    fn cache_in(&self, folder: &Path) -> Option<PathBuf> {
        self.put.iter().find_map(|put| match &put.what {
            What::Cache(cache, at) if cache.path() == folder => Some(at.clone()),
            _ => None,
        })
    }

    /// Makes room at a place for `what`, which `make` puts there.
    fn add<T>(
        &mut self,
        place: Place,
        is_folder: bool,
        what: What,
        make: impl FnOnce(&OwnedFd, &OsStr) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        for (parent, name) in place.made {
            let time = modified(parent.as_fd())?;
            self.put.push(Put { parent, name, what: What::Way, before: None, times: (time, time) });
        }
        let Place { parent, name, .. } = place;
        // As a mount would have it.
        match mode_of(&parent, &name)? {
            Some((true, _)) if !is_folder => return Err(Errno::ISDIR),
            Some((false, _)) if is_folder => return Err(Errno::NOTDIR),
            _ => {}
        }
        let before = modified(parent.as_fd())?;
        let aside = self.aside.join(self.put.len().to_string());
        let was = match renameat(&parent, &name, CWD, &aside) {
            Ok(()) => Some(aside),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
        let made = make(&parent, &name);
        let times = (before, modified(parent.as_fd())?);
        self.put.push(Put { parent, name, what, before: was, times });
        made
    }

    /// An empty folder.
    fn folder(&mut self, place: Place, mode: u32) -> Result<OwnedFd, Errno> {
        self.add(place, true, What::Ours, |parent, name| {
            mkdirat(parent, name, Mode::RWXU)?;
            chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::empty())
        })
    }

    /// A part of what is lent. Says whether its devices can be used.
    fn lent(&mut self, place: Place, part: &str) -> Result<bool, Errno> {
        let Some(mut lent) = self.lent.take() else { return Err(Errno::INVAL) };
        let home = What::Moved(lent.home(part));
        let put = self.add(place, true, home, |parent, name| lent.put(part, parent, name));
        let has_devices = lent.has_devices();
        self.lent = Some(lent);
        put.map(|()| has_devices)
    }

    fn file(&mut self, place: Place, content: &[u8], mode: u32, (uid, gid): (u32, u32)) -> Result<(), Errno> {
        self.add(place, false, What::Ours, |parent, name| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
            let mut left = content;
            while !left.is_empty() {
                let length = rustix::io::write(&file, left)?;
                left = left.get(length..).unwrap_or_default();
            }
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            fchmod(&file, Mode::from_raw_mode(mode & 0o7777))
        })
    }

    /// Something of this build: a file is copied, for other steps have it too, a socket gets one more name, a folder was made for
    /// this step alone.
    fn moved(&mut self, place: Place, from: &Path) -> std::io::Result<()> {
        let found = fs::symlink_metadata(from)?;
        if found.file_type().is_socket() {
            let link = |parent: &OwnedFd, name: &OsStr| linkat(CWD, from, parent, name, AtFlags::empty());
            return Ok(self.add(place, false, What::Ours, link)?);
        }
        if found.is_dir() {
            let rename = |parent: &OwnedFd, name: &OsStr| renameat(CWD, from, parent, name);
            return Ok(self.add(place, true, What::Moved(from.to_owned()), rename)?);
        }
        use std::os::unix::fs::MetadataExt;
        let content = fs::read(from)?;
        Ok(self.file(place, &content, found.mode(), (found.uid(), found.gid()))?)
    }

    fn cache(&mut self, place: Place, cache: Arc<CacheMount>, at: &Path) -> std::io::Result<()> {
        let lent = cache.clone();
        Ok(self.add(place, true, What::Cache(cache, at.to_owned()), |parent, name| {
            lent.lend(parent.as_fd(), name)
        })?)
    }
}

impl Drop for Furnished {
    fn drop(&mut self) {
        // Whoever wants to know calls `clear`; what a cache could not be given back from is noted.
        let _cleared = self.take_out();
    }
}

impl Put {
    fn take_out(&self, out: &Path) -> std::io::Result<()> {
        let now = modified(self.parent.as_fd())?;
        match &self.what {
            What::Way => match unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR) {
                // The step has put something there.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => return Ok(()),
                Err(Errno::NOENT) | Ok(()) => {}
                Err(errno) => return Err(errno.into()),
            },
            What::Ours => take(&self.parent, &self.name, out)?,
            What::Moved(to) => take(&self.parent, &self.name, to)?,
            What::Cache(cache, _) => {
                cache.give_back(self.parent.as_fd(), &self.name)?;
                take(&self.parent, &self.name, out)?;
            }
        }
        if let Some(before) = &self.before {
            renameat(CWD, before, &self.parent, &self.name)?;
        }
        let (before, after) = self.times;
        let last_modification = if now == after { before } else { now };
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access, last_modification };
        Ok(utimensat(&self.parent, ".", &times, AtFlags::empty())?)
    }
}

/// Whether a name is a folder, and its mode; none where it is not there.
fn mode_of(parent: &OwnedFd, name: &OsStr) -> Result<Option<(bool, u32)>, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        found => {
            let mode = found?.st_mode;
            Ok(Some((FileType::from_raw_mode(mode) == FileType::Directory, mode & 0o7777)))
        }
    }
}

/// Moves a name away, if it is there.
fn take(parent: &OwnedFd, name: &OsStr, to: &Path) -> Result<(), Errno> {
    match renameat(parent, name, CWD, to) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn modified(folder: impl AsFd) -> Result<Timespec, Errno> {
    let found = statat(folder, "", AtFlags::EMPTY_PATH)?;
    Ok(Timespec { tv_sec: found.st_mtime, tv_nsec: found.st_mtime_nsec as _ })
}
