//! Images on their way to registries: blobs first, several at once, then the documents that name them, and last the names.

mod blobs;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use oci::{Descriptor, Digest, MediaType, Reference};
use registry::{Content, FileContent};

use crate::{build::internal::Internal, cancel::Cancel, effect::Effects, error::Cause};

use self::blobs::BlobPush;

/// How many blobs of a repository are sent at once.
const AT_ONCE: usize = 4;

/// An image, or an index with its images, as it is to be in a registry.
pub(crate) struct Sendable {
    /// All blobs that are no manifests, each once.
    pub(crate) blobs: Vec<Descriptor>,
    /// The manifests that the top names, then the top itself.
    pub(crate) documents: Vec<(MediaType, Vec<u8>)>,
    /// Bytes of blobs that were just made; the others are in the state folder.
    pub(crate) made: BTreeMap<Digest, Vec<u8>>,
}

/// Where an image goes.
#[derive(Clone, Debug)]
pub(crate) struct Targets<'a> {
    pub(crate) names: &'a [Reference],
    /// Whether the names' tags are left alone: the image is there by its digest only.
    pub(crate) by_digest: bool,
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Blobs that were sent, and the bytes that went out for them, those included that had to be sent twice.
    pub(crate) sent: usize,
    pub(crate) sent_bytes: u64,
    /// Blobs that were there.
    pub(crate) present: usize,
    /// Blobs that the registry took from another repository.
    pub(crate) mounted: usize,
}

impl Effects {
    /// Sends an image to all its targets. Blocks; runs where it may.
    ///
    /// # Errors
    /// What a registry did. Targets before it have the image; a name is given only when all that it needs is there.
    pub(crate) fn push(
        self: &Arc<Self>,
        image: &Sendable,
        targets: &Targets<'_>,
        cancel: &Cancel,
    ) -> Result<(), Cause> {
        let mut repositories: BTreeMap<(&str, &str), Vec<&Reference>> = BTreeMap::new();
        for name in targets.names {
            repositories.entry((&name.registry, &name.repository)).or_default().push(name);
        }
        for ((registry, repository), names) in repositories {
            let shown = Internal::start(self, &format!("pushing to {registry}/{repository}"));
            let pushed = tokio::runtime::Handle::current().block_on(async {
                tokio::select! {
                    pushed = self.push_to(image, &names, targets.by_digest, &shown) => pushed,
                    () = cancel.wait() => Err(Cause::Cancelled),
                }
            });
            if let Ok(moved) = &pushed {
                self.say(shown.digest(), &format!("{moved}\n"));
            }
            shown.end(pushed.as_ref().err());
            pushed?;
        }
        Ok(())
    }

    async fn push_to(
        self: &Arc<Self>,
        image: &Sendable,
        names: &[&Reference],
        by_digest: bool,
        shown: &Internal<'_>,
    ) -> Result<Moved, Cause> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        let Some(to) = names.first() else { return Ok(Moved::default()) };
        let push = |blob: &Descriptor| {
            let content = self.content_of_blob(image, blob);
            let (effects, to, blob) = (self.clone(), (*to).clone(), blob.clone());
            async move {
                BlobPush { effects: &effects, vertex: shown.digest(), to: &to, blob: &blob }
                    .run(&*content?)
                    .await
            }
        };
        let sent = stream::iter(image.blobs.iter().map(push)).buffer_unordered(AT_ONCE);
        let moved = sent.try_fold(Moved::default(), |all, one| async move { Ok(all.and(one)) }).await?;
        let last = image.documents.len().saturating_sub(1);
        for (at, (media_type, bytes)) in image.documents.iter().enumerate() {
            let by =
                |name: &Reference| Reference { tag: None, digest: Some(Digest::of(bytes)), ..name.clone() };
            if at < last || by_digest {
                self.registry.push_document(&by(to), media_type, bytes).await?;
                continue;
            }
            for name in names {
                let name = Reference { digest: None, ..(*name).clone() };
                self.registry.push_document(&name, media_type, bytes).await?;
            }
        }
        Ok(moved)
    }

    fn content_of_blob(&self, image: &Sendable, blob: &Descriptor) -> Result<Box<dyn Content>, Cause> {
        if let Some(bytes) = image.made.get(&blob.digest) {
            return Ok(Box::new(Bytes::from(bytes.clone())));
        }
        let file = self.store.blob(&self.lease, &blob.digest)?;
        let file = file.ok_or_else(|| Cause::LayerLost { layer: blob.digest.to_string() })?;
        Ok(Box::new(FileContent::new(&file.path)))
    }
}

impl Moved {
    fn and(self, other: Moved) -> Moved {
        Moved {
            sent: self.sent + other.sent,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            present: self.present + other.present,
            mounted: self.mounted + other.mounted,
        }
    }
}

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Moved { sent, sent_bytes, present, mounted } = self;
        write!(f, "{sent} blobs sent ({sent_bytes} bytes), {present} were there, {mounted} mounted")
    }
}
