//! The blobs of the state folder, for whatever reads an image.

use std::{fs::File, io};

use image::blobs::{Blob, BlobSource};
use oci::Digest;
use store::{Lease, Store};

/// The blobs of the state folder.
pub(crate) struct StoreBlobs<'a> {
    pub(crate) store: &'a Store,
    pub(crate) lease: &'a Lease,
}

impl BlobSource for StoreBlobs<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Blob> {
        let found = self.store.blob(self.lease, digest).map_err(io::Error::other)?;
        let found = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, digest.to_string()))?;
        Blob::file(File::open(found.path)?)
    }
}
