//! The answers, call by call.

mod files;
mod identity;
mod names;
mod open;
mod program;
