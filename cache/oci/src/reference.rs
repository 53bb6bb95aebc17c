//! Names of images.
//!
//! `FROM alpine` is a wish; a graph holds facts. [`Reference`] is the wish, [`PinnedImage`] the receipt that
//! someone was asked which manifest it names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Digest;

/// An image as a person writes it: `alpine`, `alpine:3.20`, `ghcr.io/a/b@sha256:…`, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port: `docker.io`, `localhost:5000`.
    pub registry: String,
    /// Path below the registry: `library/alpine`.
    pub repository: String,
    /// The tag, when one was written or implied.
    pub tag: Option<String>,
    /// The manifest digest, when one was written. It wins over the tag.
    pub digest: Option<Digest>,
}

/// What is asked of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version<'a> {
    /// A name that may move.
    Tag(&'a str),
    /// A manifest that cannot.
    Digest(Digest),
}

/// An image whose name was answered with a manifest digest. A graph holds only these, so its base images are the
/// same tomorrow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PinnedImage {
    asked: String,
    manifest: Digest,
}

impl PinnedImage {
    /// The reference that was asked for, in its full form.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// Digest of the manifest of the platform that was asked for.
    pub fn manifest(&self) -> Digest {
        self.manifest
    }
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no image reference: {why}")]
pub struct BadReference {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Reference {
    /// Parses and fills in what Docker fills in: `alpine` is `docker.io/library/alpine:latest`.
    ///
    /// # Errors
    /// [`BadReference`] with the rule that was broken (distribution-spec v1.1, § Pulling manifests; Docker's reference grammar).
    pub fn parse(text: &str) -> Result<Reference, BadReference> {
        let bad = |why| BadReference { text: text.to_owned(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| bad("after `@` stands a sha256 digest"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            let other = |b: u8| first(b) || b == b'.' || b == b'-';
            let valid = tag.len() <= 128 && tag.bytes().next().is_some_and(first) && tag.bytes().all(other);
            if !valid {
                return Err(bad("a tag is up to 128 letters, digits, `_`, `.` and `-`"));
            }
        }
        let (registry, repository) = split_registry(path);
        if !valid_registry(&registry) {
            return Err(bad("the registry is a host name with an optional port"));
        }
        if !repository.split('/').all(valid_component) {
            return Err(bad("a repository is lower-case letters, digits, `.`, `_`, `-` and `/`"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference { registry, repository, tag, digest })
    }

    /// What to ask the registry for: the digest where there is one, else the tag.
    pub fn version(&self) -> Version<'_> {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Version::Digest(*digest),
            (None, Some(tag)) => Version::Tag(tag),
            (None, None) => Version::Tag("latest"),
        }
    }

    /// The only way from a name to something that a graph may hold.
    pub fn pin(&self, manifest: Digest) -> PinnedImage {
        PinnedImage { asked: self.to_string(), manifest }
    }

    /// The short form that people write: without `docker.io/library/` or `docker.io/`, where that means the same. It does
    /// not where what is left begins like a registry (`docker.io/library/ghcr.io/a`).
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let mut shorter =
            ["docker.io/library/", "docker.io/"].into_iter().filter_map(|front| full.strip_prefix(front));
        let same = |short: &&str| Reference::parse(short).as_ref() == Ok(self);
        shorter.find(same).map_or_else(|| full.clone(), str::to_owned)
    }

    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

fn split_registry(path: &str) -> (String, String) {
    let (registry, repository) = match path.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':']) || host == "localhost" || host.to_lowercase() != host =>
        {
            (host, rest.to_owned())
        }
        _ => ("docker.io", path.to_owned()),
    };
    match (registry, repository.contains('/')) {
        ("docker.io" | "index.docker.io", false) => ("docker.io".to_owned(), format!("library/{repository}")),
        ("index.docker.io", true) => ("docker.io".to_owned(), repository),
        _ => (registry.to_owned(), repository),
    }
}

fn valid_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => return false,
        },
        None => registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port))),
    };
    let starts_well = |b: u8| b.is_ascii_alphanumeric() || b == b':';
    let host_ok = host.bytes().next().is_some_and(starts_well)
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b));
    host_ok && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn valid_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| alphanumeric(*b));
    if !ends(bytes.first()) || !ends(bytes.last()) {
        return false;
    }
    let mut separators = bytes.split(|b| alphanumeric(*b)).filter(|run| !run.is_empty());
    separators.all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Reference, BadReference> {
        Reference::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_fills_in_is_filled_in() {
        let pinned = format!("a/b@{}", Digest::of(b""));
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("alpine:3.20", "docker.io/library/alpine:3.20".to_owned()),
            ("a/b", "docker.io/a/b:latest".to_owned()),
            ("localhost/b", "localhost/b:latest".to_owned()),
            ("localhost:5000/b:x", "localhost:5000/b:x".to_owned()),
            ("index.docker.io/b", "docker.io/library/b:latest".to_owned()),
            ("ghcr.io/a/b__c--d", "ghcr.io/a/b__c--d:latest".to_owned()),
            (&pinned, format!("docker.io/{pinned}")),
        ] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(reference.to_string(), full);
            assert_eq!(Reference::parse(&full), Ok(reference));
        }
    }

    #[test]
    fn the_familiar_form_means_the_same() {
        for (full, short) in [
            ("docker.io/library/alpine:3", "alpine:3"),
            ("docker.io/a/b:t", "a/b:t"),
            ("docker.io/library/a/b:t", "library/a/b:t"),
            ("docker.io/library/localhost:t", "localhost:t"),
            ("docker.io/library/ghcr.io/a:t", "library/ghcr.io/a:t"),
            ("docker.io/ghcr.io/a:t", "docker.io/ghcr.io/a:t"),
            ("ghcr.io/docker.io/library/a:t", "ghcr.io/docker.io/library/a:t"),
        ] {
            let reference = Reference::parse(full).expect(full);
            assert_eq!(reference.familiar(), short);
            assert_eq!(Reference::parse(short), Ok(reference));
        }
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for text in
            ["", "A", "a//b", "a:b:c/", "a:", "a@sha256:0", "-a", "a_", "a..b", "host:port/x", "a b", "../x"]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
