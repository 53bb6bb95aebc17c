//! The end of a step: what it made and the record of it, at once.

use std::{path::Path, sync::Arc};

use tree::Layer;

use crate::{
    Lease, Origin, Record, Result, ResultLayer, Store,
    database::Durability,
    layer::{Taken, add_origin, origin},
    record,
};

impl Store {
    /// Adds the layer that a step has made and the record of it, both named in the lease, in one transaction; where the
    /// same operation made the same content before, the earlier layer is the one that the record is about, and what was
    /// made now is removed.
    ///
    /// `folder` is as for [`Store::commit_layer`]. `settle` is called when all that can be done without it is done, and
    /// returns when nobody has anything mounted on the folder any more. `record` makes the record, if there is one, of the
    /// layer that counts; all other layers of its result are here, and named in the lease. It must not ask the store.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn finish_step(
        &self,
        lease: &Lease,
        layer: Layer,
        folder: &Path,
        made: Origin,
        settle: impl FnOnce(),
        record: impl FnOnce(ResultLayer) -> Option<Record>,
    ) -> Result<ResultLayer> {
        let content = layer.content_digest();
        let aside = self.set_aside(lease, &layer, Some(folder))?;
        let (op, now) = (made.op, self.clock().epoch());
        settle();
        let _guard = self.no_collector()?;
        let (taken, fresh, counts, record) =
            self.change("add a step's result", Durability::Lazy, |contents| {
                let earlier = match origin(contents, &op, &content)? {
                    Some(earlier) if contents.has_layer(&earlier.layer)? => Some(earlier),
                    _ => None,
                };
                let (taken, fresh, layer, created) = match earlier {
                    Some(earlier) => (Taken::default(), false, earlier.layer, earlier.created),
                    None => {
                        let taken = aside.add(contents, lease)?;
                        add_origin(contents, &made, &content, &aside.id)?;
                        (taken, true, aside.id, made.created)
                    }
                };
                let counts = ResultLayer { layer, created: Some(created) };
                let record = record(counts);
                if let Some(record) = &record {
                    record::add(contents, record, now)?;
                }
                Ok((taken, fresh, counts, record))
            })?;
        match fresh {
            true => {
                lease.pin_folder(aside.id)?;
                self.remember_tree(aside.id, &Arc::new(layer));
            }
            false => lease.pin_layer(counts.layer)?,
        }
        if let Some(record) = &record {
            record::pin(lease, record)?;
        }
        aside.drop_rest(taken)?;
        Ok(counts)
    }
}
