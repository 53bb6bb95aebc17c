//! Archives of images in files: one that a file holds already is not written again.
//!
//! What a file holds is remembered with its inode, its length and its times (`aside.rs`), and believed while it has them.

use std::{fs, path::Path};

use ::image::layout::{ARCHIVE_VERSION, NamedImage, write_archive, write_docker_archive};
use oci::{Digest, Hasher};
use store::{Lease, StatKey, Store};

use super::{StoreBlobs, aside};
use crate::{
    cancel::{Cancel, Stoppable},
    error::Cause,
};

/// Which archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    Oci,
    Docker,
}

/// An archive in a file.
pub(crate) struct ArchiveFile<'a> {
    pub(crate) kind: ArchiveKind,
    pub(crate) images: &'a [NamedImage],
    pub(crate) path: &'a Path,
}

impl ArchiveFile<'_> {
    /// Whether the file holds it; `holds` says whether one that looks like this was written with that.
    pub(crate) fn is_there(&self, holds: impl Fn(&Path, &Digest, &StatKey) -> bool) -> bool {
        let Ok(path) = fs::canonicalize(self.path) else { return false };
        aside::look(&path).is_some_and(|found| holds(&path, &self.what(), &found))
    }

    /// Writes it, unless the file holds it.
    ///
    /// # Errors
    /// A blob is not there, or the file cannot be written; it is then what it was.
    pub(crate) fn write(&self, store: &Store, lease: &Lease, cancel: &Cancel) -> Result<(), Cause> {
        if self.is_there(|path, what, found| store.holds_output(path, what, found)) {
            return Ok(());
        }
        let blobs = StoreBlobs { store, lease };
        let written = aside::write(self.path, |out| {
            let mut out = Stoppable { stream: out, cancel };
            match self.kind {
                ArchiveKind::Oci => write_archive(self.images, &blobs, &mut out)?,
                ArchiveKind::Docker => write_docker_archive(self.images, &blobs, &mut out)?,
            }
            Ok(())
        })?;
        if let (Some(found), Ok(path)) = (written, fs::canonicalize(self.path)) {
            store.remember_output(lease, &path, &self.what(), &found)?;
        }
        Ok(())
    }

    /// Names the archive's bytes.
    fn what(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.field(ARCHIVE_VERSION.as_bytes());
        hasher.field(match self.kind {
            ArchiveKind::Oci => b"oci",
            ArchiveKind::Docker => b"docker",
        });
        for NamedImage { descriptor, names } in self.images {
            let text = serde_json::to_vec(descriptor).expect("a descriptor is strings, numbers and maps");
            hasher.field(&text);
            hasher.field(&(names.len() as u64).to_be_bytes());
            names.iter().for_each(|name| hasher.field(name.to_string().as_bytes()));
        }
        hasher.finish()
    }
}
