//! The answers, call by call.

mod files;
mod identity;
pub(super) mod names;
mod open;
mod program;
mod rename;
