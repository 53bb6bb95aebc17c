//! Sources that are neither images nor folders: files over http, and git repositories.
//!
//! Knows how to ask, not what is known already: whoever calls says what an earlier answer was, gives folders to write
//! into, and keeps what comes.
//!
//! What would surprise a reader:
//!
//! - **git is a program.** Repositories are read by the `git` of the machine, in an environment made here: no configuration of the
//!   system or of the user, no hooks, no prompts, no helper but those of git's own protocols. See [`git`].
//! - **A file is asked for once.** There is no HEAD before the GET: when the answer's header shows that nothing has changed, the
//!   body is not read. See [`http`].
//! - **Passwords are not shown.** Addresses in errors and logs stand there without them.

mod error;
pub mod git;
pub mod http;
mod shown;

pub use error::{Error, GitFault};
pub use shown::shown;
