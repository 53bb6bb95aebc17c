//! Downloads: one at a time for a digest, resumed where an earlier one stopped.
//!
//! What comes is written to a file below `partial/`. Who wants to work on it meanwhile reads that file behind the writer
//! ([`Follower`]): there is no queue that a slow reader could fill, and what an earlier run left is read at once.

mod follow;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use oci::{Digest, Hasher};

use crate::{BlobFile, Error, Lease, Lock, LockName, Result, Store, Waiting, remove, room::Room};
use follow::Writing;

pub use follow::Follower;

/// What is to be done for a blob that a build wants.
#[derive(Debug)]
pub enum Download {
    /// Nothing: it is here, perhaps because another build has just downloaded it.
    Here(BlobFile),
    /// Fetch what is missing.
    Missing(Partial),
}

/// A blob that is being downloaded. Dropped without [`Partial::commit`], or killed, what has come stays for the next
/// attempt.
pub struct Partial {
    store: Store,
    lease: Lease,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    size_bytes: u64,
    digest: Digest,
    writing: Writing,
    room: Room,
    _lock: Lock,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial").field("digest", &self.digest).field("size_bytes", &self.size_bytes).finish()
    }
}

impl Store {
    /// Looks for a blob, and else begins to download it, or goes on with a download that was interrupted. While another
    /// process downloads it, calls `waiting`, and then looks again.
    ///
    /// Returns `None` when `waiting` said [`ControlFlow::Break`].
    ///
    /// # Errors
    /// The state folder cannot be read or written.
    pub fn download(
        &self,
        lease: &Lease,
        digest: &Digest,
        waiting: &mut dyn FnMut(&Waiting) -> ControlFlow<()>,
    ) -> Result<Option<Download>> {
        if let Some(blob) = self.blob(lease, digest)? {
            return Ok(Some(Download::Here(blob)));
        }
        let Some(lock) = self.lock(&LockName::Pull(*digest), waiting)? else { return Ok(None) };
        if let Some(blob) = self.blob(lease, digest)? {
            return Ok(Some(Download::Here(blob)));
        }
        self.open_partial(lease, digest, lock).map(|partial| Some(Download::Missing(partial)))
    }

    /// Begins to download something whose digest nobody knows yet, or goes on with what an interrupted download of the same `name` left.
    /// While another process downloads it, calls `waiting`.
    ///
    /// `name` must stand for one version of one thing: what came of another version would be joined with this one's
    /// rest. [`Partial::finish`] ends it; [`Partial::commit`] would fail.
    ///
    /// Returns `None` when `waiting` said [`ControlFlow::Break`].
    ///
    /// # Errors
    /// The state folder cannot be read or written.
    pub fn partial(
        &self,
        lease: &Lease,
        name: &Digest,
        waiting: &mut dyn FnMut(&Waiting) -> ControlFlow<()>,
    ) -> Result<Option<Partial>> {
        let Some(lock) = self.lock(&LockName::Pull(*name), waiting)? else { return Ok(None) };
        self.open_partial(lease, name, lock).map(Some)
    }

    fn open_partial(&self, lease: &Lease, digest: &Digest, lock: Lock) -> Result<Partial> {
        let path = self.layout().partials().join(digest.hex());
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.map_err(|e| Error::io("create", &path, e))?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 * 1024];
        let mut size_bytes = 0;
        loop {
            match file.read(&mut buffer).map_err(|e| Error::io("read", &path, e))? {
                0 => break,
                read => {
                    hasher.update(&buffer[..read]);
                    size_bytes += read as u64;
                }
            }
        }
        let (store, lease, digest) = (self.clone(), lease.clone(), *digest);
        let (writing, room) = (Writing::new(size_bytes), Room::new(&store));
        Ok(Partial { store, lease, path, file, hasher, size_bytes, digest, writing, room, _lock: lock })
    }
}

impl Partial {
    /// How much is here, in bytes: where to resume.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What is being downloaded.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Reads from the start what is here and what comes, to unpack it meanwhile. Reading fails where the download ends
    /// without [`Partial::commit`], or is begun anew: only a reader that came to the end has read right bytes.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn follow(&self) -> Result<Follower> {
        let file = File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        Ok(self.writing.follower(file))
    }

    /// Digest of all that is here.
    pub fn digest_of_bytes(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Throws away what is here, for a registry that cannot resume.
    ///
    /// # Errors
    /// The file cannot be cut.
    pub fn restart(&mut self) -> Result<()> {
        let cut = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cut.map_err(|e| Error::io("truncate", &self.path, e))?;
        self.hasher = Hasher::new();
        self.size_bytes = 0;
        // Who read what is gone now must not go on with what comes.
        self.writing = Writing::new(0);
        Ok(())
    }

    /// Hands over what has come as a file of the lease's folder, with its digest.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn finish(self) -> Result<(PathBuf, Digest)> {
        let to = self.lease.new_path()?;
        fs::rename(&self.path, &to).map_err(|e| Error::io("rename", &self.path, e))?;
        Ok((to, self.hasher.finish()))
    }

    /// Adds what has come to the state folder, named in the lease.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] when it is not what was asked for; it is then thrown away. The state folder cannot be written.
    pub fn commit(self) -> Result<BlobFile> {
        let (actual, size_bytes) = (self.hasher.finish(), self.size_bytes);
        if actual == self.digest {
            let blob = self.store.adopt_blob(&self.lease, &self.path, &actual, size_bytes)?;
            self.writing.complete();
            return Ok(blob);
        }
        remove::file(&self.path).map_err(|e| Error::io("remove", &self.path, e))?;
        Err(Error::DigestMismatch { expected: self.digest, actual, size_bytes })
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room.take(bytes.len())?;
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size_bytes += written as u64;
        self.writing.wrote(self.size_bytes);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
