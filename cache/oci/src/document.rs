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

    /// The kind of artifact that it leads to, where it tells.
    pub fn artifact_type(&self) -> Option<&str> {
        self.extra.get(ARTIFACT_TYPE).and_then(Value::as_str)
    }

    /// The same, telling the kind of artifact that it leads to.
    pub fn with_artifact_type(mut self, artifact_type: Option<&str>) -> Descriptor {
        if let Some(artifact_type) = artifact_type {
            self.extra.insert(ARTIFACT_TYPE.to_owned(), Value::from(artifact_type));
        }
        self
    }
}

/// The field that names what kind of artifact a document is.
const ARTIFACT_TYPE: &str = "artifactType";

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

/// The most layers of an image: some times what Docker's engine (127) and overlayfs (500) can mount.
pub const MAX_LAYERS: usize = 1000;

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
    /// [`BadDocument`] when the bytes are no JSON, lack a field that a manifest must have, have one of an index, or name
    /// more than [`MAX_LAYERS`] layers.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, BadDocument> {
        const WHAT: &str = "image manifest";
        let manifest: Manifest = parse(WHAT, bytes)?;
        let layers = manifest.layers.len();
        let blobs = manifest.layers.iter().chain([&manifest.config]);
        let size = blobs.fold(0u64, |sum, blob| sum.saturating_add(blob.size));
        let why = if has(&manifest.extra, "manifests") {
            "it has `manifests`, as an index has".to_owned()
        } else if manifest.media_type.as_ref().is_some_and(MediaType::is_index) {
            "it says that it is an index".to_owned()
        } else if layers > MAX_LAYERS {
            format!("it has {layers} layers; {MAX_LAYERS} is the limit")
        } else if size > i64::MAX as u64 {
            "its blobs are larger than any disk".to_owned()
        } else {
            return Ok(manifest);
        };
        Err(refused(WHAT, &why))
    }

    /// Canonical bytes: the same manifest always gives the same.
    pub fn bytes(&self) -> Vec<u8> {
        canonical::bytes(self)
    }

    /// What kind of artifact it is: what it says, else the media type of its config (image-spec v1.1, manifest.md
    /// § Guidelines for Artifact Usage).
    pub fn artifact_type(&self) -> &str {
        let own = self.extra.get(ARTIFACT_TYPE).and_then(Value::as_str).filter(|text| !text.is_empty());
        own.unwrap_or(self.config.media_type.as_str())
    }

    /// The manifest that it refers to: what is signed, or listed.
    pub fn subject(&self) -> Option<Descriptor> {
        subject(&self.extra)
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
    /// [`BadDocument`] when the bytes are no JSON, lack a field that an index must have, or have one of a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Index, BadDocument> {
        const WHAT: &str = "image index";
        let index: Index = parse(WHAT, bytes)?;
        let why = if has(&index.extra, "layers") || has(&index.extra, "config") {
            "it has `layers` or `config`, as a manifest has"
        } else if index.media_type.as_ref().is_some_and(MediaType::is_manifest) {
            "it says that it is a manifest"
        } else {
            return Ok(index);
        };
        Err(refused(WHAT, why))
    }

    /// Canonical bytes: the same index always gives the same.
    pub fn bytes(&self) -> Vec<u8> {
        canonical::bytes(self)
    }

    /// What kind of artifact it is, where it tells.
    pub fn artifact_type(&self) -> Option<&str> {
        self.extra.get(ARTIFACT_TYPE).and_then(Value::as_str)
    }

    /// The manifest that it refers to.
    pub fn subject(&self) -> Option<Descriptor> {
        subject(&self.extra)
    }

    /// The manifest that fits `wanted` best: the same variant first, then one without a variant, then any
    /// of that system and architecture. Attestations (`unknown/unknown`) never match.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let fits = self.manifests.iter().filter_map(|m| Some((m.platform.as_ref()?.distance(wanted)?, m)));
        // `min_by_key` gives the first of equals, as the order of an index is a preference.
        fits.min_by_key(|(distance, _)| *distance).map(|(_, descriptor)| descriptor)
    }
}

/// A `subject` that is no descriptor refers to nothing.
fn subject(extra: &BTreeMap<String, Value>) -> Option<Descriptor> {
    serde_json::from_value(extra.get("subject")?.clone()).ok()
}

/// Whether a document has a field that is not null. Two readers of one document must not see two things in it
/// (CVE-2021-41190).
fn has(fields: &BTreeMap<String, Value>, name: &str) -> bool {
    fields.get(name).is_some_and(|value| !value.is_null())
}

fn refused(what: &'static str, why: &str) -> BadDocument {
    BadDocument { what, source: serde::de::Error::custom(why) }
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
    fn documents_tell_what_they_refer_to() {
        let subject = Descriptor::of(MediaType::manifest(), b"image");
        let config = Descriptor::of("application/vnd.example.config".into(), b"{}");
        let mut manifest = Manifest::new(config, Vec::new());
        assert_eq!((manifest.artifact_type(), manifest.subject()), ("application/vnd.example.config", None));
        manifest.extra.insert("artifactType".into(), "application/vnd.example".into());
        manifest.extra.insert("subject".into(), serde_json::to_value(&subject).expect("JSON"));
        let read = Manifest::parse(&manifest.bytes()).expect("valid");
        assert_eq!(
            (read.artifact_type(), read.subject()),
            ("application/vnd.example", Some(subject.clone()))
        );
        manifest.extra.insert("subject".into(), "none".into());
        assert_eq!(manifest.subject(), None);
        assert_eq!(subject.clone().with_artifact_type(None), subject);
        assert_eq!(subject.with_artifact_type(Some("a/b")).artifact_type(), Some("a/b"));
    }

    #[test]
    fn a_document_is_one_thing() {
        let blob = |size: u64| Descriptor::new("x".into(), Digest::of(b""), size);
        let manifest = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = Manifest::new(blob(1), vec![blob(2)]);
            change(&mut manifest);
            Manifest::parse(&manifest.bytes()).map_err(|bad| bad.to_string())
        };
        assert!(manifest(&|_| {}).is_ok());
        assert!(manifest(&|one| drop(one.extra.insert("manifests".into(), Value::Null))).is_ok());
        assert!(manifest(&|one| one.layers = vec![blob(0); MAX_LAYERS]).is_ok());
        let refused = |why: &str, change: &dyn Fn(&mut Manifest)| {
            let said = manifest(change).expect_err(why);
            assert!(said.contains(why), "{said}");
        };
        let none = || Value::Array(Vec::new());
        refused("has `manifests`", &|one| drop(one.extra.insert("manifests".into(), none())));
        refused("an index", &|one| one.media_type = Some(MediaType::index()));
        refused("1001 layers", &|one| one.layers = vec![blob(0); MAX_LAYERS + 1]);
        refused("larger than any disk", &|one| one.layers = vec![blob(i64::MAX as u64), blob(u64::MAX)]);
        let index = |change: &dyn Fn(&mut Index)| {
            let mut index = Index::new(vec![entry("linux/amd64")]);
            change(&mut index);
            Index::parse(&index.bytes()).map_err(|bad| bad.to_string())
        };
        assert!(index(&|_| {}).is_ok());
        assert!(index(&|one| one.media_type = Some(MediaType::manifest())).is_err());
        assert!(index(&|one| drop(one.extra.insert("layers".into(), Value::Array(Vec::new())))).is_err());
        assert!(index(&|one| drop(one.extra.insert("config".into(), Value::Bool(true)))).is_err());
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
