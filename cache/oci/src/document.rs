//! Descriptor, manifest and index: image-spec v1.1, descriptor.md, manifest.md, image-index.md.
//!
//! Fields that we do not know are kept, so that a document read and written again loses nothing. The
//! bytes of a document that came from outside are what its digest is about: keep them, do not write them anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{BlobDigest, Digest, MediaType, Platform, canonical};

/// Media type, digest and size of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: MediaType,
    /// SHA-256 of the blob's bytes.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// For a manifest in an index: what it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that are none of the above.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Descriptor {
    /// A descriptor without platform and annotations.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type,
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The descriptor of these bytes.
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// The digest, said to be that of a layer's blob.
    pub fn blob(&self) -> BlobDigest {
        BlobDigest::of_blob(self.digest)
    }
}

/// The manifest of one image: its config and its layers, base first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own type; older OCI manifests leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The image config.
    pub config: Descriptor,
    /// The layers' blobs, base first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that are none of the above (`subject`, `artifactType`).
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// A list of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index's own type; older OCI indexes leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The manifests, or further indexes.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that are none of the above.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// Bytes that are not the document they were said to be.
#[derive(Debug, thiserror::Error)]
#[error("not a valid {what}: {source}")]
pub struct BadDocument {
    /// `image manifest`, `image index`, `image config`.
    pub what: &'static str,
    /// Where the JSON is wrong.
    pub source: serde_json::Error,
}

impl Manifest {
    /// An OCI manifest of these parts.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(MediaType::manifest()),
            config,
            layers,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`BadDocument`] when the bytes are no JSON, or lack a field that a manifest must have.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, BadDocument> {
        parse("image manifest", bytes)
    }

    /// Canonical bytes: the same manifest always gives the same.
    pub fn bytes(&self) -> Vec<u8> {
        canonical::bytes(self)
    }
}

impl Index {
    /// An OCI index of these manifests.
    pub fn new(manifests: Vec<Descriptor>) -> Index {
        Index {
            schema_version: 2,
            media_type: Some(MediaType::index()),
            manifests,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// Reads an index.
    ///
    /// # Errors
    /// [`BadDocument`] when the bytes are no JSON, or lack a field that an index must have.
    pub fn parse(bytes: &[u8]) -> Result<Index, BadDocument> {
        parse("image index", bytes)
    }

    /// Canonical bytes: the same index always gives the same.
    pub fn bytes(&self) -> Vec<u8> {
        canonical::bytes(self)
    }

    /// The manifest that fits `wanted` best: the same variant first, then one without a variant, then any
    /// of that system and architecture. Attestations (`unknown/unknown`) never match.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let fits = self.manifests.iter().filter_map(|m| Some((m.platform.as_ref()?.distance(wanted)?, m)));
        // `min_by_key` gives the first of equals, as the order of an index is a preference.
        fits.min_by_key(|(distance, _)| *distance).map(|(_, descriptor)| descriptor)
    }
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, BadDocument> {
    serde_json::from_slice(bytes).map_err(|source| BadDocument { what, source })
}

/// Docker writes `null` where a list is empty.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: &str) -> Descriptor {
        let mut descriptor = Descriptor::of(MediaType::manifest(), platform.as_bytes());
        descriptor.platform = Some(platform.parse().expect("a platform"));
        descriptor
    }

    #[test]
    fn unknown_fields_survive() {
        let text = r#"{"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","mediaType":"x","size":0},"layers":[],"schemaVersion":2,"subject":{"a":1}}"#;
        assert_eq!(Manifest::parse(text.as_bytes()).expect("valid").bytes(), text.as_bytes());
    }

    #[test]
    fn an_index_gives_the_nearest_platform() {
        let index = Index::new(vec![entry("linux/arm/v6"), entry("linux/arm/v7"), entry("linux/amd64")]);
        for (wanted, got) in [("linux/arm/v7", "linux/arm/v7"), ("linux/amd64", "linux/amd64")] {
            let selected = index.select(&wanted.parse().expect("a platform")).expect("a match");
            assert_eq!(selected.platform.as_ref().expect("named").to_string(), got);
        }
        assert!(index.select(&"linux/s390x".parse().expect("a platform")).is_none());
    }
}
