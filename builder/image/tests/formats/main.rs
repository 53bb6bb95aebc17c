//! Tars, blobs and image files: written, read, attacked, and compared with what others make of them.

mod archive;
mod compression;
mod detection;
mod differential;
mod golden;
mod hostile;
mod layouts;
mod pass;
mod reuse;
mod round_trip;
mod seekable;
mod unpacking;
mod vectors;
