//! Instructions to graph: what a Dockerfile, a request and what is known of the world ask to be built.
//!
//! [`lower()`] either names the [`Fact`]s it lacks (a base image's manifest and config) or gives a
//! [`graph::Graph`] and, for each platform, an edge of it and an image config. It reads no file, clock or environment:
//! what the command line or a client said is a [`Request`].
//!
//! The order of reading: `plan.rs` finds which stages are needed and what each name means; `stage.rs` walks one stage;
//! `configure.rs`, `files.rs` and `run.rs` hold the instructions; `draft.rs` is the graph while it is unfinished; `lint/`
//! holds the build checks.
//!
//! Things that surprise:
//!
//! - **Names are checked in every stage, images asked for in needed ones only**: a mistake shows, traffic does not.
//! - **`ARG` after `ENV` wins for what follows**, and the image keeps the `ENV` (BuildKit, against its documentation).
//! - **`COPY --link --chown=name`** looks the name up in the stage's tree, where BuildKit fails; with a number the
//!   copy does not depend on the stage.
//! - **A text may hold bytes that are no UTF-8**, in the escaped form of [`text`]: commands and paths of the graph go
//!   through [`text::encode`] on their way to the kernel. Config and history hold U+FFFD in their place.

#![forbid(unsafe_code)]

mod configure;
mod context;
pub mod describe;
mod draft;
mod epoch;
mod error;
mod fact;
mod files;
mod frontend;
mod git;
mod globals;
mod gopath;
mod gotext;
pub mod ignore;
mod limit;
pub mod lint;
mod lower;
mod owner;
mod plan;
pub mod print;
mod remote;
mod request;
mod run;
mod stage;
mod state;
mod variables;
mod warning;
mod words;

pub use context::{CONTEXT_FILE, DOWNLOAD, context_graph, file_graph};
pub use dockerfile_parser::text;
pub use error::{ErrorKind, LowerError, near_platform};
pub use fact::{Answer, Fact, Facts, ImageFact, LayoutVersion};
pub use frontend::check_frontend;
pub use git::{BadGitAddress, GitAddress};
pub use lower::{Lowered, LoweredImage, Lowering, lower};
pub use request::{Entitlement, MainContext, NamedContext, NoCache, Request};
pub use warning::{Policy, Warning};
