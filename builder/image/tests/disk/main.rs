//! Folders on a real file system: scanned, written, compared, removed.

mod diff;
mod folder;
mod scan;
mod scratch;
mod working_root;
