//! Where everything lies in a state folder.

use std::path::{Path, PathBuf};

use oci::Digest;
use tree::LayerId;

/// The state folder's paths. Makes none of them.
///
/// | name               | holds                                                             | written by        |
/// |--------------------|-------------------------------------------------------------------|-------------------|
/// | `format.json`      | format version and id map                                         | first use         |
/// | `kiln.db`          | what is here and what it is: contents, records, images            | everybody         |
/// | `blobs/sha256/HEX` | blobs as registries know them                                     | rename from `tmp` |
/// | `trees/HEX`        | encoded tree manifests, by layer id                               | rename from `tmp` |
/// | `layers/HEX/`      | layers as overlayfs uppers, by layer id                           | rename from `tmp` |
/// | `tmp/LEASE/`       | all half-made things of one build                                 | its build         |
/// | `leases/LEASE`     | what that build uses; locked while it lives                       | its build         |
/// | `locks/HEX`        | one locked file for each thing that one build at a time does      | who does it       |
/// | `partial/HEX`      | downloads that were interrupted                                   | lock on the pull  |
/// | `mounts/HEX/`      | cache mounts                                                      | steps             |
/// | `git/HEX/`         | copies of git repositories                                        | lock on the copy  |
/// | `git/known_hosts`  | keys of hosts that were seen over ssh                             | `ssh`             |
/// | `memo/HEX`         | what whole builds came to                                         | rename from `tmp` |
/// | `memo/to-HEX`      | what a file outside holds that a build wrote                      | rename from `tmp` |
/// | `stats/HEX`        | digests of context files by their inodes                          | rename from `tmp` |
/// | `blocks/HEX`       | which blocks a layer's blob is made of                            | rename from `tmp` |
/// | `remote/HEX`       | which repositories have a blob, and unfinished uploads            | rename from `tmp` |
/// | `answers/HEX-HEX`  | what registries answered about a name                             | rename from `tmp` |
/// | `secret-key`       | the key of the marks of secrets                                   | who first needs it |
/// | `built/HEX`        | what the last builds did, step by step                            | rename from `tmp` |
/// | `look.json`        | what the last automatic collection found                          | rename from `tmp` |
/// | `unmarked`         | nothing: layers may lack overlayfs's marks                        | rename from `tmp` |
/// | `generation`       | a token that changes when memos are void                          | database's writer |
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// What a content of the state folder is; its file or folder is named by a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Blob,
    Tree,
    Folder,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Blob, Kind::Tree, Kind::Folder];

    /// The name in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Blob => "blob",
            Kind::Tree => "tree",
            Kind::Folder => "folder",
        }
    }
}

impl Layout {
    /// Every folder of a state folder, parents first.
    pub(crate) const FOLDERS: [&'static str; 12] = [
        "blobs",
        "blobs/sha256",
        "trees",
        "layers",
        "tmp",
        "leases",
        "locks",
        "partial",
        "mounts",
        "memo",
        "stats",
        "remote",
    ];

    pub(crate) fn new(root: &Path) -> Layout {
        Layout { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn format(&self) -> PathBuf {
        self.root.join("format.json")
    }

    pub(crate) fn unmarked(&self) -> PathBuf {
        self.root.join("unmarked")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("kiln.db")
    }

    /// The folder that holds all contents of one kind.
    pub(crate) fn contents(&self, kind: Kind) -> PathBuf {
        self.root.join(match kind {
            Kind::Blob => "blobs/sha256",
            Kind::Tree => "trees",
            Kind::Folder => "layers",
        })
    }

    pub(crate) fn content(&self, kind: Kind, digest: &Digest) -> PathBuf {
        self.contents(kind).join(digest.hex())
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.content(Kind::Blob, digest)
    }

    pub(crate) fn tree(&self, layer: &LayerId) -> PathBuf {
        self.content(Kind::Tree, &layer.digest())
    }

    pub(crate) fn layer(&self, layer: &LayerId) -> PathBuf {
        self.content(Kind::Folder, &layer.digest())
    }

    /// Whether a name in the state folder or in `tmp` is that of a folder in which a process tries what the file system can. It is
    /// that one's, or the next one's that tries, to remove.
    pub(crate) fn is_trial(name: &str) -> bool {
        name.starts_with(".kiln-look.")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Held shared by whoever finds or adds a content and then names it in a lease, exclusively by the collector.
    pub(crate) fn collector_lock(&self) -> PathBuf {
        self.root.join("collector.lock")
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(crate) fn mounts(&self) -> PathBuf {
        self.root.join("mounts")
    }

    pub(crate) fn repositories(&self) -> PathBuf {
        self.root.join("git")
    }

    pub(crate) fn memos(&self) -> PathBuf {
        self.root.join("memo")
    }

    pub(crate) fn stats(&self) -> PathBuf {
        self.root.join("stats")
    }

    pub(crate) fn remotes(&self) -> PathBuf {
        self.root.join("remote")
    }

    pub(crate) fn blocks(&self) -> PathBuf {
        self.root.join("blocks")
    }

    pub(crate) fn answers(&self) -> PathBuf {
        self.root.join("answers")
    }

    pub(crate) fn built(&self) -> PathBuf {
        self.root.join("built")
    }

    pub(crate) fn look(&self) -> PathBuf {
        self.root.join("look.json")
    }

    pub(crate) fn secret_key(&self) -> PathBuf {
        self.root.join("secret-key")
    }

    pub(crate) fn generation(&self) -> PathBuf {
        self.root.join("generation")
    }
}
