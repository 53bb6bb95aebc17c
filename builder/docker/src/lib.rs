//! A Docker Engine over its API: which images it has, and giving it another one.
//!
//! It is found where Docker's own command finds it ([`Address::find`]): `DOCKER_HOST`, a context, the socket. What it is
//! sent is an archive as `docker load` takes it; with the image store that Docker had from its beginnings, layers that
//! some image there already has may be missing in it ([`Engine::lacks`]).
//!
//! | Question | File |
//! |---|---|
//! | where the engine is | `address.rs` |
//! | what is asked of it, and what it answers | `engine.rs`, `answer.rs` |
//! | how an archive gets from a thread that writes it into a request | `archive.rs` |
//! | why it did not do it | `error.rs` |

mod address;
mod answer;
mod archive;
mod engine;
mod error;

pub use address::{Address, Surroundings, Tls};
pub use answer::{Image, Progress};
pub use archive::{Archive, ArchiveWriter};
pub use engine::{Engine, ImageStore};
pub use error::Error;
