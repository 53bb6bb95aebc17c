//! What one build is asked to do. All of it is values; the command line or an API client made them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use dockerfile::GitAddress;
use image::{annotations::Annotations, assemble::Dialect};
use oci::{Epoch, Reference};

use crate::memo::Remember;

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
    /// Secrets that count in the keys of the steps that see them, by id: `--secret …,cache-key=content`.
    pub keyed_secrets: BTreeSet<String>,
    /// `--explain`: say of every step that runs why no result of it was found.
    pub explain: bool,
    /// `--pull`, `--resolve-ttl`: when registries are asked what the names of base images stand for.
    pub asking: Asking,
    /// What else the build depends on, where the whole of it may be remembered.
    pub remember: Option<Remember>,
}

/// When registries are asked what the names of base images stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Whether they are.
    pub pull: PullPolicy,
    /// For how many seconds an answer saves the next question; 0 is never.
    pub fresh_seconds: u64,
}

/// Whether registries are asked for base images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Where neither the local store nor a fresh answer tells.
    #[default]
    Missing,
    /// Always: nothing that is here is an answer.
    Always,
    /// Always, but where the registry does not answer what is here will do.
    Newer,
    /// Never.
    Never,
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
    /// A Docker Engine.
    DockerEngine {
        /// The context of Docker's that names it; `None` is the one that Docker's own command uses.
        context: Option<String>,
        /// How the image is written.
        form: ImageForm,
    },
    /// The files of the root file system, in a folder.
    Local {
        /// Where to.
        to: PathBuf,
        /// Whether each platform gets a folder of its own; `None` where there are several.
        platform_split: Option<bool>,
        /// The time that no file is to be later than.
        epoch: OutputEpoch,
    },
    /// The files of the root file system, as a tar.
    Tar {
        /// Where to.
        to: Destination,
        /// As of [`Output::Local`].
        platform_split: Option<bool>,
        /// As of [`Output::Local`].
        epoch: OutputEpoch,
    },
    /// Nowhere: the result stays in the cache.
    CacheOnly,
}

impl BuildRequest {
    /// How the layers of the images are wanted that the outputs ask for, the first such output's; with no output, the
    /// local store's.
    pub(crate) fn image_form(&self) -> Option<ImageForm> {
        match self.outputs.as_slice() {
            [] => Output::store().form().cloned(),
            outputs => outputs.iter().find_map(Output::form).cloned(),
        }
    }
}

impl Output {
    /// How its image is written, where it is one of images.
    pub fn form(&self) -> Option<&ImageForm> {
        match self {
            Output::Image { form, .. }
            | Output::Oci { form, .. }
            | Output::Docker { form, .. }
            | Output::DockerEngine { form, .. } => Some(form),
            Output::Local { .. } | Output::Tar { .. } | Output::CacheOnly => None,
        }
    }

    /// As [`Output::form`], to be changed.
    pub fn form_mut(&mut self) -> Option<&mut ImageForm> {
        match self {
            Output::Image { form, .. }
            | Output::Oci { form, .. }
            | Output::Docker { form, .. }
            | Output::DockerEngine { form, .. } => Some(form),
            Output::Local { .. } | Output::Tar { .. } | Output::CacheOnly => None,
        }
    }

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
    /// Whether the registries may speak plain HTTP, or have a certificate that nobody knows.
    pub insecure: bool,
}

/// The time (`SOURCE_DATE_EPOCH`) that an output has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputEpoch {
    /// That of the build, where it has one.
    #[default]
    OfBuild,
    /// None, whatever the build has.
    Unset,
    /// This one.
    At(Epoch),
}

impl OutputEpoch {
    /// The time, in a build that has `of_build`.
    pub fn of(self, of_build: Option<Epoch>) -> Option<Epoch> {
        match self {
            OutputEpoch::OfBuild => of_build,
            OutputEpoch::Unset => None,
            OutputEpoch::At(epoch) => Some(epoch),
        }
    }
}

/// A name for an image that has no other: the repository, and the image's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DanglingName {
    /// The repository.
    pub prefix: Reference,
    /// Whether an image that has names does not get it.
    pub only_unnamed: bool,
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
    /// A name with the image's own digest.
    pub dangling: Option<DanglingName>,
    /// Annotations of its documents.
    pub annotations: Annotations,
    /// Whose media types it has.
    pub dialect: Dialect,
    /// Its time.
    pub epoch: OutputEpoch,
    /// Whether files of its own layers that are later get its time. `None` is where there is one; `Some(true)` without
    /// one is worth a warning.
    pub rewrite_timestamp: Option<bool>,
    /// Whether layers of the base that registries refuse to distribute stay what they are.
    pub prefer_foreign_layers: bool,
}

impl Default for ImageForm {
    /// Gzip, as every registry and runtime takes it, and nothing else.
    fn default() -> ImageForm {
        ImageForm {
            codec: image::compress::Codec::GZIP,
            force_compression: false,
            names: Vec::new(),
            dangling: None,
            annotations: Annotations::default(),
            dialect: Dialect::Oci,
            epoch: OutputEpoch::OfBuild,
            rewrite_timestamp: None,
            prefer_foreign_layers: false,
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
