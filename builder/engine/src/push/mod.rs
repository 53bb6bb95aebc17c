//! Images on their way to registries: blobs first, several at once, then the documents that name them, and last the names.

pub(crate) mod blobs;
mod naming;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use oci::{Descriptor, Digest, Index, Manifest, MediaType, Platform, Reference};
use registry::FileContent;
use store::TaggedBy;

use crate::{build::internal::Internal, cancel::Cancel, effect::Effects, error::Cause};

use self::blobs::BlobPush;
pub(crate) use self::naming::Naming;

/// How many blobs of a repository are sent at once, and how many questions asked.
pub(crate) const AT_ONCE: usize = 4;

/// An image, or an index with its images, as it is to be in a registry.
pub(crate) struct Sendable {
    /// All blobs that are no manifests, each once.
    pub(crate) blobs: Vec<Descriptor>,
    /// The manifests that the top names, then the top itself.
    pub(crate) documents: Vec<(MediaType, Vec<u8>)>,
}

impl Sendable {
    /// An image of the state folder.
    ///
    /// # Errors
    /// A manifest of it is not there: of a pulled index, only some platforms may be.
    pub(crate) fn of(effects: &Effects, top: &Descriptor) -> Result<Sendable, Cause> {
        let mut image = Sendable { blobs: Vec::new(), documents: Vec::new() };
        let read = |digest: &Digest| effects.store.blob_bytes(&effects.lease, digest);
        let bytes = read(&top.digest)?;
        let mut seen = BTreeSet::new();
        if !top.media_type.is_index() {
            image.add(&mut seen, top.media_type.clone(), bytes)?;
            return Ok(image);
        }
        for child in &Index::parse(&bytes)?.manifests {
            let missing = |_| Cause::NoImage {
                name: child.platform.as_ref().map_or_else(|| child.digest.to_string(), Platform::to_string),
                place: "the local store's part of this image".to_owned(),
            };
            image.add(&mut seen, child.media_type.clone(), read(&child.digest).map_err(missing)?)?;
        }
        image.documents.push((top.media_type.clone(), bytes));
        Ok(image)
    }

    fn add(
        &mut self,
        seen: &mut BTreeSet<Digest>,
        media_type: MediaType,
        bytes: Vec<u8>,
    ) -> Result<(), Cause> {
        let manifest = Manifest::parse(&bytes)?;
        // What a registry refuses to take is had from where its descriptor says.
        let elsewhere =
            |layer: &&Descriptor| layer.media_type.is_foreign() && layer.extra.contains_key("urls");
        let blobs = manifest.layers.iter().filter(|layer| !elsewhere(layer)).chain([&manifest.config]);
        self.blobs.extend(blobs.filter(|blob| seen.insert(blob.digest)).cloned());
        self.documents.push((media_type, bytes));
        Ok(())
    }
}

/// Where an image goes.
#[derive(Clone, Debug)]
pub(crate) struct Targets<'a> {
    pub(crate) names: &'a [Reference],
    /// Whether the names' tags are left alone: the image is there by its digest only.
    pub(crate) by_digest: bool,
    /// Whether the registries may speak plain HTTP, or have a certificate that nobody knows.
    pub(crate) insecure: bool,
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

pub(crate) fn repositories(names: &[Reference]) -> BTreeMap<(&str, &str), Vec<&Reference>> {
    let mut repositories: BTreeMap<_, Vec<&Reference>> = BTreeMap::new();
    for name in names {
        repositories.entry((name.registry.as_str(), name.repository.as_str())).or_default().push(name);
    }
    repositories
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
        let registry_client = match targets.insecure {
            true => self.registry.insecure(targets.names.iter().map(|name| name.registry.as_str())),
            false => self.registry.clone(),
        };
        for ((registry, repository), names) in repositories(targets.names) {
            let shown = Internal::start(self, &format!("pushing to {registry}/{repository}"));
            let pushing = self.push_to(&registry_client, image, &names, targets.by_digest, &shown);
            let pushed = tokio::runtime::Handle::current().block_on(cancel.unless(pushing));
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
        registry: &registry::Client,
        image: &Sendable,
        names: &[&Reference],
        by_digest: bool,
        shown: &Internal<'_>,
    ) -> Result<Moved, Cause> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        let Some(to) = names.first() else { return Ok(Moved::default()) };
        let push = |blob: &Descriptor| {
            let content = self.content_of_blob(blob);
            let (effects, to, blob) = (self.clone(), (*to).clone(), blob.clone());
            async move {
                BlobPush {
                    effects: &effects,
                    registry,
                    vertex: shown.digest(),
                    to: &to,
                    blob: &blob,
                    mount_first: None,
                }
                .run(&content?)
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
                registry.push_document(&by(to), media_type, bytes).await?;
                continue;
            }
            let naming = Naming { registry, store: &self.store, clock: &self.clock };
            for name in names {
                if name.tag.is_none() {
                    registry.push_document(&by(name), media_type, bytes).await?;
                    continue;
                }
                let name = Reference { digest: None, ..(*name).clone() };
                let before = naming.before(&name).await;
                naming.give(&name, before, media_type, bytes, TaggedBy::Push).await?;
            }
        }
        Ok(moved)
    }

    fn content_of_blob(&self, blob: &Descriptor) -> Result<FileContent, Cause> {
        let file = self.store.blob(&self.lease, &blob.digest)?;
        let file = file.ok_or_else(|| Cause::LayerLost { layer: blob.digest.to_string() })?;
        Ok(FileContent::new(&file.path))
    }
}

impl Moved {
    pub(crate) fn and(self, other: Moved) -> Moved {
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
