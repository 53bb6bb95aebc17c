//! Docker's archive, as `docker save` writes and `docker load` reads it.
//!
//! Read in both of its forms: with blobs named by digest beside an `index.json`, as Docker writes since 25.0, and with
//! `ID/layer.tar` and `CONFIG.json`, as it wrote before.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    path::Path,
};

use oci::{BadDocument, Descriptor, Digest, Manifest, Reference};
use serde::{Deserialize, Serialize};

use super::{
    LayoutError, NamedImage,
    read::{Files, blob_path},
    repo_tag,
    write::{write_files, write_members},
};
use crate::blobs::{BlobError, BlobSource, read_document};

/// An entry of `manifest.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Writes an archive that `docker load`, `podman load` and readers of OCI archives take.
///
/// # Errors
/// [`LayoutError`]; `out` then holds a partial archive.
pub fn write_docker_archive(
    images: &[NamedImage],
    blobs: &dyn BlobSource,
    out: &mut dyn Write,
) -> Result<(), LayoutError> {
    let saved =
        images.iter().map(|image| Ok(saved(image, blobs)?.0)).collect::<Result<Vec<_>, LayoutError>>()?;
    let manifest = serde_json::to_vec(&saved).map_err(|error| LayoutError::Write(error.into()))?;
    write_members(images, blobs, BTreeMap::from([("manifest.json", manifest)]), out)
}

/// Writes what `docker load` needs of one image to an engine that has some of its layers: of the layers, only the blobs that
/// are `lacked`. No other reader takes it.
///
/// # Errors
/// [`LayoutError`]; `out` then holds a partial archive.
pub fn write_docker_rest(
    image: &NamedImage,
    lacked: &BTreeSet<Digest>,
    blobs: &dyn BlobSource,
    out: &mut dyn Write,
) -> Result<(), LayoutError> {
    let (saved, manifest) = saved(image, blobs)?;
    let saved = serde_json::to_vec(&[saved]).map_err(|error| LayoutError::Write(error.into()))?;
    let mut seen = BTreeSet::new();
    let layers = manifest.layers.iter().filter(|layer| lacked.contains(&layer.digest));
    let sent: Vec<Descriptor> =
        layers.chain([&manifest.config]).filter(|blob| seen.insert(blob.digest)).cloned().collect();
    write_files(&sent, blobs, BTreeMap::from([("manifest.json", saved)]), out)
}

fn saved(image: &NamedImage, blobs: &dyn BlobSource) -> Result<(Saved, Manifest), LayoutError> {
    let digest = image.descriptor.digest;
    if image.descriptor.media_type.is_index() {
        return Err(LayoutError::SeveralPlatforms { digest });
    }
    let manifest = read_document(blobs, &image.descriptor)?;
    let manifest = Manifest::parse(&manifest).map_err(|source| BlobError::Document { digest, source })?;
    let saved = Saved {
        config: blob_path(&manifest.config.digest),
        repo_tags: Some(image.names.iter().filter_map(repo_tag).collect()),
        layers: Some(manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect()),
    };
    Ok((saved, manifest))
}

/// An archive of Docker's, open for reading.
pub struct DockerArchive {
    files: Files,
    path: String,
    images: Vec<DockerImage>,
}

/// An image of such an archive. It has no manifest: one is made of its config and its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerImage {
    /// Its names.
    pub names: Vec<Reference>,
    /// Its config's bytes.
    pub config: Vec<u8>,
    /// Its layers, base first, as [`DockerArchive::layer`] takes them.
    pub layers: Vec<String>,
}

impl DockerArchive {
    /// Opens an archive, or a folder with the same files.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn open(path: &Path) -> Result<DockerArchive, LayoutError> {
        let files = Files::open(path)?;
        let path = path.display().to_string();
        let missing = |name: &str| {
            let why = format!("it has no file `{name}`");
            LayoutError::NotALayout { path: path.clone(), why }
        };
        let saved = files.document("manifest.json")?.ok_or_else(|| missing("manifest.json"))?;
        let saved: Vec<Saved> = serde_json::from_slice(&saved).map_err(|source| LayoutError::Document {
            path: format!("{path}/manifest.json"),
            source: BadDocument { what: "list of saved images", source },
        })?;
        let mut images = Vec::new();
        for image in saved {
            let names = image.repo_tags.unwrap_or_default();
            images.push(DockerImage {
                names: names.iter().map(|name| Reference::parse(name)).collect::<Result<_, _>>()?,
                config: files.document(&image.config)?.ok_or_else(|| missing(&image.config))?,
                layers: image.layers.unwrap_or_default(),
            });
        }
        Ok(DockerArchive { files, path, images })
    }

    /// What it holds.
    pub fn images(&self) -> &[DockerImage] {
        &self.images
    }

    /// A layer's bytes, perhaps compressed: whether they are what the config says, only their diff id tells.
    ///
    /// # Errors
    /// [`LayoutError`] where it is not there.
    pub fn layer(&self, name: &str) -> Result<Box<dyn Read + Send>, LayoutError> {
        let failed = |source| LayoutError::File { path: format!("{}/{name}", self.path), source };
        let blob = self.files.file(name).map_err(failed)?;
        let blob = blob.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        Ok(Box::new(blob.reader))
    }
}
