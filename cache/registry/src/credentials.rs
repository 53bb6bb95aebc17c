//! Who we are to a registry.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::Deserialize;

/// Knows logins. Asked only after a registry refused a request without one, on a thread that may block.
pub trait Credentials: Send + Sync {
    /// The login for a repository of a registry; `None` when there is none.
    ///
    /// `host` is the registry as a reference has it (`docker.io`, `ghcr.io`, `localhost:5000`), or a
    /// mirror's host.
    ///
    /// # Errors
    /// [`CredentialsError`] when there may be one and it could not be had.
    fn for_registry(&self, host: &str, repository: &str) -> Result<Option<Login>, CredentialsError>;
}

/// Has no login for anyone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl Credentials for Anonymous {
    fn for_registry(&self, _: &str, _: &str) -> Result<Option<Login>, CredentialsError> {
        Ok(None)
    }
}

/// The first that knows a login is believed.
impl Credentials for Vec<Arc<dyn Credentials>> {
    fn for_registry(&self, host: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        for credentials in self {
            if let Some(login) = credentials.for_registry(host, repository)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

/// How we show who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A name and a password (or a personal access token in its place).
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth 2 refresh token, exchanged for an access token at the registry's token server.
    Identity(Secret),
    /// An access token that is sent as it is.
    Token(Secret),
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Credentials that could not be read. Holds nothing of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The file is there and cannot be read.
    #[error("{}: it cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The file is no JSON of the expected shape. Only the place is told: the parser would quote the text
    /// there.
    #[error("{}:{line}:{column}: not a Docker config file: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// `auth` is not base64 of `name:password`.
    #[error("{}: `auths.\"{key}\".auth` is not base64 of `name:password`", path.display())]
    Auth {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: String,
    },
    /// The name of a helper is no part of a file name.
    #[error("{}: `{name}` is no name of a credential helper", path.display())]
    HelperName {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The helper's program is in no folder of `PATH`.
    #[error("{}: the credential helper `{program}` is not in PATH", path.display())]
    HelperMissing {
        /// The file that names it.
        path: PathBuf,
        /// The program.
        program: String,
    },
    /// The helper could not be run, failed, or answered something else than a login.
    #[error("the credential helper `{program}` failed for {server}: {why}")]
    Helper {
        /// The program.
        program: String,
        /// What it was asked for.
        server: String,
        /// What happened.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Option<Login>);

    impl Credentials for Fixed {
        fn for_registry(&self, _: &str, _: &str) -> Result<Option<Login>, CredentialsError> {
            Ok(self.0.clone())
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let login = Login::Password { username: "ada".into(), password: Secret::new("hunter2") };
        assert_eq!(format!("{login:?}"), r#"Password { username: "ada", password: Secret(…) }"#);
    }

    #[test]
    fn the_first_that_knows_is_believed() {
        let login = Login::Token(Secret::new("t"));
        let chain: Vec<Arc<dyn Credentials>> =
            vec![Arc::new(Anonymous), Arc::new(Fixed(Some(login.clone()))), Arc::new(Fixed(None))];
        assert_eq!(chain.for_registry("a", "b"), Ok(Some(login)));
    }
}
