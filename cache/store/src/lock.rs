//! Things that one build at a time does, of all processes on this state folder.

use std::{
    fs::{self, File},
    io::{self, Read},
    ops::ControlFlow,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use oci::Digest;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tree::LayerId;

use crate::{
    Error, Result, Store,
    flock::{self, Hold},
    unique,
};

/// What is done under a lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockName {
    /// Running the step that has this key.
    Step(Digest),
    /// Downloading the blob that has this digest.
    Pull(Digest),
    /// Making a form of this layer.
    Layer(LayerId),
    /// Reading and writing the copy of this git repository.
    Repository(String),
    /// Collecting without having been asked.
    Collection,
}

impl LockName {
    fn text(&self) -> String {
        match self {
            LockName::Step(key) => format!("step {key}"),
            LockName::Pull(digest) => format!("pull {digest}"),
            LockName::Layer(layer) => format!("layer {layer}"),
            LockName::Repository(remote) => format!("repository {remote}"),
            LockName::Collection => "collection".to_owned(),
        }
    }
}

/// A lock that another holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How often the lock was asked for in vain, this time included: 1 at first.
    pub attempts: u32,
    /// Process id of the holder, where it has written it.
    pub holder: Option<u32>,
}

/// A lock that this process holds, until this value is dropped or the process dies.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Closing it releases the lock, after the file's name is gone. None once a spare was made of it.
    file: Option<File>,
    /// Where the file goes when the lock is released.
    spares: Option<Arc<Spares>>,
}

/// Locked files that have no meaning at the moment. Taking a step's lock gives one of them the lock's name, and releasing it
/// takes the name away again: a build takes one for every step, and making and removing a file each time is many times
/// dearer. They go with the store's handle.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<(PathBuf, File)>>);

impl Spares {
    /// Takes a lock that nobody has a file for. `None` where there is such a file, or no spare.
    fn take(self: &Arc<Self>, path: &Path) -> Option<Lock> {
        let (spare, file) = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        match renameat_with(CWD, &spare, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Some(Lock { path: path.to_owned(), file: Some(file), spares: Some(self.clone()) }),
            // Somebody removed it.
            Err(Errno::NOENT) => None,
            Err(_) => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push((spare, file));
                None
            }
        }
    }

    /// Takes the name of a lock away. Gives the file back where that cannot be done.
    fn put(&self, path: &Path, file: File) -> Option<File> {
        let spare = path.with_file_name(unique::token());
        match renameat_with(CWD, path, CWD, &spare, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push((spare, file));
                None
            }
            Err(_) => Some(file),
        }
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        for (spare, _file) in self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // What stays is unlocked, and the next sweep's.
            let _gone = fs::remove_file(spare);
        }
    }
}

impl Store {
    /// Takes a lock if it is free.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn try_lock(&self, name: &LockName) -> Result<Option<Lock>> {
        self.try_lock_at(&self.lock_path(name), name)
    }

    fn try_lock_at(&self, path: &Path, name: &LockName) -> Result<Option<Lock>> {
        if !matches!(name, LockName::Step(_)) {
            return Lock::try_at(path);
        }
        if let Some(lock) = self.spare_locks().take(path) {
            return Ok(Some(lock));
        }
        let mut lock = Lock::try_at(path)?;
        if let Some(lock) = &mut lock {
            lock.spares = Some(self.spare_locks().clone());
        }
        Ok(lock)
    }

    /// Takes a lock; while another holds it, calls `waiting` before each further attempt. Attempts are 1 ms apart at first,
    /// then up to 25 ms.
    ///
    /// Returns `None` when `waiting` said [`ControlFlow::Break`].
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn lock(
        &self,
        name: &LockName,
        waiting: &mut dyn FnMut(&Waiting) -> ControlFlow<()>,
    ) -> Result<Option<Lock>> {
        let path = self.lock_path(name);
        poll(waiting, || self.try_lock_at(&path, name), || holder(&path))
    }

    /// Whether somebody holds a lock.
    pub(crate) fn is_locked(&self, name: &LockName) -> bool {
        let file = File::open(self.lock_path(name));
        file.and_then(|file| flock::try_lock(&file, Hold::Shared)).is_ok_and(|free| !free)
    }

    fn lock_path(&self, name: &LockName) -> PathBuf {
        self.layout().locks().join(Digest::of(name.text().as_bytes()).hex())
    }
}

impl Lock {
    pub(crate) fn try_at(path: &Path) -> Result<Option<Lock>> {
        let locked = flock::open_and_try(path, Hold::Exclusive).map_err(|e| Error::io("lock", path, e))?;
        let Some(file) = locked else { return Ok(None) };
        name_holder(&file).map_err(|e| Error::io("write", path, e))?;
        Ok(Some(Lock { path: path.to_owned(), file: Some(file), spares: None }))
    }
}

/// Writes this process's id into a lock. Not cut to nothing first: ext4 writes such a file to the disk when it is closed.
fn name_holder(file: &File) -> io::Result<()> {
    let text = process::id().to_string();
    file.write_all_at(text.as_bytes(), 0)?;
    match file.metadata()?.len() == text.len() as u64 {
        true => Ok(()),
        false => file.set_len(text.len() as u64),
    }
}

impl Lock {
    /// The locked file once more, for a process that works under the lock: where this process is killed, the lock holds until
    /// that one has ended.
    ///
    /// # Errors
    /// No further file can be opened.
    pub fn share(&self) -> Result<File> {
        let file = self.file.as_ref().expect("only a released lock has none");
        file.try_clone().map_err(|e| Error::io("open", &self.path, e))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Only the holder removes the name, and whoever waits looks whether the file it locked still has it. When this
        // fails the file stays, unlocked: the next to lock it, or the collector, removes it.
        let Some(file) = self.file.take() else { return };
        if !flock::is_at(&file, &self.path).unwrap_or(false) {
            return;
        }
        let held = match &self.spares {
            Some(spares) => spares.put(&self.path, file),
            None => Some(file),
        };
        if let Some(_released_after) = held {
            let _stays = fs::remove_file(&self.path);
        }
    }
}

/// The process id that a lock's holder wrote into it.
pub(crate) fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(16).read_to_string(&mut text)).ok()?;
    text.parse().ok()
}

/// Asks `attempt` until it gives something, `waiting` breaks, or it fails.
pub(crate) fn poll<T>(
    waiting: &mut dyn FnMut(&Waiting) -> ControlFlow<()>,
    mut attempt: impl FnMut() -> Result<Option<T>>,
    holder: impl Fn() -> Option<u32>,
) -> Result<Option<T>> {
    for attempts in 1.. {
        if let Some(taken) = attempt()? {
            return Ok(Some(taken));
        }
        if waiting(&Waiting { attempts, holder: holder() }).is_break() {
            break;
        }
        // Polled, not waited for in the kernel: a build that is cancelled stops waiting.
        thread::sleep(Duration::from_millis((1 << attempts.min(5)).min(25)));
    }
    Ok(None)
}

/// Removes the lock files that killed processes left.
pub(crate) fn sweep(folder: &Path) -> Result<()> {
    let listed = fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))?;
    for entry in listed {
        let path = entry.map_err(|e| Error::io("list", folder, e))?.path();
        // Dropping the lock removes the file.
        drop(Lock::try_at(&path)?);
    }
    Ok(())
}
