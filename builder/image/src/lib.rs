//! Folders ⇄ layers, layers → image.
//!
//! A layer has several forms, each of which can be made from another: a folder in overlayfs's form, a tree manifest
//! (`tree::Layer`), a tar, and a blob. This crate makes one from the other, and puts layers and a config together to
//! an image. What it writes is deterministic: the same tree gives the same bytes, on any host, with any number of
//! threads. What it reads is hostile.

pub mod annotations;
pub mod apply;
pub mod assemble;
mod attributes;
mod beneath;
pub mod blobs;
pub mod compress;
pub mod contents;
pub mod copy;
pub mod detect;
pub mod diff;
pub mod encode;
pub mod folder;
mod inode;
pub mod layer_tar;
pub mod layout;
pub mod overlay;
mod ownership;
mod pipe;
pub mod scan;
pub mod seekable;
pub mod tar;
pub mod validate;
pub mod working_root;
mod xz;
