//! Decides what runs next, and does nothing itself.
//!
//! The solver is a value. Events go in, actions come out; it cannot block, race or lose a file, because it has no way to.
//! It accepts vertices and wanted ones at any time, merges equal vertices by digest across builds, asks for a
//! result only when something needs it, and cancels a vertex only when nobody wants it any more.
//!
//! A vertex is asked for from the top: its definition key follows from the keys of what is below, so a
//! target whose key hits needs nothing else done. Only on a miss are its inputs wanted in turn.
//!
//! Of processes that are ready, those wait whose memory would not suffice beside the others; see `room.rs`.
//!
//! [`key`] holds what cache keys are made of, [`Solver`] the states and the way from one to the next.

pub mod key;
mod room;
mod solve;
mod state;

pub use key::{ContentKey, DefinitionKey, Pick, Selection};
pub use solve::Solver;
pub use state::{Action, Event, Id, Key, Outcome, Via};
