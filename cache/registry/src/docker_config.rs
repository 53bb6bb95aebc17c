//! The logins in `~/.docker/config.json` and in the programs it names.
//!
//! `credHelpers` is asked first, then `credsStore`, then `auths`, as Docker does. A key is a host, a host
//! with a path (`registry.example/team`, as podman writes them; the longest that fits wins), or what older
//! Dockers wrote: an address with a scheme and a version, `https://index.docker.io/v1/`.

mod edit;

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

pub use edit::Edited;

use crate::{Credentials, CredentialsError, Login, Secret};

/// Docker Hub's name in this file and towards helpers, since Docker 0.x.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A user name that says that the helper's secret is an identity token (docker-credential-helpers, README).
const IDENTITY: &str = "<token>";

/// Some writers leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The logins of a Docker config file.
#[derive(Clone, Debug, Default)]
pub struct DockerConfig {
    path: PathBuf,
    program_folders: Vec<PathBuf>,
    file: File,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default, deserialize_with = "null_is_empty")]
    auths: BTreeMap<String, Auth>,
    #[serde(default, deserialize_with = "null_is_empty")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    creds_store: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: Secret,
}

/// Programs that rewrite the file leave `null` behind.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl DockerConfig {
    /// Reads the text of a config file. `path` is the file's name, for errors; `program_folders` are the
    /// folders of
    /// `PATH`, in which `docker-credential-*` programs are looked for.
    ///
    /// # Errors
    /// [`CredentialsError::Config`] when the text has another shape. It holds no part of the text.
    pub fn parse(
        text: &str,
        path: impl Into<PathBuf>,
        program_folders: Vec<PathBuf>,
    ) -> Result<DockerConfig, CredentialsError> {
        let path = path.into();
        match serde_json::from_str(text) {
            Ok(file) => Ok(DockerConfig { path, program_folders, file }),
            Err(error) => Err(CredentialsError::Config {
                path,
                line: error.line(),
                column: error.column(),
                problem: if error.is_data() {
                    "a value of another type is expected here"
                } else {
                    "bad JSON"
                },
            }),
        }
    }

    /// Whether there is an entry for a host, or for some of its repositories.
    pub(crate) fn knows(&self, host: &str) -> bool {
        let about = |key: &String| normal(key).split('/').next() == Some(host);
        self.file.auths.keys().any(about) || self.file.cred_helpers.keys().any(about)
    }

    /// The login that the file itself holds.
    fn in_file(&self, host: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        let Some((key, auth)) = find(&self.file.auths, host, repository) else { return Ok(None) };
        let full = |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.reveal().is_empty());
        if let Some(token) = full(&auth.registrytoken) {
            return Ok(Some(Login::Token(token)));
        }
        if let Some(token) = full(&auth.identitytoken) {
            return Ok(Some(Login::Identity(token)));
        }
        if let Some(auth) = full(&auth.auth) {
            let bad = || CredentialsError::Auth { path: self.path.clone(), key: key.to_owned() };
            let bytes = BASE64.decode(auth.reveal().trim()).map_err(|_| bad())?;
            let text = String::from_utf8(bytes).map_err(|_| bad())?;
            let (username, password) = text.split_once(':').ok_or_else(bad)?;
            // Docker itself strips them: an old version padded the text with NULs.
            let password = Secret::new(password.trim_matches('\0'));
            return Ok(Some(Login::Password { username: username.to_owned(), password }));
        }
        match (&auth.username, full(&auth.password)) {
            (Some(username), Some(password)) if !username.is_empty() => {
                Ok(Some(Login::Password { username: username.clone(), password }))
            }
            _ => Ok(None),
        }
    }

    /// A helper's name, and where it is.
    fn program(&self, name: &str) -> Result<(String, PathBuf), CredentialsError> {
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err(CredentialsError::HelperName { path: self.path.clone(), name: name.to_owned() });
        }
        let program = format!("docker-credential-{name}");
        let found =
            self.program_folders.iter().map(|folder| folder.join(&program)).find(|path| path.is_file());
        match found {
            Some(found) => Ok((program, found)),
            None => Err(CredentialsError::HelperMissing { path: self.path.clone(), program }),
        }
    }

    /// The login that `docker-credential-<name>` gives for a host.
    fn ask_helper(&self, name: &str, host: &str) -> Result<Option<Login>, CredentialsError> {
        let server = if host == "docker.io" { DOCKER_HUB } else { host };
        let (program, found) = self.program(name)?;
        let failed = |why: String| CredentialsError::Helper {
            program: program.clone(),
            server: server.to_owned(),
            why,
        };
        let output = run(&found, "get", server).map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            // The answer is not quoted: it may hold the secret in a shape that we did not expect.
            let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
                .map_err(|_| failed("its answer is no JSON with Username and Secret".to_owned()))?;
            return Ok(answer.login());
        }
        let said = format!("{} {}", first_line(&output.stdout), first_line(&output.stderr));
        // The only sign of "none" in the protocol is this sentence (credentials/error.go of the helpers).
        if said.contains("credentials not found") {
            return Ok(None);
        }
        Err(failed(format!("{}: {}", output.status, said.trim())))
    }
}

impl HelperAnswer {
    fn login(self) -> Option<Login> {
        match self.username.as_str() {
            _ if self.secret.reveal().is_empty() => None,
            IDENTITY => Some(Login::Identity(self.secret)),
            _ => Some(Login::Password { username: self.username, password: self.secret }),
        }
    }
}

impl Credentials for DockerConfig {
    fn for_registry(&self, host: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        let own = find(&self.file.cred_helpers, host, repository).map(|(_, name)| name);
        let store = Some(&self.file.creds_store).filter(|name| !name.is_empty());
        if let Some(name) = own.or(store)
            && let Some(login) = self.ask_helper(name, host)?
        {
            return Ok(Some(login));
        }
        self.in_file(host, repository)
    }
}

/// The entry whose key is the longest beginning of `host/repository`.
fn find<'a, T>(entries: &'a BTreeMap<String, T>, host: &str, repository: &str) -> Option<(&'a str, &'a T)> {
    let full = format!("{host}/{repository}");
    let mut wanted = full.as_str();
    loop {
        let fits = |key: &str| normal(key) == wanted;
        // A key that is written plainly is preferred to one that only means the same.
        let plain = entries.get_key_value(wanted);
        let found = plain.or_else(|| entries.iter().find(|(key, _)| fits(key)));
        if let Some((key, entry)) = found {
            return Some((key, entry));
        }
        wanted = wanted.rsplit_once('/')?.0;
    }
}

/// `https://index.docker.io/v1/` and its like as the host that they mean.
fn normal(key: &str) -> String {
    let (scheme, rest) = match key.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, key),
    };
    let rest = rest.trim_end_matches('/');
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    // What follows the host of an address is the version of the API, not a repository.
    if scheme || path.is_empty() || path == "v1" || path == "v2" {
        return host.to_owned();
    }
    format!("{host}/{path}")
}

/// Runs a helper with this on its standard input.
fn run(program: &Path, action: &str, input: &str) -> std::io::Result<std::process::Output> {
    let mut child = Command::new(program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that ends without reading tells why on its output.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> DockerConfig {
        DockerConfig::parse(text, "/h/config.json", Vec::new()).expect(text)
    }

    fn password(username: &str, password: &str) -> Option<Login> {
        Some(Login::Password { username: username.into(), password: Secret::new(password) })
    }

    #[test]
    fn a_host_is_found_by_every_key_that_means_it() {
        // `YTpi` is `a:b`.
        for (key, host, repository) in [
            ("https://index.docker.io/v1/", "docker.io", "library/alpine"),
            ("index.docker.io", "docker.io", "library/alpine"),
            ("docker.io", "docker.io", "library/alpine"),
            ("https://ghcr.io", "ghcr.io", "x/y"),
            ("ghcr.io/v2/", "ghcr.io", "x/y"),
            ("localhost:5000", "localhost:5000", "x"),
            ("registry.example/team", "registry.example", "team/app"),
            ("registry.example/team/app", "registry.example", "team/app"),
        ] {
            let config = config(&format!(r#"{{"auths":{{"{key}":{{"auth":"YTpi"}}}}}}"#));
            assert_eq!(config.for_registry(host, repository), Ok(password("a", "b")), "{key}");
        }
    }

    #[test]
    fn the_longest_key_wins_and_a_part_of_a_name_is_no_match() {
        let config = config(
            r#"{"auths":{"r.example":{"username":"host","password":"p"},
                         "r.example/team":{"username":"team","password":"p"},
                         "r.example/empty":{}}}"#,
        );
        for (repository, login) in [
            ("app", password("host", "p")),
            ("teams/app", password("host", "p")),
            ("team/app", password("team", "p")),
            ("empty/x", None),
        ] {
            assert_eq!(config.for_registry("r.example", repository), Ok(login), "{repository}");
        }
        assert_eq!(config.for_registry("other.example", "app"), Ok(None));
    }

    #[test]
    fn tokens_win_over_passwords() {
        for (entry, login) in [
            (r#""auth":"YTpi","identitytoken":"i""#, Some(Login::Identity(Secret::new("i")))),
            (r#""identitytoken":"i","registrytoken":"r""#, Some(Login::Token(Secret::new("r")))),
            (r#""auth":"YTpi","identitytoken":"""#, password("a", "b")),
            (r#""auth":"YTpiOmM""#, password("a", "b:c")),
            (r#""username":"u""#, None),
        ] {
            let config = config(&format!(r#"{{"auths":{{"h.example":{{{entry}}}}}}}"#));
            assert_eq!(config.for_registry("h.example", "x"), Ok(login), "{entry}");
        }
    }

    #[test]
    fn what_is_empty_or_unknown_is_no_login() {
        for text in [
            "{}",
            r#"{"auths":null,"credHelpers":null,"credsStore":null,"currentContext":"x"}"#,
            r#"{"auths":{"h.example":{}},"credsStore":""}"#,
            r#"{"auths":{"h.example":{"auth":null}}}"#,
        ] {
            assert_eq!(config(text).for_registry("h.example", "x"), Ok(None), "{text}");
        }
    }

    #[test]
    fn errors_tell_the_place_and_no_secret() {
        let error = DockerConfig::parse("{\"auths\":\n{\"h\":\"hunter2\"}}", "/h/config.json", Vec::new())
            .expect_err("a text instead of an entry");
        assert!(error.to_string().starts_with("/h/config.json:2:"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let config = config(r#"{"auths":{"h.example":{"auth":"hunter2!"}}}"#);
        let error = config.for_registry("h.example", "x").expect_err("no base64");
        assert!(!format!("{error} {error:?} {config:?}").contains("hunter2"));
        assert!(error.to_string().contains("h.example"), "{error}");
    }

    #[test]
    fn a_helper_must_be_a_program_of_path() {
        let config = config(r#"{"credHelpers":{"a.example":"../evil","b.example":"nowhere"}}"#);
        let of = |host: &str| config.for_registry(host, "x").expect_err(host);
        assert!(matches!(of("a.example"), CredentialsError::HelperName { .. }));
        assert!(matches!(of("b.example"), CredentialsError::HelperMissing { .. }));
    }

    /// Written by a shell: a file that this process has open for writing cannot be executed by it.
    fn write_program(path: &Path, text: &str) {
        let script = format!("cat > '{0}' && chmod 755 '{0}'", path.display());
        let mut shell =
            Command::new("sh").arg("-c").arg(script).stdin(Stdio::piped()).spawn().expect("sh runs");
        shell.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        assert!(shell.wait().expect("sh ends").success());
    }

    #[test]
    fn helpers_are_run_and_asked_for_the_server() {
        let folder = tempfile::tempdir().expect("a folder");
        write_program(
            &folder.path().join("docker-credential-test"),
            r#"#!/bin/sh
read -r server
case "$1 $server" in
"get https://index.docker.io/v1/") echo '{"ServerURL":"x","Username":"hub","Secret":"s"}' ;;
"get id.example") echo '{"Username":"<token>","Secret":"refresh"}' ;;
"get broken.example") echo 'hunter2' ;;
"get locked.example") echo 'the key ring is locked'; exit 1 ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"#,
        );
        let text = r#"{"credsStore":"test","auths":{"file.example":{"auth":"YTpi"}}}"#;
        let config =
            DockerConfig::parse(text, "/h/config.json", vec![folder.path().to_owned()]).expect("valid");
        assert_eq!(config.for_registry("docker.io", "library/x"), Ok(password("hub", "s")));
        assert_eq!(config.for_registry("id.example", "x"), Ok(Some(Login::Identity(Secret::new("refresh")))));
        assert_eq!(config.for_registry("none.example", "x"), Ok(None));
        assert_eq!(config.for_registry("file.example", "x"), Ok(password("a", "b")));
        let locked = config.for_registry("locked.example", "x").expect_err("it failed").to_string();
        assert!(
            locked.contains("the key ring is locked") && locked.contains("docker-credential-test"),
            "{locked}"
        );
        let broken = config.for_registry("broken.example", "x").expect_err("no JSON");
        assert!(!format!("{broken} {broken:?}").contains("hunter2"));
    }
}
