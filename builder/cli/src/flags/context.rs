//! `--build-context NAME=SOURCE`.

use std::path::PathBuf;

use dockerfile::{GitAddress, LayoutVersion};
use oci::Reference;

use super::BadFlag;

/// What a named context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextSource {
    /// A folder of this machine.
    Folder(PathBuf),
    /// `docker-image://scratch`.
    Scratch,
    /// `docker-image://NAME`.
    Image(Reference),
    /// `oci-layout://PATH[:TAG|@DIGEST]`.
    Layout {
        /// The layout: a folder or an archive.
        path: PathBuf,
        /// Which of its images.
        version: LayoutVersion,
    },
    /// A git repository.
    Git(String),
    /// A file over http.
    Http(String),
}

/// The name and what it is.
pub fn context(text: &str) -> Result<(String, ContextSource), BadFlag> {
    let bad = |why: String| BadFlag::new("--build-context", text, why, "--build-context base=../base");
    let (name, source) = text.split_once('=').ok_or_else(|| bad("expected NAME=SOURCE".to_owned()))?;
    if name.is_empty() || source.is_empty() {
        return Err(bad("the name or the source is empty".to_owned()));
    }
    let source = if source == "docker-image://scratch" {
        ContextSource::Scratch
    } else if let Some(image) = source.strip_prefix("docker-image://") {
        ContextSource::Image(Reference::parse(image).map_err(|error| bad(error.to_string()))?)
    } else if let Some(layout) = source.strip_prefix("oci-layout://") {
        let (path, version) = layout_version(layout).map_err(bad)?;
        ContextSource::Layout { path, version }
    } else if let Some(target) = source.strip_prefix("target:") {
        return Err(BadFlag::new(
            "--build-context",
            text,
            "only `docker buildx bake` builds another target for a context".to_owned(),
            format!(
                "kiln build -t {target} --target {target} . first, then --build-context {name}=docker-image://{target}"
            ),
        ));
    } else if let Some(address) = GitAddress::parse(source) {
        address.map_err(|error| bad(error.to_string()))?;
        ContextSource::Git(source.to_owned())
    } else if source.starts_with("http://") || source.starts_with("https://") {
        ContextSource::Http(source.to_owned())
    } else if source.contains("://") {
        let known = "a source is a folder, docker-image://, oci-layout://, a git address or http(s)://";
        return Err(bad(known.to_owned()));
    } else {
        ContextSource::Folder(PathBuf::from(source))
    };
    Ok((name.to_owned(), source))
}

/// `PATH@DIGEST`, `PATH:TAG` or `PATH`, which is the tag `latest`.
pub fn layout_version(layout: &str) -> Result<(PathBuf, LayoutVersion), String> {
    if let Some((path, digest)) = layout.split_once('@') {
        let digest = digest.parse().map_err(|error| format!("{error}"))?;
        // A tag in front of a digest only tells people which one it was.
        let path = path.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(path, |(path, _)| path);
        return Ok((PathBuf::from(path), LayoutVersion::Digest(digest)));
    }
    // A tag may itself look like a name with a tag (`busybox:latest`): the path ends at the first colon after its
    // last slash.
    let last = layout.rfind('/').map_or(0, |slash| slash + 1);
    match layout[last..].find(':') {
        Some(colon) => {
            let tag = layout[last + colon + 1..].to_owned();
            Ok((PathBuf::from(&layout[..last + colon]), LayoutVersion::Tag(tag)))
        }
        None => Ok((PathBuf::from(layout), LayoutVersion::Tag("latest".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let tag = |path: &str, tag: &str| ContextSource::Layout {
            path: PathBuf::from(path),
            version: LayoutVersion::Tag(tag.to_owned()),
        };
        for (text, source) in [
            ("a=../b", ContextSource::Folder("../b".into())),
            ("a=docker-image://scratch", ContextSource::Scratch),
            ("a=oci-layout:///tmp/base:busybox:latest", tag("/tmp/base", "busybox:latest")),
            ("a=oci-layout:///tmp/base", tag("/tmp/base", "latest")),
            ("a=https://h/x.git#main", ContextSource::Git("https://h/x.git#main".to_owned())),
            ("a=git@h:x#b", ContextSource::Git("git@h:x#b".to_owned())),
            ("a=ssh://h/x", ContextSource::Git("ssh://h/x".to_owned())),
            ("a=https://h/x.tar", ContextSource::Http("https://h/x.tar".to_owned())),
        ] {
            assert_eq!(context(text), Ok(("a".to_owned(), source)), "{text}");
        }
        for text in [
            "a",
            "=b",
            "a=",
            "a=what://x",
            "a=docker-image://A B",
            "a=oci-layout://x@sha256:0",
            "a=target:b",
            "a=git://h/x?y=1",
        ] {
            assert!(context(text).is_err(), "{text}");
        }
    }
}
