//! An image with all that hangs on it, gathered before any of it goes anywhere.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use oci::{Descriptor, Digest, Index, Platform};
use registry::{Document, Parsed};

use super::{origin::Origin, transfer::TransferError};
use crate::{error::Cause, push::AT_ONCE};

/// How deep indexes may be nested.
const NESTING: u32 = 4;

/// How many manifests and indexes an image may have.
const DOCUMENTS: usize = 10_000;

/// How many bytes all manifests of an image may have.
pub(crate) const DOCUMENT_BYTES: u64 = 64 << 20;

/// Where an attestation in an index says what it is about.
const ATTESTS: &str = "vnd.docker.reference.digest";

/// What it is.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// A document that is to be somewhere, and the blobs that must be there before it.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
    pub(crate) blobs: Vec<Descriptor>,
    pub(crate) origin: Arc<Origin>,
}

/// Documents, each once and behind all that it names: the last is the image.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    done: BTreeSet<Digest>,
    size_bytes: u64,
}

impl Tree {
    /// Adds a document and all that it names.
    pub(crate) async fn add(&mut self, origin: &Arc<Origin>, document: Document) -> Result<(), Cause> {
        self.walk(origin, document, NESTING).await
    }

    /// Adds what a descriptor of an index names.
    pub(crate) async fn add_named(&mut self, origin: &Arc<Origin>, of: &Descriptor) -> Result<(), Cause> {
        if self.done.contains(&of.digest) {
            return Ok(());
        }
        let document = origin.document(of).await?;
        self.walk(origin, document, NESTING - 1).await
    }

    async fn walk(&mut self, origin: &Arc<Origin>, document: Document, nesting: u32) -> Result<(), Cause> {
        let digest = document.descriptor.digest;
        if self.done.contains(&digest) {
            return Ok(());
        }
        let too_large = |limit| TransferError::TooLarge { name: origin.name.clone(), limit };
        self.size_bytes += document.bytes.len() as u64;
        if self.nodes.len() >= DOCUMENTS {
            return Err(too_large(format!("{DOCUMENTS} manifests")).into());
        }
        if self.size_bytes > DOCUMENT_BYTES {
            return Err(too_large(format!("{} MiB of manifests", DOCUMENT_BYTES >> 20)).into());
        }
        let blobs = match &document.parsed {
            Parsed::Manifest(manifest) => manifest.layers.iter().chain([&manifest.config]).cloned().collect(),
            Parsed::Index(index) => {
                let nesting = nesting
                    .checked_sub(1)
                    .ok_or_else(|| too_large(format!("{NESTING} indexes in one another")))?;
                self.children(origin, index, nesting).await?
            }
        };
        self.push(Node {
            descriptor: document.descriptor,
            bytes: document.bytes,
            blobs,
            origin: origin.clone(),
        });
        Ok(())
    }

    /// Adds the manifests of an index; what it names that is none, a cache's layers for instance, is returned.
    async fn children(
        &mut self,
        origin: &Arc<Origin>,
        index: &Index,
        nesting: u32,
    ) -> Result<Vec<Descriptor>, Cause> {
        let (documents, blobs): (Vec<_>, Vec<_>) =
            index.manifests.iter().partition(|one| one.media_type.is_manifest() || one.media_type.is_index());
        let new: Vec<&Descriptor> =
            documents.iter().copied().filter(|one| !self.done.contains(&one.digest)).collect();
        let mut fetched = stream::iter(new.into_iter().map(|one| origin.document(one))).buffered(AT_ONCE);
        while let Some(child) = fetched.try_next().await? {
            Box::pin(self.walk(origin, child, nesting)).await?;
        }
        Ok(blobs.into_iter().cloned().collect())
    }

    /// Adds a document whose parts are there already.
    pub(crate) fn push(&mut self, node: Node) {
        if self.done.insert(node.descriptor.digest) {
            self.nodes.push(node);
        }
    }

    /// How many bytes the documents have that were added, in all.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The document that all others are for.
    pub(crate) fn top(&self) -> Option<&Node> {
        self.nodes.last()
    }
}

/// What an attestation of BuildKit's in an index is about; `None` where the descriptor is none of one.
pub fn attests(descriptor: &Descriptor) -> Option<Digest> {
    let kind = descriptor.annotations.get(REFERENCE_TYPE)?;
    (kind == "attestation-manifest").then(|| descriptor.annotations.get(ATTESTS)?.parse().ok())?
}

/// The manifests of an index that are for these platforms, and what attests them, in the index's order.
pub(crate) fn for_platforms(
    name: &str,
    manifests: &[Descriptor],
    platforms: &[Platform],
) -> Result<Vec<Descriptor>, Cause> {
    let mut kept = BTreeSet::new();
    for wanted in platforms {
        let distance = |one: &Descriptor| {
            let own = one.platform.as_ref()?;
            // An image for a narrower processor is another image.
            let same = Platform::new(&own.os, &own.architecture, None).architecture == wanted.architecture;
            own.distance(wanted).filter(|_| same)
        };
        let least = manifests.iter().filter_map(distance).min();
        let least = least.ok_or_else(|| TransferError::Platform {
            name: name.to_owned(),
            wanted: Box::new(wanted.clone()),
            available: images(manifests),
        })?;
        kept.extend(manifests.iter().filter(|one| distance(one) == Some(least)).map(|one| one.digest));
    }
    let of_kept =
        |one: &&Descriptor| kept.contains(&one.digest) || attests(one).is_some_and(|of| kept.contains(&of));
    Ok(manifests.iter().filter(of_kept).cloned().collect())
}

/// The platforms that an index has images for.
fn images(manifests: &[Descriptor]) -> Vec<Platform> {
    let images = manifests.iter().filter(|one| attests(one).is_none());
    images.filter_map(|one| one.platform.clone()).collect()
}

#[cfg(test)]
mod tests {
    use oci::MediaType;

    use super::*;

    fn manifest(platform: &str) -> Descriptor {
        let mut one = Descriptor::of(MediaType::manifest(), platform.as_bytes());
        one.platform = Some(platform.parse().expect("a platform"));
        one
    }

    fn attestation(of: &Descriptor) -> Descriptor {
        let mut one = manifest("unknown/unknown");
        one.digest = Digest::of(of.digest.to_string().as_bytes());
        one.annotations.insert(REFERENCE_TYPE.into(), "attestation-manifest".into());
        one.annotations.insert(ATTESTS.into(), of.digest.to_string());
        one
    }

    #[test]
    fn platforms_are_taken_with_what_attests_them() {
        let (amd64, arm64, v6) = (manifest("linux/amd64"), manifest("linux/arm64"), manifest("linux/arm/v6"));
        let (of_amd64, of_arm64) = (attestation(&amd64), attestation(&arm64));
        let all = [amd64, arm64, v6, of_amd64, of_arm64];
        for (wanted, expected) in [
            (vec!["linux/amd64"], vec![0, 3]),
            (vec!["linux/arm64", "linux/amd64"], vec![0, 1, 3, 4]),
            // The nearest that it can run; but an image of another architecture is another image.
            (vec!["linux/arm/v7"], vec![2]),
        ] {
            let platforms: Vec<Platform> =
                wanted.iter().map(|text| text.parse().expect("a platform")).collect();
            let kept = for_platforms("x", &all, &platforms).expect("all are there");
            assert_eq!(
                kept,
                expected.iter().map(|at: &usize| all[*at].clone()).collect::<Vec<_>>(),
                "{wanted:?}"
            );
        }
        let none = for_platforms("x", &all[..2], &["linux/386".parse().expect("a platform")]);
        assert_eq!(
            none.expect_err("not there").to_string(),
            "x has no linux/386; it has linux/amd64, linux/arm64"
        );
    }

    #[test]
    fn an_attestation_says_what_it_is_about() {
        let image = manifest("linux/amd64");
        let mut about = attestation(&image);
        assert_eq!((attests(&image), attests(&about)), (None, Some(image.digest)));
        about.annotations.insert(ATTESTS.into(), "sha256:none".into());
        assert_eq!(attests(&about), None);
    }
}
