//! Layers: their bytes, and what they make on top of each other.

mod entries;
mod manifest;
mod sample;
mod stack;
