//! Whether overlayfs can stack the layers of a state folder.
//!
//! Where steps stand on copies the folder may lie where overlayfs's marks cannot be made: on another overlayfs, or without the
//! right to set its attributes. Layers are then without them, which is enough for copies, and wrong below a mount.

use std::fs;

use crate::{Error, Lease, Result, Store};

impl Store {
    /// Whether layers here may lack the marks that overlayfs needs.
    pub fn lacks_marks(&self) -> bool {
        self.layout().unmarked().exists()
    }

    /// Notes that layers here may lack them from now on.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn do_without_marks(&self, lease: &Lease) -> Result<()> {
        if self.lacks_marks() {
            return Ok(());
        }
        lease.write_whole(&self.layout().unmarked(), b"")?;
        let path = self.layout().unmarked();
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(|e| Error::io("flush", path, e))
    }
}
