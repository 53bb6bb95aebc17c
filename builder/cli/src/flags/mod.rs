//! Values of flags, one file for each kind: how it is written, what it means, what is wrong with it.

mod annotation;
mod call;
mod context;
mod csv;
mod duration;
mod house;
mod limits;
mod on_error;
mod output;
mod pair;
mod platform;
mod pull;
mod resource;
mod secret;
mod size;
mod ssh;
mod ulimit;

pub use annotation::annotations;
pub use call::{Call, Method, call};
pub use context::{ContextSource, context, layout_version};
pub use duration::seconds;
pub use house::{Entries, entries, space};
pub use limits::limits;
pub use on_error::{OnError, on_error};
pub use output::{Asked, has_tag, output};
pub use pair::{network, pairs, pairs_from};
pub use platform::platform;
pub use pull::pull;
pub use resource::step_limits;
pub use secret::{Secret, SecretSource, secret};
pub use size::size_bytes;
pub use ssh::{Ssh, ssh};
pub use ulimit::{extra_host, process_limits};

/// A flag's value that is wrong: the flag, what was written, what is wrong with it, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value `{value}` for `{flag}`: {why}")]
pub struct BadFlag {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// What was written.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
    /// What to write instead.
    pub help: String,
}

impl BadFlag {
    fn new(flag: &'static str, value: &str, why: impl Into<String>, help: impl Into<String>) -> BadFlag {
        BadFlag { flag, value: value.to_owned(), why: why.into(), help: help.into() }
    }
}
