//! What can be done with images that are here, or shall be.

pub(crate) mod archive;
pub(crate) mod artifact;
pub(crate) mod copy;
pub(crate) mod enter;
mod house;
pub(crate) mod images;
pub(crate) mod index;
mod origin;
pub(crate) mod remote;
pub(crate) mod rollback;
pub(crate) mod run;
mod transfer;
mod tree;

pub use origin::ImageSource;
pub use transfer::TransferError;
pub(crate) use transfer::container_image;
pub use tree::attests;
