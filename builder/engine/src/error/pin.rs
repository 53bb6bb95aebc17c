//! Why the name of a base image could not be turned into an image, beyond what the registry said.

use oci::Digest;

use crate::clock::words_of;

/// A base image that is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The registry had to be asked and could not answer.
    #[error("{error}")]
    Offline {
        /// What the registry did.
        error: Box<registry::Error>,
        /// What it answered last.
        last: Digest,
        /// How long ago that was, in seconds.
        seconds: u64,
    },
    /// It is not here, and nobody may be asked.
    #[error("{what} is not here, and with --pull=never no registry is asked")]
    NotHere {
        /// The image, or a layer of it.
        what: String,
        /// The image as a command takes it.
        name: String,
    },
}

impl PinError {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            PinError::Offline { error, .. } => error.code(),
            PinError::NotHere { .. } => "image-not-here",
        }
    }

    /// A command that mends it.
    pub fn help(&self) -> String {
        match self {
            PinError::Offline { last, seconds, .. } => {
                format!("without --pull, the registry's answer of {} ago is used: {last}", words_of(*seconds))
            }
            PinError::NotHere { name, .. } => format!("kiln pull {name}, or build without --pull=never"),
        }
    }
}
