//! What a vertex comes to.

use std::{collections::BTreeSet, ffi::OsStr, path::PathBuf, sync::Arc};

use image::folder::SourceFolder;
use oci::Epoch;
use store::ResultLayer;
use tree::Stack;

use crate::{
    effect::context::{Context, Known},
    error::Cause,
};

/// The result of a vertex. Clones are cheap.
#[derive(Clone, Debug)]
pub enum VertexResult {
    /// Layers, bottom first.
    Layers {
        /// The layers.
        layers: Arc<Vec<ResultLayer>>,
        /// Whether another build had made it while this one waited for its turn.
        cached: bool,
    },
    /// A build context that was read.
    Context(Arc<Context>),
}

impl VertexResult {
    /// Layers that were made or found.
    pub(crate) fn layers(layers: Vec<ResultLayer>) -> VertexResult {
        VertexResult::Layers { layers: Arc::new(layers), cached: false }
    }

    /// Layers that another build made.
    pub(crate) fn found(layers: Vec<ResultLayer>) -> VertexResult {
        VertexResult::Layers { layers: Arc::new(layers), cached: true }
    }

    /// Whether another build had made it.
    pub(crate) fn was_cached(&self) -> bool {
        matches!(self, VertexResult::Layers { cached: true, .. })
    }

    /// The layers; none for a context.
    pub(crate) fn as_layers(&self) -> &[ResultLayer] {
        match self {
            VertexResult::Layers { layers, .. } => layers,
            VertexResult::Context(_) => &[],
        }
    }
}

/// A tree that an effect reads, with where the files of its layers are.
pub(crate) struct Mounted {
    /// The stacked manifests.
    pub(crate) stack: Stack,
    /// The folder of each layer, bottom first.
    pub(crate) folders: Vec<PathBuf>,
    /// Whether others may write to the folders, as to a context.
    pub(crate) watched: bool,
    /// The remembered digests of a context's files.
    pub(crate) known: Option<Arc<Known>>,
}

impl Mounted {
    /// The folders for overlayfs, top first: without layers that hold nothing, and of one that is there twice only the upper, which
    /// hides the other. Overlayfs refuses a folder that it is given twice.
    pub(crate) fn lowers(&self) -> Vec<PathBuf> {
        let mut seen: BTreeSet<&OsStr> = BTreeSet::new();
        let stacked = self.stack.layers().iter().zip(&self.folders).rev();
        let wanted = stacked.filter(|(layer, folder)| {
            // By the bytes of the path: comparing paths part by part takes long, and all are made in the same way.
            !layer.entries.is_empty() && seen.insert(folder.as_os_str())
        });
        wanted.map(|(_, folder)| folder.clone()).collect()
    }

    /// The folders as sources of copies.
    pub(crate) fn sources(&self) -> Result<Vec<SourceFolder>, Cause> {
        let open = |folder: &PathBuf| {
            let opened =
                if self.watched { SourceFolder::watched(folder) } else { SourceFolder::stored(folder) };
            let opened = opened.map_err(Cause::io("open", folder))?;
            Ok(match &self.known {
                Some(known) => opened.knowing(known.clone()),
                None => opened,
            })
        };
        self.folders.iter().map(open).collect()
    }
}

/// The time of a result: that of its top layer.
pub(crate) fn created(layers: &[ResultLayer]) -> Option<Epoch> {
    layers.last().and_then(|layer| layer.created)
}

/// A time as a file has it.
pub(crate) fn mtime(epoch: Epoch) -> tree::Mtime {
    tree::Mtime { seconds: i64::try_from(epoch.0).unwrap_or(i64::MAX), nanoseconds: 0 }
}
