//! What the bytes of a manifest are: an index or one image's manifest, and of which type.
//!
//! The document's own `mediaType` decides, since its digest covers it. A header or descriptor that says
//! something else about the same bytes is refused, and so is a document that can be read both ways: two
//! readers of one digest must see one image (CVE-2021-41190; image-spec v1.1, manifest.md).

use oci::{Descriptor, Index, Manifest, MediaType, media_type::DOCKER_CONFIG};
use serde::{Deserialize, de::IgnoredAny};

use crate::error::Fault;

/// What is asked for, best first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Docker's formats of before 2016.
const SCHEMA_ONE: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// What Docker 1.10 called a config.
const OCTETS: &str = "application/octet-stream";

/// A document that was read.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its media type, digest and size.
    pub descriptor: Descriptor,
    /// Its bytes, which the digest is about.
    pub bytes: Vec<u8>,
    /// What they say.
    pub parsed: Parsed,
}

/// What a document is.
#[derive(Clone, Debug)]
pub enum Parsed {
    /// A list of manifests.
    Index(Index),
    /// The manifest of an image or of another artifact.
    Manifest(Box<Manifest>),
}

impl Document {
    /// Reads an index or a manifest of any artifact. `announced` is the media type that something else gave it.
    ///
    /// # Errors
    /// Everything that keeps these bytes from being exactly one of index and manifest.
    pub fn read(bytes: Vec<u8>, announced: Option<&str>) -> Result<Document, Fault> {
        read_any(bytes, announced)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peek {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Reads a document of a container image. `announced` is the `Content-Type` or the descriptor's media type, if there
/// was one.
///
/// # Errors
/// Everything that keeps these bytes from being exactly one of index and container image's manifest.
pub(crate) fn read(bytes: Vec<u8>, announced: Option<&str>) -> Result<Document, Fault> {
    let document = read_any(bytes, announced)?;
    if let Parsed::Manifest(manifest) = &document.parsed {
        image(manifest)?;
    }
    Ok(document)
}

/// As [`read`], of any artifact.
pub(crate) fn read_any(bytes: Vec<u8>, announced: Option<&str>) -> Result<Document, Fault> {
    let announced = announced.map(essence).filter(|text| is_known(text));
    let peek: Peek = serde_json::from_slice(&bytes)
        .map_err(|source| oci::BadDocument { what: "image manifest", source })?;
    let own = peek.media_type.as_deref().map(essence);
    let schema_one = |text: &String| SCHEMA_ONE.contains(&text.as_str());
    if peek.schema_version == Some(1)
        || peek.fs_layers.is_some()
        || own.as_ref().or(announced.as_ref()).is_some_and(schema_one)
    {
        return Err(Fault::SchemaOne);
    }
    if peek.manifests.is_some() && peek.layers.is_some() {
        return Err(Fault::Ambiguous);
    }
    if let (Some(announced), Some(own)) = (&announced, &own)
        && announced != own
    {
        return Err(Fault::MediaType { announced: announced.clone(), document: own.clone() });
    }
    let by_shape = if peek.manifests.is_some() { MediaType::index() } else { MediaType::manifest() };
    let media_type = own.or(announced).map(MediaType).unwrap_or(by_shape);
    let parsed = match (media_type.is_index(), media_type.is_manifest()) {
        (true, _) => Parsed::Index(Index::parse(&bytes)?),
        (_, true) => Parsed::Manifest(Box::new(Manifest::parse(&bytes)?)),
        _ => return Err(Fault::NotAnImage { media_type: media_type.0 }),
    };
    Ok(Document { descriptor: Descriptor::of(media_type, &bytes), bytes, parsed })
}

/// Whether a manifest is that of a container image: charts, signatures and other artifacts use the same document.
fn image(manifest: &Manifest) -> Result<(), Fault> {
    match is_image(manifest) {
        true => Ok(()),
        false => Err(Fault::NotAnImage { media_type: manifest.artifact_type().to_owned() }),
    }
}

/// Whether the config is one that says how an image is run.
pub fn is_image(manifest: &Manifest) -> bool {
    let config = &manifest.config.media_type;
    *config == MediaType::config() || config.0 == DOCKER_CONFIG || config.0 == OCTETS
}

/// A media type without its parameters.
fn essence(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a type says something about a document. `text/plain` and `application/json` are what careless
/// servers say.
fn is_known(text: &str) -> bool {
    let media_type = MediaType(text.to_owned());
    media_type.is_index() || media_type.is_manifest() || SCHEMA_ONE.contains(&text)
}

#[cfg(test)]
mod tests {
    use oci::media_type::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST};
    use proptest::prelude::*;

    use super::*;

    const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn manifest(extra: &str) -> String {
        let digest = oci::Digest::of(b"");
        format!(
            r#"{{"schemaVersion":2,{extra}"layers":[],"config":{{"mediaType":"{DOCKER_CONFIG}","size":0,"digest":"{digest}"}}}}"#
        )
    }

    #[test]
    fn the_document_says_what_it_is() {
        let own = |media_type: &str| format!(r#""mediaType":"{media_type}","#);
        let index = |extra: &str| format!(r#"{{"schemaVersion":2,{extra}"manifests":[]}}"#);
        for (text, announced, expected) in [
            (manifest(&own(DOCKER_MANIFEST)), Some(DOCKER_MANIFEST), Ok(DOCKER_MANIFEST)),
            (manifest(&own(OCI_MANIFEST)), Some("text/plain; charset=utf-8"), Ok(OCI_MANIFEST)),
            (manifest(&own(OCI_MANIFEST)), None, Ok(OCI_MANIFEST)),
            (
                manifest(""),
                Some("application/vnd.docker.distribution.manifest.v2+json; x=y"),
                Ok(DOCKER_MANIFEST),
            ),
            (manifest(""), Some("application/json"), Ok(OCI_MANIFEST)),
            (index(""), None, Ok(OCI_INDEX)),
            (index(&own(DOCKER_MANIFEST_LIST)), Some(DOCKER_MANIFEST_LIST), Ok(DOCKER_MANIFEST_LIST)),
            (index(&own(OCI_INDEX)), Some(OCI_MANIFEST), Err("image-invalid")),
            (manifest(r#""manifests":[],"#), None, Err("image-invalid")),
            (index(""), Some(OCI_MANIFEST), Err("image-invalid")),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), None, Err("image-format")),
            ("{}".to_owned(), Some(SCHEMA_ONE[1]), Err("image-format")),
            (manifest(&own("application/vnd.example")), None, Err("image-format")),
            (
                manifest("").replace(DOCKER_CONFIG, "application/vnd.cncf.helm.config.v1+json"),
                None,
                Err("image-format"),
            ),
            ("[]".to_owned(), None, Err("image-invalid")),
            ("<html>".to_owned(), Some("text/html"), Err("image-invalid")),
        ] {
            let read = read(text.clone().into_bytes(), announced);
            let read = read.map(|document| document.descriptor.media_type.0);
            let read = read.as_ref().map(String::as_str).map_err(Fault::code);
            assert_eq!(read, expected, "{text} {announced:?}");
        }
    }

    proptest! {
        #[test]
        fn no_document_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(bytes, None);
        }
    }
}
