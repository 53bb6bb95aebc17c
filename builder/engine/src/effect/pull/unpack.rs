//! A layer's archive as a folder, while it comes or once it is here.

use std::{
    fs::File,
    io::Read,
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use image::{
    apply::{Applied, ApplyOptions, apply},
    detect::decompress,
    seekable::index_annotations,
};
use oci::{Descriptor, DiffId, Digest, Reference};
use store::{BlobFile, Codec, LayerBlob, Partial, ResultLayer};
use tokio::task::JoinHandle;
use tree::LayerId;

use super::{PULLED, turns::Archive};
use crate::{
    cancel::{Cancel, Stoppable},
    effect::Effects,
    error::Cause,
    progress::{Event, Status},
};

/// A layer of an image.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: DiffId,
    /// The vertex that it is wanted for.
    pub(super) vertex: Digest,
}

/// A layer as far as it can be made without those below it.
pub(super) struct Came {
    wanted: Wanted,
    blob: BlobFile,
    archive: Arc<Archive>,
}

/// An archive in a folder of the lease.
pub(super) struct Unpacked {
    folder: PathBuf,
    options: ApplyOptions,
    applied: Applied,
}

impl Effects {
    /// Fetches a blob and unpacks it meanwhile.
    ///
    /// What is wrong with the download is told before what is wrong with the archive: bytes that were changed on their way
    /// are no fault of the image's.
    pub(super) async fn unpack_coming(
        self: &Arc<Self>,
        from: &Reference,
        partial: Partial,
        wanted: Wanted,
        archive: Arc<Archive>,
        over: &Cancel,
    ) -> Result<Came, Cause> {
        // Before it is unpacked: who unpacks has a turn, too, and would keep it while nothing comes.
        let turn = self.turn_to_fetch(from, over).await?;
        let meanwhile = match self.may_be_unpacked(&wanted, &archive).await? {
            true => None,
            false => Some(self.unpack_beside(partial.follow()?, &wanted, over)),
        };
        let fetched = self.fetch_rest(from, &wanted.descriptor, wanted.vertex, partial, turn, over).await;
        // With an error, too: its thread ends when the download does.
        let unpacked = match meanwhile {
            Some(meanwhile) => Some(joined(meanwhile).await),
            None => None,
        };
        let (blob, anew) = fetched?;
        let unpacked = match unpacked {
            // It read bytes that were thrown away.
            Some(_) if anew && !over.is_set() => {
                Some(joined(self.unpack_beside(open(&blob)?, &wanted, over)).await?)
            }
            other => other.transpose()?,
        };
        Ok(Came::of(wanted, blob, archive, unpacked))
    }

    /// Unpacks a blob that is here, unless that may have been done.
    pub(super) async fn unpack_here(
        self: &Arc<Self>,
        blob: BlobFile,
        wanted: Wanted,
        archive: Arc<Archive>,
        over: &Cancel,
    ) -> Result<Came, Cause> {
        let unpacked = match self.may_be_unpacked(&wanted, &archive).await? {
            true => None,
            false => Some(joined(self.unpack_beside(open(&blob)?, &wanted, over)).await?),
        };
        Ok(Came::of(wanted, blob, archive, unpacked))
    }

    /// Whether a blob is not to be unpacked before the layers below it are known: a layer of it is here, which may turn
    /// out to be the one that is wanted, or another image of this build has just unpacked it.
    async fn may_be_unpacked(
        self: &Arc<Self>,
        wanted: &Wanted,
        archive: &Arc<Archive>,
    ) -> Result<bool, Cause> {
        let (blob, archive) = (wanted.descriptor.blob(), archive.clone());
        let known = self.clone().blocking(move |effects| {
            if archive.unpacked.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return Ok(true);
            }
            let Some(known) = effects.store.layer_by_blob(&effects.lease, &blob)? else { return Ok(false) };
            let pulled = effects.store.layer_blobs(&effects.lease, &known)?;
            Ok(pulled.iter().any(|(codec, _)| codec.0.starts_with(PULLED))
                && effects.store.layer_folder(&effects.lease, &known)?.is_some())
        });
        known.await
    }

    /// Unpacks an archive where it may block, when it is its turn.
    fn unpack_beside(
        self: &Arc<Self>,
        archive: impl Read + Send + 'static,
        wanted: &Wanted,
        over: &Cancel,
    ) -> JoinHandle<Result<Unpacked, Cause>> {
        let (effects, wanted, over) = (self.clone(), wanted.clone(), over.clone());
        tokio::spawn(async move {
            let _turn = tokio::select! {
                turn = effects.turns.unpack() => turn,
                () = over.wait() => return Err(Cause::Cancelled),
            };
            let unpack = move |effects: &Arc<Effects>| {
                effects.unpack(Stoppable { stream: archive, cancel: &over }, &wanted)
            };
            effects.blocking(unpack).await
        })
    }

    fn unpack(&self, archive: impl Read + Send, wanted: &Wanted) -> Result<Unpacked, Cause> {
        let digest = wanted.descriptor.digest;
        let started = self.clock.now();
        let tell = |done: bool| {
            let completed = done.then(|| self.clock.now());
            let id = format!("extracting {digest}");
            self.sink.event(Event::Status(Status {
                vertex: wanted.vertex,
                id,
                current: 0,
                total: 0,
                started,
                completed,
            }));
        };
        tell(false);
        let (_, tar) = decompress(archive).map_err(Cause::io("read", digest.to_string()))?;
        let folder = self.lease.new_folder()?;
        let limits = self.limits.of_blob(wanted.descriptor.size);
        let options = self.unpacking(limits);
        let of_layer = |cause| Cause::Layer { layer: digest, cause: Box::new(cause) };
        let applied = apply(self.store.watched(tar), &folder, &options);
        let applied = applied.map_err(|error| of_layer(error.into()))?;
        if applied.diff_id != wanted.diff_id {
            let mismatch = store::Error::DigestMismatch {
                expected: wanted.diff_id.digest(),
                actual: applied.diff_id.digest(),
                size_bytes: applied.diff_size_bytes,
            };
            return Err(of_layer(mismatch.into()));
        }
        tell(true);
        Ok(Unpacked { folder, options, applied })
    }

    /// Makes a layer of an archive, now that those below it are known.
    pub(super) fn settle(&self, came: Came, below: &[ResultLayer], over: &Cancel) -> Result<LayerId, Cause> {
        let Came { wanted, blob, archive } = came;
        let mut unpacked = archive.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        // Folders that the archive only implies look as the base has them: with such, it is a layer of that base.
        let plain = Codec(format!("{PULLED}{}", wanted.descriptor.digest));
        let over_base =
            Codec(format!("{PULLED}{} over {}", wanted.descriptor.digest, self.content_of(below)?));
        if let Some(known) = self.store.layer_by_blob(&self.lease, &wanted.descriptor.blob())? {
            let codecs = [&plain, &over_base];
            // With another diff id it is not what this image says, whatever another one said of the same blob.
            let fits = self
                .store
                .layer_blobs(&self.lease, &known)?
                .iter()
                .any(|(codec, form)| codecs.contains(&codec) && form.diff_id == wanted.diff_id);
            if fits && self.store.layer_folder(&self.lease, &known)?.is_some() {
                return Ok(known);
            }
        }
        let Unpacked { folder, options, mut applied } = match unpacked.take() {
            Some(unpacked) if unpacked.applied.diff_id == wanted.diff_id => unpacked,
            _ => self.unpack(Stoppable { stream: open(&blob)?, cancel: over }, &wanted)?,
        };
        let lower = self.stack(below)?;
        applied.settle(&folder, &options, &|path| lower.lookup(path).map(|(_, node)| node.clone()))?;
        let id = self.store.commit_layer(&self.lease, &applied.layer, Some(&folder), None)?;
        let form = LayerBlob {
            diff_id: wanted.diff_id,
            blob: wanted.descriptor.blob(),
            size_bytes: blob.size_bytes,
            diff_size_bytes: applied.diff_size_bytes,
            media_type: wanted.descriptor.media_type.clone(),
            annotations: index_annotations(&wanted.descriptor.annotations),
        };
        let codec = if applied.implied.is_empty() { plain } else { over_base };
        self.store.add_layer_blob(&self.lease, &id, &codec, &form)?;
        Ok(id)
    }
}

impl Came {
    fn of(wanted: Wanted, blob: BlobFile, archive: Arc<Archive>, unpacked: Option<Unpacked>) -> Came {
        if unpacked.is_some() {
            *archive.unpacked.lock().unwrap_or_else(PoisonError::into_inner) = unpacked;
        }
        Came { wanted, blob, archive }
    }
}

fn open(blob: &BlobFile) -> Result<File, Cause> {
    File::open(&blob.path).map_err(Cause::io("open", &blob.path))
}

async fn joined(task: JoinHandle<Result<Unpacked, Cause>>) -> Result<Unpacked, Cause> {
    task.await.map_err(|error| Cause::Task(error.to_string()))?
}
