//! How much is done at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use oci::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::unpack::Unpacked;

/// How many blobs are fetched from one registry at once. A few connections fill a wire that one does not; many make a
/// registry refuse. BuildKit takes as many.
const DOWNLOADS: usize = 4;

/// How many layers of one place are at work at once: enough that those who fetch and those who unpack always find one.
/// Each has four files open at most, and a process may have 1024 where nobody says otherwise.
const LAYERS: usize = 32;

/// Semaphores by the place that they are for.
type Places = Mutex<BTreeMap<String, Arc<Semaphore>>>;

/// Turns at what must not be done by everybody at once.
pub(crate) struct Turns {
    layers: Places,
    downloads: Places,
    unpacked: Arc<Semaphore>,
    archives: Mutex<BTreeMap<Digest, Weak<Archive>>>,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

/// One blob, for all layers that it is in the images of a build: it comes once and is unpacked once.
#[derive(Default)]
pub(super) struct Archive {
    /// Held while it comes and is unpacked, and never while another archive is waited for. Who waits for it has no
    /// thread: a manifest may name one blob more often than there are threads.
    pub(super) coming: tokio::sync::Mutex<()>,
    /// Unpacked, until the first of its layers is made of it. Held while a layer is made: who comes next finds that.
    pub(super) unpacked: Mutex<Option<Unpacked>>,
}

impl Default for Turns {
    fn default() -> Turns {
        let cores = rayon::current_num_threads();
        Turns {
            layers: Places::default(),
            downloads: Places::default(),
            unpacked: Arc::new(Semaphore::new(cores)),
            archives: Mutex::default(),
        }
    }
}

impl Turns {
    /// Waits until work may begin on a further layer of a registry, or, for `None`, of what is on this machine.
    pub(super) async fn layer(&self, registry: Option<&str>) -> Turn {
        turn(of_place(&self.layers, registry.unwrap_or_default(), LAYERS)).await
    }

    /// Waits until a further blob may be fetched from a registry.
    pub(super) async fn download(&self, registry: &str) -> Turn {
        turn(of_place(&self.downloads, registry, DOWNLOADS)).await
    }

    /// Waits until a further archive may be unpacked: there are as many at once as cores.
    pub(super) async fn unpack(&self) -> Turn {
        turn(self.unpacked.clone()).await
    }

    /// What all who want a blob share.
    pub(super) fn archive(&self, blob: Digest) -> Arc<Archive> {
        let mut all = self.archives.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&blob).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::default();
            all.retain(|_, archive| archive.strong_count() > 0);
            all.insert(blob, Arc::downgrade(&new));
            new
        })
    }
}

fn of_place(places: &Places, place: &str, most: usize) -> Arc<Semaphore> {
    let mut all = places.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(place.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(most))).clone()
}

async fn turn(turns: Arc<Semaphore>) -> Turn {
    // It fails only when it was closed, which nobody does.
    Turn { _permit: turns.acquire_owned().await.ok() }
}
