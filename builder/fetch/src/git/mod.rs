//! Git repositories, read by the program `git`.
//!
//! | Question | File |
//! |---|---|
//! | which addresses are fetched, and what of them may be shown | `remote.rs` |
//! | in which environment git runs, and what of its words are understood | `program.rs` |
//! | which commit a name stands for | `reference.rs` |
//! | how a commit gets into a bare repository | `repository.rs` |
//! | how a commit becomes a folder | `checkout.rs`, `tidy.rs` |
//!
//! What git writes comes from whoever owns the repository. A commit's tree is checked out into an empty folder that nothing else
//! writes to; git itself refuses paths that lead out of it. No hook, filter, or other program that the repository names is
//! run; submodules are fetched over the same four protocols as the repository: https, http, ssh and git.

mod checkout;
mod program;
mod reference;
mod remote;
mod repository;
mod tidy;

pub use checkout::{Mtime, Tree};
pub use program::{Access, Git, Surroundings};
pub use reference::{Resolved, Wanted};
pub use remote::Remote;
pub use repository::Bare;
