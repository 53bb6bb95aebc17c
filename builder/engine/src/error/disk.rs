//! Whether it was the disk that was full.

use std::{error::Error, io};

use super::Cause;

/// What makes room.
pub(super) const HELP: &str = "`kiln prune` removes what no image needs; `kiln du` shows what there is; --root names a folder on another disk";

impl Cause {
    /// Whether there was no room for something on a disk, or in a user's part of it.
    pub(super) fn is_disk_full(&self) -> bool {
        let mut at: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = at {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
                return true;
            }
            at = error.source();
        }
        matches!(self, Cause::DiskFull { .. })
    }
}
