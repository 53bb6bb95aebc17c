//! What can be done with images that are here, or shall be.

pub(crate) mod archive;
pub(crate) mod images;
pub(crate) mod remote;
pub(crate) mod run;
