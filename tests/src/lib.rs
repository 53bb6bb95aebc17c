//! What the tests of the whole stand on: the built program, what it made, what it left behind, and what the machine
//! has.
//!
//! Everything here looks at Kiln from outside. An image is read back with readers that Kiln does not use to write it,
//! so that an error of the writer is not repeated by the reader.
//!
//! The tests themselves are in `tests/tests/`: `fixtures` (one folder a case), `conformance` (BuildKit's results),
//! `crash` (killed, interrupted, out of space), `remote` (the same of downloads), `platform` (steps for other machines),
//! `ship` (images to registries and archives and back), `registries` (logins, certificates and settings of registries), `broken_wire` (the same over wires that break), `index` (indexes, copies between registries, referrers, artifacts), `hostile_registry`,
//! `hostile_layers` and `hostile_redirects` (from those who mean harm), `peers` (with other tools at the other end),
//! `secrets` (what is left of them, which is nothing), `pins` (base images by tags), `rollback` (names and their past), `rootless` (Kiln started by a user), `walk` (what of a context is looked at) and `imports` (the shape of the house).

pub mod asked;
pub mod case;
pub mod emulator;
pub mod hostile;
pub mod image;
mod listener;
pub mod machine;
pub mod mode;
pub mod needle;
pub mod program;
pub mod registry;
pub mod server;
pub mod sources;
pub mod token;
pub mod traces;
pub mod wire;
pub mod world;
