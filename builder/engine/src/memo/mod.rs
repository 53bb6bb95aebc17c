//! Whole builds, remembered: a build in which nothing changed is answered before anything is opened.
//!
//! | File | Question |
//! |---|---|
//! | `key.rs` | what must be the same, so that a build may be the same? |
//! | `recorder.rs` | what did a build in which nothing was done show? |
//! | `contexts.rs` | are the contexts what they were? |
//! | `answer.rs` | what is written down |
//! | `keep.rs` | when, and after which checks? |
//! | `recall.rs` | when is it believed? |
//!
//! An answer is that of the ordinary way, recorded while that found everything in the cache; where the build did do
//! something, the ordinary way is gone once more, and nothing is shown or written. What is remembered is believed only
//! while nothing has happened that could lead the ordinary way elsewhere; whatever is in doubt goes that way. See
//! docs/decisions/0014-whole-build-memo.md.

mod answer;
mod contexts;
mod keep;
mod key;
mod recall;
mod recorder;

use std::path::PathBuf;

pub(crate) use contexts::stamp_of_read;
pub(crate) use keep::keep;
pub use recall::{Recalled, recall};
pub(crate) use recorder::Recorder;

/// What a build depends on besides its request. Whoever makes a request knows whether there is more, such as secrets: then
/// the build is not to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remember {
    /// Tells this program from every other one, and from other versions of itself.
    pub program: String,
    /// The folder that relative paths of the request begin in.
    pub folder: PathBuf,
    /// What limits were set, as text.
    pub limits: String,
}
