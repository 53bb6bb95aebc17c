//! A layer's archives: one blob for each codec it was encoded with.

use std::collections::BTreeMap;

use oci::{BlobDigest, DiffId, Digest, MediaType};
use rusqlite::{Row, params};
use tree::LayerId;

use crate::{
    Error, Lease, Result, Store,
    contents::Contents,
    database::{Durability, Fault, column, digest, signed, unsigned},
    layout::Kind,
    lease::Pin,
    memo,
};

/// How a layer was made into a blob: codec, level, encoder version and epoch, or that it was pulled, as one text. Two
/// encodings with the same text have the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Codec(pub String);

/// A layer as an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the blob as stored.
    pub blob: BlobDigest,
    /// Length of the blob in bytes.
    pub size_bytes: u64,
    /// Length of the uncompressed tar in bytes.
    pub diff_size_bytes: u64,
    /// Media type of the blob.
    pub media_type: MediaType,
    /// What a descriptor says of the blob's index of files, where it has one.
    pub annotations: BTreeMap<String, String>,
}

impl Store {
    /// Says that a blob that is here is this layer.
    ///
    /// # Errors
    /// [`Error::MissingBlob`]; the database cannot be written.
    pub fn add_layer_blob(
        &self,
        lease: &Lease,
        layer: &LayerId,
        codec: &Codec,
        form: &LayerBlob,
    ) -> Result<()> {
        let blob = form.blob.digest();
        if self.blob(lease, &blob)?.is_none() {
            return Err(Error::MissingBlob(blob));
        }
        let _guard = self.no_collector()?;
        self.change("add a layer's blob", Durability::Lazy, |contents| {
            add_form(contents, layer, codec, form)
        })?;
        lease.pin(Pin::Layer(*layer))
    }

    /// A layer's blob of this codec, named in the lease; `None` when none is here.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn layer_blob(&self, lease: &Lease, layer: &LayerId, codec: &Codec) -> Result<Option<LayerBlob>> {
        let forms = self.layer_blobs(lease, layer)?;
        Ok(forms.into_iter().find(|(form, _)| form == codec).map(|(_, blob)| blob))
    }

    /// All of a layer's blobs that are here, by codec, named in the lease.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn layer_blobs(&self, lease: &Lease, layer: &LayerId) -> Result<Vec<(Codec, LayerBlob)>> {
        let _guard = self.no_collector()?;
        let forms = self.ask("look up a layer's blobs", |contents| {
            let mut query = contents.connection.prepare_cached(
                "SELECT codec, diff_id, blob, size_bytes, diff_size_bytes, media_type, annotations
                 FROM layer_blobs WHERE layer = ?1 ORDER BY codec",
            )?;
            let mut forms = Vec::new();
            let mut rows = query.query([column(&layer.digest())])?;
            while let Some(row) = rows.next()? {
                let form = layer_blob(row)?;
                if contents.size(Kind::Blob, &form.1.blob.digest())?.is_some() {
                    forms.push(form);
                }
            }
            Ok(forms)
        })?;
        for (_, form) in &forms {
            lease.pin(Pin::Blob(form.blob.digest()))?;
        }
        Ok(forms)
    }

    /// The layer that a blob is, if it was unpacked or encoded here; named in the lease.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn layer_by_blob(&self, lease: &Lease, blob: &BlobDigest) -> Result<Option<LayerId>> {
        let query = "SELECT layer FROM layer_blobs WHERE blob = ?1 ORDER BY layer";
        let found = self.layer_where(lease, query, blob.digest())?;
        if let Some(layer) = &found {
            self.stamp_layer(layer, self.clock().epoch());
        }
        Ok(found)
    }

    /// The layer whose archive has this diff id; named in the lease.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn layer_by_diff_id(&self, lease: &Lease, diff_id: &DiffId) -> Result<Option<LayerId>> {
        self.layer_where(
            lease,
            "SELECT layer FROM layer_blobs WHERE diff_id = ?1 ORDER BY layer",
            diff_id.digest(),
        )
    }

    fn layer_where(&self, lease: &Lease, query: &str, value: Digest) -> Result<Option<LayerId>> {
        let _guard = self.no_collector()?;
        let found = self.ask("look up a layer", |contents| {
            let mut query = contents.connection.prepare_cached(query)?;
            for layer in query.query_map([column(&value)], |row| digest(row, 0))? {
                let layer = LayerId::of_manifest(layer?);
                if contents.has_layer(&layer)? {
                    return Ok(Some(layer));
                }
            }
            Ok(None)
        })?;
        if let Some(layer) = found {
            lease.pin_layer(layer)?;
        }
        Ok(found)
    }
}

/// Says that a blob that is here is this layer. Inside a write transaction.
pub(crate) fn add_form(
    contents: &Contents<'_>,
    layer: &LayerId,
    codec: &Codec,
    form: &LayerBlob,
) -> std::result::Result<(), Fault> {
    let (of, blob, diff_id) = (layer.digest(), form.blob.digest(), form.diff_id.digest());
    let query = "SELECT EXISTS (SELECT 1 FROM layer_blobs WHERE layer = ?1) AND NOT EXISTS
         (SELECT 1 FROM layer_blobs WHERE layer = ?1 AND codec = ?2 AND blob = ?3)";
    let mut other = contents.connection.prepare_cached(query)?;
    if other.query_row(params![column(&of), codec.0, column(&blob)], |row| row.get(0))? {
        // An image that had the other one may now get this one.
        memo::forget(contents.layout)?;
    }
    let annotations = serde_json::to_string(&form.annotations).expect("text is always JSON");
    let mut insert = contents.connection.prepare_cached(
        "INSERT OR REPLACE INTO layer_blobs
         (layer, codec, diff_id, blob, size_bytes, diff_size_bytes, media_type, annotations)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    insert.execute(params![
        column(&of),
        codec.0,
        column(&diff_id),
        column(&blob),
        signed(form.size_bytes),
        signed(form.diff_size_bytes),
        form.media_type.0,
        annotations,
    ])?;
    Ok(())
}

fn layer_blob(row: &Row<'_>) -> std::result::Result<(Codec, LayerBlob), Fault> {
    let annotations: String = row.get(6)?;
    let annotations = serde_json::from_str(&annotations);
    let form = LayerBlob {
        diff_id: DiffId::of_tar(digest(row, 1)?),
        blob: BlobDigest::of_blob(digest(row, 2)?),
        size_bytes: unsigned(row, 3)?,
        diff_size_bytes: unsigned(row, 4)?,
        media_type: MediaType(row.get(5)?),
        annotations: annotations
            .map_err(|error| Fault::Row { what: "annotations of a layer's blob", why: error.to_string() })?,
    };
    Ok((Codec(row.get(0)?), form))
}
