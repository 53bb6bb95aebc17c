//! Operations without inputs: where trees come from.

use std::collections::BTreeSet;

use oci::{Digest, PinnedImage, Platform};
use serde::{Deserialize, Serialize};

/// A tree from outside the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The layers of an image whose manifest is known.
    Image {
        /// Which manifest, and the name that it was asked by.
        image: PinnedImage,
        /// The platform that it was asked for.
        platform: Platform,
    },
    /// A folder of whoever asks for the build.
    Local(Local),
    /// A git repository's tree at a commit.
    Git(Git),
    /// One file over http or https.
    Http(Http),
    /// The layers of an image in an OCI layout of whoever asks for the build.
    OciLayout(OciLayout),
}

/// A build context: `.` or a `--build-context name=folder`.
///
/// Its content reaches keys through the operations that select from it, path by path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Local {
    /// `context` for the main one, else the named context's name.
    pub name: String,
    /// All paths that the graph can reach, as `COPY` sources and bind mounts write them (globs allowed);
    /// empty reaches everything.
    pub reaches: BTreeSet<String>,
    /// Patterns of the ignore file, in order.
    pub ignore: Vec<String>,
}

/// A git source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Git {
    /// Where the repository is, without fragment and query.
    pub remote: String,
    /// Branch, tag or commit; empty is the remote's default branch.
    pub reference: String,
    /// What the digest of the commit, or of the tag, must begin with.
    pub commit: Option<String>,
    /// The folder of the repository that becomes the root.
    pub subfolder: String,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// Whether submodules are filled, and theirs.
    pub submodules: bool,
    /// Which time the files get.
    pub mtime: GitMtime,
    /// Whether `commit`, then a whole one, is taken without asking what `reference` names now.
    pub fetch_by_commit: bool,
}

/// Modification times of a git source's files, which git itself does not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum GitMtime {
    /// When they were checked out.
    #[default]
    Checkout,
    /// When the commit was made.
    Commit,
}

/// A file to download.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Http {
    /// Where from.
    pub url: String,
    /// What its bytes must hash to.
    pub checksum: Option<Digest>,
    /// The name that the file gets.
    pub file_name: String,
}

/// An image in an OCI layout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OciLayout {
    /// Name of the layout in the request.
    pub store: String,
    /// The manifest.
    pub manifest: Digest,
    /// The platform that it was asked for.
    pub platform: Platform,
}
