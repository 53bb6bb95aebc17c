//! What can go wrong with a remote source, as facts.

use std::{io, path::PathBuf};

use oci::Digest;
use registry::Fault;

/// Why a remote source could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be downloaded.
    #[error("cannot download {url}: {}", http_words(fault))]
    Http {
        /// The address, without a password.
        url: String,
        /// Its host, without the port.
        host: String,
        /// What went wrong.
        fault: Box<Fault>,
        /// The digest of what the address gave before, where that is still here.
        known: Option<Digest>,
    },
    /// A file is not what `--checksum` says.
    #[error("{url} has the digest {actual}, and {expected} was expected")]
    FileChecksum {
        /// The address, without a password.
        url: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// There is no `git`.
    #[error("a git repository is needed, and there is no program `git` in PATH")]
    NoProgram,
    /// An address that git is not given.
    #[error("`{remote}` cannot be fetched: {why}")]
    BadRemote {
        /// The address, without a password.
        remote: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A name that no branch or tag can have.
    #[error("`{reference}` cannot be the name of a branch, a tag or a commit")]
    BadReference {
        /// The name.
        reference: String,
    },
    /// A checksum that is no beginning of a commit's digest.
    #[error("`{checksum}` is no digest of a commit: it has other characters than hexadecimal digits")]
    BadChecksum {
        /// The checksum.
        checksum: String,
    },
    /// The repository has no such branch, tag or reference.
    #[error("the repository {remote} has no {}", wanted(reference))]
    NoReference {
        /// The address, without a password.
        remote: String,
        /// The name; empty for the default branch.
        reference: String,
    },
    /// The repository has no such commit.
    #[error("the repository {remote} gives no commit {commit}")]
    NoCommit {
        /// The address, without a password.
        remote: String,
        /// The commit.
        commit: String,
    },
    /// A branch or tag is not at the commit that was asked for.
    #[error("{} of {remote} is {}, and {expected} was expected", named(reference), actual.join(" or "))]
    CommitChecksum {
        /// The address, without a password.
        remote: String,
        /// The branch or tag; empty for the default branch.
        reference: String,
        /// What was asked for.
        expected: String,
        /// The commit, and before it the tag, where it is one that has a digest of its own.
        actual: Vec<String>,
    },
    /// The repository has no such folder.
    #[error("the repository {remote} has no folder `{subfolder}` at {commit}")]
    NoFolder {
        /// The address, without a password.
        remote: String,
        /// The folder.
        subfolder: String,
        /// The commit.
        commit: String,
    },
    /// A folder that a link of the repository leads out of it.
    #[error("`{subfolder}` is a link that leads out of the repository {remote}")]
    FolderOutside {
        /// The address, without a password.
        remote: String,
        /// The folder.
        subfolder: String,
    },
    /// `git` did not succeed.
    #[error("cannot {doing} {remote}: {fault}{}", said(lines))]
    Git {
        /// `fetch`, `ask`, ….
        doing: &'static str,
        /// The address, without a password.
        remote: String,
        /// Its host.
        host: String,
        /// What kind of failure it was, as far as git's words tell.
        fault: GitFault,
        /// The last lines that it wrote.
        lines: Vec<String>,
        /// A command that mends it, where that depends on this machine.
        remedy: Option<String>,
    },
    /// An operation on a file.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// `write`, `open`, ….
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody wants it any more.
    #[error("cancelled")]
    Cancelled,
}

/// What kind of failure git's words tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitFault {
    /// The server wants a login, or refuses the one that it got.
    #[error("the server wants a login")]
    Login,
    /// The agent has no key that the server accepts.
    #[error("the server accepts no key of the ssh agent")]
    Key,
    /// The host's key is another than before.
    #[error("the host's key is not the one that it had before")]
    HostKey,
    /// There is no such repository, or it is not for us.
    #[error("there is no such repository, or it wants a login")]
    NotFound,
    /// No connection.
    #[error("no connection")]
    Unreachable,
    /// A connection without a TLS session on it.
    #[error("no TLS session")]
    Tls,
    /// A submodule whose address is not of a kind that is fetched.
    #[error("a submodule's address is of a kind that is not fetched")]
    Transport,
    /// There is no `ssh`.
    #[error("there is no program `ssh` in PATH")]
    NoSsh,
    /// Something else.
    #[error("git failed")]
    Other,
}

impl Error {
    /// An operation on a file that failed.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { doing, path, source }
    }

    /// A stable name, under which `docs/errors/` explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Http { fault, .. } => http_code(fault),
            Error::FileChecksum { .. } | Error::CommitChecksum { .. } => "checksum-mismatch",
            Error::NoProgram => "git-missing",
            Error::BadRemote { .. } | Error::BadReference { .. } | Error::BadChecksum { .. } => "git-address",
            Error::NoReference { .. } | Error::NoCommit { .. } => "git-reference",
            Error::NoFolder { .. } | Error::FolderOutside { .. } => "git-folder",
            Error::Git { fault, .. } => match fault {
                GitFault::Login | GitFault::Key | GitFault::NotFound => "git-login",
                GitFault::HostKey => "git-host-key",
                GitFault::Unreachable => "git-unreachable",
                GitFault::Tls => "git-tls",
                GitFault::Transport => "git-transport",
                GitFault::NoSsh => "git-missing",
                GitFault::Other => "git-failed",
            },
            Error::Io { .. } => "io",
            Error::Cancelled => "cancelled",
        }
    }

    /// An edit or a command that mends it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Error::Http { host, fault, known, .. } => return http_help(host, fault, *known),
            Error::FileChecksum { actual, .. } => format!("--checksum={actual}"),
            Error::CommitChecksum { actual, .. } => format!("--checksum={}", actual.last()?),
            Error::NoProgram => install("git"),
            Error::NoReference { remote, .. } => format!("git ls-remote {remote}"),
            Error::NoCommit { commit, .. } if commit.len() < 40 => {
                "write all 40 digits of the commit".to_owned()
            }
            Error::Git { fault, host, remote, remedy, .. } => match fault {
                GitFault::Login | GitFault::NotFound if remote.starts_with("http") => {
                    format!("--secret id=GIT_AUTH_TOKEN.{host},env=GIT_AUTH_TOKEN")
                }
                GitFault::Key => "ssh-add, then --ssh default".to_owned(),
                GitFault::HostKey => remedy.clone()?,
                GitFault::Tls => "SSL_CERT_FILE=/path/to/ca.pem kiln build …".to_owned(),
                GitFault::NoSsh => install("openssh-client"),
                _ => return None,
            },
            _ => return None,
        })
    }
}

fn install(package: &str) -> String {
    format!("apt-get install {package}, or dnf, apk or zypper with the same name")
}

fn http_code(fault: &Fault) -> &'static str {
    match fault {
        Fault::Unreachable { .. } => "http-unreachable",
        Fault::Tls { .. } => "http-tls",
        Fault::Ca { .. } | Fault::Setup { .. } => "http-settings",
        Fault::Unauthorized { .. } | Fault::Denied { .. } => "http-login",
        Fault::NotFound { .. } => "http-not-found",
        Fault::TooManyRequests { .. } | Fault::Status { .. } => "http-status",
        Fault::Redirect { .. } => "http-redirect",
        _ => "http-broken-connection",
    }
}

fn http_words(fault: &Fault) -> String {
    match fault {
        Fault::Unauthorized { login: false, said } => format!("it answered 401, and wants a login{said}"),
        Fault::Unauthorized { login: true, said } => format!("it answered 401, and refused the login{said}"),
        Fault::Denied { said, .. } => format!("it answered 403, and denies access{said}"),
        Fault::NotFound { said } => format!("it answered 404, not found{said}"),
        Fault::TooManyRequests { said, .. } => format!("it answered 429, too many requests{said}"),
        other => other.to_string(),
    }
}

fn http_help(host: &str, fault: &Fault, known: Option<Digest>) -> Option<String> {
    match fault {
        Fault::Unauthorized { .. } | Fault::Denied { .. } => {
            Some(format!("--secret id=HTTP_AUTH_TOKEN_{host},env=TOKEN"))
        }
        Fault::Tls { .. } => Some("SSL_CERT_FILE=/path/to/ca.pem kiln build …".to_owned()),
        // What was downloaded is here; whether it is still right only a checksum can tell without asking.
        _ => known.map(|digest| format!("ADD --checksum={digest}, to build with what was downloaded before")),
    }
}

fn wanted(reference: &str) -> String {
    if reference.is_empty() { "default branch".to_owned() } else { format!("branch or tag `{reference}`") }
}

fn named(reference: &str) -> String {
    if reference.is_empty() { "the default branch".to_owned() } else { format!("`{reference}`") }
}

fn said(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!(" ({})", lines.join("; ")) }
}
