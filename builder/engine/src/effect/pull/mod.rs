//! Base images: their blobs, from wherever they are, as layers of the state folder.
//!
//! | | |
//! |---|---|
//! | all layers at once | 32 of a registry at work, a few of them fetched, as many unpacked as there are cores (`turns.rs`) |
//! | one blob, several layers | it comes once and is unpacked once, also for two images of a build |
//! | while a blob comes | it is decompressed and unpacked behind the download, from its first byte on (`fetch.rs`, `unpack.rs`) |
//! | when all of it came | its digest is checked, and it is a blob of the state folder |
//! | when it is unpacked | its diff id is checked |
//! | when those below are layers | folders that the archive only implies get the attributes that they have there; it is a layer |
//!
//! Nothing is known by a name before both digests were right.

mod fetch;
mod turns;
mod unpack;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use oci::{Descriptor, Digest, ImageConfig, Manifest, Reference};
use store::ResultLayer;
use tokio::task::JoinSet;

use super::{Effects, Job};
use crate::{cancel::Cancel, error::Cause, result::VertexResult};

pub(crate) use turns::Turns;
use unpack::{Came, Wanted};

/// Where an image's blobs are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In a registry.
    Registry(Reference),
    /// In a registry that may not be asked: what is not here cannot be had.
    Held(Reference),
    /// In the local store.
    Store,
    /// In an OCI layout.
    Layout(PathBuf),
}

/// An image whose documents were read.
#[derive(Debug)]
pub(crate) struct KnownImage {
    pub(crate) manifest: Manifest,
    pub(crate) config: Arc<ImageConfig>,
    pub(crate) place: Place,
}

/// The images of a build by the digest of their manifests.
#[derive(Default)]
pub(crate) struct Images(Mutex<BTreeMap<Digest, Arc<KnownImage>>>);

impl Images {
    pub(crate) fn add(&self, manifest: Digest, image: KnownImage) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(manifest, Arc::new(image));
    }

    /// A blob as one of them names it among its layers.
    pub(crate) fn layer(&self, blob: Digest) -> Option<Descriptor> {
        let images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut layers = images.values().flat_map(|image| &image.manifest.layers);
        layers.find(|layer| layer.digest == blob).cloned()
    }

    fn get(&self, manifest: Digest) -> Option<Arc<KnownImage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&manifest).cloned()
    }
}

impl Effects {
    /// The layers of an image, each with a folder.
    pub(crate) async fn pull(self: &Arc<Self>, manifest: Digest, job: &Job) -> Result<VertexResult, Cause> {
        let image = self
            .images
            .get(manifest)
            .ok_or_else(|| Cause::Task(format!("the image {manifest} was not asked for")))?;
        let layers = self.layers_of(&image, job.digest, &job.cancel).await?;
        if let Some(witness) = &self.witness {
            witness.pulled(job.digest, &layers);
        }
        Ok(VertexResult::layers(layers))
    }

    /// The layers of an image whose documents were read. All come at once; the first that fails ends the others.
    pub(crate) async fn layers_of(
        self: &Arc<Self>,
        image: &Arc<KnownImage>,
        vertex: Digest,
        cancel: &Cancel,
    ) -> Result<Vec<ResultLayer>, Cause> {
        let (blobs, diff_ids) = (&image.manifest.layers, &image.config.rootfs.diff_ids);
        if diff_ids.len() != blobs.len() {
            return Err(Cause::Layers { layers: blobs.len(), diff_ids: diff_ids.len() });
        }
        // Nobody is left behind: who works for this pull sees by this that it is over, and is waited for.
        let over = SetOnDrop(Cancel::new());
        let stop = over.0.clone();
        let _stopped = cancel.on_set(move || stop.set());
        let mut coming = JoinSet::new();
        for (at, (descriptor, diff_id)) in blobs.iter().zip(diff_ids).enumerate() {
            let wanted = Wanted { descriptor: descriptor.clone(), diff_id: *diff_id, vertex };
            let (effects, image, over) = (self.clone(), image.clone(), over.0.clone());
            coming.spawn(async move { Ok((at, effects.layer_comes(&image.place, wanted, &over).await?)) });
        }
        let mut stacked = Stacked::default();
        let mut failed = None;
        while let Some(next) = coming.join_next().await {
            if failed.is_some() {
                continue;
            }
            let one = next.unwrap_or_else(|error| Err(Cause::Task(error.to_string())));
            let added = match one {
                Ok((at, one)) => stacked.add(self, at, one, &over.0).await,
                Err(cause) => Err(cause),
            };
            if let Err(cause) = added {
                over.0.set();
                failed = Some(cause);
            }
        }
        failed.map_or(Ok(stacked.layers), Err)
    }
}

/// Layers from the bottom up, and those that came before one below them did.
#[derive(Default)]
struct Stacked {
    layers: Vec<ResultLayer>,
    early: BTreeMap<usize, Came>,
}

impl Stacked {
    async fn add(
        &mut self,
        effects: &Arc<Effects>,
        at: usize,
        one: Came,
        over: &Cancel,
    ) -> Result<(), Cause> {
        self.early.insert(at, one);
        while let Some(one) = self.early.remove(&self.layers.len()) {
            let (below, over) = (self.layers.clone(), over.clone());
            let layer = effects.clone().blocking(move |effects| effects.settle(one, &below, &over)).await?;
            self.layers.push(ResultLayer { layer, created: None });
        }
        Ok(())
    }
}

/// Sets a cancellation when it goes out of scope.
struct SetOnDrop(Cancel);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// How the codec of a blob that came from elsewhere begins.
pub(crate) const PULLED: &str = "pulled ";
