//! A path inside a layer or a root file system.

use std::{borrow::Borrow, fmt, sync::Arc};

/// A path below a root: relative, normalised, any bytes but NUL.
///
/// Has no leading or trailing slash, no empty part, no `.` and no `..`, so that nothing can leave the root by
/// it. The root itself is the empty path. Ordered by its bytes, which is the order of a layer's tar. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LayerPath(Arc<[u8]>);

/// A text that is no path inside a root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// The path climbs above its root.
    #[error("the path `{}` leaves its root through `..`", short(.0))]
    Escapes(String),
    /// The path holds a NUL byte.
    #[error("the path `{}` holds a NUL byte", short(.0))]
    Nul(String),
    /// The path has a leading or trailing slash, an empty part, or a `.`, where only the clean form is taken.
    #[error("the path `{}` is not in its clean form", short(.0))]
    NotClean(String),
    /// A part is longer than the 255 bytes, or the path longer than the 4095 bytes, that Linux takes.
    #[error("the path `{}` is longer than the kernel takes", short(.0))]
    TooLong(String),
}

/// The start of a path, as far as a person reads it: an archive may have one of a megabyte.
fn short(path: &str) -> String {
    const LONGEST: usize = 200;
    match path.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}

impl LayerPath {
    /// The root.
    pub fn root() -> LayerPath {
        LayerPath::default()
    }

    /// Cleans a path as archives and Dockerfiles write it: leading slashes, `.` and empty parts vanish, and
    /// `a/../b` is `b`.
    ///
    /// # Errors
    /// [`BadPath`] where `..` would climb above the root, or the kernel would not take the path.
    pub fn parse(bytes: &[u8]) -> Result<LayerPath, BadPath> {
        LayerPath::clean(bytes, false)
    }

    /// As [`LayerPath::parse`], but `..` at the root stays there, as it does in a chroot and in a `COPY`
    /// source.
    ///
    /// # Errors
    /// [`BadPath`] where the kernel would not take the path.
    pub fn clamp(bytes: &[u8]) -> Result<LayerPath, BadPath> {
        LayerPath::clean(bytes, true)
    }

    /// Takes bytes that are in the clean form already, as a manifest holds them.
    ///
    /// # Errors
    /// [`BadPath`] where [`LayerPath::parse`] would fail or would change the bytes.
    pub fn exact(bytes: Vec<u8>) -> Result<LayerPath, BadPath> {
        let part_is_clean =
            |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && part.len() <= 255;
        let clean = bytes.is_empty() || bytes.split(|b| *b == b'/').all(part_is_clean);
        if clean && bytes.len() <= 4095 && !bytes.contains(&0) {
            return Ok(LayerPath(bytes.into()));
        }
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        Err(LayerPath::parse(&bytes).err().unwrap_or(BadPath::NotClean(shown)))
    }

    fn clean(bytes: &[u8], clamp: bool) -> Result<LayerPath, BadPath> {
        let shown = || String::from_utf8_lossy(bytes).into_owned();
        if bytes.contains(&0) {
            return Err(BadPath::Nul(shown()));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in bytes.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if parts.pop().is_none() && !clamp {
                        return Err(BadPath::Escapes(shown()));
                    }
                }
                part if part.len() > 255 => return Err(BadPath::TooLong(shown())),
                part => parts.push(part),
            }
        }
        let path = parts.join(&b'/');
        if path.len() > 4095 { Err(BadPath::TooLong(shown())) } else { Ok(LayerPath(path.into())) }
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last part; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// The folder that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<LayerPath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(LayerPath(self.0[..end].into()))
    }

    /// The bytes of the folder that holds this path; none for what is in the root, and for that itself.
    pub(crate) fn above(&self) -> &[u8] {
        self.0.iter().rposition(|b| *b == b'/').map_or(&self.0[..0], |end| &self.0[..end])
    }

    /// This path and one more part.
    ///
    /// # Panics
    /// Never for a `name` that came from a directory or another [`LayerPath`]; debug builds check that it is
    /// one part.
    pub fn join(&self, name: &[u8]) -> LayerPath {
        debug_assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0));
        match self.is_root() {
            true => LayerPath(name.into()),
            false => LayerPath([self.as_bytes(), b"/", name].concat().into()),
        }
    }

    /// This path followed by all parts of `below`.
    pub fn append(&self, below: &LayerPath) -> LayerPath {
        match (self.is_root(), below.is_root()) {
            (_, true) => self.clone(),
            (true, _) => below.clone(),
            _ => LayerPath([self.as_bytes(), b"/", below.as_bytes()].concat().into()),
        }
    }

    /// The parts, outermost first; none for the root.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// Every folder above this path, the root first.
    pub fn ancestors(&self) -> Vec<LayerPath> {
        let mut found = Vec::new();
        let mut next = self.parent();
        while let Some(folder) = next {
            next = folder.parent();
            found.push(folder);
        }
        found.reverse();
        found
    }

    /// What remains of this path below `folder`: `None` when it is elsewhere, the root when they are equal.
    pub fn below(&self, folder: &LayerPath) -> Option<LayerPath> {
        if folder.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(folder.as_bytes())?;
        match rest {
            [] => Some(LayerPath::root()),
            [b'/', rest @ ..] => Some(LayerPath(rest.into())),
            _ => None,
        }
    }
}

/// Maps keyed by paths can be asked with plain bytes.
impl Borrow<[u8]> for LayerPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for LayerPath {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Display for LayerPath {
    /// With a leading slash; bytes that are no UTF-8 are shown as U+FFFD.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (text, clean) in [("", "/"), ("/", "/"), ("./a//b/", "/a/b"), ("a/../b", "/b"), ("/a/.", "/a")] {
            assert_eq!(LayerPath::parse(text.as_bytes()).expect(text).to_string(), clean);
        }
        assert_eq!(LayerPath::clamp(b"../../x").expect("clamped").to_string(), "/x");
        assert!(LayerPath::parse(b"a/../../x").is_err());
        assert!(LayerPath::parse(b"a\0b").is_err());
        assert!(LayerPath::parse(&[b'a'; 256]).is_err());
    }

    #[test]
    fn an_exact_path_is_taken_only_in_its_clean_form() {
        for clean in ["", "a", "a/b", "a/..b/.c"] {
            assert_eq!(LayerPath::exact(clean.into()).expect(clean).as_bytes(), clean.as_bytes());
        }
        for other in ["/", "/a", "a/", "a//b", "./a", "a/..", "..", "a\0", &"x".repeat(256)] {
            assert!(LayerPath::exact(other.into()).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_path_knows_its_folders() {
        let path = LayerPath::parse(b"a/b/c").expect("valid");
        assert_eq!(path.name(), b"c");
        let folders: Vec<String> = path.ancestors().iter().map(LayerPath::to_string).collect();
        assert_eq!(folders, ["/", "/a", "/a/b"]);
        assert_eq!(path.below(&LayerPath::parse(b"a").expect("valid")).expect("below").to_string(), "/b/c");
        assert_eq!(path.below(&LayerPath::parse(b"a/bc").expect("valid")), None);
    }
}
