//! A Dockerfile's text as instructions, each with its place in the file.
//!
//! Bytes go in at [`parse`], a [`Dockerfile`] comes out: directives, global arguments and stages, in which every
//! instruction, word, flag and value carries a [`Span`] of bytes in the file. What is wrong comes out as a list of
//! [`ParseError`], one per instruction, each with a stable code and, where there is one, an edit that mends it.
//!
//! The language is BuildKit's (`docs.docker.com/reference/dockerfile`, and where that is silent, what BuildKit does).
//! Four things surprise most readers:
//!
//! - **Nothing is expanded here.** A [`Word`] is text as it will be given to [`expand`]: quotes, escapes and `$` still
//!   in it. What can only be judged after expansion (a mount's options, a port, a mode) has its own parser in this crate,
//!   to be called with the expanded text: [`instruction::Mount`], [`port`], [`chmod`], [`owner`], [`signal`].
//! - **Words are split in three ways**: `COPY`, `EXPOSE` and `FROM` split on blanks and know no
//!   quotes; `ENV`, `LABEL` and `ARG` know quotes and keep them; flags know quotes and drop them.
//! - **A file need not be UTF-8.** Strings here hold any bytes without loss; [`text`] says how to get them back.
//! - **Heredocs are found by shell words**, so `RUN echo "<<EOF"` opens none and `RUN cat <<EOF > f` opens one.
//!
//! No file, clock or environment is read.

#![forbid(unsafe_code)]

pub mod chmod;
mod csv;
mod directive;
mod dockerfile;
mod error;
pub mod expand;
mod flag;
pub mod goduration;
mod heredoc;
pub mod instruction;
mod json;
mod logical;
pub mod owner;
mod parser;
pub mod port;
pub mod signal;
mod span;
mod statement;
pub mod suggest;
mod syntax;
pub mod text;
mod word;

pub use directive::{CheckOptions, Directive, DirectiveName, Selection};
pub use dockerfile::{Comment, Dockerfile, Node, Stage};
pub use error::{CheckError, CsvError, ErrorKind, ParseError};
pub use flag::Flag;
pub use heredoc::Heredoc;
pub use instruction::Instruction;
pub use parser::{parse, parse_trigger};
pub use span::{LineIndex, Position, Span};
pub use syntax::{Syntax, detect_syntax};
pub use word::{Escape, Word};
