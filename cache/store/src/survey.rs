//! Makes the ledger of a state folder: reads the database, the images' documents and the disk. Changes nothing.
//!
//! Every byte is in one entry. A layer's entry has its folder, its manifest and its blobs; a blob that is several layers, or
//! none yet, is an entry that they stand on; an image's entry has its documents and stands on its layers.

mod records;
mod sum;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
};

use oci::{Digest, Epoch};
use tree::LayerId;

use crate::{
    Error, Result, Store,
    contents::Contents,
    database::{Fault, digest, unsigned},
    image::ImageBlobs,
    layout::{Kind, Layout},
    lease::{Pin, list},
    ledger::{Entry, Ledger, Thing},
    measure,
    usage::{Usage, UsageType},
    worth,
};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) ledger: Ledger,
    /// Contents that may be believed and are on disk.
    pub(crate) rows: BTreeMap<(Kind, Digest), Row>,
    /// Rows of contents that nobody may believe, or that are not on disk.
    pub(crate) rotten: Vec<i64>,
    /// Rows of records that nobody may believe, or that lack a layer.
    pub(crate) rotten_records: Vec<i64>,
    /// Files and folders in the places of contents that have no row.
    pub(crate) strays: Vec<(Kind, String)>,
    layers: BTreeMap<Digest, usize>,
    images: BTreeMap<Digest, usize>,
    /// The records of each result.
    results: BTreeMap<Vec<LayerId>, usize>,
    /// The entry of each blob: its layer's, or its own.
    blobs: BTreeMap<Digest, usize>,
    /// The blobs that images with a name need.
    held: BTreeSet<Digest>,
}

/// A content's row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) seq: i64,
    /// What it takes on the disk.
    bytes: u64,
    modified: Epoch,
}

/// An image of the list.
struct Listed {
    manifest: Digest,
    added: Epoch,
    /// When it was last given a name.
    named: Option<Epoch>,
    names: Vec<String>,
    blobs: ImageBlobs,
}

type Found<T> = std::result::Result<T, Fault>;

impl Store {
    /// Looks at everything. `others` are the entries that the database does not know.
    pub(crate) fn survey(
        &self,
        contents: &Contents<'_>,
        pins: &BTreeSet<Pin>,
        others: Vec<Entry>,
    ) -> Found<Survey> {
        let now = self.clock().epoch().0;
        let ledger = Ledger { entries: others, disk: self.disk(), now, ..Ledger::default() };
        let mut survey = Survey { ledger, ..Survey::default() };
        survey.read_rows(contents)?;
        survey.find_strays(contents.layout)?;
        let images = self.listed(contents)?;
        for image in images.iter().filter(|image| !image.names.is_empty()) {
            survey.held.extend(image.blobs.documents.iter().chain(&image.blobs.layers));
        }
        survey.add_layers();
        survey.add_layer_blobs(contents)?;
        survey.add_images(&images);
        survey.add_blobs(&images);
        let keys = survey.add_records(contents)?;
        survey.mark_used(self, pins, &keys)?;
        survey.stand_images(&images);
        survey.finish();
        Ok(survey)
    }

    fn listed(&self, contents: &Contents<'_>) -> Found<Vec<Listed>> {
        let mut query = contents.connection.prepare(
            "SELECT i.manifest, i.added, (SELECT max(at) FROM tag_history AS h WHERE h.manifest = i.manifest)
             FROM images AS i ORDER BY i.added DESC, i.manifest",
        )?;
        let rows = query
            .query_map([], |row| Ok((digest(row, 0)?, unsigned(row, 1)?, row.get::<_, Option<i64>>(2)?)))?;
        let mut names =
            contents.connection.prepare("SELECT name FROM tags WHERE manifest = ?1 ORDER BY name")?;
        let mut images = Vec::new();
        for row in rows {
            let (manifest, added, named) = row?;
            let names = names.query_map([crate::database::column(&manifest)], |row| row.get(0))?;
            images.push(Listed {
                manifest,
                added: Epoch(added),
                named: named.and_then(|at| u64::try_from(at).ok()).map(Epoch),
                names: names.collect::<rusqlite::Result<_>>()?,
                blobs: self.image_blobs(&manifest)?,
            });
        }
        // Those with a name first: documents that several have are theirs.
        images.sort_by_key(|image| image.names.is_empty());
        Ok(images)
    }
}

impl Survey {
    /// The layers whose last use nothing tells any more but their own stamp, with that use.
    pub(crate) fn alone(&self) -> Vec<(LayerId, Epoch)> {
        let left = self.ledger.entries.iter().filter(|entry| !entry.gone && entry.above == 0);
        let used = |entry: &Entry| match (&entry.thing, entry.usage.last_used) {
            (Thing::Layer(layer), Some(used)) => Some((*layer, used)),
            _ => None,
        };
        left.filter_map(used).collect()
    }

    fn read_rows(&mut self, contents: &Contents<'_>) -> Found<()> {
        let mut query = contents.connection.prepare(
            "SELECT seq, kind, digest, size_bytes, kept = 1 OR boot = ?1 FROM contents ORDER BY seq",
        )?;
        let rows = query.query_map([contents.boot.as_str()], |row| {
            let kind: String = row.get(1)?;
            Ok((row.get::<_, i64>(0)?, kind, digest(row, 2)?, unsigned(row, 3)?, row.get::<_, bool>(4)?))
        })?;
        for row in rows {
            let (seq, kind, named, size_bytes, valid) = row?;
            let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
            let Some(kind) = kind.filter(|_| valid) else {
                self.rotten.push(seq);
                continue;
            };
            let path = contents.layout.content(kind, &named);
            let file = match fs::symlink_metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                // What cannot be looked at is not gone.
                found => Some(found.map_err(|e| Error::io("look at", path, e))?),
            };
            let whole = file.filter(|file| match kind {
                Kind::Folder => file.is_dir(),
                Kind::Blob | Kind::Tree => file.is_file() && file.len() == size_bytes,
            });
            let Some(file) = whole else {
                self.rotten.push(seq);
                continue;
            };
            let modified = Epoch(u64::try_from(file.mtime()).unwrap_or(0));
            let bytes = if kind == Kind::Folder { size_bytes } else { measure::blocks(size_bytes) };
            self.rows.insert((kind, named), Row { seq, bytes, modified });
        }
        Ok(())
    }

    fn find_strays(&mut self, layout: &Layout) -> Result<()> {
        let mut bytes = 0;
        for kind in Kind::ALL {
            for name in list(&layout.contents(kind))? {
                let known = Digest::from_hex(&name).is_ok_and(|named| self.rows.contains_key(&(kind, named)));
                if !known {
                    bytes += measure::on_disk(&layout.contents(kind).join(&name));
                    self.strays.push((kind, name));
                }
            }
        }
        if !self.strays.is_empty() {
            let description = format!("{} files and folders that killed builds left", self.strays.len());
            let usage = Usage {
                id: "strays".to_owned(),
                description,
                size_bytes: bytes,
                ..Usage::of(UsageType::Internal)
            };
            self.ledger.add(Entry { cache_bytes: bytes, rubbish: true, ..Entry::new(usage, Thing::Strays) });
        }
        Ok(())
    }

    fn add_layers(&mut self) {
        let named = self.rows.keys().filter(|(kind, _)| *kind != Kind::Blob).map(|(_, named)| *named);
        for named in named.collect::<BTreeSet<Digest>>() {
            let usage = Usage { id: named.hex(), ..Usage::of(UsageType::Regular) };
            let at = self.ledger.add(Entry::new(usage, Thing::Layer(LayerId::of_manifest(named))));
            self.layers.insert(named, at);
        }
    }

    fn add_layer_blobs(&mut self, contents: &Contents<'_>) -> Found<()> {
        let mut query = contents
            .connection
            .prepare("SELECT DISTINCT blob, layer FROM layer_blobs ORDER BY blob, layer")?;
        let mut layers_of: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        for row in query.query_map([], |row| Ok((digest(row, 0)?, digest(row, 1)?)))? {
            let (blob, layer) = row?;
            let entry = self.layers.get(&layer).filter(|_| self.rows.contains_key(&(Kind::Tree, layer)));
            if let Some(entry) = entry.filter(|_| self.rows.contains_key(&(Kind::Blob, blob))) {
                layers_of.entry(blob).or_default().push(*entry);
            }
        }
        for (blob, layers) in layers_of {
            let owner = match layers[..] {
                [only] => only,
                _ => self.add_blob(blob, "an archive of several layers".to_owned()),
            };
            self.blobs.insert(blob, owner);
            self.ledger.entries[owner].blobs.push(blob);
            layers.iter().for_each(|layer| self.ledger.stand(*layer, owner));
        }
        Ok(())
    }

    fn add_blob(&mut self, blob: Digest, description: String) -> usize {
        let usage = Usage { id: blob.hex(), description, ..Usage::of(UsageType::Regular) };
        self.ledger.add(Entry::new(usage, Thing::Blob))
    }

    /// Images with their documents.
    fn add_images(&mut self, images: &[Listed]) {
        for image in images {
            let is_named = !image.names.is_empty();
            let description =
                if is_named { image.names.join(", ") } else { "an image without a name".to_owned() };
            let usage = Usage {
                id: image.manifest.hex(),
                description,
                created: Some(image.added),
                last_used: image.named.max(Some(image.added)),
                shared: is_named,
                cost_ms: worth::IMAGE_COST_MS,
                ..Usage::of(UsageType::Image)
            };
            let thing = if is_named { Thing::Fixed } else { Thing::Image(image.manifest) };
            let at = self.ledger.add(Entry::new(usage, thing));
            self.images.insert(image.manifest, at);
            for document in &image.blobs.documents {
                if self.rows.contains_key(&(Kind::Blob, *document)) && !self.blobs.contains_key(document) {
                    self.blobs.insert(*document, at);
                    self.ledger.entries[at].blobs.push(*document);
                }
            }
        }
    }

    /// Blobs that are no layer here, and no document of a listed image.
    fn add_blobs(&mut self, images: &[Listed]) {
        let all: Vec<Digest> =
            self.rows.keys().filter(|(kind, _)| *kind == Kind::Blob).map(|(_, named)| *named).collect();
        for blob in all.into_iter().filter(|blob| !self.blobs.contains_key(blob)).collect::<Vec<_>>() {
            let image = images.iter().find(|image| image.blobs.layers.contains(&blob));
            let name =
                |image: &Listed| image.names.first().cloned().unwrap_or_else(|| image.manifest.to_string());
            let description = match image {
                Some(image) => format!("a layer of {}, not unpacked", name(image)),
                None => "a blob that no image of the list has".to_owned(),
            };
            let at = self.add_blob(blob, description);
            self.blobs.insert(blob, at);
            self.ledger.entries[at].blobs.push(blob);
        }
        for image in images.iter().rev() {
            let name = image.names.first().cloned().unwrap_or_else(|| image.manifest.to_string());
            for blob in &image.blobs.layers {
                let Some(entry) = self.blobs.get(blob).map(|at| &mut self.ledger.entries[*at]) else {
                    continue;
                };
                if matches!(entry.thing, Thing::Layer(_)) {
                    entry.usage.description = format!("a layer of {name}");
                }
            }
        }
    }

    /// Whether a layer is here: its manifest, and its folder or a blob.
    fn is_here(&self, layer: &Digest) -> bool {
        let has = |kind| self.rows.contains_key(&(kind, *layer));
        // What a layer stands on are its blobs that are other layers, too.
        let blobs = |at: &usize| {
            let entry = &self.ledger.entries[*at];
            !entry.blobs.is_empty() || !entry.below.is_empty()
        };
        has(Kind::Tree) && (has(Kind::Folder) || self.layers.get(layer).is_some_and(blobs))
    }

    fn mark_used(
        &mut self,
        store: &Store,
        pins: &BTreeSet<Pin>,
        keys: &BTreeMap<Digest, Vec<usize>>,
    ) -> Result<()> {
        let mut used = BTreeSet::new();
        let blob = |blob: &Digest| self.blobs.get(blob).copied();
        for pin in pins {
            match pin {
                Pin::Layer(layer) => used.extend(self.layers.get(&layer.digest())),
                Pin::Blob(named) => used.extend(blob(named)),
                Pin::Record(key) => used.extend(keys.get(key).into_iter().flatten()),
                Pin::Image(manifest) => used.extend(store.blobs_of(manifest)?.iter().filter_map(blob)),
            }
        }
        for at in used {
            self.ledger.entries[at].usage.in_use = true;
        }
        Ok(())
    }

    /// An image without a name stands on its layers as a record does; what one with a name needs is shared.
    fn stand_images(&mut self, images: &[Listed]) {
        for image in images.iter().filter(|image| image.names.is_empty()) {
            let at = self.images[&image.manifest];
            // Its documents may be in another's entry, which then stands for both.
            let blobs = image.blobs.documents.iter().chain(&image.blobs.layers);
            let below: Vec<usize> = blobs.filter_map(|blob| self.blobs.get(blob).copied()).collect();
            below.into_iter().for_each(|below| self.ledger.stand(at, below));
        }
    }
}
