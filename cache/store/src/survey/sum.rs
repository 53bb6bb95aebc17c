//! What each entry takes, what of it can go, and what nothing can be done with.

use oci::Digest;

use super::{Survey, records::Booked};
use crate::{Took, layout::Kind, ledger::Thing, usage::Usage, worth};

impl Survey {
    /// Adds up, and says what nothing can be done with.
    pub(super) fn finish(&mut self) {
        for at in 0..self.ledger.entries.len() {
            match self.ledger.entries[at].thing {
                Thing::Layer(layer) => self.finish_contents(at, Some(layer.digest())),
                Thing::Blob | Thing::Image(_) | Thing::Fixed => self.finish_contents(at, None),
                _ => {}
            }
        }
        for at in 0..self.ledger.entries.len() {
            let made = self.ledger.entries[at].made.map(|made| self.ledger.entries[made].usage.shared);
            let entry = &mut self.ledger.entries[at];
            entry.usage.shared |= made.unwrap_or(false);
            let stays = entry.thing == Thing::Fixed || entry.usage.in_use;
            entry.usage.reclaimable_bytes = if stays { 0 } else { entry.cache_bytes };
        }
    }

    /// Adds up what lies under a digest.
    fn finish_contents(&mut self, at: usize, layer: Option<Digest>) {
        let entry = &self.ledger.entries[at];
        let of = |kind, named: &Digest| self.rows.get(&(kind, *named));
        let first = entry.blobs.first().and_then(|blob| of(Kind::Blob, blob));
        let (folder, tree) = match &layer {
            Some(layer) => (of(Kind::Folder, layer), of(Kind::Tree, layer)),
            None => (None, None),
        };
        let Some(made) = tree.or(folder).or(first).map(|row| row.modified) else { return };
        let is_held = |blob: &Digest| self.held.contains(blob);
        let (stay, go): (Vec<Digest>, Vec<Digest>) = entry.blobs.iter().copied().partition(is_held);
        let in_several = entry.below.iter().flat_map(|below| &self.ledger.entries[*below].blobs);
        let shared = !stay.is_empty() || (layer.is_some() && in_several.copied().any(|blob| is_held(&blob)));
        let blob_bytes = |blobs: &[Digest]| -> u64 {
            blobs.iter().filter_map(|blob| of(Kind::Blob, blob)).map(|row| row.bytes).sum()
        };
        let (folder_bytes, tree_bytes) = (folder.map_or(0, |row| row.bytes), tree.map_or(0, |row| row.bytes));
        let (stay_bytes, go_bytes) = (blob_bytes(&stay), blob_bytes(&go));
        let here = layer.is_none_or(|layer| self.is_here(&layer));
        let no_use = layer.is_some() && entry.blobs.is_empty() && entry.below.is_empty();

        let entry = &mut self.ledger.entries[at];
        entry.rubbish = !here || no_use;
        entry.cache_bytes = go_bytes + folder_bytes + tree_bytes;
        entry.blobs = go;
        let usage = &mut entry.usage;
        usage.size_bytes = stay_bytes + go_bytes + folder_bytes + tree_bytes;
        usage.shared |= shared;
        usage.created = usage.created.or(Some(made));
        usage.last_used = usage.last_used.max(Some(made));
        if usage.description.is_empty() {
            let what =
                if shared { "a layer of an image with a name" } else { "a layer that no record names" };
            usage.description = what.to_owned();
        }
        if usage.cost_ms == 0 {
            usage.cost_ms = worth::download_cost_ms(stay_bytes + go_bytes);
        }
    }
}

impl Usage {
    /// Tells what made it.
    pub(super) fn describe(&mut self, record: &Booked, below: Option<&str>) {
        self.cost_ms = self.cost_ms.max(worth::step_cost_ms(record.duration_ms));
        // Of a step without a process nothing was measured.
        self.took = Some(record.took).filter(|took| *took != Took::default()).or(self.took);
        self.created = Some(self.created.map_or(record.created, |created| created.min(record.created)));
        self.description = match record.stage.as_str() {
            "" => record.instruction.clone(),
            stage => format!("[{stage}] {}", record.instruction),
        };
        if let Some(below) = below.filter(|below| !self.parents.iter().any(|parent| parent == below)) {
            self.parents.push(below.to_owned());
        }
    }
}
