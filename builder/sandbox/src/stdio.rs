//! Where the process reads from and writes to.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

use crate::Error;

/// Lowest number that a descriptor of the step may have before it is put into place. 0, 1 and 2 are where
/// they end up, and a source must not be overwritten by another's `dup2`.
const LOWEST: i32 = 10;

/// Standard input, output and error of the process.
#[derive(Debug)]
pub enum Stdio {
    /// Descriptors of the caller.
    Streams {
        /// `None` is an empty input (`/dev/null`), which every `RUN` has.
        stdin: Option<OwnedFd>,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// The caller's own three.
    Inherit,
    /// A new terminal that controls the process; the caller reads and writes
    /// [`Running::terminal`](crate::Running::terminal).
    Terminal(WindowSize),
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The three descriptors, as far as the step has them. The child's are above 9, and all are close-on-exec.
pub(crate) struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl Stdio {
    /// The window, if a terminal is asked for.
    pub(crate) fn window(&self) -> Option<WindowSize> {
        match self {
            Stdio::Terminal(size) => Some(*size),
            Stdio::Streams { .. } | Stdio::Inherit => None,
        }
    }

    /// The descriptors.
    pub(crate) fn into_streams(self) -> Streams {
        match self {
            Stdio::Streams { stdin, stdout, stderr } => {
                Streams { stdin, stdout: Some(stdout), stderr: Some(stderr) }
            }
            Stdio::Inherit => Streams {
                stdin: inherited(std::io::stdin()),
                stdout: inherited(std::io::stdout()),
                stderr: inherited(std::io::stderr()),
            },
            Stdio::Terminal(_) => Streams { stdin: None, stdout: None, stderr: None },
        }
    }
}

impl Streams {
    /// The same, moved out of the way of 0, 1 and 2.
    pub(crate) fn raised(self) -> Result<Streams, Error> {
        let raised = |stream: Option<OwnedFd>| stream.map(raise).transpose();
        Ok(Streams { stdin: raised(self.stdin)?, stdout: raised(self.stdout)?, stderr: raised(self.stderr)? })
    }
}

/// The same open file under a number above 9, closed on exec.
pub(crate) fn raise(fd: OwnedFd) -> Result<OwnedFd, Error> {
    fcntl_dupfd_cloexec(&fd, LOWEST)
        .map_err(|errno| Error::Host { call: "fcntl(F_DUPFD_CLOEXEC)", source: errno.into() })
}

/// One of the caller's three; a closed one becomes `/dev/null` inside.
fn inherited(stream: impl AsFd) -> Option<OwnedFd> {
    fcntl_dupfd_cloexec(stream, LOWEST).ok()
}
