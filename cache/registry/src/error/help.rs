//! What to do about an error.

use super::{Error, Fault, SHOWN, What};
use crate::credentials::CredentialsError;

impl Error {
    /// What to do about it, where something can be done here: a command or an edit.
    pub fn help(&self) -> Option<String> {
        let registry = &self.asked.registry;
        let host = self.asked.host.as_str();
        // Of a mirror, or of where the names really are: logins go by the host that asks for one.
        let login = match host {
            "docker.io" => "kiln login".to_owned(),
            other => format!("kiln login {other}"),
        };
        Some(match self.root_fault() {
            Fault::Unauthorized { login: false, .. } => {
                format!(
                    "log in with `{login}` (logins are read from ~/.docker/config.json and containers' auth.json), or correct the image's name"
                )
            }
            Fault::Unauthorized { login: true, .. } if self.asked.what == What::Login => {
                format!("correct the user name or the password: `{login}`")
            }
            Fault::Unauthorized { login: true, .. } => {
                format!("the login that is kept for {host} is not accepted; log in again with `{login}`")
            }
            Fault::Denied { login: false, .. } => {
                format!("log in with `{login}` as a user that may read this image")
            }
            Fault::Denied { login: true, .. } => {
                "ask the repository's owner for the right to read it, or log in as another user".to_owned()
            }
            Fault::Credentials(CredentialsError::HelperMissing { path, program }) => {
                format!("install `{program}`, or remove it from {}", path.display())
            }
            Fault::Credentials(
                CredentialsError::Unreadable { path, .. } | CredentialsError::Config { path, .. },
            ) => format!("correct {}, or move it away and run `{login}`", path.display()),
            Fault::Credentials(CredentialsError::Auth { path, key }) => {
                format!("remove `{key}` from `auths` of {}, and run `{login}`", path.display())
            }
            Fault::Credentials(CredentialsError::HelperName { path, name }) => {
                format!("remove `{name}` from `credsStore` and `credHelpers` of {}", path.display())
            }
            Fault::Ca { path, .. } => format!("correct {}, or remove what names it", path.display()),
            Fault::TooManyRequests { .. } if registry == "docker.io" => {
                "log in with `kiln login`, or set `mirrors` in [registry.\"docker.io\"]".to_owned()
            }
            Fault::TooManyRequests { .. } => {
                format!("set `mirrors` in [registry.\"{registry}\"], or try later")
            }
            Fault::NotFound { .. } => "correct the image's name or tag".to_owned(),
            Fault::File(bad) => return bad.help(),
            Fault::Client { why, .. } if why.contains("version 1") => {
                "sign it again with an extension: `openssl x509 -req -extfile FILE …`, with the line `extendedKeyUsage=clientAuth` in FILE".to_owned()
            }
            Fault::Blocked { prefix, path } => format!(
                "remove `blocked = true` from the table about `{prefix}` in {}, or name another image",
                path.display()
            ),
            Fault::Tls { why } if is_about_us(why) => {
                format!(
                    "put a certificate that it knows and its key at /etc/docker/certs.d/{host}/client.cert and client.key, or set `cert` and `key` in [registry.\"{host}\"] of registries.toml"
                )
            }
            Fault::Tls { why } if why.contains("InvalidContentType") => {
                format!(
                    "if it speaks plain HTTP, set `insecure = true` in [registry.\"{host}\"] of registries.toml"
                )
            }
            Fault::Tls { .. } => format!(
                "put its authority's certificate at /etc/docker/certs.d/{host}/ca.crt, or set `ca = \"/path/to/ca.pem\"` in [registry.\"{host}\"] of registries.toml; `insecure = true` there turns the check off"
            ),
            Fault::Status { status: 400, said, .. }
                if said.message.contains("HTTP request to an HTTPS server") =>
            {
                format!(
                    "it speaks TLS: put its authority's certificate at /etc/docker/certs.d/{host}/ca.crt, or set `insecure = false` or `ca` in [registry.\"{host}\"] of registries.toml"
                )
            }
            Fault::Unreachable { proxy: Some(proxy), .. } => format!(
                "start the proxy at {proxy}, or correct it in HTTPS_PROXY or HTTP_PROXY; with `{host}` in NO_PROXY it is reached without one"
            ),
            Fault::Unreachable { why, .. } if why.contains("refused") => {
                format!("start the registry at {host}, or correct the host and port of the image's name")
            }
            Fault::Platform { available, .. } if !available.is_empty() => {
                let all = available.iter().take(SHOWN).map(|one| format!("--platform {one}"));
                let all: Vec<String> = all.collect();
                format!("use {}", all.join(" or "))
            }
            Fault::NotAnImage { .. } => {
                format!("`kiln artifact fetch {}` writes the files of an artifact", self.asked.reference)
            }
            Fault::SchemaOne => "push the image again with a Docker of version 1.10 or newer".to_owned(),
            Fault::Digest { .. } | Fault::Size { .. } if self.asked.what.is_fetched() => format!(
                "run the command again; if {host} sends the same, push {} there again",
                self.asked.reference
            ),
            Fault::Status { said, .. } if said.code == "DIGEST_INVALID" => {
                "run the command again; if that is refused too, build or pull the image again".to_owned()
            }
            Fault::Stalled { .. } | Fault::Slow { .. } => format!(
                "run the command again{}; a registry that needs longer gets it by `idle_seconds` in [transfer]",
                self.asked.what.goes_on()
            ),
            Fault::Broken { .. } | Fault::Status { status: 408 | 500..=599, .. } => {
                format!("run the command again{}", self.asked.what.goes_on())
            }
            _ => return None,
        })
    }

    /// The fault itself, where the token server's is wrapped.
    fn root_fault(&self) -> &Fault {
        match &*self.fault {
            Fault::Token { fault, .. } => fault,
            fault => fault,
        }
    }
}

/// Whether a host ended the handshake over the certificate that we showed, or did not show. Go's servers say
/// `bad_certificate` where there was none.
fn is_about_us(why: &str) -> bool {
    let alerts =
        ["CertificateRequired", "BadCertificate", "UnknownCA", "CertificateUnknown", "CertificateExpired"];
    why.contains("received fatal alert") && alerts.iter().any(|alert| why.contains(alert))
}
