//! Cache mounts: folders of `RUN --mount=type=cache` that outlive a build.
//!
//! A mount's folder `mounts/HEX/` holds its id, and numbered copies `0/`, `1/`… each with a lock file `0.lock`. Shared and
//! locked users have copy 0; a private user has the first copy that nobody holds. A copy is made aside and
//! gets its name by a rename: mode, owner and seed are of its first use, and nobody sees it half seeded.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    ops::ControlFlow,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            ffi::OsStrExt,
            fs::{PermissionsExt, chown},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use oci::Digest;
use rustix::{
    fs::{AtFlags, CWD, FileType, RenameFlags, renameat, renameat_with, statat},
    io::Errno,
};

use crate::{
    Error, Lease, Result, Store, Waiting,
    contents::drop_rest,
    flock::{self, Hold},
    layout::Layout,
    lock::poll,
};

/// The file that holds a mount's id.
pub(crate) const ID: &str = "id";

/// Who may use a cache mount at the same time (Dockerfile reference, `RUN --mount=type=cache`, `sharing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody, at once.
    Shared,
    /// One at a time; the others wait.
    Locked,
    /// One for each copy; where all are in use, a new copy is made.
    Private,
}

/// Which cache mount, and how it is made at its first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMountSpec {
    /// Its id, with its namespace; any text.
    pub id: String,
    /// Who may use it at the same time.
    pub sharing: Sharing,
    /// Mode of the folder when it is made: 0 to 0o7777.
    pub mode: u32,
    /// Owner of the folder when it is made, as an inode of the state folder has it. `None` leaves the user who builds.
    pub owner: Option<(u32, u32)>,
}

/// A cache mount in use, until this value is dropped or the process dies.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    _lock: File,
}

impl CacheMount {
    /// The folder to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to a free name in a folder below the state folder, for who cannot mount. Where it went is noted before: when
    /// its user is killed, whoever comes next brings it back. Nobody else may use it meanwhile.
    ///
    /// # Errors
    /// The kernel does not move it, as between file systems, or nothing can be noted.
    pub fn lend(&self, folder: impl AsFd, name: &OsStr) -> std::result::Result<(), Errno> {
        let place = fs::read_link(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()));
        let noted =
            place.and_then(|place| fs::write(note(&self.path), place.join(name).as_os_str().as_bytes()));
        noted.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        renameat(CWD, &self.path, folder, name)
    }

    /// Takes back what was lent. Where something else is there by now than a folder, it is left, and the mount is made anew.
    ///
    /// # Errors
    /// The kernel does not move it.
    pub fn give_back(&self, folder: impl AsFd, name: &OsStr) -> io::Result<()> {
        let is_folder = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory);
        if is_folder {
            renameat_with(&folder, name, CWD, &self.path, RenameFlags::NOREPLACE)?;
        }
        fs::remove_file(note(&self.path))
    }
}

/// Where it is noted that a copy was lent.
fn note(copy: &Path) -> PathBuf {
    copy.with_extension("lent")
}

/// Brings back a copy that was lent by somebody who was killed. Its lock is held.
fn recover(copy: &Path) -> Result<()> {
    let note = note(copy);
    let place = match fs::read(&note) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        place => place.map_err(|e| Error::io("read", &note, e))?,
    };
    let place = Path::new(OsStr::from_bytes(&place));
    if place.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        match rustix::fs::renameat_with(CWD, place, CWD, copy, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::io("bring back", copy, errno.into())),
        }
    }
    fs::remove_file(&note).map_err(|e| Error::io("remove", note, e))
}

/// Brings back what killed builds had lent, before their folders go.
pub(crate) fn bring_back(layout: &Layout) -> Result<()> {
    for mount in crate::lease::list(&layout.mounts())? {
        let folder = layout.mounts().join(mount);
        for name in crate::lease::list(&folder)? {
            let Some(copy) = name.strip_suffix(".lent") else { continue };
            let lock = folder.join(format!("{copy}.lock"));
            if let Some(_lock) = try_here(&lock, Hold::Exclusive)? {
                recover(&folder.join(copy))?;
            }
        }
    }
    Ok(())
}

/// A cache mount that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMountInfo {
    /// Its id.
    pub id: String,
    /// The folders of its copies.
    pub copies: Vec<PathBuf>,
}

/// Fills a new copy from the mount's `from=`.
type Seed<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

impl Store {
    /// Takes a cache mount into use; makes it at its first use, with what `seed` puts into it. While it may not be used,
    /// calls `waiting` before each further attempt.
    ///
    /// Returns `None` when `waiting` said [`ControlFlow::Break`].
    ///
    /// # Errors
    /// The state folder cannot be written; the owner cannot be set; what `seed` said.
    pub fn cache_mount(
        &self,
        lease: &Lease,
        spec: &CacheMountSpec,
        seed: Option<Seed<'_>>,
        waiting: &mut dyn FnMut(&Waiting) -> ControlFlow<()>,
    ) -> Result<Option<CacheMount>> {
        let folder = self.layout().mounts().join(Digest::of(spec.id.as_bytes()).hex());
        let taken = poll(
            waiting,
            || {
                ensure_folder(lease, &folder, &spec.id)?;
                take(&folder, spec.sharing)
            },
            || None,
        )?;
        let Some((copy, lock)) = taken else { return Ok(None) };
        // Tells the last use; who cannot stamp can still build.
        let _stamped = lock.set_modified(UNIX_EPOCH + Duration::from_secs(self.clock().epoch().0));
        let path = folder.join(copy.to_string());
        if !path.exists() {
            recover(&path)?;
        }
        if !path.exists() {
            make_copy(lease, spec, seed, &path)?;
        }
        Ok(Some(CacheMount { path, _lock: lock }))
    }

    /// All cache mounts, by id.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountInfo>> {
        let mut mounts = Vec::new();
        for name in crate::lease::list(&self.layout().mounts())? {
            let folder = self.layout().mounts().join(name);
            let id = match fs::read_to_string(folder.join(ID)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                id => id.map_err(|e| Error::io("read", folder.join(ID), e))?,
            };
            let copies = (0..).map(|copy: u32| folder.join(copy.to_string()));
            mounts.push(CacheMountInfo { id, copies: copies.take_while(|path| path.exists()).collect() });
        }
        mounts.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(mounts)
    }

    /// Removes a cache mount that nobody uses; whether it did.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn remove_cache_mount(&self, lease: &Lease, id: &str) -> Result<bool> {
        let folder = self.layout().mounts().join(Digest::of(id.as_bytes()).hex());
        let Some(locks) = hold_all(&folder)? else { return Ok(false) };
        let aside = lease.new_path()?;
        fs::rename(&folder, &aside).map_err(|e| Error::io("remove", &folder, e))?;
        drop(locks);
        drop_rest(&aside)?;
        Ok(true)
    }
}

/// The locks of all copies of a mount, and of its id; while they are held nobody begins to use it. `None` where somebody
/// does, or it is gone.
pub(crate) fn hold_all(folder: &Path) -> Result<Option<Vec<File>>> {
    let Some(alone) = try_here(&folder.join(ID), Hold::Exclusive)? else { return Ok(None) };
    let mut locks = vec![alone];
    // A lock file without a copy is somebody who is making one.
    for name in crate::lease::list(folder)?.iter().filter(|name| name.ends_with(".lock")) {
        let Some(lock) = try_here(&folder.join(name), Hold::Exclusive)? else { return Ok(None) };
        locks.push(lock);
    }
    Ok(Some(locks))
}

/// Takes a lock if it is free; that the mount is gone is none.
fn try_here(path: &Path, hold: Hold) -> Result<Option<File>> {
    match flock::open_and_try(path, hold) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        taken => taken.map_err(|e| Error::io("lock", path, e)),
    }
}

/// Makes the mount's folder, with its id and the lock of copy 0, whole or not at all.
fn ensure_folder(lease: &Lease, folder: &Path, id: &str) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let aside = lease.new_folder()?;
    for (name, text) in [(ID, id), ("0.lock", "")] {
        fs::write(aside.join(name), text).map_err(|e| Error::io("write", aside.join(name), e))?;
    }
    claim(&aside, folder)
}

/// Takes a copy that may be used; its number and its lock.
fn take(folder: &Path, sharing: Sharing) -> Result<Option<(u32, File)>> {
    let hold = if sharing == Sharing::Shared { Hold::Shared } else { Hold::Exclusive };
    // Whoever removes the mount, or looks at its locks, holds this alone: no copy is taken meanwhile. Where the mount was
    // removed a moment ago, it is made anew at the next attempt.
    let Some(_stays) = try_here(&folder.join(ID), Hold::Shared)? else { return Ok(None) };
    for copy in 0.. {
        let path = folder.join(format!("{copy}.lock"));
        match flock::open_and_try(&path, hold).map_err(|e| Error::io("lock", path, e))? {
            Some(lock) => return Ok(Some((copy, lock))),
            None if sharing == Sharing::Private => {}
            None => break,
        }
    }
    Ok(None)
}

fn make_copy(lease: &Lease, spec: &CacheMountSpec, seed: Option<Seed<'_>>, path: &Path) -> Result<()> {
    let aside = lease.new_folder()?;
    if let Some(seed) = seed {
        seed(&aside).map_err(|e| Error::io("fill", &aside, e))?;
    }
    if let Some((uid, gid)) = spec.owner {
        chown(&aside, Some(uid), Some(gid)).map_err(|e| Error::io("change the owner of", &aside, e))?;
    }
    // Last: a change of owner clears set-id bits.
    let mode = fs::Permissions::from_mode(spec.mode & 0o7777);
    fs::set_permissions(&aside, mode).map_err(|e| Error::io("change the mode of", &aside, e))?;
    claim(&aside, path)
}

/// Gives a folder its name, unless another was first: then that one stays.
fn claim(aside: &Path, path: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, aside, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => drop_rest(aside),
        renamed => renamed.map_err(|e| Error::io("create", path, e.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{Clock, Options};

    #[test]
    fn no_copy_is_begun_while_a_mount_is_looked_at_or_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new(folder.path().join("root"), Clock::new(|| UNIX_EPOCH));
        let store = Store::open(options).expect("opened");
        let lease = store.lease().expect("a lease");
        for sharing in [Sharing::Shared, Sharing::Locked, Sharing::Private] {
            let id = format!("{sharing:?}");
            let spec = CacheMountSpec { id: id.clone(), sharing, mode: 0o755, owner: None };
            let mount = || {
                let mut once = |_: &Waiting| ControlFlow::Break(());
                store.cache_mount(&lease, &spec, None, &mut once).expect("asked")
            };
            let first = mount().expect("it is free").path().to_owned();
            let folder = first.parent().expect("it is below the mount's").to_owned();
            let held = hold_all(&folder).expect("looked").expect("nobody uses it");
            assert!(mount().is_none(), "{id}: another copy would go with the mount");
            assert!(!folder.join("1.lock").exists(), "{id}");
            drop(held);
            let used = mount().expect("it is free");
            assert_eq!(used.path(), first, "{id}");
            assert!(hold_all(&folder).expect("looked").is_none(), "{id}");
            assert!(!store.remove_cache_mount(&lease, &id).expect("asked"), "{id}");
            drop(used);
            assert!(store.remove_cache_mount(&lease, &id).expect("asked"), "{id}");
            assert!(!store.remove_cache_mount(&lease, &id).expect("asked"), "{id}: it is gone");
        }
    }

    #[test]
    fn a_copy_that_was_lent_comes_back_from_who_was_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new(folder.path().join("root"), Clock::new(|| UNIX_EPOCH));
        let store = Store::open(options).expect("opened");
        let lease = store.lease().expect("a lease");
        let spec = CacheMountSpec { id: "c".into(), sharing: Sharing::Locked, mode: 0o755, owner: None };
        let mount = || {
            let mut once = |_: &Waiting| ControlFlow::Break(());
            store.cache_mount(&lease, &spec, None, &mut once).expect("asked").expect("it is free")
        };
        let away = lease.new_folder().expect("a folder");
        let open = || File::open(&away).expect("it is there");
        let lent = mount();
        fs::write(lent.path().join("f"), "1").expect("written");
        lent.lend(open(), "at".as_ref()).expect("lent");
        assert!(away.join("at/f").exists() && !lent.path().exists());
        // Its user is gone, and nobody has given it back.
        drop(lent);
        let again = mount();
        assert_eq!(fs::read_to_string(again.path().join("f")).expect("it is back"), "1");
        again.lend(open(), "at".as_ref()).expect("lent");
        again.give_back(open(), "at".as_ref()).expect("given back");
        let path = again.path().to_owned();
        assert!(path.join("f").exists() && !note(&path).exists());
        again.lend(open(), "at".as_ref()).expect("lent");
        drop(again);
        bring_back(store.layout()).expect("brought back");
        assert!(path.join("f").exists() && !note(&path).exists());
    }
}
