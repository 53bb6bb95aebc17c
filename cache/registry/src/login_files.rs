//! The logins that programs keep in files, asked in an order.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{Credentials, CredentialsError, DockerConfig, Login};

/// Docker's `config.json` and containers' `auth.json` (containers-auth.json(5)), which have one form. Each is read when a login
/// is wanted that those before it do not have; one that is not there has none.
#[derive(Debug)]
pub struct LoginFiles {
    files: Vec<File>,
    program_folders: Vec<PathBuf>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    read: OnceLock<Result<Option<DockerConfig>, CredentialsError>>,
}

impl LoginFiles {
    /// The files in the order in which they are asked; `program_folders` are the folders of `PATH`, in which
    /// `docker-credential-*` programs are looked for.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>, program_folders: Vec<PathBuf>) -> LoginFiles {
        let files = paths.into_iter().map(|path| File { path, read: OnceLock::new() }).collect();
        LoginFiles { files, program_folders }
    }

    /// The file that has a login for a host, and perhaps for no more than some repositories of it.
    ///
    /// # Errors
    /// A file before it cannot be read.
    pub fn holder(&self, host: &str) -> Result<Option<&Path>, CredentialsError> {
        for file in &self.files {
            if let Some(config) = self.config(file)?
                && config.knows(host)
            {
                return Ok(Some(&file.path));
            }
        }
        Ok(None)
    }

    fn config<'a>(&self, file: &'a File) -> Result<Option<&'a DockerConfig>, CredentialsError> {
        let read = || match fs::read_to_string(&file.path) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => DockerConfig::parse(&text, &file.path, self.program_folders.clone()).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(CredentialsError::Unreadable { path: file.path.clone(), why: error.to_string() })
            }
        };
        file.read.get_or_init(read).as_ref().map(Option::as_ref).map_err(Clone::clone)
    }
}

impl Credentials for LoginFiles {
    fn for_registry(&self, host: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        for file in &self.files {
            if let Some(config) = self.config(file)?
                && let Some(login) = config.for_registry(host, repository)?
            {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_has_a_login_is_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let entry = |key: &str, user: &str| {
            format!(r#"{{"auths":{{"{key}":{{"username":"{user}","password":"p"}}}}}}"#)
        };
        let files = [
            folder.path().join("missing"),
            file("empty", "\n"),
            file("docker", &entry("a.lab", "docker")),
            file("auth", &entry("a.lab/team", "team").replace("}}}", r#"},"b.lab":{"auth":"YTpi"}}}"#)),
            file("broken", "{"),
        ];
        let logins = LoginFiles::new(files.clone(), Vec::new());
        let user = |host: &str, repository: &str| match logins.for_registry(host, repository) {
            Ok(Some(Login::Password { username, .. })) => username,
            other => format!("{other:?}"),
        };
        assert_eq!(user("a.lab", "team/x"), "docker", "an earlier file counts, not a longer key");
        assert_eq!(user("b.lab", "x"), "a");
        assert!(user("c.lab", "x").contains("broken"), "only who gets there meets it");
        assert_eq!(logins.holder("a.lab"), Ok(Some(files[2].as_path())));
        assert_eq!(logins.holder("b.lab"), Ok(Some(files[3].as_path())));
    }

    #[test]
    fn namespaces_have_logins_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("auth.json");
        let text = r#"{"auths":{"r.lab/team":{"username":"team","password":"p"},"r.lab/team/app":{"username":"app","password":"p"}}}"#;
        fs::write(&path, text).expect("written");
        let logins = LoginFiles::new([path], Vec::new());
        for (repository, user) in [("team/app", Some("app")), ("team/other", Some("team")), ("else", None)] {
            let login = logins.for_registry("r.lab", repository).expect("read");
            let found = login.map(|login| match login {
                Login::Password { username, .. } => username,
                other => format!("{other:?}"),
            });
            assert_eq!(found.as_deref(), user, "{repository}");
        }
    }
}
