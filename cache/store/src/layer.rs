//! Layers: a tree manifest, and a folder, blobs, or both.
//!
//! A layer's name is the digest of its tree manifest. Its forms come and go; the manifest stays as long as the layer.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use oci::{Digest, Epoch, Hasher};
use rusqlite::{OptionalExtension, params};
use tree::{ContentDigest, Layer, LayerId};

use crate::{
    Error, Lease, Result, Store,
    contents::{Contents, drop_rest},
    database::{Durability, Fault, column, digest, signed, unsigned},
    layout::Kind,
    lease::Pin,
    measure,
    record::STAMP_SECONDS,
};

/// Tree manifests kept in memory together hold at most this many entries; then all are forgotten.
const ENTRIES_MAX: usize = 1_000_000;

/// Which operation made a layer, so that the same operation with the same content is given the same layer again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Digest of the operation and the output's index, without its inputs.
    pub op: Digest,
    /// When it was made.
    pub created: Epoch,
}

/// An earlier result that is adopted in place of an equal one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interned {
    /// The earlier layer.
    pub layer: LayerId,
    /// When it was made.
    pub created: Epoch,
}

/// A layer in the lease's folder.
pub(crate) struct LayerAside<'a> {
    pub(crate) id: LayerId,
    manifest: PathBuf,
    manifest_bytes: u64,
    /// And what it takes on the disk, in bytes.
    folder: Option<(&'a Path, u64)>,
}

/// What of a [`LayerAside`] got its name: the manifest, and the folder.
#[derive(Clone, Copy, Default)]
pub(crate) struct Taken(bool, bool);

impl LayerAside<'_> {
    /// Gives what is not here already its name. Inside a write transaction.
    pub(crate) fn add(&self, contents: &Contents<'_>, lease: &Lease) -> std::result::Result<Taken, Fault> {
        let id = self.id.digest();
        let manifest = contents.add(lease, Kind::Tree, &id, self.manifest_bytes, &self.manifest)?;
        let folder = match self.folder {
            Some((folder, bytes)) => contents.add(lease, Kind::Folder, &id, bytes, folder)?,
            None => false,
        };
        Ok(Taken(manifest, folder))
    }

    /// Removes what was here already.
    pub(crate) fn drop_rest(&self, Taken(manifest, folder): Taken) -> Result<()> {
        if !manifest {
            drop_rest(&self.manifest)?;
        }
        match self.folder {
            Some((path, _)) if !folder => drop_rest(path),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Adds a layer, named in the lease.
    ///
    /// `folder` is the layer in the form of an overlayfs upper, made in [`Lease::new_folder`]; it is moved away, or
    /// removed when the layer has a folder already. Without it the layer has only its manifest, and is *here* as soon as a
    /// blob of it is added. Of one `origin` and content the first layer counts.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn commit_layer(
        &self,
        lease: &Lease,
        layer: &Layer,
        folder: Option<&Path>,
        origin: Option<Origin>,
    ) -> Result<LayerId> {
        let origin = origin.map(|origin| (origin, layer.content_digest()));
        self.commit(lease, layer, folder, origin)
    }

    /// As [`Store::commit_layer`], of a layer without a folder whose content was named already.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn commit_planned(
        &self,
        lease: &Lease,
        layer: &Layer,
        origin: Origin,
        content: ContentDigest,
    ) -> Result<LayerId> {
        self.commit(lease, layer, None, Some((origin, content)))
    }

    fn commit(
        &self,
        lease: &Lease,
        layer: &Layer,
        folder: Option<&Path>,
        origin: Option<(Origin, ContentDigest)>,
    ) -> Result<LayerId> {
        let aside = self.set_aside(lease, layer, folder)?;
        let id = aside.id;
        let _guard = self.no_collector()?;
        let taken = self.change("add a layer", Durability::Lazy, |contents| {
            let taken = aside.add(contents, lease)?;
            if let Some((origin, content)) = origin {
                add_origin(contents, &origin, &content, &id)?;
            }
            Ok(taken)
        })?;
        match folder {
            Some(_) => lease.pin_folder(id)?,
            None => lease.pin(Pin::Layer(id))?,
        }
        aside.drop_rest(taken)?;
        Ok(id)
    }

    /// Writes a layer's manifest, so that it needs no more than a name.
    pub(crate) fn set_aside<'a>(
        &self,
        lease: &Lease,
        layer: &Layer,
        folder: Option<&'a Path>,
    ) -> Result<LayerAside<'a>> {
        let folder = folder.map(|folder| (folder, measure::layer_bytes(layer, folder)));
        let path = lease.new_path()?;
        let failed = |e| Error::io("write", &path, e);
        let mut file = fs::File::create(&path).map_err(failed)?;
        let (mut hasher, mut manifest_bytes, mut written) = (Hasher::new(), 0, Ok(()));
        layer.encode_to(&mut |piece| {
            hasher.update(piece);
            manifest_bytes += piece.len() as u64;
            if written.is_ok() {
                written = file.write_all(piece);
            }
        });
        written.map_err(failed)?;
        Ok(LayerAside { id: LayerId::of_manifest(hasher.finish()), manifest: path, manifest_bytes, folder })
    }

    /// Names a layer in the lease that this build will give a folder or a blob before it is done, so that a record may name
    /// it. Others find the layer and the record once it has one.
    ///
    /// # Errors
    /// The lease cannot be written.
    pub fn promise_layer(&self, lease: &Lease, layer: LayerId) -> Result<()> {
        lease.pin_layer(layer)
    }

    /// Whether a layer is here: its manifest, and its folder or a blob. If so it is named in the lease.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn has_layer(&self, lease: &Lease, layer: &LayerId) -> Result<bool> {
        let _guard = self.no_collector()?;
        let here = self.ask("look up a layer", |contents| contents.has_layer(layer))?;
        if here {
            lease.pin_layer(*layer)?;
        }
        Ok(here)
    }

    /// A layer's folder in the form of an overlayfs upper; named in the lease. `None` when the layer has none.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn layer_folder(&self, lease: &Lease, layer: &LayerId) -> Result<Option<PathBuf>> {
        // One look per layer and build: nobody takes what the lease names.
        if lease.has_seen_folder(layer) {
            return Ok(Some(self.layout().layer(layer)));
        }
        let _guard = self.no_collector()?;
        let size = self.ask("look up a layer", |contents| contents.size(Kind::Folder, &layer.digest()))?;
        if size.is_none() {
            return Ok(None);
        }
        lease.pin_folder(*layer)?;
        Ok(Some(self.layout().layer(layer)))
    }

    /// A layer's tree manifest. Read once, then in memory.
    ///
    /// # Errors
    /// [`Error::MissingLayer`]; [`Error::BadTree`] when the disk gives other bytes; it cannot be read.
    pub fn tree(&self, layer: &LayerId) -> Result<Arc<Layer>> {
        let trees = || self.trees().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = trees().get(layer) {
            return Ok(Arc::clone(known));
        }
        let size = self.ask("look up a layer", |contents| contents.size(Kind::Tree, &layer.digest()))?;
        if size.is_none() {
            return Err(Error::MissingLayer(*layer));
        }
        let path = self.layout().tree(layer);
        let bytes = fs::read(&path).map_err(|e| Error::io("read", path, e))?;
        if Digest::of(&bytes) != layer.digest() {
            return Err(Error::BadTree { layer: *layer, source: None });
        }
        let bad = |source| Error::BadTree { layer: *layer, source: Some(source) };
        let read = Arc::new(Layer::decode(&bytes).map_err(bad)?);
        self.remember_tree(*layer, &read);
        Ok(read)
    }

    /// Keeps a tree manifest in memory.
    pub(crate) fn remember_tree(&self, layer: LayerId, tree: &Arc<Layer>) {
        let mut trees = self.trees().lock().unwrap_or_else(PoisonError::into_inner);
        let entries: usize = trees.values().map(|tree| tree.entries.len()).sum();
        if entries + tree.entries.len() > ENTRIES_MAX {
            trees.clear();
        }
        trees.insert(layer, Arc::clone(tree));
    }

    /// Renews a layer's stamp of use, once a day. Of a layer that a record names, the record's counts too.
    pub(crate) fn stamp_layer(&self, layer: &LayerId, used: Epoch) {
        let path = self.layout().tree(layer);
        if self.is_older(&path, STAMP_SECONDS) {
            let at = UNIX_EPOCH + Duration::from_secs(used.0);
            // Who cannot stamp can still build.
            let _stamped = fs::File::open(path).and_then(|file| file.set_modified(at));
        }
    }

    /// An earlier layer that the same operation made with the same content, named in the lease.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn intern(&self, lease: &Lease, op: &Digest, content: &ContentDigest) -> Result<Option<Interned>> {
        let _guard = self.no_collector()?;
        let found = self.ask("look up an earlier result", |contents| {
            let found = origin(contents, op, content)?;
            Ok(match found {
                Some(found) if contents.has_layer(&found.layer)? => Some(found),
                _ => None,
            })
        })?;
        if let Some(found) = &found {
            lease.pin_layer(found.layer)?;
        }
        Ok(found)
    }
}

pub(crate) fn origin(
    contents: &Contents<'_>,
    op: &Digest,
    content: &ContentDigest,
) -> std::result::Result<Option<Interned>, Fault> {
    let mut query = contents
        .connection
        .prepare_cached("SELECT layer, created FROM origins WHERE op = ?1 AND content = ?2")?;
    let found = query.query_row([column(op), column(&content.digest())], |row| {
        Ok(Interned { layer: LayerId::of_manifest(digest(row, 0)?), created: Epoch(unsigned(row, 1)?) })
    });
    Ok(found.optional()?)
}

pub(crate) fn add_origin(
    contents: &Contents<'_>,
    made: &Origin,
    content: &ContentDigest,
    layer: &LayerId,
) -> std::result::Result<(), Fault> {
    if let Some(first) = origin(contents, &made.op, content)?
        && contents.has_layer(&first.layer)?
    {
        return Ok(());
    }
    let mut insert = contents.connection.prepare_cached(
        "INSERT OR REPLACE INTO origins (op, content, layer, created) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute(params![
        column(&made.op),
        column(&content.digest()),
        column(&layer.digest()),
        signed(made.created.0)
    ])?;
    Ok(())
}
