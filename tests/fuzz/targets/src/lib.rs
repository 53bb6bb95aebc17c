//! What is fuzzed: a function for each door that bytes from outside come in by. Each takes any bytes and panics where
//! a promise is broken.
//!
//! The functions are called in two ways, so that a promise is written once: by libFuzzer (`tests/fuzz/fuzz_targets/`,
//! with a nightly compiler, for as long as one likes), and by a test on stable (`tests/corpus.rs` of this crate), which
//! feeds them the corpus and a fixed number of mutations of it. `docs/fuzzing.md` says how to run them.
//!
//! An input of several parts is a text that people can read and write: the parts end at the first empty line.

#![forbid(unsafe_code)]

mod archive;
mod documents;
mod expander;
mod ignore;
mod lower;
mod model;
mod parser;
mod spans;
mod tar;
mod xz;

pub use archive::archive;
pub use documents::{documents, manifest, names};
pub use expander::expander;
pub use ignore::ignore;
pub use lower::lower;
pub use parser::parser;
pub use tar::tar;
pub use xz::xz;

/// A function that takes any bytes and panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its corpus and of its program for libFuzzer.
pub const TARGETS: [(&str, Target); 10] = [
    ("archive", archive),
    ("documents", documents),
    ("expander", expander),
    ("ignore", ignore),
    ("lower", lower),
    ("manifest", manifest),
    ("names", names),
    ("parser", parser),
    ("tar", tar),
    ("xz", xz),
];

/// The two parts of an input: the lines before the first empty one, and what is behind it.
fn parts(data: &[u8]) -> (&[u8], &[u8]) {
    match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (&[], data),
    }
}
