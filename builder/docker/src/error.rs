//! Why a Docker Engine did not do what it was asked.

use std::{io, path::PathBuf};

/// Why a Docker Engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its address cannot be used.
    #[error("`{address}` is no address of a Docker Engine that can be used here: {why}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no such context of Docker's.
    #[error("Docker has no context `{name}`: there is no {}", path.display())]
    NoContext {
        /// Its name.
        name: String,
        /// The file that would describe it.
        path: PathBuf,
    },
    /// A file that tells where it is, or that it is to be believed, cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing answers.
    #[error("no Docker Engine answers at {address}: {why}")]
    NotThere {
        /// Where it was looked for.
        address: String,
        /// What the system says.
        why: String,
        /// Whether something is there that this user must not use.
        forbidden: bool,
    },
    /// It refused.
    #[error("the Docker Engine at {address} refused to {what}: {said}")]
    Refused {
        /// Where it is.
        address: String,
        /// What was asked.
        what: &'static str,
        /// Its words.
        said: String,
    },
    /// It answered what is no answer.
    #[error(
        "the Docker Engine at {address} answered something else than its API says when asked to {what}: {why}"
    )]
    Answer {
        /// Where it is.
        address: String,
        /// What was asked.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The connection broke.
    #[error("the connection to the Docker Engine at {address} broke when asked to {what}: {why}")]
    Broken {
        /// Where it is.
        address: String,
        /// What was asked.
        what: &'static str,
        /// What the system says.
        why: String,
    },
}

impl Error {
    /// A short name that does not change.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Address { .. } | Error::NoContext { .. } | Error::File { .. } => "docker-address",
            Error::NotThere { .. } => "docker-not-there",
            Error::Refused { .. } | Error::Answer { .. } | Error::Broken { .. } => "docker",
        }
    }

    /// What mends it.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Address { address, .. } if address.starts_with("ssh://") => {
                let host = address.trim_start_matches("ssh://");
                Some(format!("build into the local store, then: kiln save IMAGE | ssh {host} docker load"))
            }
            Error::Address { .. } => Some("DOCKER_HOST=unix:///var/run/docker.sock".to_owned()),
            Error::NoContext { .. } => Some("docker context ls".to_owned()),
            Error::NotThere { forbidden: true, .. } => Some(
                "sudo usermod -aG docker $USER, and log in again; or write an archive: -o type=docker,dest=image.tar"
                    .to_owned(),
            ),
            Error::NotThere { .. } => Some(
                "start Docker, or name it with DOCKER_HOST; without one, leave --load away: the image is then in the \
                 local store (kiln images), or write an archive: -o type=docker,dest=image.tar"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
