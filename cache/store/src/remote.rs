//! What is known of registries: which of their repositories have a blob, and uploads that were not finished.
//!
//! Small files named by the digest of what they are about. All of it is a hint: a registry that says otherwise is right, and
//! what is lost costs a request or an upload from the start.

use std::{fs, io, path::PathBuf};

use oci::{Digest, Hasher};

use crate::{Error, Lease, Result, Store, remove};

/// How many repositories are remembered for a blob, the latest first.
const PLACES: usize = 8;
/// What is remembered is kept for as long as this after it was last written, in seconds: registries drop unfinished uploads
/// after about a week.
const REMOTE_SECONDS: u64 = 30 * 24 * 60 * 60;

impl Store {
    /// The repositories of a registry that a blob was read from or written to, the latest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn repositories_of(&self, registry: &str, blob: &Digest) -> Result<Vec<String>> {
        let text = self.remote_get(&place_key(registry, blob))?;
        Ok(text.unwrap_or_default().lines().map(str::to_owned).collect())
    }

    /// Remembers that a repository has a blob.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn add_repository(
        &self,
        lease: &Lease,
        registry: &str,
        repository: &str,
        blob: &Digest,
    ) -> Result<()> {
        let before = self.repositories_of(registry, blob)?;
        if before.first().is_some_and(|first| first == repository) {
            return Ok(());
        }
        let others = before.iter().map(String::as_str).filter(|other| *other != repository);
        let all: Vec<&str> = std::iter::once(repository).chain(others).take(PLACES).collect();
        self.remote_put(lease, &place_key(registry, blob), all.join("\n").as_bytes())
    }

    /// The address of an upload of a blob to a repository that was not finished.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn upload(&self, registry: &str, repository: &str, blob: &Digest) -> Result<Option<String>> {
        self.remote_get(&upload_key(registry, repository, blob))
    }

    /// Remembers an upload, or with `None` forgets it.
    ///
    /// # Errors
    /// The file cannot be written or removed.
    pub fn set_upload(
        &self,
        lease: &Lease,
        registry: &str,
        repository: &str,
        blob: &Digest,
        address: Option<&str>,
    ) -> Result<()> {
        let key = upload_key(registry, repository, blob);
        let Some(address) = address else {
            let path = self.remote_path(&key);
            return remove::file(&path).map_err(|e| Error::io("remove", path, e));
        };
        self.remote_put(lease, &key, address.as_bytes())
    }

    /// Removes what has not been renewed for long.
    pub(crate) fn sweep_remotes(&self) -> Result<()> {
        self.sweep_answers()?;
        self.sweep_older(&self.layout().remotes(), REMOTE_SECONDS)
    }

    fn remote_put(&self, lease: &Lease, key: &Digest, bytes: &[u8]) -> Result<()> {
        let folder = self.layout().remotes();
        // A state folder of an earlier version has none.
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", folder, e))?;
        lease.write_whole(&self.remote_path(key), bytes)
    }

    fn remote_get(&self, key: &Digest) -> Result<Option<String>> {
        let path = self.remote_path(key);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", path, e)),
        }
    }

    fn remote_path(&self, key: &Digest) -> PathBuf {
        self.layout().remotes().join(key.hex())
    }
}

fn place_key(registry: &str, blob: &Digest) -> Digest {
    key(&[b"repositories", registry.as_bytes(), blob.raw()])
}

fn upload_key(registry: &str, repository: &str, blob: &Digest) -> Digest {
    key(&[b"upload", registry.as_bytes(), repository.as_bytes(), blob.raw()])
}

fn key(fields: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new();
    fields.iter().for_each(|field| hasher.field(field));
    hasher.finish()
}
