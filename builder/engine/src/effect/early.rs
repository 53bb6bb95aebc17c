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

/// How much work of a kind is under way.
#[derive(Default)]
pub(crate) struct UnderWay {
    running: Mutex<usize>,
    ended: Condvar,
}

/// Work that is under way until this is dropped.
pub(crate) struct Begun(Arc<UnderWay>);

impl UnderWay {
    /// Waits until there is none.
    pub(crate) fn wait(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while *running > 0 {
            running = self.ended.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether there is any.
    pub(crate) fn is_any(&self) -> bool {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) > 0
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Begun {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Begun(self.clone())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}

/// The archives that are being made.
pub(crate) struct Encoding {
    under_way: Arc<UnderWay>,
    /// As many layers at once as there are cores; each is compressed by all of them.
    turns: Arc<Semaphore>,
}

impl Encoding {
    pub(crate) fn new() -> Encoding {
        let turns = Arc::new(Semaphore::new(rayon::current_num_threads()));
        Encoding { under_way: Arc::default(), turns }
    }

    /// Waits until nothing is under way. Not to be called by a thread of the pool that compresses.
    pub(crate) fn wait(&self) {
        self.under_way.wait();
    }
}

/// A layer of the image to be that a step has made. It is waited for until this is dropped.
pub(crate) struct Early {
    layers: Arc<Vec<ResultLayer>>,
    at: usize,
    begun: Begun,
}

impl Early {
    /// Archives the layer: at once where it may, for to wake another thread takes as long as a small one.
    pub(crate) fn archive(self, effects: Arc<Effects>) {
        let turns = effects.encoding.turns.clone();
        if let Ok(turn) = turns.clone().try_acquire_owned() {
            return self.archive_now(effects, turn);
        }
        let Ok(handle) = Handle::try_current() else { return };
        handle.spawn(async move {
            let Ok(turn) = turns.acquire_owned().await else { return };
            let _ended = tokio::task::spawn_blocking(move || self.archive_now(effects, turn)).await;
        });
    }

    fn archive_now(self, effects: Arc<Effects>, turn: OwnedSemaphorePermit) {
        effects.archive(&self.layers, self.at);
        drop(turn);
        // The last one to have them tidies up behind the build, which goes on, and may end, when this is not waited for.
        drop(effects);
        drop(self.begun);
    }
}

impl Effects {
    /// Whether a vertex's layer is wanted as a blob and by nobody as a folder.
    pub(crate) fn is_for_an_archive_only(&self, vertex: &Digest) -> bool {
        self.exported.get().is_some_and(|exported| !exported.uses.is_read(vertex))
    }

    /// The layer that a step has made, if it will be in the image. What fails of its archive is tried again, and told, when
    /// the image is put together.
    pub(crate) fn early(&self, vertex: &Digest, made: &VertexResult) -> Option<Early> {
        let VertexResult::Layers { layers, .. } = made else { return None };
        let exported = self.exported.get()?;
        let at = layers.len().checked_sub(1).filter(|_| exported.uses.is_exported(vertex))?;
        Some(Early { layers: layers.clone(), at, begun: self.encoding.under_way.begin() })
    }

    fn archive(&self, layers: &[ResultLayer], at: usize) {
        let Some(Exported { form, latest, .. }) = self.exported.get() else { return };
        let forms = LayerForms { effects: self, form, latest: *latest, cancel: &self.over };
        let _made_or_tried_again = forms.blob(layers, at);
    }
}
