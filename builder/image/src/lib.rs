//! Folders ⇄ layers, layers → image.
//!
//! A layer has several forms, each of which can be made from another: a folder in overlayfs's form, a tree manifest
//! (`tree::Layer`), a tar, and a blob. This crate makes one from the other, and puts layers and a config together to
//! an image. What it writes is deterministic: the same tree gives the same bytes, on any host, with any number of
//! threads. What it reads is hostile.

pub mod compress;
pub mod contents;
pub mod encode;
pub mod layer_tar;
pub mod overlay;
mod pipe;
pub mod tar;
pub mod apply;
pub mod assemble;
pub mod blobs;
pub mod detect;
pub mod layout;
pub mod validate;
mod xz;
mod beneath;
pub mod copy;
pub mod diff;
pub mod folder;
pub mod scan;
