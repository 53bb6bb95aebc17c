//! Base images: their blobs, from wherever they are, as layers of the state folder.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use image::{
    apply::{ApplyOptions, apply},
    blobs::{Blob, BlobSource},
    detect::decompress,
    layout::Layout,
};
use oci::{Descriptor, DiffId, Digest, Hasher, ImageConfig, Manifest, Reference};
use store::{BlobFile, Codec, Download, LayerBlob, ResultLayer};
use tree::LayerId;

use super::{Effects, Job};
use crate::{
    cancel::Cancel,
    error::Cause,
    progress::{Event, Status},
    result::VertexResult,
};

/// Where an image's blobs are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In a registry.
    Registry(Reference),
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

    /// Whether a blob is a layer of one of them.
    pub(crate) fn has_layer(&self, blob: Digest) -> bool {
        let images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        images.values().any(|image| image.manifest.layers.iter().any(|layer| layer.digest == blob))
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
        if image.config.rootfs.diff_ids.len() != image.manifest.layers.len() {
            let place = format!("{:?}", image.place);
            return Err(Cause::NoImage {
                name: format!("{manifest} with as many diff ids as layers"),
                place,
            });
        }
        // Downloads that nobody waits for any more end with this function.
        let over = SetOnDrop(Cancel::new());
        let mut blobs = Vec::new();
        for descriptor in &image.manifest.layers {
            let (effects, image, descriptor) = (self.clone(), image.clone(), descriptor.clone());
            let (vertex, cancel, over) = (job.digest, job.cancel.clone(), over.0.clone());
            blobs.push(tokio::spawn(async move {
                tokio::select! {
                    blob = effects.fetch(&image.place, &descriptor, vertex, &cancel) => blob,
                    () = over.wait() => Err(Cause::Cancelled),
                    () = cancel.wait() => Err(Cause::Cancelled),
                }
            }));
        }
        let mut layers: Vec<ResultLayer> = Vec::new();
        for (blob, (descriptor, diff_id)) in
            blobs.into_iter().zip(image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids))
        {
            let blob = blob.await.map_err(|error| Cause::Task(error.to_string()))??;
            let (below, descriptor, diff_id) = (layers.clone(), descriptor.clone(), *diff_id);
            let unpacked =
                self.clone().blocking(move |effects| effects.layer_of(&blob, &descriptor, diff_id, &below));
            layers.push(ResultLayer { layer: unpacked.await?, created: None });
        }
        Ok(VertexResult::layers(layers))
    }

    /// A layer's blob in the state folder.
    async fn fetch(
        self: &Arc<Self>,
        place: &Place,
        descriptor: &Descriptor,
        vertex: Digest,
        cancel: &Cancel,
    ) -> Result<BlobFile, Cause> {
        match place {
            Place::Registry(reference) => self.download(reference, descriptor, vertex, cancel).await,
            Place::Store => {
                let digest = descriptor.digest;
                self.clone()
                    .blocking(move |effects| {
                        let blob = effects.store.blob(&effects.lease, &digest)?;
                        blob.ok_or_else(|| Cause::LayerLost { layer: digest.to_string() })
                    })
                    .await
            }
            Place::Layout(path) => {
                let (path, descriptor) = (path.clone(), descriptor.clone());
                self.clone().blocking(move |effects| effects.copy_blob(&path, &descriptor)).await
            }
        }
    }

    pub(crate) async fn download(
        self: &Arc<Self>,
        reference: &Reference,
        descriptor: &Descriptor,
        vertex: Digest,
        cancel: &Cancel,
    ) -> Result<BlobFile, Cause> {
        let (digest, stop) = (descriptor.digest, cancel.clone());
        let begun = self.clone().blocking(move |effects| {
            let found = effects.store.download(&effects.lease, &digest, &mut |_| match stop.is_set() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })?;
            found.ok_or(Cause::Cancelled)
        });
        // Told now: a push to another repository of that registry takes it from there.
        self.store.add_repository(&self.lease, &reference.registry, &reference.repository, &digest)?;
        let mut partial = match begun.await? {
            Download::Here(blob) => return Ok(blob),
            Download::Missing(partial) => partial,
        };
        let started = self.clock.now();
        let status = |current: u64, done: bool| Status {
            vertex,
            id: digest.to_string(),
            current,
            total: descriptor.size,
            started,
            completed: done.then(|| self.clock.now()),
        };
        let mut blob = self.registry.blob(reference, descriptor)?;
        if partial.size_bytes() > 0 {
            let mut hasher = Hasher::new();
            io::copy(&mut partial.read()?, &mut hasher).map_err(Cause::io("read", digest.to_string()))?;
            blob = blob.behind(hasher, partial.size_bytes());
        }
        self.sink.event(Event::Status(status(blob.received(), false)));
        let mut told = blob.received();
        while let Some(bytes) = blob.chunk().await? {
            partial.write_all(&bytes).map_err(Cause::io("write", digest.to_string()))?;
            if blob.received() - told > 256 * 1024 {
                told = blob.received();
                self.sink.event(Event::Status(status(told, false)));
            }
        }
        self.sink.event(Event::Status(status(blob.received(), true)));
        self.clone().blocking(move |_| Ok(partial.commit()?)).await
    }

    fn copy_blob(&self, layout: &std::path::Path, descriptor: &Descriptor) -> Result<BlobFile, Cause> {
        if let Some(blob) = self.store.blob(&self.lease, &descriptor.digest)? {
            return Ok(blob);
        }
        let layout = Layout::open(layout)?;
        let name = descriptor.digest.to_string();
        let mut from = layout.open_blob(&descriptor.digest).map_err(Cause::io("read", &name))?;
        let mut writer = self.store.blob_writer(&self.lease)?;
        io::copy(&mut from.reader, &mut writer).map_err(Cause::io("copy", &name))?;
        Ok(writer.commit(Some(&descriptor.digest))?)
    }

    /// The layer of a blob, unpacked where it is not yet.
    fn layer_of(
        &self,
        blob: &BlobFile,
        descriptor: &Descriptor,
        diff_id: DiffId,
        below: &[ResultLayer],
    ) -> Result<LayerId, Cause> {
        // Folders that the archive only implies look as the base has them: with such, it is a layer of that base.
        let plain = Codec(format!("{PULLED}{}", descriptor.digest));
        let over = Codec(format!("{PULLED}{} over {}", descriptor.digest, self.content_of(below)?));
        if let Some(known) = self.store.layer_by_blob(&self.lease, &descriptor.blob())? {
            let codecs = [plain.clone(), over.clone()];
            let fits =
                self.store.layer_blobs(&self.lease, &known)?.iter().any(|(codec, _)| codecs.contains(codec));
            if fits && self.store.layer_folder(&self.lease, &known)?.is_some() {
                return Ok(known);
            }
        }
        let file = File::open(&blob.path).map_err(Cause::io("open", &blob.path))?;
        let (_, tar) = decompress(file).map_err(Cause::io("read", &blob.path))?;
        let folder = self.lease.new_folder()?;
        let options = ApplyOptions::default();
        let mut applied = apply(tar, &folder, &options)?;
        if applied.diff_id != diff_id {
            return Err(store::Error::DigestMismatch {
                expected: diff_id.digest(),
                actual: applied.diff_id.digest(),
                size_bytes: applied.diff_size_bytes,
            }
            .into());
        }
        let lower = self.stack(below)?;
        applied.settle(&folder, &options, &|path| lower.lookup(path).map(|(_, node)| node.clone()))?;
        let id = self.store.commit_layer(&self.lease, &applied.layer, Some(&folder), None)?;
        let form = LayerBlob {
            diff_id,
            blob: descriptor.blob(),
            size_bytes: blob.size_bytes,
            diff_size_bytes: applied.diff_size_bytes,
            media_type: descriptor.media_type.clone(),
        };
        let codec = if applied.implied.is_empty() { plain } else { over };
        self.store.add_layer_blob(&self.lease, &id, &codec, &form)?;
        Ok(id)
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

/// Blobs of an OCI layout, by one name whatever [`BlobSource`] calls it.
trait OpenBlob {
    fn open_blob(&self, digest: &Digest) -> io::Result<Blob>;
}

impl OpenBlob for Layout {
    fn open_blob(&self, digest: &Digest) -> io::Result<Blob> {
        BlobSource::open(self, digest)
    }
}
