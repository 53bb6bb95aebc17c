//! What records say of layers: which step made one, on which others a result stands, and when it was last used.

use std::collections::BTreeMap;

use oci::{Digest, Epoch};
use serde::Deserialize;
use tree::LayerId;

use super::{Found, Survey};
use crate::{
    ResultLayer, Took,
    contents::Contents,
    database::{Fault, digest, unsigned},
    ledger::{Entry, Thing},
    usage::{Usage, UsageType},
};

/// What the books need of a record.
#[derive(Deserialize)]
pub(super) struct Booked {
    pub(super) result: Vec<ResultLayer>,
    pub(super) created: Epoch,
    pub(super) duration_ms: u64,
    #[serde(default)]
    pub(super) took: Took,
    #[serde(default)]
    pub(super) stage: String,
    #[serde(default)]
    pub(super) instruction: String,
}

impl Survey {
    /// Records, each with the layer that it made. Their definition keys, with that entry.
    pub(super) fn add_records(&mut self, contents: &Contents<'_>) -> Found<BTreeMap<Digest, Vec<usize>>> {
        let mut query = contents.connection.prepare(
            "SELECT seq, last_used, body, kept = 1 OR boot = ?1, definition_key FROM records ORDER BY seq",
        )?;
        let rows = query.query_map([contents.boot.as_str()], |row| {
            let (seq, used, body): (i64, u64, String) = (row.get(0)?, unsigned(row, 1)?, row.get(2)?);
            Ok((seq, Epoch(used), body, row.get::<_, bool>(3)?, digest(row, 4)?))
        })?;
        let mut keys: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        for row in rows {
            let (seq, used, body, valid, key) = row?;
            let bad = |e: serde_json::Error| Fault::Row { what: "record", why: e.to_string() };
            let record: Booked = serde_json::from_str(&body).map_err(bad)?;
            let whole = record.result.iter().all(|part| self.is_here(&part.layer.digest()));
            if !valid || !whole {
                self.rotten_records.push(seq);
                continue;
            }
            let at = self.add_record(seq, key, used, &record);
            keys.entry(key).or_default().push(at);
        }
        self.stand_results();
        Ok(keys)
    }

    fn add_record(&mut self, seq: i64, key: Digest, used: Epoch, record: &Booked) -> usize {
        let result: Vec<LayerId> = record.result.iter().map(|part| part.layer).collect();
        let stack: Vec<usize> = result.iter().rev().map(|layer| self.layers[&layer.digest()]).collect();
        let made = stack.first().copied();
        // Results without layers are alike, and nothing is shared by that.
        let known = self.results.get(&result).copied().filter(|_| !result.is_empty());
        let at = known.unwrap_or_else(|| {
            let id = made.map_or_else(|| key.hex(), |made| self.ledger.entries[made].usage.id.clone());
            let usage = Usage { id, ..Usage::of(UsageType::Regular) };
            let at = self.ledger.add(Entry { made, ..Entry::new(usage, Thing::Records(Vec::new())) });
            stack.iter().for_each(|layer| self.ledger.stand(at, *layer));
            at
        });
        self.results.insert(result, at);
        if let Thing::Records(rows) = &mut self.ledger.entries[at].thing {
            rows.push(seq);
        }
        let below = stack.get(1).map(|below| self.ledger.entries[*below].usage.id.clone());
        for about in [Some(at), made].into_iter().flatten() {
            self.ledger.entries[about].usage.describe(record, below.as_deref());
        }
        // A use of a result is a use of all that is in it.
        for used_with in stack.iter().chain([&at]) {
            let usage = &mut self.ledger.entries[*used_with].usage;
            usage.last_used = usage.last_used.max(Some(used));
        }
        at
    }

    /// Results stand on what they begin with.
    fn stand_results(&mut self) {
        for (result, above) in &self.results {
            let begins = (1..result.len()).rev().find_map(|length| self.results.get(&result[..length]));
            if let Some(below) = begins {
                self.ledger.stand(*above, *below);
            }
        }
    }
}
