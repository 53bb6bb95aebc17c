//! Pulls and pushes over wires that break: each ends well or with one clear error, nothing that is wrong is kept or named, and
//! the same command succeeds once the wire is good.

mod interrupted;
mod matrix;
mod place;
