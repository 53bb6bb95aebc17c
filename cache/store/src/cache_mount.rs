//! Cache mounts: folders of `RUN --mount=type=cache` that outlive a build.
//!
//! A mount's folder `mounts/HEX/` holds its id, and numbered copies `0/`, `1/`… each with a lock file `0.lock`. Shared and
//! locked users have copy 0; a private user has the first copy that nobody holds. A copy is made aside and
//! gets its name by a rename: mode, owner and seed are of its first use, and nobody sees it half seeded.

use std::{
    fs::{self, File},
    io,
    ops::ControlFlow,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use oci::Digest;
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};

use crate::{
    Error, Lease, Result, Store, Waiting,
    contents::drop_rest,
    flock::{self, Hold},
    lock::poll,
};

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
        let path = folder.join(copy.to_string());
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
            let id = match fs::read_to_string(folder.join("id")) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                id => id.map_err(|e| Error::io("read", folder.join("id"), e))?,
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
        if !folder.exists() {
            return Ok(false);
        }
        // Every copy is locked before any is taken away; a lock file without a copy is somebody who is making one.
        let mut locks = Vec::new();
        for name in crate::lease::list(&folder)?.iter().filter(|name| name.ends_with(".lock")) {
            let path = folder.join(name);
            match flock::open_and_try(&path, Hold::Exclusive).map_err(|e| Error::io("lock", path, e))? {
                Some(lock) => locks.push(lock),
                None => return Ok(false),
            }
        }
        let aside = lease.new_path()?;
        fs::rename(&folder, &aside).map_err(|e| Error::io("remove", &folder, e))?;
        drop(locks);
        drop_rest(&aside)?;
        Ok(true)
    }
}

/// Makes the mount's folder, with its id and the lock of copy 0, whole or not at all.
fn ensure_folder(lease: &Lease, folder: &Path, id: &str) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let aside = lease.new_folder()?;
    for (name, text) in [("id", id), ("0.lock", "")] {
        fs::write(aside.join(name), text).map_err(|e| Error::io("write", aside.join(name), e))?;
    }
    claim(&aside, folder)
}

/// Takes a copy that may be used; its number and its lock.
fn take(folder: &Path, sharing: Sharing) -> Result<Option<(u32, File)>> {
    let hold = if sharing == Sharing::Shared { Hold::Shared } else { Hold::Exclusive };
    for copy in 0.. {
        let path = folder.join(format!("{copy}.lock"));
        match flock::open_and_try(&path, hold) {
            Ok(Some(lock)) => return Ok(Some((copy, lock))),
            Ok(None) if sharing == Sharing::Private => {}
            Ok(None) => break,
            // The mount was removed a moment ago: made anew at the next attempt.
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            Err(e) => return Err(Error::io("lock", path, e)),
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
