//! What a Dockerfile offers to whoever builds it, without building anything: its targets, and what one of them takes.
//!
//! `uses.rs` is what lowering notes of a stage on its way; the two others are what is asked for.

mod outline;
mod targets;
mod uses;

pub use outline::{ArgumentUse, CacheUse, Needed, Outline, Outlining, outline};
pub use targets::{Target, targets};

pub(crate) use uses::{StageUses, Uses};
