//! Blobs: bytes by their SHA-256, as registries know them. Layers' archives, manifests, configs.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use oci::{Digest, Hasher};
use tree::LayerId;

use crate::{
    Codec, Error, Growing, LayerBlob, Lease, Result, Store, ahead::Ahead, contents::drop_rest,
    database::Durability, layer_blob::add_form, layout::Kind, lease::Pin,
};

/// A blob in the state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobFile {
    /// Where its bytes are. They are never written to.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// Writes a new blob; [`BlobWriter::commit`] adds it to the state folder. Dropped without that, nothing remains.
#[derive(Debug)]
pub struct BlobWriter {
    new: NewBlob,
    hasher: Hashing,
}

/// As [`BlobWriter`], for who makes the digest of what he writes himself.
#[derive(Debug)]
pub struct NewBlob {
    store: Store,
    lease: Lease,
    path: PathBuf,
    file: Growing,
    ahead: Ahead,
}

/// Most blobs are small, and made one after the other.
const SMALL_BYTES: u64 = 1 << 20;

/// `oci::Hasher` says nothing about itself.
struct Hashing(Hasher);

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// A blob that is here, named in the lease; `None` when it is not.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn blob(&self, lease: &Lease, digest: &Digest) -> Result<Option<BlobFile>> {
        let _guard = self.no_collector()?;
        let size = self.ask("look up a blob", |contents| contents.size(Kind::Blob, digest))?;
        let Some(size_bytes) = size else { return Ok(None) };
        lease.pin(Pin::Blob(*digest))?;
        Ok(Some(BlobFile { path: self.layout().blob(digest), digest: *digest, size_bytes }))
    }

    /// The bytes of a small blob, such as a manifest or a config, checked against its digest.
    ///
    /// # Errors
    /// [`Error::MissingBlob`]; [`Error::DigestMismatch`] when the disk gives other bytes; it cannot be read.
    pub fn blob_bytes(&self, lease: &Lease, digest: &Digest) -> Result<Vec<u8>> {
        let blob = self.blob(lease, digest)?.ok_or(Error::MissingBlob(*digest))?;
        read_checked(&blob.path, digest)
    }

    /// Begins a new blob.
    ///
    /// # Errors
    /// The lease's folder cannot be written.
    pub fn blob_writer(&self, lease: &Lease) -> Result<BlobWriter> {
        Ok(BlobWriter { new: self.new_blob(lease)?, hasher: Hashing(Hasher::new()) })
    }

    /// Begins a new blob whose digest the caller makes while it writes.
    ///
    /// # Errors
    /// The lease's folder cannot be written.
    pub fn new_blob(&self, lease: &Lease) -> Result<NewBlob> {
        let (path, file) = lease.new_file()?;
        let file = Growing::new(file, SMALL_BYTES);
        Ok(NewBlob { store: self.clone(), lease: lease.clone(), path, file, ahead: Ahead::default() })
    }

    /// Adds a blob whose bytes are in memory.
    ///
    /// # Errors
    /// As those of [`BlobWriter::commit`].
    pub fn add_blob(&self, lease: &Lease, bytes: &[u8]) -> Result<BlobFile> {
        let digest = Digest::of(bytes);
        if let Some(blob) = self.blob(lease, &digest)? {
            return Ok(blob);
        }
        let (path, mut file) = lease.new_file()?;
        file.write_all(bytes).map_err(|e| Error::io("write", &path, e))?;
        self.adopt_blob(lease, &path, &digest, bytes.len() as u64)
    }

    /// Removes a blob's file if its bytes are not those that its digest is of: the disk has lost them, and nobody can use
    /// what is there. The blob is then not here, so that what was made once is made again. Returns whether it was so.
    ///
    /// # Errors
    /// The file cannot be read or removed.
    pub fn drop_damaged_blob(&self, digest: &Digest) -> Result<bool> {
        let path = self.layout().blob(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io("open", path, e)),
        };
        let mut hasher = Hashing(Hasher::new());
        io::copy(&mut file, &mut hasher).map_err(|e| Error::io("read", &path, e))?;
        if hasher.0.finish() == *digest {
            return Ok(false);
        }
        let failed = |e| Error::io("remove", &path, e);
        let inode = |found: fs::Metadata| (found.dev(), found.ino());
        let read = inode(file.metadata().map_err(failed)?);
        // Blobs are added in write transactions: one that came in its place meanwhile is another file.
        self.change("remove a damaged blob", Durability::Lazy, |_| {
            if fs::symlink_metadata(&path).is_ok_and(|now| inode(now) == read) {
                fs::remove_file(&path).map_err(failed)?;
            }
            Ok(())
        })?;
        Ok(true)
    }

    /// Adds a file of the lease's folder, whose digest the caller has made, as a blob.
    pub(crate) fn adopt_blob(
        &self,
        lease: &Lease,
        path: &Path,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<BlobFile> {
        let _guard = self.no_collector()?;
        let taken = self.change("add a blob", Durability::Lazy, |contents| {
            contents.add(lease, Kind::Blob, digest, size_bytes, path)
        })?;
        lease.pin(Pin::Blob(*digest))?;
        if !taken {
            drop_rest(path)?;
        }
        Ok(BlobFile { path: self.layout().blob(digest), digest: *digest, size_bytes })
    }
}

impl BlobWriter {
    /// How much was written so far, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.new.file.size()
    }

    /// Adds what was written to the state folder, named in the lease. A blob that is there already stays as it is.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] when it is not what was `expected`; the state folder cannot be written.
    pub fn commit(self, expected: Option<&Digest>) -> Result<BlobFile> {
        let (actual, size_bytes) = (self.hasher.0.finish(), self.new.file.size());
        if let Some(expected) = expected.filter(|expected| **expected != actual) {
            return Err(Error::DigestMismatch { expected: *expected, actual, size_bytes });
        }
        self.new.commit(&actual)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.new.write(bytes)?;
        self.hasher.0.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewBlob {
    /// Adds what was written to the state folder, named in the lease; `digest` is that of the bytes.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn commit(mut self, digest: &Digest) -> Result<BlobFile> {
        let size_bytes = self.end()?;
        self.store.adopt_blob(&self.lease, &self.path, digest, size_bytes)
    }

    /// As [`NewBlob::commit`], of a blob that is this layer: both are known from then on.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn commit_as(mut self, layer: &LayerId, codec: &Codec, form: &LayerBlob) -> Result<()> {
        let size_bytes = self.end()?;
        let (store, lease, digest) = (&self.store, &self.lease, form.blob.digest());
        let _guard = store.no_collector()?;
        let taken = store.change("add a layer's blob", Durability::Lazy, |contents| {
            let taken = contents.add(lease, Kind::Blob, &digest, size_bytes, &self.path)?;
            add_form(contents, layer, codec, form)?;
            Ok(taken)
        })?;
        lease.pin(Pin::Blob(digest))?;
        lease.pin(Pin::Layer(*layer))?;
        if taken { Ok(()) } else { drop_rest(&self.path) }
    }

    /// Ends the file, and says how many bytes it has.
    fn end(&mut self) -> Result<u64> {
        let ended = self.file.end().map_err(|e| Error::io("write", &self.path, e));
        ended.map(|(_, size_bytes)| size_bytes)
    }
}

impl Write for NewBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.ahead.grown(self.file.file(), self.file.size());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        // After a commit it is gone; else the lease's end would remove it.
        let _gone = fs::remove_file(&self.path);
    }
}

/// Reads a file that should have this digest.
pub(crate) fn read_checked(path: &Path, expected: &Digest) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let actual = Digest::of(&bytes);
    if actual == *expected {
        Ok(bytes)
    } else {
        Err(Error::DigestMismatch { expected: *expected, actual, size_bytes: bytes.len() as u64 })
    }
}
