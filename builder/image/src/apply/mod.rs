//! A layer's tar → a folder in overlayfs's form and its tree manifest, in one pass.
//!
//! While one thread reads (and decompresses) the tar, a second hashes it for the diff id and a third unpacks it. The
//! archive is hostile. Every name is cleaned and its folders are resolved in the manifest made so far, symlinks scoped
//! to the root, so that what reaches the kernel is a path of real folders below one descriptor; the kernel is asked not
//! to follow a link all the same.
//!
//! | The archive has                            | becomes                                                           |
//! |--------------------------------------------|-------------------------------------------------------------------|
//! | two entries of one path                    | the later one; two folders are one, with the later attributes       |
//! | `.wh.NAME`, before or after `NAME`         | a whiteout; with `NAME` in the layer, nothing, or an opaque folder  |
//! | `.wh..wh..opq`, before or after its siblings | an opaque folder                                                 |
//! | other `.wh..wh.*` (aufs's own)             | nothing                                                           |
//! | an entry below a symlink of the layer      | an entry where the link points to, inside the root                  |
//! | an entry below a file                      | an error                                                          |
//! | a hard link to what is not in the layer    | an error                                                          |
//! | a folder that is not named, only implied   | a folder on disk, `0755`, and in [`Applied::implied`]               |

mod disk;
mod finish;
mod unpack;

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::Path,
};

use oci::DiffId;
use tree::{BadPath, Layer, LayerPath, Node};

pub use crate::{
    inode::{LARGEST_MAPPED, STANDS_FOR, UNMAPPED, stands_for},
    ownership::Ownership,
};
use crate::{
    overlay::OverlayXattrs,
    pipe::{ChunkReader, TooLong, chunks, hash, split},
    tar::{Reader, TarError},
};
use disk::Disk;
use unpack::Unpack;

/// How a tar is unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApplyOptions {
    /// What the folder's inodes can carry.
    pub ownership: Ownership,
    /// What names that start with `.wh.` mean.
    pub names: WhiteoutNames,
    /// Where opaque folders are marked.
    pub overlay: OverlayXattrs,
    /// What is too much.
    pub limits: Limits,
}

/// What names that start with `.wh.` mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhiteoutNames {
    /// Whiteouts, as in a layer. Folders that are only implied are left to lower layers.
    #[default]
    Interpreted,
    /// Files, as in an archive that a user adds. Folders that are only implied are the layer's own: `0755`, owned by
    /// root, of time 0.
    Literal,
}

/// Bounds for archives that are made to exhaust a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most entries.
    pub entries: u64,
    /// The most bytes: of the tar, and of its files with their holes.
    pub bytes: u64,
}

impl Default for Limits {
    /// Ten million entries and a TiB: more than any image that runs.
    fn default() -> Limits {
        Limits { entries: 10_000_000, bytes: 1 << 40 }
    }
}

/// A tar that was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the layer holds.
    pub layer: Layer,
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Length of the tar in bytes.
    pub diff_size_bytes: u64,
    /// Folders that entries lie in and that the archive does not name: see [`Applied::settle`]. Empty with
    /// [`WhiteoutNames::Literal`].
    pub implied: BTreeSet<LayerPath>,
}

/// An archive that was not unpacked. The folder holds a part of it, for the caller to remove.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The archive cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The archive cannot be read past its end marker.
    #[error("reading what follows a tar: {0}")]
    Trailer(#[source] io::Error),
    /// A name that leaves the root, or that no kernel takes.
    #[error("the archive has an entry whose name is bad: {0}")]
    Name(#[from] BadPath),
    /// An entry, or one of its folders, would lie in something that is no folder.
    #[error("`{path}` of the archive lies below `{below}`, which is no folder")]
    BelowFile {
        /// The entry.
        path: LayerPath,
        /// What is in the way.
        below: LayerPath,
    },
    /// Symlinks that lead nowhere.
    #[error("the folder of `{path}` of the archive is a loop of symlinks")]
    Loop {
        /// The entry.
        path: LayerPath,
    },
    /// A hard link to something that cannot be linked.
    #[error("`{path}` of the archive is a hard link to `{target}`, which {why}")]
    LinkTarget {
        /// The link.
        path: LayerPath,
        /// What it names.
        target: LayerPath,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A whiteout that names nothing, or something below a whiteout's name.
    #[error("`{name}` of the archive is a malformed whiteout")]
    Whiteout {
        /// The name in the archive.
        name: String,
    },
    /// A device that overlayfs takes for a whiteout.
    #[error("`{path}` of the archive is character device 0:0, by which overlayfs hides files")]
    WhiteoutDevice {
        /// The entry.
        path: LayerPath,
    },
    /// The root itself, as something that is no folder.
    #[error("the archive's root is no folder")]
    Root,
    /// More than [`Limits`] allow.
    #[error("the archive has more than {limit} {what}")]
    TooLarge {
        /// `entries` or `bytes`.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The folder to unpack to holds something.
    #[error("the folder for a layer is not empty")]
    NotEmpty,
    /// A system call failed.
    #[error("{call} for `{path}`: {source}")]
    Disk {
        /// The call.
        call: &'static str,
        /// What it was made for, in the layer.
        path: LayerPath,
        /// Why.
        source: io::Error,
    },
    /// A thread of ours panicked.
    #[error("unpacking panicked")]
    Panicked,
}

/// Unpacks a tar to `folder`, which must exist and be empty.
///
/// The tar is read to the end of `tar`, past its end marker: all of it counts for the diff id. Comparing that with
/// what a config says is the caller's. With [`WhiteoutNames::Literal`], where nobody does, what follows the end marker may
/// be broken.
///
/// # Errors
/// [`ApplyError`]; errors of `tar`, such as those of a decompressor, as [`TarError::Io`].
pub fn apply(tar: impl Read + Send, folder: &Path, options: &ApplyOptions) -> Result<Applied, ApplyError> {
    let disk = Disk::open(folder, options)?;
    let (to_hash, hashed) = chunks();
    let (to_unpack, unpacked) = chunks();
    let limit = options.limits.bytes;
    let (digest, size, unpacked) = std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut tar = tar;
            split(&mut tar, limit, to_hash, to_unpack)
        });
        let hashing = scope.spawn(move || hash(&hashed));
        let unpacked = unpack(ChunkReader::new(unpacked), disk, options);
        let size = reading.join().map_err(|_| ApplyError::Panicked)?;
        let digest = hashing.join().map_err(|_| ApplyError::Panicked)?;
        Ok::<_, ApplyError>((digest, size, unpacked))
    })?;
    let (layer, implied) = unpacked.map_err(too_large)?;
    Ok(Applied { layer, diff_id: DiffId::of_tar(digest), diff_size_bytes: size, implied })
}

/// Names the limit that the reading thread met.
fn too_large(error: ApplyError) -> ApplyError {
    let source = match &error {
        ApplyError::Tar(TarError::Io { source, .. }) | ApplyError::Trailer(source) => source,
        _ => return error,
    };
    match source.get_ref().and_then(|source| source.downcast_ref::<TooLong>()) {
        Some(too_long) => ApplyError::TooLarge { what: "bytes", limit: too_long.limit },
        None => error,
    }
}

fn unpack(
    tar: ChunkReader,
    disk: Disk,
    options: &ApplyOptions,
) -> Result<(Layer, BTreeSet<LayerPath>), ApplyError> {
    let mut unpack = Unpack::new(disk, options);
    let mut reader = Reader::new(tar);
    while let Some(entry) = reader.next_entry()? {
        unpack.entry(entry, &mut reader)?;
    }
    let rest = io::copy(&mut reader.into_inner(), &mut io::sink());
    match (rest, options.names) {
        (Err(error), WhiteoutNames::Interpreted) => Err(ApplyError::Trailer(error)),
        // Of an archive that a user made, what follows its end is padding, as it is to tar.
        (Ok(_), _) | (Err(_), WhiteoutNames::Literal) => unpack.finish(),
    }
}

impl Applied {
    /// Gives the folders that the archive only implied the attributes that they have in the layers below, where they are
    /// there: on disk the upper folder's count, and in an honest layer they are the lower one's.
    ///
    /// `lower` answers for a path what the layers below have there.
    ///
    /// # Errors
    /// [`ApplyError::Disk`].
    pub fn settle(
        &mut self,
        folder: &Path,
        options: &ApplyOptions,
        lower: &dyn Fn(&LayerPath) -> Option<Node>,
    ) -> Result<(), ApplyError> {
        if self.implied.is_empty() {
            return Ok(());
        }
        let mut disk = Disk::reopen(folder, options)?;
        for path in &self.implied {
            let Some(node) = lower(path).filter(Node::is_directory) else { continue };
            let own = self.layer.entries.get(path);
            let opaque = own.is_some_and(|own| own.kind == tree::Kind::Directory { opaque: true });
            let node = Node { kind: tree::Kind::Directory { opaque }, ..node };
            disk.set_folder(path, &node)?;
            // On another base they would look otherwise: with them in the manifest it is another layer.
            self.layer.entries.insert(path.clone(), node);
        }
        Ok(())
    }
}
