//! Where a Docker Engine is, found as Docker's own command finds it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use oci::Digest;
use serde::Deserialize;

use crate::Error;

/// Where Docker listens if nobody says otherwise.
const SOCKET: &str = "/var/run/docker.sock";

/// The port of an engine that is reached without TLS, and with.
const PORTS: (u16, u16) = (2375, 2376);

/// Where a Docker Engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Behind a socket of this machine.
    Socket(PathBuf),
    /// Behind a host and port.
    Tcp {
        /// Host and port.
        host: String,
        /// With what TLS is spoken; `None` is plain.
        tls: Option<Tls>,
    },
}

/// With what TLS is spoken to an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The folder with `ca.pem`, `cert.pem` and `key.pem`, each of which may be missing.
    pub folder: PathBuf,
    /// Whether the engine's certificate is checked.
    pub checked: bool,
}

/// What tells where the engine is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `DOCKER_HOST`.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub context: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` is set.
    pub tls: bool,
    /// `DOCKER_CERT_PATH`.
    pub certificates: Option<PathBuf>,
    /// The folder of Docker's `config.json`.
    pub config: PathBuf,
}

/// What is read of `config.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    current_context: Option<String>,
}

/// What is read of a context's `meta.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Context {
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Option<Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    host: Option<String>,
    #[serde(default, rename = "SkipTLSVerify")]
    unchecked: bool,
}

impl Address {
    /// The address of the context of this name; without a name, what Docker's own command would use: `DOCKER_HOST`, then
    /// `DOCKER_CONTEXT`, then the context of `config.json`, then the usual socket.
    ///
    /// # Errors
    /// [`Error::NoContext`], [`Error::Address`]; [`Error::File`] for a file that is there and cannot be read.
    pub fn find(context: Option<&str>, around: &Surroundings) -> Result<Address, Error> {
        if let (None, Some(host)) = (context, &around.host) {
            let folder = around.certificates.clone().unwrap_or_else(|| around.config.clone());
            let tls = around.tls.then_some(Tls { folder, checked: true });
            return Address::parse(host, tls);
        }
        let named = context.map(str::to_owned).or_else(|| around.context.clone());
        let name = match named {
            Some(name) => Some(name),
            None => current_context(&around.config.join("config.json"))?,
        };
        match name.as_deref() {
            None | Some("default" | "") => Ok(Address::Socket(PathBuf::from(SOCKET))),
            Some(name) => Address::of_context(name, &around.config.join("contexts")),
        }
    }

    /// The address that a context's description has (`docker context create`).
    fn of_context(name: &str, contexts: &Path) -> Result<Address, Error> {
        let id = Digest::of(name.as_bytes()).hex();
        let path = contexts.join("meta").join(&id).join("meta.json");
        let context: Context = read(&path)?
            .ok_or_else(|| Error::NoContext { name: name.to_owned(), path: path.clone() })
            .and_then(|bytes| parse(&path, &bytes))?;
        let none = Endpoint { host: None, unchecked: false };
        let Endpoint { host, unchecked } = context.endpoints.docker.unwrap_or(none);
        let folder = contexts.join("tls").join(&id).join("docker");
        let tls = (folder.is_dir() || unchecked).then_some(Tls { folder, checked: !unchecked });
        Address::parse(host.as_deref().unwrap_or("unix:///var/run/docker.sock"), tls)
    }

    /// Reads `unix:///PATH` or `tcp://HOST[:PORT]`.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn parse(text: &str, tls: Option<Tls>) -> Result<Address, Error> {
        let bad = |why| Error::Address { address: text.to_owned(), why };
        let (scheme, rest) =
            text.split_once("://").ok_or(bad("it begins neither with unix:// nor with tcp://"))?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Address::Socket(PathBuf::from(rest))),
            "unix" => Err(bad("the path of a socket begins with `/`")),
            "tcp" => {
                let host = rest.trim_end_matches('/');
                if host.is_empty()
                    || host.contains(['/', '@', '?', '#'])
                    || host.contains(char::is_whitespace)
                {
                    return Err(bad("expected a host name with an optional port"));
                }
                let port = if tls.is_some() { PORTS.1 } else { PORTS.0 };
                let ported = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                let host = if ported { host.to_owned() } else { format!("{host}:{port}") };
                Ok(Address::Tcp { host, tls })
            }
            "ssh" => Err(bad("engines behind ssh are not supported yet")),
            _ => Err(bad("it begins neither with unix:// nor with tcp://")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { host, .. } => write!(f, "tcp://{host}"),
        }
    }
}

fn current_context(config: &Path) -> Result<Option<String>, Error> {
    let Some(bytes) = read(config)? else { return Ok(None) };
    parse::<Config>(config, &bytes).map(|config| config.current_context)
}

/// A file's bytes; `None` where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::File { path: path.to_owned(), source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(path: &str) -> Address {
        Address::Socket(PathBuf::from(path))
    }

    #[test]
    fn addresses_are_read() {
        let tcp = |host: &str, tls| Address::Tcp { host: host.to_owned(), tls };
        let tls = Tls { folder: PathBuf::from("/certs"), checked: true };
        for (text, with, expected) in [
            ("unix:///run/docker.sock", None, socket("/run/docker.sock")),
            ("tcp://10.0.0.1", None, tcp("10.0.0.1:2375", None)),
            ("tcp://10.0.0.1:99/", None, tcp("10.0.0.1:99", None)),
            ("tcp://[::1]:99", None, tcp("[::1]:99", None)),
            ("tcp://box", Some(tls.clone()), tcp("box:2376", Some(tls.clone()))),
        ] {
            assert_eq!(Address::parse(text, with).expect(text), expected, "{text}");
        }
        for text in [
            "",
            "docker.sock",
            "unix://run",
            "tcp://",
            "tcp://a/b",
            "tcp://a@b",
            "ssh://me@box",
            "npipe:////x",
        ] {
            let error = Address::parse(text, None).expect_err(text);
            assert!(error.help().is_some(), "{text}: {error}");
        }
    }

    #[test]
    fn contexts_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().to_owned();
        let around = Surroundings { config: config.clone(), ..Surroundings::default() };
        assert_eq!(Address::find(None, &around).expect("the usual"), socket(SOCKET));

        let id = Digest::of(b"remote").hex();
        let meta = config.join("contexts/meta").join(&id);
        fs::create_dir_all(&meta).expect("made");
        let text = r#"{"Name":"remote","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://box:1","SkipTLSVerify":true}}}"#;
        fs::write(meta.join("meta.json"), text).expect("written");
        let tls = Tls { folder: config.join("contexts/tls").join(&id).join("docker"), checked: false };
        let remote = Address::Tcp { host: "box:1".to_owned(), tls: Some(tls) };
        assert_eq!(Address::find(Some("remote"), &around).expect("named"), remote);
        fs::write(config.join("config.json"), r#"{"auths":{},"currentContext":"remote"}"#).expect("written");
        assert_eq!(Address::find(None, &around).expect("current"), remote);

        let host = Surroundings { host: Some("unix:///x".to_owned()), ..around.clone() };
        assert_eq!(Address::find(None, &host).expect("DOCKER_HOST"), socket("/x"));
        assert_eq!(Address::find(Some("remote"), &host).expect("a context that is named"), remote);
        let other = Surroundings { context: Some("default".to_owned()), ..around.clone() };
        assert_eq!(Address::find(None, &other).expect("DOCKER_CONTEXT"), socket(SOCKET));
        let missing = Address::find(Some("none"), &around).expect_err("not there");
        assert!(matches!(missing, Error::NoContext { .. }), "{missing}");
        fs::write(config.join("config.json"), "{").expect("written");
        let broken = Address::find(None, &around).expect_err("no JSON");
        assert!(matches!(broken, Error::File { .. }), "{broken}");
    }
}
