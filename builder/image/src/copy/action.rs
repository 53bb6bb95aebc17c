//! The file actions beside copy: LLB's mkdir, mkfile, symlink and rm.

use std::sync::Arc;

use oci::Digest;
use tree::{Kind, Layer, LayerPath, Mtime, Node, Stack};

use super::{ContentSource, CopyError, target::Target};

/// Makes a folder. Links on the way and at the end are followed; a folder that is there stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mkdir {
    /// Where.
    pub path: LayerPath,
    /// Permission bits; more are dropped.
    pub mode: u32,
    /// Owner of each folder that is made; else 0:0.
    pub owner: Option<(u32, u32)>,
    /// Makes the folders above it too, with the same mode and owner.
    pub make_parents: bool,
    /// Modification time.
    pub created: Mtime,
}

/// Writes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mkfile {
    /// Where; links are followed.
    pub path: LayerPath,
    /// Permission bits; more are dropped.
    pub mode: u32,
    /// Owner; else 0:0.
    pub owner: Option<(u32, u32)>,
    /// What it holds.
    pub data: Arc<[u8]>,
    /// Modification time.
    pub created: Mtime,
}

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symlink {
    /// Where; links on the way are followed.
    pub path: LayerPath,
    /// What it points to.
    pub target: Vec<u8>,
    /// Owner; else 0:0.
    pub owner: Option<(u32, u32)>,
    /// Modification time.
    pub created: Mtime,
}

/// Removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rm {
    /// What; links on the way are followed, one at the end is itself removed.
    pub path: LayerPath,
    /// Whether `*`, `?` and `[…]` are wildcards. One without a match is no error.
    pub wildcard: bool,
    /// Whether it may be missing.
    pub allow_missing: bool,
}

pub(super) fn mkdir(target: &mut Target<'_>, action: &Mkdir) -> Result<(), CopyError> {
    let path = target.resolve(&action.path, true)?;
    let mode = action.mode & 0o777;
    if action.make_parents {
        return target.mkdir_all(&path, mode, action.owner, action.created);
    }
    if target.lookup(&path).is_some() {
        return Ok(());
    }
    holder(target, &path)?;
    target.mkdir_all(&path, mode, action.owner, action.created)
}

pub(super) fn mkfile(target: &mut Target<'_>, action: &Mkfile) -> Result<(), CopyError> {
    let path = target.resolve(&action.path, true)?;
    if target.lookup(&path).is_some_and(Node::is_directory) {
        return Err(CopyError::FileOverFolder { path });
    }
    holder(target, &path)?;
    let kind = Kind::File { size: action.data.len() as u64, content: Digest::of(&action.data) };
    let node = owned(Node::new(kind, action.mode & 0o777), action.owner, action.created);
    target.put(&path, node, Some(ContentSource::Inline(action.data.clone())), None);
    Ok(())
}

pub(super) fn symlink(target: &mut Target<'_>, action: &Symlink) -> Result<(), CopyError> {
    let path = target.resolve(&action.path, true)?;
    if target.lookup(&path).is_some() {
        return Err(CopyError::Exists { path });
    }
    holder(target, &path)?;
    let node = Node::new(Kind::Symlink { target: action.target.clone() }, 0o777);
    target.put(&path, owned(node, action.owner, action.created), None, None);
    Ok(())
}

pub(super) fn rm(target: &mut Target<'_>, action: &Rm) -> Result<(), CopyError> {
    if !action.wildcard {
        return rm_one(target, &action.path, action.allow_missing);
    }
    for path in target.matches(&action.path)? {
        rm_one(target, &path, action.allow_missing)?;
    }
    Ok(())
}

fn rm_one(target: &mut Target<'_>, path: &LayerPath, allow_missing: bool) -> Result<(), CopyError> {
    let path = target.resolve(path, false)?;
    // A dangling link counts as missing, as in BuildKit, but where that is allowed it goes.
    let leads_to = target.resolve(&path, true)?;
    if !allow_missing && target.lookup(&leads_to).is_none() {
        return Err(CopyError::NothingToRemove { path });
    }
    target.remove(&path);
    Ok(())
}

/// Checks that the folder of a resolved path is there.
fn holder(target: &Target<'_>, path: &LayerPath) -> Result<(), CopyError> {
    let parent = path.parent().unwrap_or_default();
    match target.lookup(&parent) {
        Some(node) if node.is_directory() => Ok(()),
        Some(_) => Err(CopyError::NotAFolder { path: parent }),
        None => Err(CopyError::NoFolder { path: parent }),
    }
}

fn owned(node: Node, owner: Option<(u32, u32)>, mtime: Mtime) -> Node {
    let (uid, gid) = owner.unwrap_or((0, 0));
    Node { uid, gid, mtime, ..node }
}

impl Target<'_> {
    /// What a wildcard matches by now.
    fn matches(&self, path: &LayerPath) -> Result<Vec<LayerPath>, CopyError> {
        let stack: Stack = self.base_stack().with(Arc::new(self.layer_so_far()));
        Ok(stack.matches(path.as_bytes(), true)?)
    }

    fn layer_so_far(&self) -> Layer {
        Layer { entries: self.nodes().map(|(path, node)| (path.clone(), node.clone())).collect() }
    }
}
