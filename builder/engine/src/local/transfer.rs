//! Why an image is not copied, listed or written down, where no registry and no file is to blame.

use oci::{Digest, Manifest, Platform};

/// The place of images that are here, as messages call it.
const LOCAL_STORE: &str = "the local store";

/// An image that is not what a command takes.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A document that cannot be read.
    #[error("{digest} of {name} cannot be read: {why}")]
    Unreadable {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        why: String,
    },
    /// Indexes in indexes, or more documents than any honest image has.
    #[error("{name} has more than {limit}")]
    TooLarge {
        /// The image.
        name: String,
        /// `5 indexes in one another`, `64 MiB of manifests`.
        limit: String,
    },
    /// A name with a digest that is not the image's.
    #[error("`{name}` names another digest than that of the image, {found}")]
    OtherDigest {
        /// The name.
        name: String,
        /// The image's digest.
        found: Digest,
    },
    /// A descriptor that says something else about a manifest than is true.
    #[error("the descriptor of {digest} says {said}; the registry has {found}")]
    Descriptor {
        /// The manifest.
        digest: Digest,
        /// `a size of 7 bytes`.
        said: String,
        /// The same of what is there.
        found: String,
    },
    /// It is not there for a platform.
    #[error("{name} has no {wanted}; it has {}", list(available))]
    Platform {
        /// The image.
        name: String,
        /// What was wanted.
        wanted: Box<Platform>,
        /// What there is.
        available: Vec<Platform>,
    },
    /// An index where one artifact is wanted.
    #[error("{name} is an index of {count} manifests, and no artifact")]
    Several {
        /// The name.
        name: String,
        /// How many.
        count: usize,
        /// The first of them.
        first: Option<Digest>,
    },
    /// A container image where an artifact is wanted.
    #[error("{name} is a container image, and no artifact")]
    Container {
        /// The name.
        name: String,
    },
    /// An artifact where a container image is wanted.
    #[error("`{name}` in {place} is no container image but `{artifact_type}`")]
    NotAnImage {
        /// The image.
        name: String,
        /// `the local store`, or the layout's path.
        place: String,
        /// What it is.
        artifact_type: String,
    },
    /// A blob's title that is no name of a file in the folder.
    #[error("{name} wants to write the file `{title}`: {why}")]
    Title {
        /// The artifact.
        name: String,
        /// The title.
        title: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl TransferError {
    /// A stable name, under which `docs/errors/` explains it.
    pub fn code(&self) -> &'static str {
        match self {
            TransferError::Unreadable { .. } => "image-invalid",
            TransferError::TooLarge { .. } => "image-too-large",
            TransferError::Platform { .. } => "image-platform",
            TransferError::OtherDigest { .. } => "other-digest",
            TransferError::Descriptor { .. } => "bad-descriptor",
            TransferError::Several { .. }
            | TransferError::Container { .. }
            | TransferError::NotAnImage { .. } => "image-format",
            TransferError::Title { .. } => "artifact-title",
        }
    }

    /// An edit or a command that mends it.
    pub fn help(&self) -> Option<String> {
        match self {
            TransferError::OtherDigest { name, found } => {
                let repository = name.split_once('@').map_or(name.as_str(), |(repository, _)| repository);
                Some(format!("write `{repository}`, or `{repository}@{found}`"))
            }
            TransferError::Several { name, first: Some(first), .. } => {
                Some(format!("`kiln index inspect {name}` lists them; `{first}` is the first"))
            }
            TransferError::Platform { available, .. } if !available.is_empty() => {
                let all: Vec<String> = available.iter().map(|one| format!("--platform {one}")).collect();
                Some(all.join(" or "))
            }
            TransferError::Container { name } => Some(format!("kiln pull {name}")),
            TransferError::NotAnImage { name, place, .. } => Some(match place.as_str() {
                LOCAL_STORE => format!("`kiln artifact fetch local-store://{name}` writes its files"),
                layout => format!("`kiln artifact fetch oci-layout://{layout}:{name}` writes its files"),
            }),
            _ => None,
        }
    }
}

fn list(platforms: &[Platform]) -> String {
    match platforms {
        [] => "none that is named".to_owned(),
        some => some.iter().map(Platform::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Whether a manifest is that of a container image: what has no root file system is not run and not built on.
pub(crate) fn container_image(name: &str, place: &str, manifest: &Manifest) -> Result<(), TransferError> {
    if registry::is_image(manifest) {
        return Ok(());
    }
    let (name, place) = (name.trim_start_matches(':').to_owned(), place.to_owned());
    Err(TransferError::NotAnImage { name, place, artifact_type: manifest.artifact_type().to_owned() })
}
