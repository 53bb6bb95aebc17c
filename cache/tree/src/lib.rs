//! Tree manifests: what a layer holds, without its bytes.
//!
//! A [`Layer`] lists paths with type, mode, owner, device, link, xattrs, size, content digest and mtime. It
//! is content-addressed and small enough to travel. Cache keys of `COPY --from` and bind mounts, explanations
//! of a miss and sizes are answered from it, never by walking a disk. Intended owner, mode and device live
//! here, in every mode: nothing derives them from the inodes of the folder that holds the layer's files.
//!
//! A [`Stack`] is several layers seen as the file system that they make; [`Stack::resolve`] follows links in
//! it, [`Stack::selection_digest`] names what a part of it holds.
//!
//! Pure: bytes and maps only.

pub mod decode;
pub mod encode;
mod entries;
pub mod glob;
mod layer;
mod node;
pub mod passwd;
mod path;
mod resolve;
mod selection;
mod stack;
mod xattrs;

pub use decode::BadLayer;
pub use entries::{Entries, Iter};
pub use layer::{ContentDigest, Layer, LayerId};
pub use node::{Kind, Mtime, Node};
pub use passwd::{Accounts, BadUser, Identity};
pub use path::{BadPath, LayerPath};
pub use resolve::{MAX_LINKS, ResolveError, resolve};
pub use selection::Selector;
pub use stack::{Entry, Stack};
pub use xattrs::Xattrs;
