//! The times of a folder that was unpacked from an archive, which tells whole seconds only.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::fs::{AtFlags, utimensat};
use tree::{Kind, Layer, LayerPath};

use super::{FolderError, open_root};
use crate::{beneath, inode::times};

/// Gives everything below `folder` the time that the manifest says.
///
/// # Errors
/// [`FolderError`].
pub fn set_times(folder: &Path, layer: &Layer) -> Result<(), FolderError> {
    let at_root = |source: io::Error| FolderError::Root { folder: folder.to_path_buf(), source };
    let root = open_root(folder).map_err(at_root)?;
    let mut opened: Option<(LayerPath, OwnedFd)> = None;
    for (path, node) in &layer.entries {
        if node.kind == Kind::Whiteout || node.hardlink.is_some() {
            continue;
        }
        let failed = |call| {
            move |errno: rustix::io::Errno| FolderError::Call {
                call,
                path: path.clone(),
                source: errno.into(),
            }
        };
        let name = if path.is_root() { &b"."[..] } else { path.name() };
        let parent = path.parent().unwrap_or_default();
        // In path order the files of one folder mostly follow each other.
        if opened.as_ref().is_none_or(|(known, _)| *known != parent) {
            let folder = beneath::open_folder(root.as_fd(), &parent).map_err(failed("open"))?;
            opened = Some((parent, folder));
        }
        let Some((_, parent)) = &opened else { continue };
        utimensat(parent, name, &times(node.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("utimensat"))?;
    }
    Ok(())
}
