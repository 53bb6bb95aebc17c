//! What lowering needs to know of the world: which manifest a name names, and what its config says.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use dockerfile::{Answer, Fact, ImageFact, LayoutVersion};
use image::{
    blobs::{BlobError, MAX_DEPTH, check_type, read_document},
    layout::{Layout, LayoutError, Wanted},
};
use oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference};

use crate::{
    build::{
        context::Make,
        internal::Internal,
        pin,
        sources::{Named, Origin, Pinned},
        time,
    },
    effect::{
        Effects,
        pull::{KnownImage, Place},
    },
    error::{Cause, Error},
    local::container_image,
    memo::Recorder,
    request::Asking,
};

/// Answers a fact.
pub(crate) async fn answer(
    make: &Make<'_>,
    fact: Fact,
    layouts: Arc<BTreeMap<String, PathBuf>>,
    asking: Asking,
) -> Result<Answer, Error> {
    let effects = make.effects.clone();
    if !matches!(fact, Fact::Image { .. }) {
        effects.record(Recorder::asked_elsewhere);
    }
    let pinned = match fact {
        Fact::Time(source) => return Ok(Answer::Time(time::of(make, &source).await?)),
        Fact::Image { reference, platform } => {
            let shown = Internal::start(&effects, &loading(&reference));
            let started = effects.clock.now();
            let note = |line: &str| effects.say(shown.digest(), &format!("{line}\n"));
            let found = pin::image(&effects, &reference, &platform, asking, &note).await;
            if let Ok(pinned) = &found {
                let pin = Reference { digest: Some(pinned.top), ..reference.clone() };
                shown.did(&format!("resolve {pin}"), started);
                effects.sources.add(&Named::Image(&reference), &platform, pinned);
                effects.record(|recorder| recorder.answered(&reference, &platform, pinned));
            }
            shown.end(found.as_ref().err());
            found?
        }
        Fact::OciLayout { store, version, platform } => {
            let path = layouts.get(&store).cloned().ok_or_else(|| Cause::NoImage {
                name: version.to_string(),
                place: format!("the OCI layout {store}"),
            })?;
            effects
                .blocking(move |effects| {
                    let pinned = layout(effects, &path, &version, &platform)?;
                    let named = Named::Layout { store: &store, version: &version };
                    effects.sources.add(&named, &platform, &pinned);
                    Ok(pinned)
                })
                .await?
        }
    };
    Ok(Answer::Image(pinned.fact))
}

/// What progress calls the question for an image.
pub(crate) fn loading(reference: &Reference) -> String {
    format!("[internal] load metadata for {reference}")
}

/// An image of the local store.
pub(crate) fn local(
    effects: &Effects,
    reference: &Reference,
    platform: &Platform,
) -> Result<Option<Pinned>, Cause> {
    let Some(row) = effects.store.image(&effects.lease, reference)? else { return Ok(None) };
    let read = |wanted: &Descriptor| Ok(effects.store.blob_bytes(&effects.lease, &wanted.digest)?);
    let (digest, manifest, config) =
        documents(&row.descriptor, platform, &reference.to_string(), "the local store", &read)?;
    let fact = known(effects, digest, manifest, config, Place::Store);
    Ok(Some(Pinned { fact, top: row.descriptor.digest, origin: Origin::LocalStore }))
}

/// An image of an OCI layout.
fn layout(
    effects: &Effects,
    path: &Path,
    version: &LayoutVersion,
    platform: &Platform,
) -> Result<Pinned, Cause> {
    let layout = Layout::open(path)?;
    let top = select(&layout, version)?;
    let read = |wanted: &Descriptor| {
        let bytes = read_document(&layout, wanted).map_err(LayoutError::from)?;
        effects.store.add_blob(&effects.lease, &bytes)?;
        Ok(bytes)
    };
    let place = path.display().to_string();
    let (digest, manifest, config) = documents(&top, platform, &version.to_string(), &place, &read)?;
    let fact = known(effects, digest, manifest, config, Place::Layout(path.to_owned()));
    Ok(Pinned { fact, top: top.digest, origin: Origin::Layout })
}

/// The image of a layout that is meant.
pub(crate) fn select(layout: &Layout, version: &LayoutVersion) -> Result<Descriptor, LayoutError> {
    let wanted = match version {
        LayoutVersion::Tag(tag) => Wanted::Name(tag.clone()),
        LayoutVersion::Digest(digest) => Wanted::Digest(*digest),
    };
    match layout.select(&wanted) {
        // A layout of one image needs no name, when none was asked for.
        Err(_) if *version == LayoutVersion::Tag("latest".to_owned()) => layout.select(&Wanted::Only),
        found => found,
    }
}

/// From a manifest or an index to the manifest of a platform and its config.
fn documents(
    top: &Descriptor,
    platform: &Platform,
    name: &str,
    place: &str,
    read: &dyn Fn(&Descriptor) -> Result<Vec<u8>, Cause>,
) -> Result<(Digest, Manifest, ImageConfig), Cause> {
    let (mut chosen, mut bytes, mut depth) = (top.clone(), read(top)?, 0);
    while chosen.media_type.is_index() {
        if depth == MAX_DEPTH {
            return Err(LayoutError::from(BlobError::TooDeep { digest: chosen.digest }).into());
        }
        depth += 1;
        let index = Index::parse(&bytes)?;
        check_type(&chosen, index.media_type.as_ref()).map_err(LayoutError::from)?;
        let only = index.manifests.first().filter(|_| index.manifests.len() == 1);
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
        chosen = index.select(platform).or(only).ok_or_else(missing)?.clone();
        bytes = read(&chosen)?;
    }
    let manifest = Manifest::parse(&bytes)?;
    check_type(&chosen, manifest.media_type.as_ref()).map_err(LayoutError::from)?;
    container_image(name, place, &manifest)?;
    let config = ImageConfig::parse(&read(&manifest.config)?)?;
    Ok((chosen.digest, manifest, config))
}

/// Attestations stand in an index as images for an unknown platform.
fn is_image(platform: &Platform) -> bool {
    platform.os != "unknown"
}

/// Makes an image known to the steps that will need its layers.
pub(crate) fn known(
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
