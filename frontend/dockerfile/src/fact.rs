//! What lowering cannot know by itself: which manifest an image's name names, and what its config says.

use std::{collections::BTreeMap, fmt, sync::Arc};

use oci::{Digest, ImageConfig, Platform, Reference};

/// A question about the world outside. Whoever drives the build answers it and lowers again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// Manifest and config of an image in a registry or in the local store.
    Image {
        /// Its name, defaults filled in.
        reference: Reference,
        /// The platform that is wanted. If the image has another one only, that one is the answer.
        platform: Platform,
    },
    /// Manifest and config of an image in an OCI layout of the request.
    OciLayout {
        /// The layout.
        store: String,
        /// Which of its images.
        version: LayoutVersion,
        /// The platform that is wanted.
        platform: Platform,
    },
}

/// Which image of an OCI layout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayoutVersion {
    /// By the annotation `org.opencontainers.image.ref.name`.
    Tag(String),
    /// By digest of its manifest or index.
    Digest(Digest),
}

/// The answer to a [`Fact`].
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFact {
    /// Digest of the manifest (not the index) of the platform.
    pub manifest: Digest,
    /// Its config.
    pub config: Arc<ImageConfig>,
    /// How many layers the manifest has; an image of none is an empty tree with a config.
    pub layers: usize,
}

/// All answers so far.
pub type Facts = BTreeMap<Fact, ImageFact>;

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Image { reference, platform } => write!(f, "{reference} for {platform}"),
            Fact::OciLayout { store, version, platform } => write!(f, "{store}{version} for {platform}"),
        }
    }
}

impl fmt::Display for LayoutVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutVersion::Tag(tag) => write!(f, ":{tag}"),
            LayoutVersion::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}
