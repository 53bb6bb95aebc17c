//! What lowering needs to know of the world: which manifest a name names, and what its config says.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use dockerfile::{Answer, Fact, ImageFact, LayoutVersion};
use image::{
    blobs::{BlobSource, MAX_DOCUMENT},
    layout::{Layout, Wanted},
};
use oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference};

use crate::{
    build::{context::Make, internal::Internal, time},
    effect::{
        Effects,
        pull::{KnownImage, Place},
    },
    error::{Cause, Error},
};

/// Answers a fact.
pub(crate) async fn answer(
    make: &Make<'_>,
    fact: Fact,
    layouts: Arc<BTreeMap<String, PathBuf>>,
    always_ask: bool,
) -> Result<Answer, Error> {
    let effects = make.effects.clone();
    let image = match fact {
        Fact::Time(source) => return Ok(Answer::Time(time::of(make, &source).await?)),
        Fact::Image { reference, platform } => {
            let shown = Internal::start(&effects, &format!("[internal] load metadata for {reference}"));
            let found = image(&effects, &reference, &platform, always_ask).await;
            shown.end(found.as_ref().err());
            found?
        }
        Fact::OciLayout { store, version, platform } => {
            let path = layouts.get(&store).cloned().ok_or_else(|| Cause::NoImage {
                name: version.to_string(),
                place: format!("the OCI layout {store}"),
            })?;
            effects.blocking(move |effects| layout(effects, &path, &version, &platform)).await?
        }
    };
    Ok(Answer::Image(image))
}

async fn image(
    effects: &Arc<Effects>,
    reference: &Reference,
    platform: &Platform,
    always_ask: bool,
) -> Result<ImageFact, Cause> {
    let mut other = None;
    if !always_ask {
        let (name, wanted) = (reference.clone(), platform.clone());
        let local = effects.clone().blocking(move |effects| local(effects, &name, &wanted));
        other = match local.await {
            Ok(None) => None,
            Ok(Some(found)) if fits(&found.config, platform) => return Ok(found),
            Ok(Some(found)) => Some(Ok(found)),
            Err(cause @ Cause::NoPlatform { .. }) => Some(Err(cause)),
            Err(cause) => return Err(cause),
        };
    }
    let held = HeldDocuments(effects.clone());
    let resolved = match (effects.registry.resolve(reference, platform, Some(&held)).await, other) {
        (Ok(resolved), _) => resolved,
        // What is here is for another platform, and better than nothing: a check warns of it.
        (Err(_), Some(other)) => return other,
        (Err(error), None) => return Err(error.into()),
    };
    if let Some(index) = &resolved.index {
        effects.store.add_blob(&effects.lease, &index.bytes)?;
    }
    effects.store.add_blob(&effects.lease, &resolved.manifest_bytes)?;
    effects.store.add_blob(&effects.lease, &resolved.config_bytes)?;
    let place = Place::Registry(reference.clone());
    Ok(known(effects, resolved.descriptor.digest, resolved.manifest, resolved.config, place))
}

/// Whether an image is for a platform, as far as its config says.
fn fits(config: &ImageConfig, wanted: &Platform) -> bool {
    config.architecture.is_empty() || config.platform().distance(wanted).is_some()
}

/// An image of the local store.
fn local(effects: &Effects, reference: &Reference, platform: &Platform) -> Result<Option<ImageFact>, Cause> {
    let Some(row) = effects.store.image(&effects.lease, reference)? else { return Ok(None) };
    let read = |digest: &Digest| Ok(effects.store.blob_bytes(&effects.lease, digest)?);
    let (digest, manifest, config) =
        documents(&row.descriptor, platform, &reference.to_string(), "the local store", &read)?;
    Ok(Some(known(effects, digest, manifest, config, Place::Store)))
}

/// An image of an OCI layout.
fn layout(
    effects: &Effects,
    path: &Path,
    version: &LayoutVersion,
    platform: &Platform,
) -> Result<ImageFact, Cause> {
    let layout = Layout::open(path)?;
    let wanted = match version {
        LayoutVersion::Tag(tag) => Wanted::Name(tag.clone()),
        LayoutVersion::Digest(digest) => Wanted::Digest(*digest),
    };
    let top = match layout.select(&wanted) {
        // A layout of one image needs no name, when none was asked for.
        Err(_) if *version == LayoutVersion::Tag("latest".to_owned()) => layout.select(&Wanted::Only)?,
        found => found?,
    };
    let read = |digest: &Digest| {
        let mut bytes = Vec::new();
        let named = || path.join("blobs/sha256").join(digest.hex());
        let blob = BlobSource::open(&layout, digest).map_err(Cause::io("read", named()))?;
        blob.reader.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(Cause::io("read", named()))?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            let size_bytes = bytes.len() as u64;
            return Err(store::Error::DigestMismatch { expected: *digest, actual, size_bytes }.into());
        }
        effects.store.add_blob(&effects.lease, &bytes)?;
        Ok(bytes)
    };
    let place = path.display().to_string();
    let (digest, manifest, config) = documents(&top, platform, &version.to_string(), &place, &read)?;
    Ok(known(effects, digest, manifest, config, Place::Layout(path.to_owned())))
}

/// From a manifest or an index to the manifest of a platform and its config.
fn documents(
    top: &Descriptor,
    platform: &Platform,
    name: &str,
    place: &str,
    read: &dyn Fn(&Digest) -> Result<Vec<u8>, Cause>,
) -> Result<(Digest, Manifest, ImageConfig), Cause> {
    let mut digest = top.digest;
    let mut bytes = read(&digest)?;
    if top.media_type.is_index() {
        let index = Index::parse(&bytes)?;
        let only = index.manifests.first().filter(|_| index.manifests.len() == 1);
        let chosen = index.select(platform).or(only);
        let missing = || Cause::NoPlatform {
            name: name.trim_start_matches(':').to_owned(),
            place: place.to_owned(),
            wanted: Box::new(platform.clone()),
            available: index
                .manifests
                .iter()
                .filter_map(|one| one.platform.clone())
                .filter(is_image)
                .collect(),
        };
        digest = chosen.ok_or_else(missing)?.digest;
        bytes = read(&digest)?;
    }
    let manifest = Manifest::parse(&bytes)?;
    let config = ImageConfig::parse(&read(&manifest.config.digest)?)?;
    Ok((digest, manifest, config))
}

/// Attestations stand in an index as images for an unknown platform.
fn is_image(platform: &Platform) -> bool {
    platform.os != "unknown"
}

fn known(
    effects: &Effects,
    digest: Digest,
    manifest: Manifest,
    config: ImageConfig,
    place: Place,
) -> ImageFact {
    let (config, layers) = (Arc::new(config), manifest.layers.len());
    effects.images.add(digest, KnownImage { manifest, config: config.clone(), place });
    ImageFact { manifest: digest, config, layers }
}

/// Documents that earlier builds have read.
struct HeldDocuments(Arc<Effects>);

impl registry::Held for HeldDocuments {
    fn document(&self, digest: Digest) -> Option<Vec<u8>> {
        // What cannot be read here is asked for there.
        self.0.store.blob_bytes(&self.0.lease, &digest).ok()
    }
}
