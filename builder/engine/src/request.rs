//! What one build is asked to do. All of it is values; the command line or an API client made them.

use std::{collections::BTreeMap, path::PathBuf};

use dockerfile::GitAddress;
use oci::Reference;

/// One build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileFrom,
    /// Where the main context comes from.
    pub context: ContextFrom,
    /// What is asked of the Dockerfile. Its `context` is found out from the field above.
    pub frontend: dockerfile::Request,
    /// `oci-layout://` contexts by the store name that the frontend's request uses: folder or archive.
    pub layouts: BTreeMap<String, PathBuf>,
    /// `--tag`.
    pub tags: Vec<Reference>,
    /// `--output`; empty puts the image into the local store.
    pub outputs: Vec<Output>,
    /// `--explain`: say of every step that runs why no result of it was found.
    pub explain: bool,
    /// `--pull`: ask the registry even where the local store has the image.
    pub pull: bool,
}

/// Where a Dockerfile is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileFrom {
    /// Here.
    Text {
        /// Its name, as messages show it.
        name: String,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// In the main context, which is then no folder.
    Context {
        /// Where there; `None` is the usual names.
        path: Option<String>,
    },
    /// Behind a URL of http or https.
    Url(String),
}

/// Where the main context comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextFrom {
    /// A folder of the client, [`Client::context`](crate::Client::context).
    Folder,
    /// An archive that the client sends, [`Client::archive`](crate::Client::archive).
    Archive,
    /// A git repository.
    Git(GitAddress),
    /// What is behind a URL of http or https: an archive, or a Dockerfile alone.
    Http(String),
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An image under its names, in the local store, in their registries, or in both.
    Image {
        /// Whether the local store gets it.
        store: bool,
        /// Whether and how registries get it.
        push: Option<Push>,
        /// How the image is written.
        form: ImageForm,
    },
    /// An OCI layout, as an archive or a folder.
    Oci {
        /// Where to.
        to: Destination,
        /// Whether it is an archive.
        archive: bool,
        /// How the image is written.
        form: ImageForm,
    },
    /// An archive for `docker load`.
    Docker {
        /// Where to.
        to: Destination,
        /// How the image is written.
        form: ImageForm,
    },
    /// The files of the root file system, in a folder.
    Local {
        /// Where to.
        to: PathBuf,
        /// Whether each platform gets a folder of its own; `None` where there are several.
        platform_split: Option<bool>,
    },
    /// The files of the root file system, as a tar.
    Tar {
        /// Where to.
        to: Destination,
        /// As of [`Output::Local`].
        platform_split: Option<bool>,
    },
    /// Nowhere: the result stays in the cache.
    CacheOnly,
}

impl Output {
    /// The local image store: where a result goes when nobody says where.
    pub fn store() -> Output {
        Output::Image { store: true, push: None, form: ImageForm::default() }
    }
}

/// How an image is pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Push {
    /// Whether tags are left alone: the image is there by its digest only.
    pub by_digest: bool,
}

/// How an image is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageForm {
    /// How its own layers are compressed.
    pub codec: image::compress::Codec,
    /// Whether layers of the base are compressed that way as well.
    pub force_compression: bool,
    /// Names besides those of `--tag`.
    pub names: Vec<Reference>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl Default for ImageForm {
    /// Gzip, as every registry and runtime takes it, and nothing else.
    fn default() -> ImageForm {
        ImageForm {
            codec: image::compress::Codec::GZIP,
            force_compression: false,
            names: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }
}

/// A file or standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file or folder, written aside and renamed.
    Path(PathBuf),
    /// Standard output (`dest=-`).
    Stdout,
}
