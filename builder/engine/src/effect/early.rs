//! Layers of the image to be, archived while the build goes on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use image::folder::PlannedLayer;
use oci::{Digest, Epoch};
use store::ResultLayer;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tree::LayerId;

use super::{Effects, blob::LayerForms};
use crate::{build::uses::Uses, request::ImageForm, result::VertexResult};

/// What is exported, known before anything is made.
pub(crate) struct Exported {
    pub(crate) uses: Uses,
    /// How the image's layers are wanted; of several outputs the first one's.
    pub(crate) form: ImageForm,
    /// The time that files get where they are later.
    pub(crate) latest: Option<Epoch>,
}

/// Layers that were planned, and have no folder.
#[derive(Default)]
pub(crate) struct Planned(Mutex<BTreeMap<LayerId, Arc<PlannedLayer>>>);

impl Planned {
    pub(super) fn add(&self, id: LayerId, planned: PlannedLayer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(planned));
    }

    /// A layer that was planned by this build.
    pub(crate) fn get(&self, id: &LayerId) -> Option<Arc<PlannedLayer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

/// The work that is under way.
pub(crate) struct Encoding {
    running: Mutex<usize>,
    ended: Condvar,
    /// As many layers at once as there are cores; each is compressed by all of them.
    turns: Arc<Semaphore>,
}

impl Encoding {
    pub(crate) fn new() -> Encoding {
        let turns = Arc::new(Semaphore::new(rayon::current_num_threads()));
        Encoding { running: Mutex::default(), ended: Condvar::new(), turns }
    }

    /// Waits until nothing is under way. Not to be called by a thread of the pool that compresses.
    pub(crate) fn wait(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while *running > 0 {
            running = self.ended.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn begin(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn end(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.ended.notify_all();
    }
}

/// Work that is under way until this is dropped.
struct Under(Arc<Effects>);

impl Under {
    /// Archives a layer, and gives the turn back.
    fn archive(self, layers: &[ResultLayer], at: usize, _turn: OwnedSemaphorePermit) {
        self.0.archive(layers, at);
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.0.encoding.end();
    }
}

impl Effects {
    /// Whether a vertex's layer is wanted as a blob and by nobody as a folder.
    pub(crate) fn is_for_an_archive_only(&self, vertex: &Digest) -> bool {
        self.exported.get().is_some_and(|exported| !exported.uses.is_read(vertex))
    }

    /// Begins to archive the layer that a step has made, if it will be in the image. What fails here is tried again, and
    /// told, when the image is put together.
    pub(crate) fn archive_early(self: &Arc<Self>, vertex: &Digest, made: &VertexResult) {
        let wanted = self.exported.get().is_some_and(|exported| exported.uses.is_exported(vertex));
        let VertexResult::Layers { layers, .. } = made else { return };
        let (Ok(handle), true, Some(at)) = (Handle::try_current(), wanted, layers.len().checked_sub(1))
        else {
            return;
        };
        self.encoding.begin();
        let (under, layers, turns) = (Under(self.clone()), layers.clone(), self.encoding.turns.clone());
        // At once where it may, without a task that would only ask for a thread: that wakes three of them for each step.
        if let Ok(turn) = turns.clone().try_acquire_owned() {
            handle.spawn_blocking(move || under.archive(&layers, at, turn));
            return;
        }
        handle.spawn(async move {
            let Ok(turn) = turns.acquire_owned().await else { return };
            let _ended = tokio::task::spawn_blocking(move || under.archive(&layers, at, turn)).await;
        });
    }

    fn archive(&self, layers: &[ResultLayer], at: usize) {
        let Some(Exported { form, latest, .. }) = self.exported.get() else { return };
        let forms = LayerForms { effects: self, form, latest: *latest, cancel: &self.over };
        let _made_or_tried_again = forms.blob(layers, at);
    }
}
