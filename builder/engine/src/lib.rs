//! The main flow: from a Dockerfile and a request to images, and the effects that the solver asks for.
//!
//! [`Engine::build`] is the whole of it: parse, lower, solve, export. What decides (`dockerfile`, `solver`) does not
//! act; what acts (the effects here, over `store`, `registry`, `sandbox` and `image`) does not decide.
//!
//! | Folder    | Question |
//! |-----------|----------|
//! | `build/`  | in which order? the flow, the facts that lowering needs, the loop |
//! | `effect/` | how is one vertex fingerprinted, looked up, made? |
//! | `export/` | how does a result leave? |
//! | `push/`   | how does an image reach a registry? |
//! | `local/`  | what can be done with images that are here? |

mod build;
mod cancel;
mod client;
mod clock;
mod effect;
mod engine;
mod error;
mod export;
mod local;
pub mod progress;
mod push;
mod request;
mod result;

pub use build::{BuildOutcome, call::Checked};
pub use cancel::Cancel;
pub use client::Client;
pub use clock::{Clock, Time};
pub use effect::foreign::CannotRun;
pub use engine::{Engine, Settings};
pub use error::{Cause, Error};
pub use fetch::git::Surroundings;
pub use local::{
    archive::{ArchiveFormat, LoadedImage},
    images::{FoundImage, HistoryEntry},
    remote::{PullRequest, PushRequest},
    run::{Container, RunRequest, Terminal, Volume},
};
pub use request::{BuildRequest, ContextFrom, Destination, DockerfileFrom, ImageForm, Output, Push};
