//! Layers and config → image: the manifest and the config as bytes. Chain ids exist only behind this.
//!
//! The history is brought in line with the layers as BuildKit does it (`normalizeLayersAndHistory` in its
//! `exporter/containerimage/writer.go`): an entry that made a layer stands for the next layer, one that did not is
//! marked `empty_layer`, and every entry gets a time.

use std::collections::BTreeMap;

use oci::{
    Descriptor, DiffId, History, ImageConfig, Index, Manifest, MediaType,
    media_type::{
        Compression, DOCKER_CONFIG, DOCKER_FOREIGN_LAYER, DOCKER_FOREIGN_LAYER_PLAIN, DOCKER_LAYER,
        DOCKER_LAYER_GZIP, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST,
    },
};

/// Whose media types an image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// OCI's.
    #[default]
    Oci,
    /// Docker's, schema 2: for registries and tools that know nothing else.
    Docker,
}

/// A layer of an image to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// Its blob. The media type is replaced by the dialect's own.
    pub descriptor: Descriptor,
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// When it was made, RFC 3339: for the history, where that has no time or no entry for it.
    pub created: Option<String>,
    /// What made it, for a history that has no entry for it.
    pub created_by: Option<String>,
}

/// An image: two documents, and the layers' blobs that they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// Names the manifest; with the platform, as an index wants it.
    pub manifest_descriptor: Descriptor,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// Names the config: its digest is Docker's image id.
    pub config_descriptor: Descriptor,
    /// The layers' blobs, base first.
    pub layers: Vec<Descriptor>,
}

/// A blob that is no layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{media_type} is no type of a layer")]
pub struct NotALayer {
    /// The blob's media type.
    pub media_type: MediaType,
}

/// Puts an image together. `config` has the history of all instructions, the base's included; its `rootfs` is
/// replaced, its history brought in line with the layers.
///
/// # Errors
/// [`NotALayer`].
///
/// # Source
/// image-spec v1.1, manifest.md and config.md.
pub fn assemble(
    config: ImageConfig,
    layers: &[ImageLayer],
    annotations: BTreeMap<String, String>,
    dialect: Dialect,
) -> Result<Image, NotALayer> {
    let mut config = config;
    config.history = normalize_history(config.history, layers);
    config.rootfs =
        oci::RootFs { diff_ids: layers.iter().map(|layer| layer.diff_id).collect(), ..Default::default() };
    if config.created.is_none() {
        config.created = config.history.iter().rev().find_map(|entry| entry.created.clone());
    }
    let platform = config.platform();
    let named = !config.os.is_empty() && !config.architecture.is_empty();
    let config = config.bytes();
    let (config_type, manifest_type) = match dialect {
        Dialect::Oci => (MediaType::config(), MediaType::manifest()),
        Dialect::Docker => (DOCKER_CONFIG.into(), DOCKER_MANIFEST.into()),
    };
    let config_descriptor = Descriptor::of(config_type, &config);
    let layers =
        layers.iter().map(|layer| in_dialect(&layer.descriptor, dialect)).collect::<Result<Vec<_>, _>>()?;
    let mut manifest = Manifest::new(config_descriptor.clone(), layers.clone());
    manifest.media_type = Some(manifest_type.clone());
    manifest.annotations = annotations;
    let manifest = manifest.bytes();
    let mut manifest_descriptor = Descriptor::of(manifest_type, &manifest);
    manifest_descriptor.platform = named.then_some(platform);
    Ok(Image { manifest, manifest_descriptor, config, config_descriptor, layers })
}

/// Puts the images of several platforms, in this order, into one index: its bytes and its descriptor.
pub fn assemble_index(
    manifests: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
    dialect: Dialect,
) -> (Vec<u8>, Descriptor) {
    let media_type = match dialect {
        Dialect::Oci => MediaType::index(),
        Dialect::Docker => DOCKER_MANIFEST_LIST.into(),
    };
    let mut index = Index::new(manifests);
    index.media_type = Some(media_type.clone());
    index.annotations = annotations;
    let bytes = index.bytes();
    let descriptor = Descriptor::of(media_type, &bytes);
    (bytes, descriptor)
}

/// The layer with a type of the dialect. One that registries refuse to distribute stays such where it says where else it
/// is had (`urls`).
fn in_dialect(layer: &Descriptor, dialect: Dialect) -> Result<Descriptor, NotALayer> {
    let media_type = &layer.media_type;
    let compression = media_type.layer_compression();
    let compression = compression.ok_or_else(|| NotALayer { media_type: media_type.clone() })?;
    let foreign = media_type.is_foreign() && layer.extra.contains_key("urls");
    let media_type = match (dialect, compression) {
        (Dialect::Oci, compression) if foreign => MediaType::foreign_layer(compression),
        (Dialect::Docker, Compression::Uncompressed) if foreign => DOCKER_FOREIGN_LAYER_PLAIN.into(),
        (Dialect::Docker, Compression::Gzip) if foreign => DOCKER_FOREIGN_LAYER.into(),
        (Dialect::Oci, compression) => MediaType::layer(compression),
        (Dialect::Docker, Compression::Uncompressed) => DOCKER_LAYER.into(),
        (Dialect::Docker, Compression::Gzip) => DOCKER_LAYER_GZIP.into(),
        (Dialect::Docker, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd".into(),
    };
    let mut layer = Descriptor { media_type, ..layer.clone() };
    if dialect == Dialect::Docker {
        // Docker's schema has no field for them.
        layer.annotations.clear();
    }
    Ok(layer)
}

fn normalize_history(mut history: Vec<History>, layers: &[ImageLayer]) -> Vec<History> {
    // Entries beyond the layers cannot have made one.
    let mut unaccounted = layers.iter();
    for entry in &mut history {
        if !entry.empty_layer {
            match unaccounted.next() {
                Some(layer) => entry.created = entry.created.take().or_else(|| layer.created.clone()),
                None => entry.empty_layer = true,
            }
        }
    }
    // And layers beyond the entries get one.
    history.extend(unaccounted.map(|layer| History {
        created: layer.created.clone(),
        created_by: layer.created_by.clone(),
        comment: Some("buildkit.exporter.image.v0".to_owned()),
        ..History::default()
    }));
    fill_times(&mut history);
    history
}

/// Entries without a time get that of the entry before; those at the start, that of the first new layer: the first time
/// behind the first gap, else the last one there is.
fn fill_times(history: &mut [History]) {
    let gap = history.iter().position(|entry| entry.created.is_none()).unwrap_or(history.len());
    let times = |part: &[History]| part.iter().filter_map(|entry| entry.created.clone()).collect::<Vec<_>>();
    let behind = times(&history[gap..]).into_iter().next();
    let mut current = behind.or_else(|| times(&history[..gap]).pop());
    let mut seen_gap = false;
    for entry in history {
        match &entry.created {
            Some(created) if seen_gap => current = Some(created.clone()),
            Some(_) => {}
            None => {
                seen_gap = true;
                entry.created = current.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use oci::Digest;

    use super::*;

    fn layer(at: u8) -> ImageLayer {
        ImageLayer {
            descriptor: Descriptor::of(MediaType::layer(Compression::Gzip), &[at]),
            diff_id: DiffId::of_tar(Digest::of(&[at, at])),
            created: Some(format!("t{at}")),
            created_by: Some(format!("by{at}")),
        }
    }

    fn entry(created: Option<&str>, empty_layer: bool) -> History {
        History { created: created.map(str::to_owned), empty_layer, ..History::default() }
    }

    fn times(history: &[History]) -> Vec<&str> {
        history.iter().map(|entry| entry.created.as_deref().unwrap_or("-")).collect()
    }

    #[test]
    fn every_layer_has_one_entry() {
        let layers = [layer(1), layer(2)];
        let normal = normalize_history(vec![entry(Some("a"), false)], &layers);
        assert_eq!(normal.len(), 2);
        assert_eq!(normal[1].created_by.as_deref(), Some("by2"));
        let normal =
            normalize_history(vec![entry(None, false), entry(None, false), entry(None, false)], &layers);
        assert_eq!(normal.iter().filter(|entry| !entry.empty_layer).count(), 2);
        assert!(normal[2].empty_layer);
    }

    #[test]
    fn every_entry_has_a_time() {
        let layers = [layer(1), layer(2)];
        for (history, expected) in [
            (
                vec![entry(Some("base"), false), entry(None, true), entry(None, false)],
                vec!["base", "t2", "t2"],
            ),
            (
                vec![entry(Some("base"), false), entry(None, false), entry(None, true)],
                vec!["base", "t2", "t2"],
            ),
            (
                vec![entry(None, true), entry(None, false), entry(None, false), entry(None, true)],
                vec!["t1", "t1", "t2", "t2"],
            ),
            (vec![entry(Some("a"), false), entry(Some("b"), false), entry(None, true)], vec!["a", "b", "b"]),
        ] {
            assert_eq!(times(&normalize_history(history, &layers)), expected);
        }
    }

    #[test]
    fn an_image_names_its_parts() {
        let config =
            ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        for (dialect, manifest_type) in
            [(Dialect::Oci, MediaType::manifest()), (Dialect::Docker, DOCKER_MANIFEST.into())]
        {
            let image =
                assemble(config.clone(), &[layer(1), layer(2)], BTreeMap::new(), dialect).expect("layers");
            assert_eq!(image.manifest_descriptor.media_type, manifest_type);
            assert_eq!(image.manifest_descriptor.digest, Digest::of(&image.manifest));
            let manifest = Manifest::parse(&image.manifest).expect("valid");
            assert_eq!(manifest.config, image.config_descriptor);
            assert_eq!(manifest.layers, image.layers);
            let parsed = ImageConfig::parse(&image.config).expect("valid");
            assert_eq!(parsed.rootfs.diff_ids, [layer(1).diff_id, layer(2).diff_id]);
            assert_eq!(parsed.created.as_deref(), Some("t2"));
            assert_eq!(parsed.history.len(), 2);
        }
    }

    #[test]
    fn foreign_layers_stay_foreign_where_they_say_where_they_are_had() {
        let mut foreign = layer(1);
        foreign.descriptor.media_type = DOCKER_FOREIGN_LAYER.into();
        for (urls, dialect, expected) in [
            (true, Dialect::Oci, MediaType::foreign_layer(Compression::Gzip)),
            (true, Dialect::Docker, DOCKER_FOREIGN_LAYER.into()),
            (false, Dialect::Oci, MediaType::layer(Compression::Gzip)),
            (false, Dialect::Docker, DOCKER_LAYER_GZIP.into()),
        ] {
            let mut layer = foreign.clone();
            if urls {
                layer.descriptor.extra.insert("urls".into(), vec!["https://a.example/layer"].into());
            }
            let image =
                assemble(ImageConfig::default(), &[layer], BTreeMap::new(), dialect).expect("a layer");
            assert_eq!(image.layers[0].media_type, expected, "{urls} {dialect:?}");
        }
    }

    #[test]
    fn what_is_no_layer_is_an_error() {
        let config = ImageConfig::default();
        let mut strange = layer(1);
        strange.descriptor.media_type = MediaType::config();
        assert!(assemble(config, &[strange], BTreeMap::new(), Dialect::Oci).is_err());
    }
}
