//! Copies of git repositories: bare ones, kept between builds so that only what is new is fetched.
//!
//! Nothing in them is needed to build: what a build takes of one becomes a layer. So one that nobody has used for a month is
//! removed when the state folder is collected, and one that is damaged may be thrown away at any time.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use oci::Digest;

use crate::{Error, Lease, Lock, LockName, Result, Store, Waiting, contents::drop_rest, lease::list, remove};

/// A repository that nobody has used for so long is collected.
const UNUSED_SECONDS: u64 = 30 * 24 * 60 * 60;

/// The stamp of last use is renewed when it is older than this.
const STAMP_SECONDS: u64 = 24 * 60 * 60;

/// Holds the remote's address, and by its time tells the last use.
pub(crate) const STAMP: &str = "kiln-remote";

/// The copy of one remote repository, this process's alone until this value is dropped.
#[derive(Debug)]
pub struct Repository {
    path: PathBuf,
    remote: String,
    lock: Lock,
}

impl Store {
    /// Takes the copy of a remote repository into use; while another process has it, calls `waiting`. `remote` names it
    /// and holds no password.
    ///
    /// Returns `None` when `waiting` said [`ControlFlow::Break`].
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn repository(
        &self,
        remote: &str,
        waiting: &mut dyn FnMut(&Waiting) -> ControlFlow<()>,
    ) -> Result<Option<Repository>> {
        let name = LockName::Repository(remote.to_owned());
        let Some(lock) = self.lock(&name, waiting)? else { return Ok(None) };
        let folder = self.repositories()?;
        let path = folder.join(Digest::of(remote.as_bytes()).hex());
        let stamp = path.join(STAMP);
        if stamp.exists() && self.is_older(&stamp, STAMP_SECONDS) {
            fs::write(&stamp, remote).map_err(|e| Error::io("write", &stamp, e))?;
        }
        Ok(Some(Repository { path, remote: remote.to_owned(), lock }))
    }

    /// The folder of all copies, and of the keys of hosts that were seen over ssh. A state folder that an earlier Kiln made
    /// lacks it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn repositories(&self) -> Result<PathBuf> {
        let folder = self.layout().repositories();
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        Ok(folder)
    }

    /// Removes a copy that nobody uses now; whether it did.
    pub(crate) fn remove_repository(&self, lease: &Lease, remote: &str) -> Result<bool> {
        let Some(lock) = self.try_lock(&LockName::Repository(remote.to_owned()))? else { return Ok(false) };
        let path = self.repositories()?.join(Digest::of(remote.as_bytes()).hex());
        Repository { path, remote: remote.to_owned(), lock }.discard(lease)?;
        Ok(true)
    }

    /// Removes the copies that nobody has used for long.
    pub(crate) fn sweep_repositories(&self, lease: &Lease) -> Result<()> {
        let folder = self.repositories()?;
        for name in list(&folder)? {
            let path = folder.join(&name);
            let stamp = path.join(STAMP);
            if !stamp.exists() || !self.is_older(&stamp, UNUSED_SECONDS) {
                continue;
            }
            let remote = fs::read_to_string(&stamp).map_err(|e| Error::io("read", &stamp, e))?;
            self.remove_repository(lease, &remote)?;
        }
        Ok(())
    }
}

impl Repository {
    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.path.join(STAMP).exists()
    }

    /// The lock that it is held by.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Makes a folder, for instance one of [`Lease::new_folder`], the copy.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn adopt(&self, lease: &Lease, folder: &Path) -> Result<()> {
        // Half a copy, of one who was killed while he threw it away.
        self.discard(lease)?;
        let stamp = folder.join(STAMP);
        fs::write(&stamp, &self.remote).map_err(|e| Error::io("write", stamp, e))?;
        fs::rename(folder, &self.path).map_err(|e| Error::io("create", &self.path, e))
    }

    /// Throws the copy away; [`Repository::adopt`] may make a new one.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn discard(&self, lease: &Lease) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let aside = lease.new_path()?;
        // Its stamp first: without it, half a copy is none.
        remove::file(&self.path.join(STAMP)).map_err(|e| Error::io("remove", &self.path, e))?;
        fs::rename(&self.path, &aside).map_err(|e| Error::io("remove", &self.path, e))?;
        drop_rest(&aside)
    }
}
