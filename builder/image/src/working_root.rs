//! A root file system without overlayfs: the layers are copied into one folder, a step writes to that, and what it changed is
//! found by comparing the folder with itself.
//!
//! ```text
//! layers ── fill ──► working root ── walk ──► stamps ── (a step) ── walk ──► stamps
//!                         │                      └──────── changes ───────────┘
//!                         └── the next layer ── lay ──►        └──► the manifest of the step's layer
//! ```
//!
//! What would surprise a reader:
//!
//! - Each path has a *stamp*, which a write moves: nobody can set the time of an inode's last change. No content is read before
//!   the step, and after it only that of files whose stamp has moved.
//! - The layer is that which overlayfs would have made of the same step. So what only looks changed is left out by the rules of
//!   [`crate::diff::changes`], a folder that was removed and made anew is opaque, and names of one file that were there before
//!   the step are files of their own once it changed: overlayfs breaks such links.
//! - The one thing that differs: who writes to one of several names of a file writes to all of them here. Overlayfs would leave
//!   the others as they were.

mod changes;
mod stamps;

use std::{os::fd::AsFd, path::Path, sync::Arc, thread};

use rustix::{
    fs::{AtFlags, Mode, chmod, stat, utimensat},
    io::Errno,
};
use tree::{Kind, Layer, LayerPath, Stack};

use crate::{
    beneath,
    copy::{ContentSource, Plan},
    folder::{FolderError, Form, SourceFolder, open_root, replant, write_plan},
    inode::times,
    overlay::OverlayXattrs,
    ownership::Ownership,
};
pub use changes::changes;
pub use stamps::{Stamps, last_change, walk};

/// So many files are read before the clock has gone on.
const MANY: usize = 200;

/// Puts what layers look like into the empty folder `root`. `folders` are the layers', bottom first.
///
/// # Errors
/// [`FolderError`]; a part is then written.
pub fn fill(
    root: &Path,
    stack: &Stack,
    folders: Vec<SourceFolder>,
    ownership: Ownership,
) -> Result<(), FolderError> {
    let mut plan = Plan { layer: stack.flatten(), ..Plan::default() };
    for entry in stack.walk(&LayerPath::root()) {
        let is_first = plan.layer.get(&entry.path).is_some_and(|node| node.hardlink.is_none());
        if matches!(entry.node.kind, Kind::File { .. }) && is_first {
            // A name whose first one another layer hides has the bytes under that name all the same.
            let path = entry.node.hardlink.clone().unwrap_or(entry.path.clone());
            let content = ContentSource::File { input: 0, layer: entry.layer, path };
            plan.contents.insert(entry.path, content);
        }
    }
    let form = Form::Upper { overlay: OverlayXattrs::Nowhere, ownership };
    write_plan(&plan, &[folders], root, form)?;
    grow_old(root)
}

/// Lets the clock of stamps go on by one step, and shows that in the root's: nothing else in it was written in the step that
/// is now, so that no content has to be read to know that it did not change.
fn grow_old(root: &Path) -> Result<(), FolderError> {
    thread::sleep(stamps::STEP);
    let call =
        |call| move |errno: Errno| FolderError::Call { call, path: LayerPath::root(), source: errno.into() };
    let mode = stat(root).map_err(call("stat"))?.st_mode;
    chmod(root, Mode::from_raw_mode(mode & 0o7777)).map_err(call("chmod"))
}

/// Puts one more layer on what is in `root`, which looks as `below` does.
///
/// # Errors
/// [`FolderError`]; a part is then written.
pub fn lay(
    root: &Path,
    below: &Stack,
    layer: &Layer,
    folder: SourceFolder,
    ownership: Ownership,
) -> Result<(), FolderError> {
    write_plan(&replant(layer), &[vec![folder]], root, Form::Root { ownership })?;
    if layer.entries.len() > MANY {
        grow_old(root)?;
    }
    // Folders in which something was put, and of which the layer says nothing, look as they did.
    let open = open_root(root).map_err(|source| FolderError::Root { folder: root.to_owned(), source })?;
    let mut last: Option<LayerPath> = None;
    for path in layer.entries.keys() {
        let Some(parent) = path.parent().filter(|parent| last.as_ref() != Some(parent)) else { continue };
        last = Some(parent.clone());
        let before = below.lookup(&parent).filter(|_| layer.get(&parent).is_none());
        let Some((_, before)) = before.filter(|(_, node)| node.is_directory()) else { continue };
        let failed = |call| {
            let path = parent.clone();
            move |errno: Errno| FolderError::Call { call, path, source: errno.into() }
        };
        let folder = match beneath::open_folder(open.as_fd(), &parent) {
            // A whiteout further up took it away.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            other => other.map_err(failed("open"))?,
        };
        utimensat(&folder, ".", &times(before.mtime), AtFlags::empty()).map_err(failed("utimensat"))?;
    }
    Ok(())
}

/// Takes what a layer says out of `root`, from which it was found, into the empty folder `to`: the layer's folder.
///
/// # Errors
/// [`FolderError`]; a part is then written.
pub fn take(root: &Path, layer: &Layer, to: &Path, form: Form) -> Result<(), FolderError> {
    let source =
        SourceFolder::stored(root).map_err(|source| FolderError::Root { folder: root.to_owned(), source })?;
    write_plan(&replant(layer), &[vec![source]], to, form).map(drop)
}

/// Makes of a root from which `layer` was taken into `folder` what the layers say. Names of one file that are files of their
/// own in the layers become that, and folders that a step has only passed through, making something and removing it again, have
/// the time that they had. Says whether stamps are to be taken again.
///
/// # Errors
/// [`FolderError`].
pub fn settle(
    root: &Path,
    (before, after): (&Stamps, &Stamps),
    (layer, folder): (&Layer, &Path),
    lower: &Stack,
    ownership: Ownership,
) -> Result<bool, FolderError> {
    let at_root = |source| FolderError::Root { folder: root.to_owned(), source };
    let alone = after.linked_beyond(layer);
    if !alone.entries.is_empty() {
        let from = SourceFolder::stored(folder).map_err(at_root)?;
        let with = lower.with(Arc::new(layer.clone()));
        lay(root, &with, &alone, from, ownership)?;
    }
    let open = open_root(root).map_err(at_root)?;
    for path in after.folders_touched_since(before).filter(|path| layer.get(path).is_none()) {
        let Some((_, node)) = lower.lookup(path).filter(|(_, node)| node.is_directory()) else { continue };
        let failed = |call| {
            let path = path.clone();
            move |errno: Errno| FolderError::Call { call, path, source: errno.into() }
        };
        let folder = beneath::open_folder(open.as_fd(), path).map_err(failed("open"))?;
        utimensat(&folder, ".", &times(node.mtime), AtFlags::empty()).map_err(failed("utimensat"))?;
    }
    Ok(!alone.entries.is_empty())
}
