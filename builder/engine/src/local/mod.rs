//! What can be done with images of the local store.

pub(crate) mod images;
pub(crate) mod run;
