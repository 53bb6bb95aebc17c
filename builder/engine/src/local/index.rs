//! `kiln index`: indexes made of manifests that registries have, and what a name stands for.

use std::{collections::BTreeMap, sync::Arc};

use image::annotations::{Annotations, Level};
use oci::{Descriptor, Digest, Index, MediaType, Platform, Reference, media_type::DOCKER_MANIFEST_LIST};
use registry::{Document, Parsed};

use super::{
    copy::{node, send_to_all},
    origin::{ImageSource, Origin},
    transfer::TransferError,
    tree::{Tree, for_platforms},
};
use crate::{
    build::internal::Internal,
    cancel::Cancel,
    client::Client,
    effect::Effects,
    engine::Engine,
    error::{Cause, Error},
    progress::SharedSink,
};

/// One thing that an index is made of.
#[derive(Clone, Debug)]
pub struct IndexSource {
    /// Where it is.
    pub image: ImageSource,
    /// What its descriptor is to say, and what it must be.
    pub descriptor: Option<PartialDescriptor>,
    /// Whether no mirror is asked for it: it is what is changed.
    pub current: bool,
}

/// A descriptor as people write it: what is not said is taken from the manifest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialDescriptor {
    /// The manifest.
    pub digest: Digest,
    /// Its media type.
    #[serde(default)]
    pub media_type: Option<MediaType>,
    /// Its length in bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// What it runs on.
    #[serde(default)]
    pub platform: Option<PartialPlatform>,
    /// Free text by key.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl PartialDescriptor {
    /// One that says nothing but the digest.
    pub fn of(digest: Digest) -> PartialDescriptor {
        let (media_type, size, platform, annotations) = (None, None, None, BTreeMap::new());
        PartialDescriptor { digest, media_type, size, platform, annotations }
    }
}

/// A platform of which the config tells the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct PartialPlatform {
    /// `linux`.
    #[serde(default)]
    pub os: Option<String>,
    /// `arm64`.
    #[serde(default)]
    pub architecture: Option<String>,
    /// `v8`.
    #[serde(default)]
    pub variant: Option<String>,
    /// Windows' build number.
    #[serde(rename = "os.version", default)]
    pub os_version: Option<String>,
    /// What of Windows it needs.
    #[serde(rename = "os.features", default)]
    pub os_features: Vec<String>,
}

/// An index that is to be made.
#[derive(Clone, Debug)]
pub struct IndexRequest {
    /// What it is made of, in its order.
    pub sources: Vec<IndexSource>,
    /// The names that it gets; with none, it is only made.
    pub names: Vec<Reference>,
    /// Its annotations, and those of its manifests' descriptors.
    pub annotations: Annotations,
    /// Which platforms are taken; none is all of them.
    pub platforms: Vec<Platform>,
    /// Whether a single manifest gets an index around it.
    pub prefer_index: bool,
}

/// An index that was made.
#[derive(Clone, Debug)]
pub struct MadeIndex {
    /// Its media type, digest and size.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Engine {
    /// Makes an index of manifests and indexes, and makes the registries of its names have all that it names. The same
    /// sources give the same bytes.
    ///
    /// # Errors
    /// A source is not there or not what its descriptor says, or what a registry did.
    pub async fn create_index(
        &self,
        request: IndexRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: &Cancel,
    ) -> Result<MadeIndex, Error> {
        let effects = Arc::new(self.effects(client, sink, false)?);
        Ok(create(self, &effects, &request, cancel).await?)
    }

    /// What a name stands for: an index, an image's manifest or another artifact's.
    ///
    /// # Errors
    /// It is not there, or is neither an index nor a manifest.
    pub async fn document(&self, source: &ImageSource, client: Arc<dyn Client>) -> Result<Document, Error> {
        let effects = Arc::new(self.effects(client, Arc::new(crate::progress::Silent), false)?);
        let origin = Origin::find(self, &effects, source)?;
        Ok(origin.top().await?)
    }
}

async fn create(
    engine: &Engine,
    effects: &Arc<Effects>,
    request: &IndexRequest,
    cancel: &Cancel,
) -> Result<MadeIndex, Cause> {
    let shown = Internal::start(effects, "reading the sources");
    let found = cancel.unless(read(engine, effects, request)).await;
    shown.end(found.as_ref().err());
    let found = found?;
    let mut tree = Tree::default();
    let made = match carbon_copy(request, &found) {
        Some(only) => {
            let bytes = only.document.bytes.clone();
            let made = MadeIndex { descriptor: only.document.descriptor.clone(), bytes };
            if !request.names.is_empty() {
                cancel.unless(tree.add(&only.origin, only.document.clone())).await?;
            }
            made
        }
        None => {
            let (entries, index) = combine(request, &found)?;
            let media_type = index.media_type.clone().unwrap_or_else(MediaType::index);
            let top = node(&media_type, index.bytes(), &found[0].origin);
            let made = MadeIndex { descriptor: top.descriptor.clone(), bytes: top.bytes.clone() };
            if !request.names.is_empty() {
                let reading = Internal::start(effects, "reading the manifests");
                let read = cancel.unless(gather(&mut tree, &entries)).await;
                reading.end(read.as_ref().err());
                read?;
                tree.push(top);
            }
            made
        }
    };
    send_to_all(effects, &tree, &request.names, cancel).await?;
    Ok(made)
}

/// A source that was read.
struct Found {
    origin: Arc<Origin>,
    document: Document,
    /// How the index names it, where it is no index itself.
    descriptor: Descriptor,
}

/// A line of the index, and where its manifest is.
struct Entry {
    origin: Arc<Origin>,
    descriptor: Descriptor,
}

async fn gather(tree: &mut Tree, entries: &[Entry]) -> Result<(), Cause> {
    for Entry { origin, descriptor } in entries {
        tree.add_named(origin, descriptor).await?;
    }
    Ok(())
}

async fn read(engine: &Engine, effects: &Arc<Effects>, request: &IndexRequest) -> Result<Vec<Found>, Cause> {
    use futures_util::{StreamExt, TryStreamExt, stream};
    let found = stream::iter(&request.sources).map(|source| async move {
        let origin = Origin::find(engine, effects, &source.image)?;
        let origin = Arc::new(if source.current { origin.current() } else { origin });
        let document = origin.top().await?;
        let descriptor = described(&origin, &document, source.descriptor.as_ref()).await?;
        Ok(Found { origin, document, descriptor })
    });
    found.buffered(4).try_collect().await
}

/// The descriptor of a source: what was written, what the manifest is, and of a platform what its config says.
async fn described(
    origin: &Origin,
    document: &Document,
    written: Option<&PartialDescriptor>,
) -> Result<Descriptor, Cause> {
    let mut descriptor = document.descriptor.clone();
    let mut platform = None;
    if let Some(written) = written {
        agrees(&descriptor, written)?;
        descriptor.annotations = written.annotations.clone();
        platform = written.platform.clone();
    }
    if let Parsed::Manifest(manifest) = &document.parsed {
        let own = match &platform {
            Some(PartialPlatform { os: Some(_), architecture: Some(_), .. }) => None,
            _ => origin.platform(manifest).await?,
        };
        descriptor.platform = merged(platform, own);
        if !registry::is_image(manifest) {
            descriptor = descriptor.with_artifact_type(Some(manifest.artifact_type()));
        }
    }
    Ok(descriptor)
}

/// The manifest that is there is the one that was meant.
fn agrees(found: &Descriptor, written: &PartialDescriptor) -> Result<(), Cause> {
    let disagrees = |said: String, found_text: String| {
        let error = TransferError::Descriptor { digest: written.digest, said, found: found_text };
        Err(error.into())
    };
    match (&written.size, &written.media_type) {
        (Some(size), _) if *size != found.size => {
            disagrees(format!("{size} bytes"), format!("{} bytes", found.size))
        }
        (_, Some(own)) if *own != found.media_type => {
            disagrees(format!("`{own}`"), format!("`{}`", found.media_type))
        }
        _ => Ok(()),
    }
}

fn merged(written: Option<PartialPlatform>, own: Option<Platform>) -> Option<Platform> {
    let Some(written) = written else { return own };
    let own_part = |part: fn(&Platform) -> Option<String>| own.as_ref().and_then(part);
    let variant = written.variant.clone().or_else(|| match written.architecture {
        Some(_) => None,
        None => own_part(|own| own.variant.clone()),
    });
    let os = written.os.or_else(|| own_part(|own| Some(own.os.clone()))).unwrap_or_default();
    let architecture = written.architecture.or_else(|| own_part(|own| Some(own.architecture.clone())));
    let os_version = written.os_version.or_else(|| own_part(|own| own.os_version.clone()));
    let architecture = architecture.unwrap_or_default();
    Some(Platform { os, architecture, variant, os_version, os_features: written.os_features })
}

/// The one source that is taken as it is: an index with nothing to change, or a manifest that wants no index.
fn carbon_copy<'f>(request: &IndexRequest, found: &'f [Found]) -> Option<&'f Found> {
    let [only] = found else { return None };
    let unchanged = match &only.document.parsed {
        Parsed::Index(Index { manifests, .. }) => {
            request.platforms.is_empty() || {
                let kept = for_platforms(&only.origin.name, manifests, &request.platforms);
                kept.is_ok_and(|kept| kept.len() == manifests.len())
            }
        }
        Parsed::Manifest(_) => request.platforms.is_empty() && !request.prefer_index,
    };
    (unchanged && request.annotations.is_empty()).then_some(only)
}

/// The index of all sources, each manifest once, where it was first named; later words about it count.
fn combine(request: &IndexRequest, found: &[Found]) -> Result<(Vec<Entry>, Index), Cause> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut add = |origin: &Arc<Origin>, descriptor: Descriptor| match entries
        .iter_mut()
        .find(|entry| entry.descriptor.digest == descriptor.digest)
    {
        Some(Entry { descriptor: before, .. }) => {
            before.platform = descriptor.platform.or_else(|| before.platform.take());
            before.annotations.extend(descriptor.annotations);
        }
        None => entries.push(Entry { origin: origin.clone(), descriptor }),
    };
    for Found { origin, document, descriptor } in found {
        match &document.parsed {
            Parsed::Index(index) => index.manifests.iter().for_each(|one| add(origin, one.clone())),
            Parsed::Manifest(_) => add(origin, descriptor.clone()),
        }
    }
    let mut manifests: Vec<Descriptor> = entries.iter().map(|entry| entry.descriptor.clone()).collect();
    if !request.platforms.is_empty() {
        manifests = for_platforms("what the index is made of", &manifests, &request.platforms)?;
        entries.retain(|entry| manifests.iter().any(|one| one.digest == entry.descriptor.digest));
    }
    annotate(&request.annotations, &mut manifests)?;
    // Docker's list has no place for annotations, and no tool that reads it has trouble with OCI's.
    let docker = |one: &Descriptor| one.media_type.as_str().starts_with("application/vnd.docker.");
    let plain = |one: &Descriptor| docker(one) && one.annotations.is_empty();
    let docker = !manifests.is_empty() && manifests.iter().all(plain) && request.annotations.is_empty();
    let media_type = if docker { DOCKER_MANIFEST_LIST.into() } else { MediaType::index() };
    let annotations = request.annotations.of(Level::Index, None);
    let index = Index { media_type: Some(media_type), annotations, ..Index::new(manifests) };
    Ok((entries, index))
}

fn annotate(annotations: &Annotations, manifests: &mut [Descriptor]) -> Result<(), Cause> {
    let platforms: Vec<Platform> = manifests.iter().filter_map(|one| one.platform.clone()).collect();
    annotations.check(&platforms, true)?;
    for one in manifests {
        let own = annotations.of(Level::ManifestDescriptor, one.platform.as_ref());
        one.annotations.extend(own);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_descriptor_leaves_out_its_config_tells() {
        let own: Platform = "linux/arm/v7".parse().expect("a platform");
        let written = |os: Option<&str>, architecture: Option<&str>, variant: Option<&str>| PartialPlatform {
            os: os.map(str::to_owned),
            architecture: architecture.map(str::to_owned),
            variant: variant.map(str::to_owned),
            ..PartialPlatform::default()
        };
        for (written, expected) in [
            (None, "linux/arm/v7"),
            (Some(written(None, None, None)), "linux/arm/v7"),
            (Some(written(None, None, Some("v6"))), "linux/arm/v6"),
            (Some(written(Some("freebsd"), None, None)), "freebsd/arm/v7"),
            // The variant is one of the other architecture.
            (Some(written(None, Some("s390x"), None)), "linux/s390x"),
        ] {
            let platform = merged(written.clone(), Some(own.clone())).expect("there is one");
            assert_eq!(platform.to_string(), expected, "{written:?}");
        }
        assert_eq!(merged(None, None), None);
    }

    #[test]
    fn a_descriptor_must_be_right_about_its_manifest() {
        let found = Descriptor::of(MediaType::manifest(), b"manifest");
        let plain = PartialDescriptor::of(found.digest);
        assert!(agrees(&found, &plain).is_ok());
        assert!(agrees(&found, &PartialDescriptor { size: Some(8), ..plain.clone() }).is_ok());
        for (wrong, says) in [
            (PartialDescriptor { size: Some(9), ..plain.clone() }, "says 9 bytes; the registry has 8 bytes"),
            (PartialDescriptor { media_type: Some(MediaType::index()), ..plain }, "image.index.v1+json"),
        ] {
            let error = agrees(&found, &wrong).expect_err("it is wrong").to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
