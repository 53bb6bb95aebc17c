//! A layer's blob, from where it is to the state folder.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
};

use image::{
    blobs::{Blob, BlobError, BlobSource},
    layout::{Layout, LayoutError},
};
use oci::{Descriptor, Digest, Reference};
use store::{BlobFile, Download, Partial};

use super::{
    Place,
    turns::Turn,
    unpack::{Came, Wanted},
};
use crate::{
    cancel::Cancel,
    effect::Effects,
    error::{Cause, PinError},
    progress::{Event, Status},
};

/// After how many bytes progress is told again.
const TOLD_BYTES: u64 = 256 << 10;

impl Effects {
    /// A layer's blob, and what can be made of it without those below.
    pub(super) async fn layer_comes(
        self: &Arc<Self>,
        place: &Place,
        wanted: Wanted,
        over: &Cancel,
    ) -> Result<Came, Cause> {
        let (digest, vertex) = (wanted.descriptor.digest, wanted.vertex);
        let archive = self.turns.archive(digest);
        let mine = archive.clone();
        let registry = match place {
            Place::Registry(from) => Some(from.registry.as_str()),
            Place::Store | Place::Held(_) | Place::Layout(_) => None,
        };
        let begin = async { (mine.coming.lock().await, self.turns.layer(registry).await) };
        let _begun = tokio::select! {
            begun = begin => begun,
            () = over.wait() => return Err(Cause::Cancelled),
        };
        let blob = match place {
            Place::Registry(from) => {
                match self.begin_download(from, &wanted.descriptor, vertex, over).await? {
                    Download::Here(blob) => blob,
                    Download::Missing(partial) => {
                        return self.unpack_coming(from, partial, wanted, archive, over).await;
                    }
                }
            }
            Place::Store => {
                let found = self.clone().blocking(move |effects| {
                    let blob = effects.store.blob(&effects.lease, &digest)?;
                    blob.ok_or_else(|| Cause::LayerLost { layer: digest.to_string() })
                });
                found.await?
            }
            Place::Held(of) => {
                let (what, name) = (format!("the layer {digest} of `{of}`"), of.familiar());
                let found = self.clone().blocking(move |effects| {
                    let blob = effects.store.blob(&effects.lease, &digest)?;
                    Ok(blob.ok_or(PinError::NotHere { what, name })?)
                });
                found.await?
            }
            Place::Layout(path) => {
                let (path, descriptor) = (path.clone(), wanted.descriptor.clone());
                self.clone().blocking(move |effects| effects.copy_blob(&path, &descriptor)).await?
            }
        };
        is_size(blob.size_bytes, &wanted.descriptor)?;
        self.unpack_here(blob, wanted, archive, over).await
    }

    /// A blob of a registry, not unpacked.
    pub(crate) async fn download(
        self: &Arc<Self>,
        from: &Reference,
        descriptor: &Descriptor,
        vertex: Digest,
        cancel: &Cancel,
    ) -> Result<BlobFile, Cause> {
        let _turn = tokio::select! {
            turn = self.turns.layer(Some(&from.registry)) => turn,
            () = cancel.wait() => return Err(Cause::Cancelled),
        };
        match self.begin_download(from, descriptor, vertex, cancel).await? {
            Download::Here(blob) => is_size(blob.size_bytes, descriptor).map(|()| blob),
            Download::Missing(partial) => {
                let turn = self.turn_to_fetch(from, cancel).await?;
                Ok(self.fetch_rest(from, descriptor, vertex, partial, turn, cancel).await?.0)
            }
        }
    }

    /// Whether a blob is here; else what an earlier run left of it. Waits while another process downloads it.
    async fn begin_download(
        self: &Arc<Self>,
        from: &Reference,
        descriptor: &Descriptor,
        vertex: Digest,
        cancel: &Cancel,
    ) -> Result<Download, Cause> {
        let (digest, stop) = (descriptor.digest, cancel.clone());
        let begun = self.clone().blocking(move |effects| {
            let found = effects.store.download(&effects.lease, &digest, &mut |waiting| {
                if waiting.attempts == 1 {
                    let holder = waiting.holder.map_or(String::new(), |pid| format!(" (process {pid})"));
                    effects.say(vertex, &format!("{digest}: waiting for another download of it{holder}\n"));
                }
                if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            found.ok_or(Cause::Cancelled)
        });
        // Told now: a push to another repository of that registry takes it from there.
        self.store.add_repository(&self.lease, &from.registry, &from.repository, &digest)?;
        begun.await
    }

    /// Waits until a further blob may be fetched.
    pub(super) async fn turn_to_fetch(&self, from: &Reference, over: &Cancel) -> Result<Turn, Cause> {
        over.unless(async { Ok(self.turns.download(&from.registry).await) }).await
    }

    /// Fetches what is missing of a blob, and makes it one of the state folder.
    ///
    /// What an earlier run left may be wrong, after a power cut for instance, or what a mirror sent: then all of it is
    /// fetched again, from elsewhere. Whether that was so.
    pub(super) async fn fetch_rest(
        self: &Arc<Self>,
        from: &Reference,
        descriptor: &Descriptor,
        vertex: Digest,
        mut partial: Partial,
        _turn: Turn,
        over: &Cancel,
    ) -> Result<(BlobFile, bool), Cause> {
        let digest = descriptor.digest;
        let mut anew = partial.size_bytes() > descriptor.size;
        if anew {
            partial.restart()?;
        }
        loop {
            let earlier = partial.size_bytes();
            if earlier > 0 {
                self.say(vertex, &format!("{digest}: continued at byte {earlier}\n"));
            }
            let blob = self.registry.blob(from, descriptor)?.behind(earlier);
            let blob = tokio::select! {
                fetched = self.fetch_into(&mut partial, blob, descriptor, vertex) => fetched?,
                () = over.wait() => return Err(Cause::Cancelled),
            };
            if earlier > 0 && partial.digest_of_bytes() != digest {
                self.say(vertex, &format!("{digest}: what an earlier run left is wrong; from the start\n"));
                partial.restart()?;
                anew = true;
                continue;
            }
            let found = partial.digest_of_bytes();
            if found != digest && blob.pass_over_mirrors(found) {
                partial.restart()?;
                anew = true;
                continue;
            }
            let committed = self.clone().blocking(move |_| Ok(partial.commit())).await?;
            return match committed {
                Ok(committed) => Ok((committed, anew)),
                // The registry's error says which host sent them.
                Err(store::Error::DigestMismatch { actual, .. }) => Err(blob.wrong(actual).into()),
                Err(other) => Err(other.into()),
            };
        }
    }

    async fn fetch_into(
        &self,
        partial: &mut Partial,
        mut blob: registry::Blob,
        descriptor: &Descriptor,
        vertex: Digest,
    ) -> Result<registry::Blob, Cause> {
        let started = self.clock.now();
        let tell = |current: u64, done: bool| {
            self.sink.event(Event::Status(Status {
                vertex,
                id: descriptor.digest.to_string(),
                current,
                total: descriptor.size,
                started,
                completed: done.then(|| self.clock.now()),
            }));
        };
        let mut told = blob.received();
        tell(told, false);
        while let Some(bytes) = blob.chunk().await? {
            partial.write_all(&bytes).map_err(Cause::io("write", descriptor.digest.to_string()))?;
            if blob.received() - told > TOLD_BYTES {
                told = blob.received();
                tell(told, false);
            }
        }
        tell(blob.received(), true);
        Ok(blob)
    }

    fn copy_blob(&self, layout: &Path, descriptor: &Descriptor) -> Result<BlobFile, Cause> {
        if let Some(blob) = self.store.blob(&self.lease, &descriptor.digest)? {
            return Ok(blob);
        }
        let layout = Layout::open(layout)?;
        let name = descriptor.digest.to_string();
        let from = layout.open_blob(&descriptor.digest).map_err(Cause::io("read", &name))?;
        let mut writer = self.store.blob_writer(&self.lease)?;
        // One byte more than there are said to be, so that more of them are seen.
        let most = descriptor.size.saturating_add(1);
        io::copy(&mut self.store.watched(from.reader.take(most)), &mut writer)
            .map_err(Cause::io("copy", &name))?;
        is_size(writer.size_bytes(), descriptor)?;
        Ok(writer.commit(Some(&descriptor.digest))?)
    }
}

/// Refuses a blob that is not as long as an image says, also where it was here before: it would be refused where it has
/// to come.
fn is_size(found: u64, descriptor: &Descriptor) -> Result<(), Cause> {
    let (digest, expected) = (descriptor.digest, descriptor.size);
    match found == expected {
        true => Ok(()),
        false => Err(LayoutError::from(BlobError::Size { digest, expected, found }).into()),
    }
}

/// Blobs of an OCI layout, by one name whatever [`BlobSource`] calls it.
trait OpenBlob {
    fn open_blob(&self, digest: &Digest) -> io::Result<Blob>;
}

impl OpenBlob for Layout {
    fn open_blob(&self, digest: &Digest) -> io::Result<Blob> {
        BlobSource::open(self, digest)
    }
}
