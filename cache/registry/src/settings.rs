//! How registries are reached: mirrors, certificates, proxies, limits.
//!
//! The part that a person writes is a TOML text:
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["http://127.0.0.1:5000", "mirror.example/dockerhub"]
//!
//! [registry."registry.lab:5000"]
//! insecure = true            # TLS without checking the certificate; plain HTTP where it speaks no TLS
//!
//! [registry."registry.example"]
//! ca = "/etc/ssl/private-ca.pem"
//! cert = "/etc/ssl/me.pem"   # who we are to it, where it asks for a certificate
//! key = "/etc/ssl/me.key"
//! ```
//!
//! A table is about one host, whether it is asked as a registry or as a mirror of another: how a mirror is
//! reached is written in the mirror's own table. `[transfer]` says how patient transfers are (`transfer.rs`).

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use oci::Reference;
use serde::Deserialize;

use crate::{
    credentials::Secret,
    transfer::{BadTransfer, Transfer},
};

/// How registries are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// By registry as it stands in a [`Reference`]: `docker.io`, `localhost:5000`.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// What other programs keep about registries; asked where `registries` says nothing.
    pub files: Files,
    /// Which certificate authorities are trusted.
    pub roots: Roots,
    /// Through whom connections are made.
    pub proxies: Proxies,
    /// Sizes, times and tries.
    pub limits: Limits,
}

/// How one host is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Who is asked before the registry itself, in this order.
    pub mirrors: Vec<Mirror>,
    /// `true`: TLS without checking the certificate, and plain HTTP where the host speaks no TLS. `false`:
    /// checked TLS even on a loopback host. Not said: plain HTTP on a loopback host, else checked TLS.
    pub insecure: Option<bool>,
    /// A PEM file of certificate authorities that are trusted for this host, beside [`Roots`].
    pub ca: Option<PathBuf>,
    /// Who we are to it.
    pub client: Option<ClientCertificate>,
}

/// A certificate that a client shows, and its key. Both are PEM and may be one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientCertificate {
    /// The certificate, with those that lead to the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Where other programs keep what they know about registries. All are read when a registry is first asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// containers' `registries.conf`. It must be there.
    pub registries_conf: Option<PathBuf>,
    /// Folders of further `*.conf`, in the order in which they are read.
    pub registries_conf_folders: Vec<PathBuf>,
    /// containers' `certs.d`; the first that has a folder for a host counts.
    pub containers_certificates: Vec<PathBuf>,
    /// Docker's and containerd's `certs.d`, in the same way.
    pub docker_certificates: Vec<PathBuf>,
    /// Docker's `daemon.json`. It must be there.
    pub docker_daemon: Option<PathBuf>,
}

/// A host that has copies of another registry's repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// `None`: as the host's own settings say.
    pub scheme: Option<Scheme>,
    /// Host and port.
    pub registry: String,
    /// What stands before the repository: empty, or ends with `/` (`proxy.docker.io/` for a project of Harbor).
    pub prefix: String,
}

/// How a mirror is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// TLS.
    Https,
}

/// Where the trusted certificate authorities are. Both empty: where Linux distributions keep them, Debian's
/// `/etc/ssl/certs/ca-certificates.crt` first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// `SSL_CERT_FILE`: a PEM file.
    pub file: Option<PathBuf>,
    /// `SSL_CERT_DIR`: folders of PEM files.
    pub folders: Vec<PathBuf>,
}

/// Through whom connections are made. A loopback host never goes through a proxy. The addresses may hold
/// passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTP_PROXY`: the proxy for plain HTTP.
    pub http: Option<Secret>,
    /// `HTTPS_PROXY`: the proxy for TLS.
    pub https: Option<Secret>,
    /// `NO_PROXY`: hosts, domains and networks, separated by commas, that are reached without one.
    pub except: Option<String>,
}

/// Sizes, times and tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a connection may take to be made, TLS included.
    pub connect: Duration,
    /// How long a server may send nothing.
    pub idle: Duration,
    /// How often a request is repeated after a failure that may pass.
    pub retries: u32,
    /// The wait before the first repetition; each further wait is twice as long.
    pub first_wait: Duration,
    /// No wait is longer; a server that asks for more (`Retry-After`) gets an error instead.
    pub longest_wait: Duration,
    /// Largest manifest or index, in bytes (distribution-spec v1.1, § Pushing manifests: at least 4 MiB are
    /// to be taken).
    pub manifest_bytes: u64,
    /// Largest image config, in bytes.
    pub config_bytes: u64,
    /// A blob longer than this is sent in parts of this many bytes: what a break costs at most.
    pub part_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            retries: 5,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(60),
            manifest_bytes: 4 << 20,
            config_bytes: 8 << 20,
            part_bytes: 32 << 20,
        }
    }
}

/// A settings text that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not TOML, or a key that does not exist.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// The name of a table is no registry.
    #[error(
        "[registry.\"{name}\"]: expected a host name with an optional port, for instance `registry.example:5000`"
    )]
    Registry {
        /// The name.
        name: String,
    },
    /// Two tables are about one registry, under two of its names.
    #[error("[registry.\"{registry}\"] stands twice, under two names of that registry")]
    Twice {
        /// The table.
        registry: String,
    },
    /// An entry of `mirrors` is no mirror.
    #[error("[registry.\"{registry}\"] mirrors: `{text}` is no mirror: {why}")]
    Mirror {
        /// The table.
        registry: String,
        /// The entry.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A relative path, which would mean another file in each folder.
    #[error("[registry.\"{registry}\"] {field}: `{}` is not an absolute path", path.display())]
    RelativePath {
        /// The table.
        registry: String,
        /// `ca`, `cert` or `key`.
        field: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A client certificate without its key, or the other way round.
    #[error("[registry.\"{registry}\"]: `cert` and `key` belong together; `{missing}` is missing")]
    Half {
        /// The table.
        registry: String,
        /// The one that is missing.
        missing: &'static str,
    },
    /// A value of the table `[transfer]` cannot be used.
    #[error("[transfer] {0}")]
    Transfer(#[from] BadTransfer),
    /// A certificate authority is named and then not checked.
    #[error("[registry.\"{registry}\"]: `insecure = true` and `ca` contradict each other; keep one of them")]
    Contradiction {
        /// The table.
        registry: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    registry: BTreeMap<String, Table>,
    #[serde(default)]
    transfer: Transfer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    mirrors: Vec<String>,
    insecure: Option<bool>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Settings {
    /// Reads a settings text. Roots, proxies and the limits of documents are not in it and have their defaults.
    ///
    /// # Errors
    /// [`SettingsError`], with the place for a syntax error or an unknown key, with the table for the rest.
    pub fn parse(text: &str) -> Result<Settings, SettingsError> {
        let text: Text = toml::from_str(text)?;
        let mut registries = BTreeMap::new();
        for (name, table) in text.registry {
            let registry = registry_name(&name).ok_or(SettingsError::Registry { name })?;
            let settings = table.check(&registry)?;
            if registries.insert(registry.clone(), settings).is_some() {
                return Err(SettingsError::Twice { registry });
            }
        }
        Ok(Settings { registries, limits: text.transfer.limits()?, ..Settings::default() })
    }
}

impl Table {
    fn check(self, registry: &str) -> Result<RegistrySettings, SettingsError> {
        let registry = registry.to_owned();
        for (field, path) in [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                return Err(SettingsError::RelativePath { registry, field, path: path.clone() });
            }
        }
        let client = match (self.cert, self.key) {
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (None, None) => None,
            (None, Some(_)) => return Err(SettingsError::Half { registry, missing: "cert" }),
            (Some(_), None) => return Err(SettingsError::Half { registry, missing: "key" }),
        };
        if self.ca.is_some() && self.insecure == Some(true) {
            return Err(SettingsError::Contradiction { registry });
        }
        let mut mirrors = Vec::new();
        for text in self.mirrors {
            match text.parse() {
                Ok(mirror) => mirrors.push(mirror),
                Err(BadMirror(why)) => return Err(SettingsError::Mirror { registry, text, why }),
            }
        }
        Ok(RegistrySettings { mirrors, insecure: self.insecure, ca: self.ca, client })
    }
}

/// Why a text is no mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadMirror(&'static str);

impl FromStr for Mirror {
    type Err = BadMirror;

    fn from_str(text: &str) -> Result<Mirror, BadMirror> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(_) => return Err(BadMirror("the scheme is `http` or `https`")),
            None => (None, text),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let registry = registry_name(host).ok_or(BadMirror("expected a host name with an optional port"))?;
        let path = path.trim_matches('/');
        if path.is_empty() {
            return Ok(Mirror { scheme, registry, prefix: String::new() });
        }
        // The grammar of repositories decides what a prefix may be.
        Reference::parse(&format!("host.invalid/{path}"))
            .ok()
            .filter(|parsed| parsed.repository == path)
            .map(|_| Mirror { scheme, registry, prefix: format!("{path}/") })
            .ok_or(BadMirror("what follows the host is the beginning of a repository"))
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Some(Scheme::Http) => f.write_str("http://")?,
            Some(Scheme::Https) => f.write_str("https://")?,
            None => {}
        }
        f.write_str(&self.registry)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix.trim_end_matches('/'))?;
        }
        Ok(())
    }
}

/// The registry's name as a [`Reference`] has it, or `None` when the text is no host with an optional port.
pub(crate) fn registry_name(text: &str) -> Option<String> {
    if text == "localhost" || text.contains(['.', ':']) {
        let reference = Reference::parse(&format!("{text}/name")).ok()?;
        return (reference.repository.ends_with("name") && !text.contains('/')).then_some(reference.registry);
    }
    // A bare word is a host only here; in a reference it would be the first part of a repository.
    let word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    word.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settings_text_is_read() {
        let settings = Settings::parse(
            r#"
            [registry."docker.io"]
            mirrors = ["http://127.0.0.1:5000", "harbor.example/proxy.docker.io/", "https://[::1]:5001"]
            [registry."lab:5000"]
            insecure = true
            [registry."registry.example"]
            ca = "/etc/ca.pem"
            cert = "/etc/me.pem"
            key = "/etc/me.key"
            "#,
        )
        .expect("valid");
        assert_eq!(settings.registries.len(), 3);
        assert_eq!(settings.registries["lab:5000"].insecure, Some(true));
        let example = &settings.registries["registry.example"];
        assert_eq!(example.ca, Some(PathBuf::from("/etc/ca.pem")));
        let client = ClientCertificate { certificate: "/etc/me.pem".into(), key: "/etc/me.key".into() };
        assert_eq!(example.client, Some(client));
    }

    #[test]
    fn mirrors_are_read_and_written() {
        for (text, scheme, registry, prefix) in [
            ("http://127.0.0.1:5000", Some(Scheme::Http), "127.0.0.1:5000", ""),
            ("https://a.example/", Some(Scheme::Https), "a.example", ""),
            ("mirror", None, "mirror", ""),
            ("harbor.example/proxy.docker.io", None, "harbor.example", "proxy.docker.io/"),
            ("a.example/b/c/", None, "a.example", "b/c/"),
        ] {
            let mirror: Mirror = text.parse().expect(text);
            assert_eq!(mirror, Mirror { scheme, registry: registry.into(), prefix: prefix.into() });
            assert_eq!(mirror.to_string(), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_table() {
        for (text, says) in [
            ("[registry.'a/b']", "host name"),
            ("[registry.'http://a.b']", "host name"),
            ("[registry.'a.b']\nmirror = []", "unknown field"),
            ("[registry.'a.b']\nca = 'x.pem'", "absolute"),
            ("[registry.'a.b']\nca = '/x.pem'\ninsecure = true", "contradict"),
            ("[registry.'a.b']\ncert = '/x.pem'", "`key` is missing"),
            ("[registry.'a.b']\nkey = '/x.pem'", "`cert` is missing"),
            ("[registry.'a.b']\nkey = 'x.key'", "key: `x.key` is not an absolute"),
            ("[registry.'a.b']\nmirrors = ['ftp://x']", "`http` or `https`"),
            ("[registry.'a.b']\nmirrors = ['x.y/../z']", "repository"),
            ("[registry.'a.b']\nmirrors = ['']", "host name"),
            ("[registry.'docker.io']\n[registry.'index.docker.io']", "twice"),
            ("registry = 1", "invalid type"),
            ("[", "TOML"),
        ] {
            let error = Settings::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
