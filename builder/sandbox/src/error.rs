//! What can go wrong, with the call and its arguments.

use std::io;
use std::path::PathBuf;

/// Why a process could not be started, or not be waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text for the kernel holds a NUL byte.
    #[error("{what} {value:?} holds a NUL byte")]
    Nul {
        /// What the text is.
        what: &'static str,
        /// The text, losslessly escaped by `Debug`.
        value: String,
    },
    /// A path that must be absolute is not.
    #[error("{what} {path:?} is not an absolute path")]
    NotAbsolute {
        /// What the path is.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A mount over the root itself.
    #[error("a mount cannot have the target /")]
    MountOnRoot,
    /// Something that takes a namespace, where a step is kept in by `chroot` alone.
    #[error("{what} cannot be had in the mode `chroot`, which has no namespaces")]
    NotInChroot {
        /// What.
        what: &'static str,
    },
    /// There is no program to run.
    #[error("there is no command to run")]
    NoCommand,
    /// overlayfs stacks no more layers (`OVL_MAX_STACK`).
    #[error("{count} layers are more than the {limit} which overlayfs can stack")]
    TooManyLayers {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Layer paths do not fit into `mount(2)`'s one page of options.
    #[error(
        "the paths of {count} layers take {bytes} bytes of mount options and this kernel takes {limit}; \
         Linux 6.7 has no such limit"
    )]
    LayersTooLong {
        /// How many layers there are.
        count: usize,
        /// Length of the options.
        bytes: usize,
        /// What the kernel takes.
        limit: usize,
    },
    /// The kernel lacks something that has no substitute.
    #[error("this kernel has no {what} (it came with Linux {since})")]
    Unsupported {
        /// The system calls.
        what: &'static str,
        /// The first version with them.
        since: &'static str,
    },
    /// A call in this process failed, before or after the step.
    #[error("{call} failed")]
    Host {
        /// The call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The namespaces could not be made.
    #[error("{call} failed{}", what_it_needs(.source))]
    Namespaces {
        /// The call with its flags.
        call: String,
        /// Why.
        source: io::Error,
    },
    /// What a mount should show does not exist or cannot be opened.
    #[error("the source {path:?} in {root:?} of the mount at {target:?} cannot be opened")]
    MountSource {
        /// Where it was to be mounted.
        target: PathBuf,
        /// The folder that the path is resolved in.
        root: PathBuf,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mount could not be made at its target.
    #[error("mounting at {target:?} failed in {syscall}: {call}")]
    MountTarget {
        /// The target inside the root.
        target: PathBuf,
        /// The system call that failed.
        syscall: &'static str,
        /// The whole call.
        call: String,
        /// Why.
        source: io::Error,
    },
    /// Layers could not be stacked.
    #[error("stacking layers failed in {syscall}{}{}", at(layer), says(kernel))]
    Overlay {
        /// The system call that failed.
        syscall: &'static str,
        /// The folder it failed at, if it was one.
        layer: Option<PathBuf>,
        /// What the kernel wrote about it, if anything.
        kernel: Option<String>,
        /// Why.
        source: io::Error,
    },
    /// The working directory does not exist, or is none.
    #[error("the working directory {path:?} cannot be entered")]
    WorkingDirectory {
        /// The path inside the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program was not started. The message is the one that runc users know.
    #[error("{}", exec_message(argv0, *errno, *exists))]
    Exec {
        /// The program as it was asked for.
        argv0: String,
        /// The error number of `execve(2)`.
        errno: i32,
        /// Whether a file of that name was found. With `ENOENT` its interpreter is missing then.
        exists: bool,
    },
    /// Another call on the way failed.
    #[error("{call} failed in {syscall}")]
    Call {
        /// The call with its arguments.
        call: String,
        /// The system call that failed.
        syscall: &'static str,
        /// Why.
        source: io::Error,
    },
    /// PID 1 of the step, or what was to clone it, ended before the process was started: somebody killed it.
    #[error("the step's first process was killed before it could start the command")]
    Died,
}

impl Error {
    /// What a shell, and `docker run`, would exit with: 127 if the program was not found, 126 if it could
    /// not be executed; `None` for every other error.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Error::Exec { errno, .. } if [libc::ENOENT, libc::ENOTDIR].contains(errno) => Some(127),
            Error::Exec { .. } => Some(126),
            _ => None,
        }
    }
}

fn at(layer: &Option<PathBuf>) -> String {
    layer.as_ref().map(|path| format!(" at {path:?}")).unwrap_or_default()
}

fn says(kernel: &Option<String>) -> String {
    kernel.as_ref().map(|text| format!(" (kernel: {text})")).unwrap_or_default()
}

fn exec_message(argv0: &str, errno: i32, exists: bool) -> String {
    match errno {
        libc::ENOENT if exists => {
            format!("exec {argv0}: no such file or directory (its interpreter is missing in the image)")
        }
        libc::ENOENT if argv0.contains('/') => {
            format!("exec: {argv0:?}: stat {argv0}: no such file or directory")
        }
        libc::ENOENT | libc::ENOTDIR if !argv0.contains('/') => {
            format!("exec: {argv0:?}: executable file not found in $PATH")
        }
        libc::EACCES => format!("exec: {argv0:?}: permission denied"),
        libc::ENOEXEC => format!("exec {argv0}: exec format error"),
        _ => format!("exec {argv0}: {}", io::Error::from_raw_os_error(errno)),
    }
}

/// What a process lacks that may not make namespaces; a full process table is no reason to become root.
fn what_it_needs(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; running a step needs root (CAP_SYS_ADMIN)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_errors_read_like_runc() {
        let table = [
            ("foo", libc::ENOENT, false, 127, r#"exec: "foo": executable file not found in $PATH"#),
            ("/x/foo", libc::ENOENT, false, 127, r#"exec: "/x/foo": stat /x/foo: no such file or directory"#),
            (
                "/s",
                libc::ENOENT,
                true,
                127,
                "exec /s: no such file or directory (its interpreter is missing in the image)",
            ),
            ("foo", libc::EACCES, true, 126, r#"exec: "foo": permission denied"#),
            ("/s", libc::ENOEXEC, true, 126, "exec /s: exec format error"),
        ];
        for (argv0, errno, exists, code, text) in table {
            let error = Error::Exec { argv0: argv0.into(), errno, exists };
            assert_eq!((error.exit_code(), error.to_string().as_str()), (Some(code), text));
        }
        assert_eq!(Error::NoCommand.exit_code(), None);
    }
}
