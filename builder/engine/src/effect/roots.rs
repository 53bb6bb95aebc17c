//! Roots of steps without overlayfs: folders into which layers are copied, and that are kept from step to step.
//!
//! The root that a step leaves is the one that the next step of its stage begins with, so nothing is copied twice; a `COPY`
//! between the two is laid on it. Who stands on other layers takes the root that is nearest, and has what lies above laid on
//! that. All of them are in the build's own folder and go with it.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use image::{
    diff::Owners,
    folder::{Form, SourceFolder, remove_tree, set_times},
    working_root::{Stamps, changes, fill, lay, settle, take, walk},
};
use rustix::{fs::lremovexattr, io::Errno};
use sandbox::{Ids, Isolation, Rootfs, Snapshots, Writable, emulate::ATTRIBUTE};
use store::ResultLayer;
use tree::{Kind, Layer, LayerId, Node, Stack};

use super::{Effects, furnish::Kits};
use crate::{
    error::Cause,
    result::{Mounted, VertexResult},
};

/// So many roots are kept that no step stands on: each is as large as an image.
const KEPT: usize = 3;

/// A folder that looks as these layers do.
#[derive(Debug)]
pub(crate) struct WorkingRoot {
    pub(crate) path: PathBuf,
    layers: Vec<LayerId>,
    /// What it was when it looked so.
    stamps: Stamps,
}

/// The roots that no step stands on, those that were left last at the end; and what is put into them while one does.
#[derive(Default)]
pub(crate) struct Roots {
    kept: Mutex<Vec<WorkingRoot>>,
    pub(crate) kits: Kits,
}

impl Roots {
    /// Takes the one that is nearest: has the most of these layers, and no other.
    fn take(&self, layers: &[LayerId]) -> Option<WorkingRoot> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |root: &WorkingRoot| layers.starts_with(&root.layers);
        let near = (0..kept.len()).filter(|at| fits(&kept[*at])).max_by_key(|at| kept[*at].layers.len())?;
        Some(kept.remove(near))
    }

    /// Keeps one; gives those which are too many.
    fn keep(&self, root: WorkingRoot) -> Vec<WorkingRoot> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(root);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus).collect()
    }
}

/// What a step writes to.
#[derive(Debug)]
pub(crate) enum Ground {
    /// The upper folder of an overlay.
    Stacked(Writable),
    /// The root itself.
    Copied(WorkingRoot),
}

impl Effects {
    /// What a step on these layers writes to.
    pub(crate) fn ground(&self, base: &VertexResult, below: &Mounted) -> Result<Ground, Cause> {
        match self.mode.snapshots {
            Snapshots::Overlay => self.writable(below).map(Ground::Stacked),
            Snapshots::Copy => self.working_root(base.as_layers(), below).map(Ground::Copied),
        }
    }

    /// The root file system of a step.
    pub(crate) fn rootfs(&self, below: &Mounted, ground: &Ground) -> Result<Rootfs, Cause> {
        match ground {
            Ground::Stacked(writable) => self.stacked(below, writable.clone()),
            Ground::Copied(root) => Ok(Rootfs::Directory { path: root.path.clone() }),
        }
    }

    /// Makes the step's folder where the layers below lack it; it is in the step's layer.
    pub(crate) fn make_cwd_on(&self, below: &Mounted, ground: &Ground, cwd: &str) -> Result<(), Cause> {
        match ground {
            Ground::Stacked(writable) => self.make_cwd(below, &writable.upper, cwd, self.upper_form()),
            Ground::Copied(root) => {
                self.make_cwd(below, &root.path, cwd, Form::Root { ownership: self.ownership() })
            }
        }
    }

    fn working_root(&self, layers: &[ResultLayer], below: &Mounted) -> Result<WorkingRoot, Cause> {
        let wanted: Vec<LayerId> = layers.iter().map(|layer| layer.layer).collect();
        let Some(mut root) = self.roots.take(&wanted) else {
            if self.mode.isolation == Isolation::Chroot {
                // It has grown old when the copy is made.
                self.roots.kits.make_ready(|| Ok(self.lease.new_folder()?))?;
            }
            let path = self.lease.new_folder()?;
            fill(&path, &below.stack, below.sources()?, self.ownership())?;
            let stamps = walk(&path)?;
            return Ok(WorkingRoot { path, layers: wanted, stamps });
        };
        let known = root.layers.len();
        if known == wanted.len() {
            return Ok(root);
        }
        let above = below.stack.layers().iter().zip(&below.folders).enumerate().skip(known);
        for (at, (layer, folder)) in above {
            let lower = Stack::new(below.stack.layers()[..at].to_vec());
            let folder = SourceFolder::stored(folder).map_err(Cause::io("open", folder))?;
            lay(&root.path, &lower, layer, folder, self.ownership())?;
            if self.mode.ids == Ids::Single {
                // A folder that was there has one, if a step changed it to no effect.
                forget_records(&root.path, layer)?;
            }
        }
        let stamps = walk(&root.path)?;
        root = WorkingRoot { layers: wanted, stamps, ..root };
        Ok(root)
    }

    /// The layer of what a step did to its root, and a folder with that.
    pub(crate) fn taken(
        &self,
        root: &mut WorkingRoot,
        below: &Mounted,
        owners: Option<&dyn Owners>,
    ) -> Result<(Layer, PathBuf), Cause> {
        let mut after = walk(&root.path)?;
        let layer = changes(&root.path, &root.stamps, &after, &below.stack, owners)?;
        if self.mode.ids == Ids::Single && forget_records(&root.path, &layer)? {
            after = walk(&root.path)?;
        }
        let folder = self.lease.new_folder()?;
        take(&root.path, &layer, &folder, self.upper_form())?;
        let (stamps, made) = ((&root.stamps, &after), (&layer, folder.as_path()));
        let is_stale = settle(&root.path, stamps, made, &below.stack, self.ownership())?;
        root.stamps = if is_stale { walk(&root.path)? } else { after };
        Ok((layer, folder))
    }

    /// Keeps the root of a step that has made `layer`, for which `kept` is what counts.
    pub(crate) fn keep_root(
        &self,
        mut root: WorkingRoot,
        made: LayerId,
        kept: &ResultLayer,
    ) -> Result<(), Cause> {
        if root.stamps.has_more_than_a_layer() {
            return remove_tree(&root.path).map_err(Cause::io("remove", &root.path));
        }
        if made != kept.layer {
            // It is the layer of an earlier time.
            set_times(&root.path, &*self.store.tree(&kept.layer)?)?;
            root.stamps = walk(&root.path)?;
        }
        root.layers.push(kept.layer);
        for WorkingRoot { path, .. } in self.roots.keep(root) {
            remove_tree(&path).map_err(Cause::io("remove", path))?;
        }
        Ok(())
    }
}

/// Takes away what a step recorded of owners, which the layer says now: a later layer may say something else. Whether there was
/// anything.
fn forget_records(root: &Path, layer: &Layer) -> Result<bool, Cause> {
    let mut was_any = false;
    let can_have = |node: &Node| !matches!(node.kind, Kind::Symlink { .. } | Kind::Fifo | Kind::Whiteout);
    for (path, _) in layer.entries.iter().filter(|(_, node)| can_have(node)) {
        let path = root.join(OsStr::from_bytes(path.as_bytes()));
        match lremovexattr(&path, ATTRIBUTE) {
            Ok(()) => was_any = true,
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(Cause::io("lremovexattr", path)(errno.into())),
        }
    }
    Ok(was_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> LayerId {
        LayerId::of_manifest(oci::Digest::of(&[number]))
    }

    fn root(name: &str, layers: &[u8]) -> WorkingRoot {
        let layers = layers.iter().map(|number| id(*number)).collect();
        WorkingRoot { path: name.into(), layers, stamps: Stamps::default() }
    }

    #[test]
    fn the_nearest_root_is_taken_and_once() {
        let roots = Roots::default();
        for (name, layers) in [("base", &[1][..]), ("far", &[1, 2]), ("other", &[1, 9])] {
            assert!(roots.keep(root(name, layers)).is_empty());
        }
        let wanted = [id(1), id(2), id(3)];
        let names = [(); 3].map(|()| roots.take(&wanted).map(|root| root.path.display().to_string()));
        assert_eq!(names, [Some("far".to_owned()), Some("base".to_owned()), None]);
        assert!(roots.take(&[id(9)]).is_none());
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let roots = Roots::default();
        let names = ["a", "b", "c", "d", "e"];
        let gone: Vec<WorkingRoot> = names.iter().flat_map(|name| roots.keep(root(name, &[1]))).collect();
        let gone: Vec<_> = gone.iter().map(|root| root.path.display().to_string()).collect();
        assert_eq!(gone, ["a", "b"]);
    }
}
