//! Which base images a build stood on: names, platforms, digests. For the metadata of its result.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use dockerfile::{ImageFact, LayoutVersion};
use oci::{Digest, Platform, Reference};
use serde_json::{Value, json};

/// A name that was answered with an image.
pub(crate) struct Pinned {
    pub(crate) fact: ImageFact,
    /// What the name itself stands for: an index, or the manifest.
    pub(crate) top: Digest,
    pub(crate) origin: Origin,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Registry,
    /// The registry, in an earlier build.
    Remembered,
    LocalStore,
    Layout,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Origin::Registry => "registry",
            Origin::Remembered => "remembered",
            Origin::LocalStore => "local-store",
            Origin::Layout => "oci-layout",
        }
    }
}

/// The images of a build, by name and platform.
#[derive(Default)]
pub(crate) struct Sources(Mutex<BTreeMap<(String, String), Value>>);

impl Sources {
    /// Remembers one.
    pub(crate) fn add(&self, name: &Named<'_>, platform: &Platform, pinned: &Pinned) {
        let (shown, platform_text) = (name.to_string(), platform.to_string());
        let material = json!({
            "uri": name.package_url(platform),
            "digest": { "sha256": pinned.top.hex() },
            "name": shown,
            "annotations": {
                "platform": platform_text,
                "manifest": pinned.fact.manifest,
                "from": pinned.origin.as_str(),
            },
        });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((shown, platform_text), material);
    }

    /// All of them, in the shape of provenance's materials: each an in-toto resource descriptor.
    pub(crate) fn materials(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// What an image was asked for by.
pub(crate) enum Named<'a> {
    /// A name of a registry or of the local store.
    Image(&'a Reference),
    /// A tag or digest of an OCI layout.
    Layout {
        /// As the request names the layout.
        store: &'a str,
        version: &'a LayoutVersion,
    },
}

impl Named<'_> {
    /// A package URL as BuildKit's provenance has it: the short name, the tag, the platform.
    fn package_url(&self, platform: &Platform) -> String {
        let (kind, name, version, digest) = match self {
            Named::Image(reference) => {
                let latest =
                    Reference { tag: Some("latest".to_owned()), digest: None, ..(*reference).clone() };
                let name = latest.familiar().trim_end_matches(":latest").to_owned();
                ("docker", name, reference.tag.clone(), reference.digest)
            }
            Named::Layout { store, version: LayoutVersion::Digest(digest) } => {
                ("oci", (*store).to_owned(), None, Some(*digest))
            }
            Named::Layout { store, version: LayoutVersion::Tag(tag) } => {
                ("oci", (*store).to_owned(), Some(tag.clone()), None)
            }
        };
        let path: Vec<String> = name.split('/').filter(|part| !part.is_empty()).map(escaped).collect();
        let mut url = format!("pkg:{kind}/{}", path.join("/"));
        if let Some(version) = version {
            let _infallible = write!(url, "@{}", escaped(&version));
        }
        let digest = digest.map(|digest| format!("digest={}&", escaped(&digest.to_string())));
        let _infallible =
            write!(url, "?{}platform={}", digest.unwrap_or_default(), escaped(&platform.to_string()));
        url
    }
}

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Named::Image(reference) => write!(f, "{reference}"),
            Named::Layout { store, version } => write!(f, "oci-layout://{store}{version}"),
        }
    }
}

/// A part of a URL (RFC 3986, § 2.1): what is not unreserved as `%XX`.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _infallible = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_url_is_buildkits() {
        let platform = Platform::new("linux", "arm", Some("v7"));
        let digest = Digest::of(b"");
        let digested = format!("ghcr.io/a/b:1@{digest}");
        let escaped_digest = digest.to_string().replace(':', "%3A");
        for (name, url) in [
            ("debian:12", "pkg:docker/debian@12?platform=linux%2Farm%2Fv7".to_owned()),
            ("grafana/loki", "pkg:docker/grafana/loki@latest?platform=linux%2Farm%2Fv7".to_owned()),
            ("localhost:5000/a:1", "pkg:docker/localhost%3A5000/a@1?platform=linux%2Farm%2Fv7".to_owned()),
            (
                digested.as_str(),
                format!("pkg:docker/ghcr.io/a/b@1?digest={escaped_digest}&platform=linux%2Farm%2Fv7"),
            ),
        ] {
            let reference: Reference = name.parse().expect(name);
            assert_eq!(Named::Image(&reference).package_url(&platform), url);
        }
        let version = LayoutVersion::Tag("12".to_owned());
        let layout = Named::Layout { store: "/srv/base images", version: &version };
        assert_eq!(layout.package_url(&platform), "pkg:oci/srv/base%20images@12?platform=linux%2Farm%2Fv7");
        assert_eq!(layout.to_string(), "oci-layout:///srv/base images:12");
    }
}
