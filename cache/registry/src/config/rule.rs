//! What is said about all names that begin alike.

use std::{fmt, path::PathBuf};

use oci::{Reference, Version};

use super::Purpose;
use crate::{
    error::Fault,
    settings::{ClientCertificate, Mirror, Scheme},
};

/// What one table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub prefix: Prefix,
    /// The file that it stands in.
    pub file: PathBuf,
    pub blocked: bool,
    pub insecure: Option<bool>,
    /// Where the names really are, where that is elsewhere.
    pub place: Option<Site>,
    /// Who is asked before.
    pub mirrors: Vec<Site>,
}

/// The beginning of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// `example.com`, `example.com/team`, `example.com/team/app:1`.
    Plain(String),
    /// `*.example.com`: all hosts below this one, with its dot: `.example.com`.
    Below(String),
}

impl Prefix {
    pub(crate) fn of(text: &str) -> Prefix {
        match text.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => Prefix::Below(rest.to_owned()),
            _ => Prefix::Plain(text.to_owned()),
        }
    }

    /// How long it is: of several that fit, the longest counts.
    pub(crate) fn length(&self) -> usize {
        match self {
            Prefix::Plain(text) => text.len(),
            Prefix::Below(text) => text.len() + 1,
        }
    }

    /// What follows it in the name of a repository; `None` where it does not fit.
    ///
    /// A host without a port is another one than that host with a port. (containers take them for one, and say
    /// that this is not intended.)
    pub(crate) fn rest(&self, reference: &Reference) -> Option<String> {
        let name = format!("{}/{}", reference.registry, reference.repository);
        match self {
            Prefix::Below(end) => {
                let host = reference.registry.split(':').next().unwrap_or_default();
                let before = host.strip_suffix(end.as_str())?;
                (!before.is_empty()).then(|| name[host.len()..].to_owned())
            }
            Prefix::Plain(text) => {
                if let Some(rest) = name.strip_prefix(text.as_str()) {
                    return (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned());
                }
                let full = match reference.version() {
                    Version::Tag(tag) => format!("{name}:{tag}"),
                    Version::Digest(digest) => format!("{name}@{digest}"),
                };
                (full == *text).then(String::new)
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prefix::Plain(text) => f.write_str(text),
            Prefix::Below(text) => write!(f, "*{text}"),
        }
    }
}

/// For which questions a mirror is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pulls {
    /// All.
    #[default]
    All,
    /// Images that were named by a digest.
    DigestOnly,
    /// Images that were named by a tag.
    TagOnly,
    /// What has a digest, however the image was named: whoever is not trusted to say what a tag means.
    Content,
}

impl Pulls {
    pub(crate) fn allow(self, reference: &Reference, purpose: Purpose) -> bool {
        let by_digest = reference.digest.is_some();
        match self {
            Pulls::All => true,
            Pulls::DigestOnly => by_digest,
            Pulls::TagOnly => !by_digest,
            Pulls::Content => purpose == Purpose::ReadDigest,
        }
    }
}

/// A host, and what stands there in the place of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub scheme: Option<Scheme>,
    /// `host[:port][/path]`: what the prefix is replaced with.
    pub place: String,
    /// The path of the API: `/v2`.
    pub api: String,
    pub insecure: Option<bool>,
    pub authorities: Vec<PathBuf>,
    pub client: Option<ClientCertificate>,
    pub pulls: Pulls,
}

/// A site, with the names that a repository has there.
pub(crate) struct Named {
    pub site: Site,
    pub registry: String,
    pub repository: String,
}

impl Site {
    /// The ordinary one.
    pub(crate) fn of(place: &str) -> Site {
        Site {
            scheme: None,
            place: place.to_owned(),
            api: "/v2".to_owned(),
            insecure: None,
            authorities: Vec::new(),
            client: None,
            pulls: Pulls::All,
        }
    }

    pub(crate) fn of_mirror(mirror: &Mirror) -> Site {
        let place = format!("{}/{}", mirror.registry, mirror.prefix);
        Site { scheme: mirror.scheme, ..Site::of(place.trim_end_matches('/')) }
    }

    /// What a name becomes here whose prefix was taken away.
    ///
    /// # Errors
    /// Nothing is left that could be a repository.
    pub(crate) fn at(&self, rest: &str) -> Result<Named, Fault> {
        let name = format!("{}{rest}", self.place);
        match name.split_once('/') {
            Some((registry, repository)) if !repository.is_empty() => Ok(Named {
                site: self.clone(),
                registry: host_name(registry).to_owned(),
                repository: repository.to_owned(),
            }),
            _ => Err(Fault::Setup {
                why: format!("`{name}`, to which the name was changed, is no repository"),
            }),
        }
    }
}

/// The name that logins and settings know a host by.
pub(crate) fn host_name(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}
