//! The end of a step: its layer at once, its record a moment later.
//!
//! What follows a step needs its layer. Nobody in this process needs its record so soon, and writing that takes longer than
//! writing the layer's rows; so it can be written while the next step runs. Whoever asks for it meanwhile waits.

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use oci::Digest;
use tree::Layer;

use crate::{
    Lease, Origin, Record, Result, ResultLayer, Store,
    database::Durability,
    layer::{Taken, add_origin, origin},
};

impl Store {
    /// Adds the layer that a step has made, named in the lease; where the same operation made the same content before, the
    /// earlier layer is the one that counts, and what was made now is removed.
    ///
    /// `folder` is as for [`Store::commit_layer`].
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn finish_step(
        &self,
        lease: &Lease,
        layer: Layer,
        folder: &Path,
        made: Origin,
    ) -> Result<ResultLayer> {
        let content = layer.content_digest();
        let aside = self.set_aside(lease, &layer, Some(folder))?;
        let op = made.op;
        let _guard = self.no_collector()?;
        let (taken, fresh, counts) = self.change("add a step's result", Durability::Lazy, |contents| {
            let earlier = match origin(contents, &op, &content)? {
                Some(earlier) if contents.has_layer(&earlier.layer)? => Some(earlier),
                _ => None,
            };
            let Some(earlier) = earlier else {
                let taken = aside.add(contents, lease)?;
                add_origin(contents, &made, &content, &aside.id)?;
                return Ok((taken, true, ResultLayer { layer: aside.id, created: Some(made.created) }));
            };
            let counts = ResultLayer { layer: earlier.layer, created: Some(earlier.created) };
            Ok((Taken::default(), false, counts))
        })?;
        match fresh {
            true => {
                lease.pin_folder(aside.id)?;
                self.remember_tree(aside.id, &Arc::new(layer));
            }
            false => lease.pin_layer(counts.layer)?,
        }
        aside.drop_rest(taken)?;
        Ok(counts)
    }

    /// A record that is written later, by [`LateRecord::write`]. Until then whoever asks this store for it waits. The layers of
    /// its result are here, and named in the lease.
    pub fn late_record(&self, lease: &Lease, record: Record) -> LateRecord {
        self.unwritten().add(&record);
        LateRecord { store: self.clone(), lease: lease.clone(), record }
    }
}

/// A record that is still to be written. Dropped, it never will be.
#[derive(Debug)]
#[must_use]
pub struct LateRecord {
    store: Store,
    lease: Lease,
    record: Record,
}

impl LateRecord {
    /// Writes it, as [`Store::put_record`] does.
    ///
    /// # Errors
    /// As [`Store::put_record`].
    pub fn write(self) -> Result<()> {
        self.store.put_record(&self.lease, &self.record)
    }
}

impl Drop for LateRecord {
    fn drop(&mut self) {
        self.store.unwritten().remove(&self.record);
    }
}

/// By what the records that are still to be written may be asked for.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    keys: Mutex<Vec<Keys>>,
    written: Condvar,
}

/// By what a record is found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) definition: Digest,
    pub(crate) content: Option<Digest>,
    pub(crate) op: Digest,
    pub(crate) instruction: String,
}

impl Keys {
    fn of(record: &Record) -> Keys {
        Keys {
            definition: record.definition_key,
            content: record.content_key,
            op: record.op,
            instruction: record.instruction.clone(),
        }
    }
}

impl Unwritten {
    fn add(&self, record: &Record) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).push(Keys::of(record));
    }

    fn remove(&self, record: &Record) {
        let (mut keys, gone) = (self.keys.lock().unwrap_or_else(PoisonError::into_inner), Keys::of(record));
        if let Some(at) = keys.iter().position(|known| *known == gone) {
            keys.swap_remove(at);
        }
        self.written.notify_all();
    }

    /// Waits until none of these is to be written.
    pub(crate) fn wait(&self, are_meant: impl Fn(&Keys) -> bool) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        while keys.iter().any(&are_meant) {
            keys = self.written.wait(keys).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
