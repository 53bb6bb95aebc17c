//! Images in files: OCI layouts as folders and archives, and Docker's archive (image-spec v1.1, image-layout.md).
//!
//! An archive of Docker's is an OCI layout with `manifest.json` beside `index.json`: `docker load`, `podman load` and
//! every reader of OCI archives take the same file.

mod docker;
mod read;
mod write;

use std::io;

use oci::{BadDocument, BadReference, Digest, Reference};

use crate::{blobs::BlobError, tar::TarError};

pub use docker::{DockerArchive, DockerImage, write_docker_archive, write_docker_rest};
pub use read::{Layout, Wanted};
pub use write::{ARCHIVE_VERSION, NamedImage, write_archive, write_folder};

/// `oci-layout` of every layout.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An index entry's annotation with its tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// containerd's, with the full name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// A layout that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file of it cannot be read or written.
    #[error("`{path}`: {source}")]
    File {
        /// The file: of the layout, or the layout itself.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is no layout.
    #[error("`{path}` is no OCI layout: {why}")]
    NotALayout {
        /// The folder or file.
        path: String,
        /// What is missing.
        why: String,
    },
    /// Its archive is broken.
    #[error("the archive `{path}` cannot be read: {source}")]
    Archive {
        /// The archive.
        path: String,
        /// What is wrong.
        source: TarError,
    },
    /// A document of it is broken.
    #[error("`{path}` is {source}")]
    Document {
        /// The file.
        path: String,
        /// What is wrong.
        source: BadDocument,
    },
    /// A blob of it is missing or wrong.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It does not hold what is wanted.
    #[error("the layout `{path}` has no image {wanted}; it has {}", if .names.is_empty() { "none".to_owned() } else { .names.join(", ") })]
    NoSuchImage {
        /// The layout.
        path: String,
        /// What is wanted.
        wanted: String,
        /// The names and digests of what there is.
        names: Vec<String>,
    },
    /// A name in it is none.
    #[error(transparent)]
    Name(#[from] BadReference),
    /// Docker's archive holds images of one platform only.
    #[error("{digest} is an index of several platforms, which an archive of Docker's cannot hold")]
    SeveralPlatforms {
        /// The index.
        digest: Digest,
    },
    /// Writing the archive failed.
    #[error("writing an image archive: {0}")]
    Write(#[source] io::Error),
}

/// The short form that Docker uses as a tag: `busybox:latest`; nothing for a name that has no tag.
fn repo_tag(name: &Reference) -> Option<String> {
    name.tag.as_ref()?;
    Some(Reference { digest: None, ..name.clone() }.familiar())
}
