//! Media types, OCI's and Docker's, and what they say about a blob.

use oci_spec::image::MediaType as Standard;
use serde::{Deserialize, Serialize};

/// A media type as it stands in a descriptor or a `Content-Type`.
///
/// Kept as text, so that one we do not know passes through unchanged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(pub String);

/// How a layer's bytes are compressed, as its media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain tar.
    Uncompressed,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Docker's manifest of one image, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest of several platforms.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's gzip layer.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's plain layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's layer that a registry refuses to distribute.
pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// The same as a plain tar.
pub const DOCKER_FOREIGN_LAYER_PLAIN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
/// OCI's layers that a registry refuses to distribute; what is behind says how they are compressed.
const NOT_DISTRIBUTED: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

impl MediaType {
    /// `application/vnd.oci.image.manifest.v1+json`
    pub fn manifest() -> MediaType {
        Standard::ImageManifest.into()
    }

    /// `application/vnd.oci.image.index.v1+json`
    pub fn index() -> MediaType {
        Standard::ImageIndex.into()
    }

    /// `application/vnd.oci.image.config.v1+json`
    pub fn config() -> MediaType {
        Standard::ImageConfig.into()
    }

    /// The OCI layer type of this compression.
    pub fn layer(compression: Compression) -> MediaType {
        match compression {
            Compression::Uncompressed => Standard::ImageLayer.into(),
            Compression::Gzip => Standard::ImageLayerGzip.into(),
            Compression::Zstd => Standard::ImageLayerZstd.into(),
        }
    }

    /// The OCI type of a layer that is had from elsewhere (`urls`), and that registries refuse to distribute.
    pub fn foreign_layer(compression: Compression) -> MediaType {
        let behind = match compression {
            Compression::Uncompressed => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        MediaType(format!("{NOT_DISTRIBUTED}{behind}"))
    }

    /// Whether a layer of this type is one that registries refuse to distribute.
    pub fn is_foreign(&self) -> bool {
        [DOCKER_FOREIGN_LAYER, DOCKER_FOREIGN_LAYER_PLAIN].contains(&self.as_str())
            || self.0.starts_with(NOT_DISTRIBUTED)
    }

    /// Whether a document of this type is one image's manifest.
    pub fn is_manifest(&self) -> bool {
        *self == MediaType::manifest() || self.0 == DOCKER_MANIFEST
    }

    /// Whether a document of this type lists manifests of several platforms.
    pub fn is_index(&self) -> bool {
        *self == MediaType::index() || self.0 == DOCKER_MANIFEST_LIST
    }

    /// The compression of a layer of this type; `None` when it is no layer that we know.
    pub fn layer_compression(&self) -> Option<Compression> {
        let compressions = [Compression::Uncompressed, Compression::Gzip, Compression::Zstd];
        let own = compressions.into_iter().find(|c| *self == MediaType::layer(*c));
        own.or(match self.0.as_str() {
            DOCKER_LAYER_GZIP | DOCKER_FOREIGN_LAYER => Some(Compression::Gzip),
            DOCKER_LAYER | DOCKER_FOREIGN_LAYER_PLAIN => Some(Compression::Uncompressed),
            "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Compression::Zstd),
            "application/vnd.oci.image.layer.nondistributable.v1.tar" => Some(Compression::Uncompressed),
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" => Some(Compression::Gzip),
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => Some(Compression::Zstd),
            _ => None,
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Standard> for MediaType {
    fn from(standard: Standard) -> MediaType {
        MediaType(standard.to_string())
    }
}

impl From<&str> for MediaType {
    fn from(text: &str) -> MediaType {
        MediaType(text.to_owned())
    }
}

impl std::fmt::Display for MediaType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_say_how_they_are_compressed() {
        for (text, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Compression::Uncompressed)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Compression::Zstd)),
            (DOCKER_LAYER_GZIP, Some(Compression::Gzip)),
            (DOCKER_FOREIGN_LAYER_PLAIN, Some(Compression::Uncompressed)),
            (DOCKER_CONFIG, None),
        ] {
            assert_eq!(MediaType::from(text).layer_compression(), compression, "{text}");
        }
    }

    #[test]
    fn foreign_layers_are_known() {
        for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
            let foreign = MediaType::foreign_layer(compression);
            assert!(foreign.is_foreign(), "{foreign}");
            assert_eq!(foreign.layer_compression(), Some(compression), "{foreign}");
            assert!(!MediaType::layer(compression).is_foreign());
        }
        assert!(MediaType::from(DOCKER_FOREIGN_LAYER).is_foreign());
    }
}
