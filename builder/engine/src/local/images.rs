//! `kiln images`, `inspect`, `history`, `tag`, `rmi`.

use oci::{Descriptor, Digest, Epoch, ImageConfig, Index, Manifest, Platform, Reference};
use store::{Collection, ImageRow, Lease, TagChange, TaggedBy};

use crate::{
    engine::Engine,
    error::{Cause, Error},
};

/// An image of the local store.
#[derive(Clone, Debug)]
pub struct FoundImage {
    /// Its manifest, or the index of its platforms.
    pub descriptor: Descriptor,
    /// The manifest of the wanted platform.
    pub manifest_digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
    /// Its names.
    pub names: Vec<Reference>,
    /// When it was first listed here.
    pub added: Epoch,
}

impl FoundImage {
    /// Size of all its blobs in bytes, as a registry would hold it.
    pub fn size_bytes(&self) -> u64 {
        let layers: u64 = self.manifest.layers.iter().map(|layer| layer.size).sum();
        layers + self.manifest.config.size + self.descriptor.size
    }
}

/// One line of an image's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// RFC 3339.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Free text.
    pub comment: String,
    /// The layer that it made, and its blob's size in bytes.
    pub layer: Option<(Digest, u64)>,
}

impl Engine {
    /// All images, the newest first.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn images(&self) -> Result<Vec<FoundImage>, Error> {
        let lease = self.store.lease()?;
        let rows = self.store.images()?;
        Ok(rows.iter().map(|row| self.read(&lease, row)).collect::<Result<_, _>>()?)
    }

    /// An image by name, or by the first digits of its digest.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn image(&self, name: &str) -> Result<FoundImage, Error> {
        let lease = self.store.lease()?;
        Ok(self.find(&lease, name)?)
    }

    /// The history of an image, newest first.
    ///
    /// # Errors
    /// As [`Engine::image`].
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>, Error> {
        let image = self.image(name)?;
        let mut layers = image.manifest.layers.iter();
        let entry = |entry: &oci::History| HistoryEntry {
            created: entry.created.clone(),
            created_by: entry.created_by.clone().unwrap_or_default(),
            comment: entry.comment.clone().unwrap_or_default(),
            layer: if entry.empty_layer {
                None
            } else {
                layers.next().map(|layer| (layer.digest, layer.size))
            },
        };
        let mut history: Vec<HistoryEntry> = image.config.history.iter().map(entry).collect();
        history.reverse();
        Ok(history)
    }

    /// Gives an image a name. Whether another image lost it.
    ///
    /// # Errors
    /// There is no such image.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<Option<Digest>, Error> {
        let lease = self.store.lease()?;
        let found = self.find(&lease, image)?;
        self.store.keep()?;
        let change =
            self.store.tag(&lease, name, &found.descriptor, self.clock.now().epoch(), TaggedBy::Tag)?;
        Ok(match change {
            TagChange::MovedFrom(other) => Some(other),
            TagChange::Same | TagChange::New => None,
        })
    }

    /// Takes a name away, and the image with its last one; by digest, the image with all its names. What was removed, in words.
    ///
    /// # Errors
    /// There is no such image.
    pub fn remove_image(&self, name: &str) -> Result<Vec<String>, Error> {
        let lease = self.store.lease()?;
        // Of its documents none is read: a damaged image can be removed, too.
        let found = self.find_row(&lease, name)?;
        let digest = found.descriptor.digest;
        let reference = Reference::parse(name).ok().filter(|reference| found.names.contains(reference));
        let mut said = Vec::new();
        if let Some(reference) = &reference {
            self.store.untag(reference)?;
            said.push(format!("Untagged: {}", reference.familiar()));
        }
        let last = found.names.len() <= 1;
        if reference.is_none() || last {
            if reference.is_none() {
                said.extend(found.names.iter().map(|name| format!("Untagged: {}", name.familiar())));
            }
            self.store.remove_image(&digest)?;
            said.push(format!("Deleted: {digest}"));
        }
        drop(lease);
        self.store.collect(&Collection::default())?;
        Ok(said)
    }

    pub(crate) fn find(&self, lease: &Lease, name: &str) -> Result<FoundImage, Cause> {
        self.read(lease, &self.find_row(lease, name)?)
    }

    fn find_row(&self, lease: &Lease, name: &str) -> Result<ImageRow, Cause> {
        let missing = || Cause::NoImage { name: name.to_owned(), place: "the local store".to_owned() };
        if let Ok(reference) = Reference::parse(name)
            && let Some(row) = self.store.image(lease, &reference)?
        {
            return Ok(row);
        }
        match self.store.images_by_id_prefix(name)?.as_slice() {
            [only] => Ok(only.clone()),
            _ => Err(missing()),
        }
    }

    fn read(&self, lease: &Lease, row: &ImageRow) -> Result<FoundImage, Cause> {
        let mut digest = row.descriptor.digest;
        let image = digest;
        let document = |digest: &Digest| {
            let damaged = |why| store::Error::DamagedImage { image, why: Box::new(why) };
            self.store.blob_bytes(lease, digest).map_err(damaged)
        };
        let mut bytes = document(&digest)?;
        if row.descriptor.media_type.is_index() {
            let index = Index::parse(&bytes)?;
            let first = index.select(&Platform::host()).or(index.manifests.first());
            let missing = || Cause::NoImage { name: digest.to_string(), place: "an empty index".to_owned() };
            digest = first.ok_or_else(missing)?.digest;
            bytes = document(&digest)?;
        }
        let manifest = Manifest::parse(&bytes)?;
        let config = ImageConfig::parse(&document(&manifest.config.digest)?)?;
        Ok(FoundImage {
            descriptor: row.descriptor.clone(),
            manifest_digest: digest,
            manifest,
            config,
            names: row.names.clone(),
            added: row.added,
        })
    }
}
