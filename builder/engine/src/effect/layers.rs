//! The forms of a layer that effects need, each made from another when it is wanted.

use std::{
    fs::File,
    io::Read,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use image::{
    apply::apply,
    detect::decompress,
    folder::{FolderError, PlannedLayer, set_times, write_plan},
};
use oci::Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use store::{BlobFile, LockName, ResultLayer};
use tree::{LayerId, LayerPath, Stack};

use super::Effects;
use crate::{
    error::Cause,
    result::{Mounted, VertexResult},
};

/// How much of a small file is read: a `passwd` of a hundred thousand users.
const SMALL_BYTES: u64 = 16 << 20;

impl Effects {
    /// The stacked manifests of layers.
    pub(crate) fn stack(&self, layers: &[ResultLayer]) -> Result<Stack, Cause> {
        let trees: Result<Vec<_>, store::Error> =
            layers.iter().map(|layer| self.store.tree(&layer.layer)).collect();
        Ok(Stack::new(trees?))
    }

    /// A result as something to read: layers with their folders, or a context.
    pub(crate) fn mounted(&self, result: &VertexResult) -> Result<Mounted, Cause> {
        match result {
            VertexResult::Layers { layers, .. } => {
                let stack = self.stack(layers)?;
                let folders = (0..layers.len()).map(|at| self.folder(layers, at));
                Ok(Mounted {
                    folders: folders.collect::<Result<_, _>>()?,
                    stack,
                    watched: false,
                    known: None,
                })
            }
            VertexResult::Context(context) => Ok(Mounted {
                stack: Stack::new(vec![context.layer.clone()]),
                folders: vec![context.folder.clone()],
                watched: context.watched,
                known: Some(context.known.clone()),
            }),
        }
    }

    /// The folder of layer `at`, made from a blob where it is not there.
    pub(crate) fn folder(&self, layers: &[ResultLayer], at: usize) -> Result<PathBuf, Cause> {
        let id = layers[at].layer;
        if let Some(folder) = self.store.layer_folder(&self.lease, &id)? {
            return Ok(folder);
        }
        let _turn = self.store.lock(&LockName::Layer(id), &mut |_| ControlFlow::Continue(()))?;
        if let Some(folder) = self.store.layer_folder(&self.lease, &id)? {
            return Ok(folder);
        }
        match self.planned.get(&id) {
            Some(planned) => self.plant(&planned, &layers[..at], id)?,
            None => self.unpack_again(&layers[..at], id)?,
        }
        let lost = || Cause::LayerLost { layer: id.digest().to_string() };
        self.store.layer_folder(&self.lease, &id)?.ok_or_else(lost)
    }

    /// Writes the folder of a layer that was only planned so far.
    fn plant(&self, planned: &PlannedLayer, below: &[ResultLayer], id: LayerId) -> Result<(), Cause> {
        let folder = self.lease.new_folder()?;
        match write_plan(planned.plan(), planned.inputs(), &folder, self.upper_form()) {
            // The context has changed since; the layer may have an archive by now.
            Err(changed @ FolderError::Changed { .. }) => {
                self.unpack_again(below, id).map_err(|_| Cause::from(changed))
            }
            written => {
                written?;
                self.store.commit_layer(&self.lease, &planned.plan().layer, Some(&folder), None)?;
                Ok(())
            }
        }
    }

    /// Makes a layer's folder of one of its blobs. What a blob does not tell, fractions of a second and all times where
    /// they were clamped, is in the manifest.
    fn unpack_again(&self, below: &[ResultLayer], id: LayerId) -> Result<(), Cause> {
        let lost = || Cause::LayerLost { layer: id.digest().to_string() };
        let (_, form) = self.store.layer_blobs(&self.lease, &id)?.into_iter().next().ok_or_else(lost)?;
        let blob = self.store.blob(&self.lease, &form.blob.digest())?.ok_or_else(lost)?;
        self.unpack_blob(&blob, below, id).map_err(|error| {
            // The record of a layer without its blob is not believed, so that the next build makes it again.
            match self.store.drop_damaged_blob(&blob.digest) {
                Ok(true) => lost(),
                _ => error,
            }
        })
    }

    fn unpack_blob(&self, blob: &BlobFile, below: &[ResultLayer], id: LayerId) -> Result<(), Cause> {
        let file = File::open(&blob.path).map_err(Cause::io("open", &blob.path))?;
        let folder = self.lease.new_folder()?;
        let options = self.unpacking(self.limits.of_blob(blob.size_bytes));
        let (_, tar) = decompress(file).map_err(Cause::io("read", &blob.path))?;
        let mut applied = apply(self.store.watched(tar), &folder, &options)?;
        let lower = self.stack(below)?;
        applied.settle(&folder, &options, &|path| lower.lookup(path).map(|(_, node)| node.clone()))?;
        if applied.layer.id() == id {
            self.store.commit_layer(&self.lease, &applied.layer, Some(&folder), None)?;
            return Ok(());
        }
        let wanted = self.store.tree(&id)?;
        if applied.layer.content_digest() != wanted.content_digest() {
            return Err(Cause::LayerLost { layer: id.digest().to_string() });
        }
        set_times(&folder, &wanted)?;
        self.store.commit_layer(&self.lease, &wanted, Some(&folder), None)?;
        Ok(())
    }

    /// The bytes of a small file of a tree; `None` where there is no such file. Of a file that is not small, the first part:
    /// the images that have a `/etc/passwd` of gigabytes are made to exhaust a machine.
    pub(crate) fn read_file(&self, mounted: &Mounted, path: &str) -> Result<Option<Vec<u8>>, Cause> {
        let Ok(path) = LayerPath::clamp(path.as_bytes()) else { return Ok(None) };
        let Ok(path) = mounted.stack.resolve(&path, true) else { return Ok(None) };
        let Some((layer, node)) = mounted.stack.lookup(&path) else { return Ok(None) };
        if !matches!(node.kind, tree::Kind::File { .. }) {
            return Ok(None);
        }
        let folder = &mounted.folders[layer];
        let mut file = open_beneath(folder, node.hardlink.as_ref().unwrap_or(&path))?;
        let mut bytes = Vec::new();
        let read = file.by_ref().take(SMALL_BYTES).read_to_end(&mut bytes);
        read.map_err(Cause::io("read", folder.join(path.to_string())))?;
        Ok(Some(bytes))
    }

    /// Content identity of all layers of a result: what is in them, without times.
    pub(crate) fn content_of(&self, layers: &[ResultLayer]) -> Result<Digest, Cause> {
        let mut hasher = oci::Hasher::new();
        let mut known = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            let content = match known.get(&layer.layer) {
                Some(content) => *content,
                None => {
                    let content = self.store.tree(&layer.layer)?.content_digest().digest();
                    known.insert(layer.layer, content);
                    content
                }
            };
            hasher.field(content.raw());
        }
        Ok(hasher.finish())
    }
}

/// Opens a regular file below a folder, on a path of real folders: no link is followed, so nothing leads out.
pub(crate) fn open_beneath(folder: &Path, path: &LayerPath) -> Result<File, Cause> {
    let failed = |errno: rustix::io::Errno| {
        Cause::io("open", folder.join(path.to_string().trim_start_matches('/')))(errno.into())
    };
    let root =
        open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    // NONBLOCK: a pipe that took a file's place must not make us wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(File::from(openat2(&root, path.as_bytes(), flags, Mode::empty(), resolve).map_err(failed)?))
}
