//! What is left of a step when its result is known: its record, the lock of its key, its archive.
//!
//! The thread that made the step does it, while another one begins the next.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
};

use store::{LateRecord, Lock};

use super::{
    Effects,
    early::{Begun, Early},
};
use crate::{error::Cause, result::VertexResult};

/// A result, and the record of it if that is still to be written.
pub(crate) struct Made {
    pub(crate) result: VertexResult,
    pub(crate) record: Option<LateRecord>,
}

impl From<VertexResult> for Made {
    fn from(result: VertexResult) -> Made {
        Made { result, record: None }
    }
}

/// What is left of a step. Whoever hears of its result may rely on all of it being waited for.
pub(crate) struct Rest {
    /// Until the record is written: another process that has the lock looks for that.
    pub(super) turn: Option<Lock>,
    pub(super) record: Option<LateRecord>,
    pub(super) early: Option<Early>,
    pub(super) begun: Begun,
}

impl Rest {
    /// Does it.
    pub(crate) fn finish(self, effects: Arc<Effects>) {
        let Rest { turn, record, early, begun } = self;
        let write = || record.map_or(Ok(()), |record| record.write().map_err(Cause::from));
        let written = catch_unwind(AssertUnwindSafe(write));
        if let Err(cause) = written.unwrap_or_else(|panicked| Err(Cause::panicked(&*panicked))) {
            effects.unwritten.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
        }
        drop(turn);
        match early {
            Some(early) => {
                drop(begun);
                early.archive(effects);
            }
            None => {
                // The last one to have them tidies up behind the build.
                drop(effects);
                drop(begun);
            }
        }
    }
}

impl Effects {
    /// Returns when all records are written, with what went wrong with the first that could not be.
    pub(crate) async fn written(&self) -> Option<Cause> {
        if self.writing.is_any() {
            let writing = self.writing.clone();
            let waited = tokio::task::spawn_blocking(move || writing.wait()).await;
            if let Err(error) = waited {
                return Some(Cause::Task(error.to_string()));
            }
        }
        self.unwritten()
    }

    /// What went wrong with the first record that could not be written, if nobody was told yet.
    pub(crate) fn unwritten(&self) -> Option<Cause> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
