//! A folder on disk → its tree manifest.
//!
//! Two kinds of folder are scanned. A *context* is the user's: who owns its files and what attributes they
//! have are facts of the user's machine and stay out. A *snapshot* is what a step left, and is taken as it
//! is.
//!
//! Folders are read in parallel, each by a descriptor of its own opened below the root without following
//! links, so that nothing that changes meanwhile can lead the scan elsewhere. A file is only opened when its
//! content has no known digest.

mod hash;
mod reach;
mod stamp;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use oci::Digest;
use rayon::prelude::*;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawDir, Statx, StatxFlags, makedev, openat, readlinkat, statx,
    },
    io::Errno,
};
use tree::{BadPath, Entries, Kind, Layer, LayerPath, Mtime, Node, Xattrs};

use crate::{
    attributes::Attributes,
    beneath,
    overlay::{OverlayXattrs, is_overlay_xattr},
};
pub use hash::{HashCache, KnownFiles, NoHashCache, StatKey};
pub use reach::Reach;
pub use stamp::{Seen, SeenKind, StampOptions, stamp_at};

/// What kind of folder is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A build context. Everything is owned by 0:0 and has no extended attributes, the root folder has mode
    /// 0755. As BuildKit has it, a socket is an empty file and a block device a character device.
    Context,
    /// A root file system, or a folder of one. Of the extended attributes only `security.capability` is kept,
    /// as in BuildKit's layers; sockets are left out.
    Snapshot,
    /// As a snapshot, but overlayfs's upper folder: its whiteouts and opaque folders, marked by these
    /// attributes, become those of the manifest.
    Upper(OverlayXattrs),
}

/// What a scan does with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Takes it, and for a folder asks again for each thing in it.
    Take,
    /// Asks for each thing in the folder, and takes the folder if any of them is taken. A file is left out.
    Descend,
    /// Leaves it out, with all below it.
    Skip,
}

impl Visit {
    /// What two filters together say.
    pub fn and(self, other: Visit) -> Visit {
        match (self, other) {
            (Visit::Skip, _) | (_, Visit::Skip) => Visit::Skip,
            (Visit::Take, Visit::Take) => Visit::Take,
            _ => Visit::Descend,
        }
    }
}

/// How a folder is scanned.
#[derive(Clone, Copy)]
pub struct ScanOptions<'a> {
    /// What kind of folder it is.
    pub purpose: Purpose,
    /// What to take: called with each path below the root and whether it is a folder.
    pub filter: &'a (dyn Fn(&LayerPath, bool) -> Visit + Sync),
    /// Digests of contents that are known.
    pub hashes: &'a dyn HashCache,
}

/// A folder that cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A system call failed.
    #[error("{call} of `{path}`: {source}")]
    Call {
        /// The call.
        call: &'static str,
        /// What it was made for, below the scanned folder.
        path: LayerPath,
        /// What the kernel said.
        source: io::Error,
    },
    /// Someone wrote to a file while it was read.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// The file.
        path: LayerPath,
    },
    /// A path is longer than a path may be.
    #[error(transparent)]
    Name(#[from] BadPath),
    /// An overlay was mounted with an option that hides in the upper folder where contents are.
    #[error(
        "`{path}` has the attribute {attribute}: its content is in a lower layer, and cannot be known from here"
    )]
    Redirected {
        /// The path.
        path: LayerPath,
        /// Overlayfs's mark.
        attribute: String,
    },
}

/// Scans the folder at `root`, following links on the way to it.
///
/// # Errors
/// The first thing that cannot be read, with its path below `root`.
pub fn scan(root: &Path, options: &ScanOptions<'_>) -> Result<Layer, ScanError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty()).map_err(failed("open", &LayerPath::root()))?;
    scan_at(root.as_fd(), options)
}

/// Scans an open folder. Its own entry is the root of the result.
///
/// # Errors
/// As [`scan`].
pub fn scan_at(root: BorrowedFd<'_>, options: &ScanOptions<'_>) -> Result<Layer, ScanError> {
    let scanner = Scanner { root, options };
    let path = LayerPath::root();
    let own = stat(&root, b".", &path)?;
    let mut found = scanner.below(&path)?;
    let mut node = scanner.node(&root, b".", &path, &own)?;
    if options.purpose == Purpose::Context {
        node.iter_mut().for_each(|node| node.mode = 0o755);
    }
    found.push(node.map(|node| Found { path, node, inode: None }).into_iter().collect());
    Ok(assemble(found))
}

/// Those of the folders, listed from the top down, that are above something that was found; in order.
fn above_others(folders: Vec<Found>, found: &[Vec<Found>]) -> Vec<Found> {
    if folders.is_empty() {
        return Vec::new();
    }
    let mut above: BTreeSet<LayerPath> = found.iter().flatten().filter_map(|one| one.path.parent()).collect();
    let mut kept = Vec::new();
    for folder in folders.into_iter().rev() {
        if above.contains(&folder.path) {
            above.extend(folder.path.parent());
            kept.push(folder);
        }
    }
    kept.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    kept
}

/// Puts what the folders held together, and finds which names are of one inode. Each list is in order.
///
/// They are merged, and each is given back when it was taken: to sort them all as one would take as much again.
fn assemble(found: Vec<Vec<Found>>) -> Layer {
    let mut groups: BTreeMap<(u64, u64), Vec<LayerPath>> = BTreeMap::new();
    let mut lists: Vec<_> = found.into_iter().map(|list| list.into_iter().peekable()).collect();
    let firsts = lists.iter_mut().enumerate();
    let firsts = firsts.filter_map(|(at, list)| Some(Reverse((list.peek()?.path.clone(), at))));
    let mut next: BinaryHeap<Reverse<(LayerPath, usize)>> = firsts.collect();
    let mut entries = Entries::new();
    while let Some(Reverse((_, at))) = next.pop() {
        let before = next.peek().map(|Reverse((path, _))| path);
        while let Some(one) = lists[at].next_if(|one| before.is_none_or(|before| one.path < *before)) {
            if let Some(inode) = one.inode {
                groups.entry(inode).or_default().push(one.path.clone());
            }
            entries.insert(one.path, one.node);
        }
        match lists[at].peek() {
            Some(one) => next.push(Reverse((one.path.clone(), at))),
            None => lists[at] = Vec::new().into_iter().peekable(),
        }
    }
    let mut layer = Layer { entries };
    layer.link(groups.into_values());
    layer
}

struct Found {
    path: LayerPath,
    node: Node,
    /// Device and inode, where there are more names.
    inode: Option<(u64, u64)>,
}

/// So many names of a folder are looked at together: what `statx` says of one is longer than what is kept of it.
const AT_ONCE: usize = 4096;

struct Scanner<'a> {
    root: BorrowedFd<'a>,
    options: &'a ScanOptions<'a>,
}

/// What one folder holds.
struct Held {
    /// What is no folder.
    others: Vec<Found>,
    folders: Vec<(Found, Visit)>,
}

impl Scanner<'_> {
    /// What is below a folder: one list for each folder.
    ///
    /// Goes level by level, so that a tree of any depth takes no more of the stack, and no more descriptors, than a flat one.
    fn below(&self, top: &LayerPath) -> Result<Vec<Vec<Found>>, ScanError> {
        let mut level = vec![top.clone()];
        let (mut found, mut descended) = (Vec::new(), Vec::new());
        while !level.is_empty() {
            let held =
                level.par_iter().map(|path| self.folder(path)).collect::<Result<Vec<Held>, ScanError>>()?;
            level.clear();
            for Held { others, folders } in held {
                found.push(others);
                level.extend(folders.iter().map(|(folder, _)| folder.path.clone()));
                let (taken, rest): (Vec<_>, Vec<_>) =
                    folders.into_iter().partition(|(_, visit)| *visit == Visit::Take);
                found.push(taken.into_iter().map(|(folder, _)| folder).collect());
                descended.extend(rest.into_iter().map(|(folder, _)| folder));
            }
        }
        found.push(above_others(descended, &found));
        Ok(found)
    }

    /// What a folder holds.
    fn folder(&self, path: &LayerPath) -> Result<Held, ScanError> {
        let folder = beneath::open_folder(self.root, path).map_err(failed("open", path))?;
        let mut held = Held { others: Vec::new(), folders: Vec::new() };
        let mut names = names(&folder, path)?.into_iter();
        while names.len() > 0 {
            self.some(&folder, path, names.by_ref().take(AT_ONCE), &mut held)?;
        }
        Ok(held)
    }

    /// Adds some of the names in a folder to what it holds.
    fn some(
        &self,
        folder: &OwnedFd,
        path: &LayerPath,
        names: impl Iterator<Item = (Vec<u8>, FileType)>,
        held: &mut Held,
    ) -> Result<(), ScanError> {
        let mut others: Vec<(LayerPath, Statx)> = Vec::new();
        for (name, kind) in names {
            let below = child(path, name)?;
            // Spares the call for what is skipped.
            let mut is_folder = kind == FileType::Directory;
            let mut visit = Visit::Take;
            if kind != FileType::Unknown {
                visit = (self.options.filter)(&below, is_folder);
                if visit == Visit::Skip || visit == Visit::Descend && !is_folder {
                    continue;
                }
            }
            let stat = stat(folder, below.name(), &below)?;
            let now = FileType::from_raw_mode(stat.stx_mode.into());
            if kind != now {
                is_folder = now == FileType::Directory;
                visit = (self.options.filter)(&below, is_folder);
            }
            match (visit, is_folder) {
                (Visit::Skip, _) | (Visit::Descend, false) => {}
                (Visit::Take | Visit::Descend, true) => {
                    let node = self.node(folder, below.name(), &below, &stat)?;
                    let found = node.map(|node| (Found { path: below, node, inode: None }, visit));
                    held.folders.extend(found);
                }
                (Visit::Take, false) => others.push((below, stat)),
            }
        }
        let each = others.par_iter().with_min_len(16).map(|(below, stat)| {
            let node = self.node(folder, below.name(), below, stat)?;
            let inode = (stat.stx_nlink > 1).then(|| (device(stat), stat.stx_ino));
            Ok(node.map(|node| {
                // Overlayfs makes all whiteouts names of one device, which means nothing.
                let inode = inode.filter(|_| node.kind != Kind::Whiteout);
                Found { path: below.clone(), node, inode }
            }))
        });
        let others = each.collect::<Result<Vec<Option<Found>>, ScanError>>()?;
        held.others.extend(others.into_iter().flatten());
        Ok(())
    }

    /// What one name is; none for what the purpose leaves out.
    fn node(
        &self,
        folder: &impl AsFd,
        name: &[u8],
        path: &LayerPath,
        stat: &Statx,
    ) -> Result<Option<Node>, ScanError> {
        let purpose = self.options.purpose;
        let context = purpose == Purpose::Context;
        let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
        let mut mode = u32::from(stat.stx_mode) & 0o7777;
        // Of a file that is open already; other things than files and folders have none that count.
        let mut attributes = Attributes::None;
        let of_name = || Attributes::of(folder, name).map_err(failed("open", path));
        let mut kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::Directory => {
                if !context {
                    attributes = of_name()?;
                }
                Kind::Directory { opaque: false }
            }
            FileType::RegularFile => {
                // Nothing of the step runs any more.
                let is_still = matches!(purpose, Purpose::Upper(_));
                let content = hash::content(folder, name, path, stat, self.options.hashes, is_still)?;
                if !context {
                    attributes = content.file.map_or_else(of_name, |file| Ok(Attributes::Open(file)))?;
                }
                Kind::File { size: stat.stx_size, content: content.digest }
            }
            FileType::Symlink => {
                mode = 0o777;
                let target = readlinkat(folder, name, Vec::new()).map_err(failed("readlink", path))?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::CharacterDevice if matches!(purpose, Purpose::Upper(_)) && (major, minor) == (0, 0) => {
                return Ok(Some(Node::whiteout()));
            }
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice if context => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket if context => Kind::File { size: 0, content: Digest::of(b"") },
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        let mtime = Mtime { seconds: stat.stx_mtime.tv_sec, nanoseconds: stat.stx_mtime.tv_nsec };
        if context {
            return Ok(Some(Node { mtime, ..Node::new(kind, mode) }));
        }
        let (xattrs, is_opaque) = self.xattrs(&attributes, path)?;
        if let Kind::Directory { opaque } = &mut kind {
            *opaque = is_opaque;
        }
        Ok(Some(Node { kind, mode, uid: stat.stx_uid, gid: stat.stx_gid, mtime, xattrs, hardlink: None }))
    }

    /// The attributes of a snapshot's path that belong to an image, and whether overlayfs calls the folder
    /// opaque.
    fn xattrs(&self, attributes: &Attributes, path: &LayerPath) -> Result<(Xattrs, bool), ScanError> {
        let call = |call| {
            let path = path.clone();
            move |source| ScanError::Call { call, path, source }
        };
        let get = |name: &[u8]| attributes.get(name);
        let listed = match attributes.list() {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Vec::new(),
            other => other.map_err(call("llistxattr"))?,
        };
        let mut kept = Xattrs::default();
        let mut opaque = false;
        for attribute in listed.split(|b| *b == 0) {
            if attribute == b"security.capability" {
                kept.insert(attribute.to_vec(), get(attribute).map_err(call("lgetxattr"))?);
            }
            // Marks of the other kind of mount are leftovers of a lower layer that was itself an upper
            // folder.
            let Purpose::Upper(marks) = self.options.purpose else { continue };
            let Some(mark) = marks.opaque() else { continue };
            if attribute == mark.as_bytes() {
                opaque = get(attribute).map_err(call("lgetxattr"))? == b"y";
            } else if is_overlay_xattr(attribute)
                && attribute.starts_with(mark.trim_end_matches("opaque").as_bytes())
                && (attribute.ends_with(b".redirect") || attribute.ends_with(b".metacopy"))
            {
                let attribute = String::from_utf8_lossy(attribute).into_owned();
                return Err(ScanError::Redirected { path: path.clone(), attribute });
            }
        }
        Ok((kept, opaque))
    }
}

/// Turns a call's error into one that says what it was made for.
pub(crate) fn failed(call: &'static str, path: &LayerPath) -> impl FnOnce(Errno) -> ScanError {
    let path = path.clone();
    move |errno| ScanError::Call { call, path, source: errno.into() }
}

pub(crate) fn child(folder: &LayerPath, name: Vec<u8>) -> Result<LayerPath, ScanError> {
    let path = if folder.is_root() { name } else { [folder.as_bytes(), b"/", &name].concat() };
    Ok(LayerPath::exact(path)?)
}

fn stat(folder: &impl AsFd, name: &[u8], path: &LayerPath) -> Result<Statx, ScanError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(folder, name, flags, StatxFlags::BASIC_STATS).map_err(failed("statx", path))
}

pub(crate) fn device(stat: &Statx) -> u64 {
    makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

/// The names in a folder, sorted, with what the folder itself says they are.
pub(crate) fn names(folder: &OwnedFd, path: &LayerPath) -> Result<Vec<(Vec<u8>, FileType)>, ScanError> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed("getdents", path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}
