//! What lowering cannot know by itself: which manifest an image's name names, what its config says, and how old a
//! source is.

use std::{collections::BTreeMap, fmt, sync::Arc};

use graph::Source;
use oci::{Digest, Epoch, ImageConfig, Platform, Reference};

use crate::git::shown;

/// A question about the world outside. Whoever drives the build answers it and lowers again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The time that `SOURCE_DATE_EPOCH` takes from a source: of a repository its commit's; of a file over http what the
    /// server says, else the newest file's if it is an archive; of a folder that holds an archive the newest file's in
    /// that.
    Time(Box<Source>),
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
pub enum Answer {
    /// To [`Fact::Image`] and [`Fact::OciLayout`].
    Image(ImageFact),
    /// To [`Fact::Time`]; `None` where the source has no time of its own.
    Time(Option<Epoch>),
}

impl From<ImageFact> for Answer {
    fn from(image: ImageFact) -> Answer {
        Answer::Image(image)
    }
}

/// What is known of an image.
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts(BTreeMap<Fact, Answer>);

impl Facts {
    /// No answer yet.
    pub fn new() -> Facts {
        Facts::default()
    }

    /// Adds an answer.
    pub fn insert(&mut self, fact: Fact, answer: impl Into<Answer>) {
        self.0.insert(fact, answer.into());
    }

    /// Whether nothing was answered yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a fact was answered.
    pub fn contains_key(&self, fact: &Fact) -> bool {
        self.0.contains_key(fact)
    }

    /// What is known of an image.
    pub(crate) fn image(&self, fact: &Fact) -> Option<&ImageFact> {
        match self.0.get(fact) {
            Some(Answer::Image(image)) => Some(image),
            _ => None,
        }
    }

    /// The time of a source, where that was answered; the inner `None` is a source without one.
    pub(crate) fn time(&self, fact: &Fact) -> Option<Option<Epoch>> {
        match self.0.get(fact) {
            Some(Answer::Time(time)) => Some(*time),
            _ => None,
        }
    }
}

impl<A: Into<Answer>> Extend<(Fact, A)> for Facts {
    fn extend<I: IntoIterator<Item = (Fact, A)>>(&mut self, answers: I) {
        self.0.extend(answers.into_iter().map(|(fact, answer)| (fact, answer.into())));
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Image { reference, platform } => write!(f, "{reference} for {platform}"),
            Fact::OciLayout { store, version, platform } => write!(f, "{store}{version} for {platform}"),
            Fact::Time(source) => write!(f, "the time of {}", address(source)),
        }
    }
}

/// A source as people see it.
fn address(source: &Source) -> String {
    match source {
        Source::Git(git) => shown(&git.remote),
        Source::Http(http) => shown(&http.url),
        Source::Image { image, .. } => image.asked().to_owned(),
        Source::OciLayout(layout) => layout.store.clone(),
        Source::Local(local) => local.name.clone(),
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
