//! Whoever asked for the build: where contexts, secrets and outputs are.
//!
//! The command line implements [`Client`] with the local machine; a daemon will implement it with a session. Nothing
//! else in the engine knows the difference.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use sandbox::SecretBytes;
use ssh::Keyring;

/// An ssh agent of the client's.
#[derive(Clone, Debug)]
pub enum SshAgent {
    /// A socket that leads to one.
    Socket {
        /// Where it is.
        path: PathBuf,
        /// Whether a step may say whatever it likes; else it may ask for keys and signatures.
        raw: bool,
    },
    /// Keys, for which Kiln is the agent.
    Keys(Arc<Keyring>),
}

/// What the engine asks of whoever asked for the build.
pub trait Client: Send + Sync {
    /// The folder of a build context: `context` is the main one, other names are those of `--build-context`. `None` for a
    /// main context that there is not, because the Dockerfile came alone: it is empty.
    ///
    /// # Errors
    /// When there is no such context or it cannot be read.
    fn context(&self, name: &str) -> io::Result<Option<PathBuf>>;

    /// The archive that is the main context, where the request says that there is one. Asked for once.
    ///
    /// # Errors
    /// When there is none.
    fn archive(&self) -> io::Result<Box<dyn Read + Send>>;

    /// The bytes of a secret, the same each time in one build; `None` where the client has none of that id.
    ///
    /// # Errors
    /// When the client has it and cannot read it.
    fn secret(&self, id: &str) -> io::Result<Option<SecretBytes>>;

    /// An ssh agent; `None` where the client has none of that id.
    fn ssh_agent(&self, id: &str) -> Option<SshAgent>;

    /// Where the Docker Engine of this context of Docker's is; without a context, the one that Docker's own command uses.
    ///
    /// # Errors
    /// There is no such context, or its address cannot be used.
    fn docker_engine(&self, context: Option<&str>) -> Result<docker::Address, docker::Error>;
}
