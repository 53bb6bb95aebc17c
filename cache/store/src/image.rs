//! The local image store: manifests and indexes that are listed, and their names.
//!
//! An image is listed by its manifest's or index's digest, with names or without. Its documents and layers are blobs. The
//! database holds only what a listing needs; what an image is made of is read from its documents.

use std::collections::BTreeSet;

use oci::{Descriptor, Digest, Epoch, Index, Manifest, Reference};
use rusqlite::{OptionalExtension, Row, params};
use tree::LayerId;

use crate::{
    Error, Lease, Result, Store, blob,
    contents::Contents,
    database::{Durability, Fault, column, digest, signed, unsigned},
    lease::Pin,
    memo,
    tag_history::{TagEvent, TagPlace, TaggedBy, record},
};

/// An image of the local store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Its manifest, or the index of its platforms.
    pub descriptor: Descriptor,
    /// Its config; none for an index.
    pub config: Option<Digest>,
    /// When it was first listed here.
    pub added: Epoch,
    /// Its names, sorted; none for an image that is only known by its digest.
    pub names: Vec<Reference>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// As the manifest has it.
    pub descriptor: Descriptor,
    /// The layer, if the blob was unpacked or encoded here.
    pub layer: Option<LayerId>,
}

/// What naming an image changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagChange {
    /// Nothing: it had the name already.
    Same,
    /// No image had the name.
    New,
    /// Another image had the name, and has lost it.
    MovedFrom(Digest),
}

impl Store {
    /// Lists an image without a name. One that is listed already stays as it is.
    ///
    /// # Errors
    /// [`Error::NotKept`] before [`Store::keep`]; [`Error::MissingBlob`], [`Error::NotAnImage`], [`Error::BadImage`]; the
    /// database cannot be written.
    pub fn add_image(&self, lease: &Lease, image: &Descriptor, at: Epoch) -> Result<()> {
        self.list_image(lease, image, None, at).map(|_| ())
    }

    /// Lists an image under a name, which another image then loses, and remembers what did it. On disk when the call
    /// returns.
    ///
    /// # Errors
    /// [`Error::NotATag`]; and as those of [`Store::add_image`].
    pub fn tag(
        &self,
        lease: &Lease,
        name: &Reference,
        image: &Descriptor,
        at: Epoch,
        by: TaggedBy,
    ) -> Result<TagChange> {
        let name = tag_text(name)?;
        self.list_image(lease, image, Some((&name, by)), at)
    }

    fn list_image(
        &self,
        lease: &Lease,
        image: &Descriptor,
        name: Option<(&str, TaggedBy)>,
        at: Epoch,
    ) -> Result<TagChange> {
        let _guard = self.no_collector()?;
        let digest = image.digest;
        let listed = self.ask("look up an image", |contents| {
            Ok((
                has_image(contents, &digest)?,
                name.map(|(name, _)| tagged(contents, name)).transpose()?.flatten(),
            ))
        })?;
        if listed.0 && (name.is_none() || listed.1 == Some(digest)) {
            lease.pin(Pin::Image(digest))?;
            return Ok(TagChange::Same);
        }
        let config = self.config_of(image)?;
        let blobs = self.blobs_of(&digest)?;
        let descriptor = serde_json::to_string(image).expect("a descriptor is strings, numbers and maps");
        let change = self.change("list an image", Durability::Flushed, |contents| {
            all_kept(contents, &digest, &blobs)?;
            contents.connection.execute(
                "INSERT OR IGNORE INTO images (manifest, config, descriptor, added) VALUES (?1, ?2, ?3, ?4)",
                params![column(&digest), config.as_ref().map(column), descriptor, signed(at.0)],
            )?;
            let Some((name, by)) = name else { return Ok(TagChange::Same) };
            let before = tagged(contents, name)?;
            contents.connection.execute(
                "INSERT OR REPLACE INTO tags (name, manifest) VALUES (?1, ?2)",
                params![name, column(&digest)],
            )?;
            record(contents, name, TagPlace::Local, &TagEvent { digest, at, by: Some(by) })?;
            memo::forget(contents.layout)?;
            Ok(match before {
                None => TagChange::New,
                Some(before) if before == digest => TagChange::Same,
                Some(before) => TagChange::MovedFrom(before),
            })
        })?;
        lease.pin(Pin::Image(digest))?;
        Ok(change)
    }

    /// The image of a name, or of the digest in it; named in the lease with all that it is made of.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn image(&self, lease: &Lease, name: &Reference) -> Result<Option<ImageRow>> {
        let _guard = self.no_collector()?;
        let found = self.ask("look up an image", |contents| {
            let digest = match name.digest {
                Some(digest) => Some(digest),
                None => tagged(contents, &name.to_string())?,
            };
            match digest {
                Some(digest) => Ok(rows(contents)?.into_iter().find(|row| row.descriptor.digest == digest)),
                None => Ok(None),
            }
        })?;
        if let Some(row) = &found {
            lease.pin(Pin::Image(row.descriptor.digest))?;
        }
        Ok(found)
    }

    /// All images, the newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn images(&self) -> Result<Vec<ImageRow>> {
        self.ask("list the images", rows)
    }

    /// The images whose manifest's or config's digest begins with these hex digits, with or without `sha256:`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn images_by_id_prefix(&self, prefix: &str) -> Result<Vec<ImageRow>> {
        let prefix = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        let mut images = self.images()?;
        images.retain(|row| {
            let ids = [Some(row.descriptor.digest), row.config];
            !prefix.is_empty() && ids.into_iter().flatten().any(|id| id.hex().starts_with(prefix))
        });
        Ok(images)
    }

    /// Takes a name from its image, which stays listed. Returns the image.
    ///
    /// # Errors
    /// [`Error::NotATag`]; the database cannot be written.
    pub fn untag(&self, name: &Reference) -> Result<Option<Digest>> {
        let name = tag_text(name)?;
        self.change("untag an image", Durability::Flushed, |contents| {
            let before = tagged(contents, &name)?;
            if before.is_some() {
                contents.connection.execute("DELETE FROM tags WHERE name = ?1", [&name])?;
                memo::forget(contents.layout)?;
            }
            Ok(before)
        })
    }

    /// Takes an image off the list, with its names. Frees no space: [`Store::collect`] does. Returns whether it was listed.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn remove_image(&self, manifest: &Digest) -> Result<bool> {
        self.change("remove an image", Durability::Flushed, |contents| {
            let removed =
                contents.connection.execute("DELETE FROM images WHERE manifest = ?1", [column(manifest)])?;
            contents.connection.execute("DELETE FROM tags WHERE manifest = ?1", [column(manifest)])?;
            memo::forget(contents.layout)?;
            Ok(removed > 0)
        })
    }

    /// The layers of one image's manifest, base first, each with the layer that it is here.
    ///
    /// # Errors
    /// [`Error::MissingBlob`]; [`Error::BadImage`], also for an index; the database cannot be read.
    pub fn layers_of_image(&self, lease: &Lease, manifest: &Digest) -> Result<Vec<ImageLayer>> {
        let bytes = self.blob_bytes(lease, manifest)?;
        let bad = |source| Error::BadImage { manifest: *manifest, source };
        let layers = Manifest::parse(&bytes).map_err(bad)?.layers;
        let found = layers.into_iter().map(|descriptor| {
            let layer = self.layer_by_blob(lease, &descriptor.blob())?;
            Ok(ImageLayer { descriptor, layer })
        });
        found.collect()
    }

    fn config_of(&self, image: &Descriptor) -> Result<Option<Digest>> {
        if image.media_type.is_index() {
            return Ok(None);
        }
        if !image.media_type.is_manifest() {
            let media_type = image.media_type.0.clone();
            return Err(Error::NotAnImage { manifest: image.digest, media_type });
        }
        let path = self.layout().blob(&image.digest);
        if !path.exists() {
            return Err(Error::MissingBlob(image.digest));
        }
        let bad = |source| Error::BadImage { manifest: image.digest, source };
        Ok(Some(Manifest::parse(&blob::read_checked(&path, &image.digest)?).map_err(bad)?.config.digest))
    }

    /// The digests of all blobs of an image, its own first document included. Of documents that are not here (other
    /// platforms of an index) only their digest.
    pub(crate) fn blobs_of(&self, image: &Digest) -> Result<BTreeSet<Digest>> {
        let ImageBlobs { mut documents, layers } = self.image_blobs(image)?;
        documents.extend(layers);
        Ok(documents)
    }

    /// As [`Store::blobs_of`], layers apart.
    pub(crate) fn image_blobs(&self, image: &Digest) -> Result<ImageBlobs> {
        let mut blobs = ImageBlobs::default();
        let damaged = |why| Error::DamagedImage { image: *image, why: Box::new(why) };
        let mut documents = vec![*image];
        while let Some(document) = documents.pop() {
            let path = self.layout().blob(&document);
            if !blobs.documents.insert(document) || !path.exists() {
                continue;
            }
            let bytes = blob::read_checked(&path, &document).map_err(damaged)?;
            // A manifest has a config and an index has none: their types are told apart without asking who names them.
            if let Ok(manifest) = Manifest::parse(&bytes) {
                blobs.documents.insert(manifest.config.digest);
                blobs.layers.extend(manifest.layers.iter().map(|layer| layer.digest));
            } else {
                let bad = |source| Error::BadImage { manifest: document, source };
                let index = Index::parse(&bytes).map_err(bad).map_err(damaged)?;
                documents.extend(index.manifests.iter().map(|manifest| manifest.digest));
            }
        }
        Ok(blobs)
    }
}

/// What an image is made of.
#[derive(Debug, Default)]
pub(crate) struct ImageBlobs {
    /// Manifests, configs, indexes.
    pub(crate) documents: BTreeSet<Digest>,
    /// Layers.
    pub(crate) layers: BTreeSet<Digest>,
}

/// The text of a name that can be given: with a tag, without a digest.
pub(crate) fn tag_text(name: &Reference) -> Result<String> {
    if name.digest.is_some() || name.tag.is_none() {
        return Err(Error::NotATag(name.to_string()));
    }
    Ok(name.to_string())
}

/// The image that has a name.
pub(crate) fn tagged(contents: &Contents<'_>, name: &str) -> std::result::Result<Option<Digest>, Fault> {
    let mut query = contents.connection.prepare_cached("SELECT manifest FROM tags WHERE name = ?1")?;
    Ok(query.query_row([name], |row| digest(row, 0)).optional()?)
}

pub(crate) fn has_image(contents: &Contents<'_>, manifest: &Digest) -> std::result::Result<bool, Fault> {
    let mut query =
        contents.connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM images WHERE manifest = ?1)")?;
    Ok(query.query_row([column(manifest)], |row| row.get(0))?)
}

/// Checks that the image's document is here, and that what is here of it is kept.
fn all_kept(
    contents: &Contents<'_>,
    image: &Digest,
    blobs: &BTreeSet<Digest>,
) -> std::result::Result<(), Fault> {
    let mut query = contents
        .connection
        .prepare_cached("SELECT kept FROM contents WHERE kind = 'blob' AND digest = ?1")?;
    for blob in blobs {
        match query.query_row([column(blob)], |row| row.get::<_, bool>(0)).optional()? {
            Some(true) => {}
            Some(false) => return Err(Error::NotKept { manifest: *image, blob: *blob }.into()),
            None if blob == image => return Err(Error::MissingBlob(*blob).into()),
            None => {}
        }
    }
    Ok(())
}

fn rows(contents: &Contents<'_>) -> std::result::Result<Vec<ImageRow>, Fault> {
    let mut query = contents.connection.prepare_cached(
        "SELECT i.config, i.descriptor, i.added, t.name FROM images AS i
         LEFT JOIN tags AS t ON t.manifest = i.manifest ORDER BY i.added DESC, i.manifest, t.name",
    )?;
    let mut images: Vec<ImageRow> = Vec::new();
    for row in query.query_map([], |row| Ok((image_row(row)?, row.get::<_, Option<String>>(3)?)))? {
        let (row, name) = row?;
        let row = row?;
        if images.last().is_none_or(|last| last.descriptor.digest != row.descriptor.digest) {
            images.push(row);
        }
        if let (Some(image), Some(name)) = (images.last_mut(), name) {
            let bad = |e: oci::BadReference| Fault::Row { what: "name of an image", why: e.to_string() };
            image.names.push(Reference::parse(&name).map_err(bad)?);
        }
    }
    Ok(images)
}

fn image_row(row: &Row<'_>) -> rusqlite::Result<std::result::Result<ImageRow, Fault>> {
    let config = row.get::<_, Option<[u8; 32]>>(0)?.map(Digest::from_raw);
    let (text, added): (String, Epoch) = (row.get(1)?, Epoch(unsigned(row, 2)?));
    let bad = |e: serde_json::Error| Fault::Row { what: "descriptor of an image", why: e.to_string() };
    let descriptor = serde_json::from_str(&text).map_err(bad);
    Ok(descriptor.map(|descriptor| ImageRow { descriptor, config, added, names: Vec::new() }))
}
