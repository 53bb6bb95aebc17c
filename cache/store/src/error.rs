//! What can go wrong with a state folder.
//!
//! An error is a fact with its data: what was done, to which path, what the system said. [`Error::help`] is the edit
//! or the command that mends it, where there is one.

use std::{
    io,
    path::{Path, PathBuf},
};

use oci::{BadDocument, Digest};
use tree::{BadLayer, LayerId};

use crate::format::{FORMAT, IdMap};

/// An operation on the state folder that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {operation} `{}`", path.display())]
    Io {
        /// What was to be done, as a verb: `create`, `rename`.
        operation: &'static str,
        /// What it was to be done to.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The disk or the user's quota is full.
    #[error("no space left to {operation} `{}` ({free_bytes} bytes are free)", path.display())]
    DiskFull {
        /// What was to be done, as a verb.
        operation: &'static str,
        /// What it was to be done to.
        path: PathBuf,
        /// What this user may still write to that file system, in bytes; not 0 where inodes or a quota ran out.
        free_bytes: u64,
    },
    /// Too little is left on the disk for what comes from elsewhere.
    #[error(
        "the disk of `{}` has {} MiB left, and {} MiB are kept free",
        root.display(), free_bytes >> 20, keep_bytes.div_ceil(1 << 20)
    )]
    NearlyFull {
        /// The state folder.
        root: PathBuf,
        /// What is left, in bytes; more than is kept free where inodes ran short.
        free_bytes: u64,
        /// What is kept free, in bytes.
        keep_bytes: u64,
    },
    /// The state folder, or what it would be made in, may not be written.
    #[error("the state folder cannot be written: cannot {operation} `{}`", path.display())]
    NotWritable {
        /// What was to be done, as a verb.
        operation: &'static str,
        /// What it was to be done to.
        path: PathBuf,
        /// What the kernel said: no permission, or a read-only file system.
        source: io::Error,
    },
    /// The folder holds something, and it is not ours.
    #[error("`{}` is no state folder: it holds `{}` and no format.json", root.display(), found.display())]
    NotAStateFolder {
        /// The folder.
        root: PathBuf,
        /// The first name in it that no state folder has.
        found: PathBuf,
    },
    /// The state folder was written by a newer program.
    #[error("the state folder `{}` has format {found}; this program reads format {FORMAT}", root.display())]
    NewerFormat {
        /// The folder.
        root: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The state folder belongs to another id map, so that owners in it would be read wrongly.
    #[error("the state folder `{}` was made for id map `{found}`, this build uses `{wanted}`", root.display())]
    OtherIdMap {
        /// The folder.
        root: PathBuf,
        /// The folder's id map.
        found: IdMap,
        /// This build's.
        wanted: IdMap,
    },
    /// `format.json` cannot be understood.
    #[error("`{}` is no description of a state folder", path.display())]
    BadFormat {
        /// The file.
        path: PathBuf,
        /// Where the JSON is wrong.
        source: serde_json::Error,
    },
    /// The database refused an operation.
    #[error("cannot {operation} in `{}`", path.display())]
    Database {
        /// What was to be done, as a verb with its object: `look up a record`.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database is damaged.
    #[error("the database `{}` is damaged", path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A row of the database does not hold what was written there.
    #[error("the database `{}` holds a bad {what}: {why}", path.display())]
    BadRow {
        /// The database.
        path: PathBuf,
        /// What the row is.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes that came in are not those that were asked for.
    #[error("expected content {expected}, got {actual} ({size_bytes} bytes)")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
        /// How much came.
        size_bytes: u64,
    },
    /// A blob that should be here is not.
    #[error("the blob {0} is not in the state folder")]
    MissingBlob(Digest),
    /// A layer that should be here is not.
    #[error("the layer {0} is not in the state folder")]
    MissingLayer(LayerId),
    /// A tree manifest that is not what was written.
    #[error("the tree manifest of layer {layer} is damaged")]
    BadTree {
        /// The layer.
        layer: LayerId,
        /// What is wrong with it; none when only its digest is.
        source: Option<BadLayer>,
    },
    /// A manifest in the state folder that cannot be read.
    #[error("the image {manifest} cannot be read")]
    BadImage {
        /// Digest of the manifest or index.
        manifest: Digest,
        /// What is wrong with it.
        source: BadDocument,
    },
    /// A document of a listed image is damaged on the disk, or gone from it.
    #[error("the image {image} is damaged: {why}")]
    DamagedImage {
        /// The image.
        image: Digest,
        /// What is wrong.
        why: Box<Error>,
    },
    /// An image that the state folder was to list is not one: neither a manifest nor an index.
    #[error("{manifest} is of type `{media_type}`, which is no image")]
    NotAnImage {
        /// Its digest.
        manifest: Digest,
        /// Its type.
        media_type: String,
    },
    /// An image was to be listed whose content is not yet flushed to disk: [`Store::keep`](crate::Store::keep) comes first.
    #[error("the image {manifest} cannot be listed before its blob {blob} is kept")]
    NotKept {
        /// The image.
        manifest: Digest,
        /// What is not kept.
        blob: Digest,
    },
    /// A name that cannot be given to an image.
    #[error("`{0}` cannot be a tag: it has no tag, or a digest")]
    NotATag(String),
}

/// The result of an operation on the state folder.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Puts what the kernel said in its class.
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Error {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let free_bytes = free_bytes(&path);
                Error::DiskFull { operation, path, free_bytes }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::NotWritable { operation, path, source }
            }
            _ => Error::Io { operation, path, source },
        }
    }

    /// Puts what SQLite said in its class.
    pub(crate) fn database(operation: &'static str, path: &Path, source: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, PermissionDenied, ReadOnly};
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Error::Corrupt { path, source },
            Some(_) if is_full(&source) => {
                let free_bytes = free_bytes(&path);
                Error::DiskFull { operation, path, free_bytes }
            }
            Some(ReadOnly | CannotOpen | PermissionDenied) => {
                Error::NotWritable { operation, path, source: io::Error::other(source) }
            }
            _ => Error::Database { operation, path, source },
        }
    }

    /// The edit or the command that mends it.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::NearlyFull { root, .. } => Some(format!(
                "make room on the disk of `{}`, or say how much is kept free: KILN_LIMITS=free-space=SIZE",
                root.display()
            )),
            Error::DiskFull { path, .. } => Some(format!(
                "`kiln prune` removes what no image needs; or free space on the file system of `{}`, or put the state folder elsewhere \
                 with `--root DIR`",
                path.display()
            )),
            Error::NotWritable { .. } => {
                Some("name a folder that you can write with `--root DIR` or KILN_ROOT".to_owned())
            }
            Error::NotAStateFolder { .. } => {
                Some("name an empty or a new folder with `--root DIR` or KILN_ROOT".to_owned())
            }
            Error::NewerFormat { root, .. } => Some(format!(
                "use the program that wrote it, or another folder with `--root DIR`, or delete `{}`",
                root.display()
            )),
            Error::OtherIdMap { found, .. } => {
                Some(format!("{}, or name another folder with `--root DIR`", found.way()))
            }
            Error::BadFormat { path, .. } => {
                let root = path.parent().unwrap_or(path);
                Some(format!("delete the state folder: `rm -rf {}`", root.display()))
            }
            Error::Corrupt { path, .. } | Error::BadRow { path, .. } => Some(format!(
                "start it anew, which forgets the images and the cache: `rm {0} {0}-wal {0}-shm`",
                path.display()
            )),
            Error::BadImage { manifest: image, .. } | Error::DamagedImage { image, .. } => {
                Some(format!("remove it: `kiln rmi {image}`"))
            }
            _ => None,
        }
    }
}

/// Whether SQLite ran out of space: in a write it says so, in growing its shared memory it says "I/O error" of that kind.
fn is_full(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        || extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// What this user may still write to the file system that holds `path`, or that would hold it.
fn free_bytes(path: &Path) -> u64 {
    let free = |at: &Path| rustix::fs::statvfs(at).ok();
    let space = path.ancestors().find_map(free);
    space.map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize))
}
