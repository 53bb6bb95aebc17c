//! Annotations: free text by key, on the four places of an image that can carry it.
//!
//! | Level                 | Where it stands                                              |
//! |-----------------------|--------------------------------------------------------------|
//! | `manifest`            | in each platform's manifest                                  |
//! | `manifest-descriptor` | where a manifest is named: in the index, or in a layout's `index.json` |
//! | `index`               | in the index of several platforms                            |
//! | `index-descriptor`    | where the index is named: in a layout's `index.json`         |
//!
//! Those of manifests and their descriptors may be meant for one platform. The levels' names are BuildKit's.

use std::{collections::BTreeMap, fmt, str::FromStr};

use oci::Platform;

use crate::assemble::Dialect;

/// A place of an image that carries annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The index of several platforms.
    Index,
    /// The descriptor that names the index.
    IndexDescriptor,
    /// A platform's manifest.
    Manifest,
    /// The descriptor that names a manifest.
    ManifestDescriptor,
}

impl Level {
    /// All of them.
    pub const ALL: [Level; 4] =
        [Level::Index, Level::IndexDescriptor, Level::Manifest, Level::ManifestDescriptor];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Level::Index => "index",
            Level::IndexDescriptor => "index-descriptor",
            Level::Manifest => "manifest",
            Level::ManifestDescriptor => "manifest-descriptor",
        }
    }

    /// Whether it exists only where there is an index.
    fn needs_index(self) -> bool {
        matches!(self, Level::Index | Level::IndexDescriptor)
    }
}

/// A word that is no [`Level`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no level of an annotation: index, index-descriptor, manifest or manifest-descriptor")]
pub struct BadLevel(pub String);

impl FromStr for Level {
    type Err = BadLevel;

    fn from_str(text: &str) -> Result<Level, BadLevel> {
        let found = Level::ALL.into_iter().find(|level| level.name() == text);
        found.ok_or_else(|| BadLevel(text.to_owned()))
    }
}

/// Where an annotation goes, and its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnnotationKey {
    /// The level.
    pub level: Level,
    /// The platform that it is meant for; none for all of them.
    pub platform: Option<Platform>,
    /// The key: no white space, not empty.
    pub key: String,
}

/// A text that is no key of an annotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an annotation's key is empty or has white space: `{0}`")]
pub struct BadKey(pub String);

impl AnnotationKey {
    /// A key for a level, and for one platform where `platform` is one.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn new(level: Level, platform: Option<Platform>, key: &str) -> Result<AnnotationKey, BadKey> {
        if key.is_empty() || key.chars().any(char::is_whitespace) {
            return Err(BadKey(key.to_owned()));
        }
        Ok(AnnotationKey { level, platform, key: key.to_owned() })
    }
}

impl fmt::Display for AnnotationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level.name())?;
        if let Some(platform) = &self.platform {
            write!(f, "[{platform}]")?;
        }
        write!(f, ":{}", self.key)
    }
}

/// The annotations that an image is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(BTreeMap<AnnotationKey, String>);

/// An annotation that has no place in what was built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// Docker's documents carry none.
    #[error("the annotation `{0}` cannot be written with Docker's media types: annotations are OCI's")]
    Docker(Box<AnnotationKey>),
    /// It stands on an index, and there is none.
    #[error(
        "the annotation `{0}` stands on an index of platforms, and an image of one platform is written without one"
    )]
    NoIndex(Box<AnnotationKey>),
    /// It is meant for a platform that is not built.
    #[error("the annotation `{key}` is for a platform that is not built: there is only {}", built.iter().map(Platform::to_string).collect::<Vec<_>>().join(", "))]
    NoPlatform {
        /// The annotation.
        key: Box<AnnotationKey>,
        /// What is built.
        built: Vec<Platform>,
    },
}

impl Annotations {
    /// Adds one; the last of one key wins.
    pub fn insert(&mut self, key: AnnotationKey, value: String) {
        self.0.insert(key, value);
    }

    /// Adds all of these.
    pub fn extend(&mut self, other: Annotations) {
        self.0.extend(other.0);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all have a place in an image of these platforms, which has an index where `index`.
    ///
    /// # Errors
    /// [`Misplaced`], the first that has none.
    pub fn check(&self, built: &[Platform], index: bool) -> Result<(), Misplaced> {
        for key in self.0.keys() {
            if key.level.needs_index() && !index {
                return Err(Misplaced::NoIndex(Box::new(key.clone())));
            }
            if let Some(platform) = &key.platform
                && !built.iter().any(|one| same(one, platform))
            {
                return Err(Misplaced::NoPlatform { key: Box::new(key.clone()), built: built.to_vec() });
            }
        }
        Ok(())
    }

    /// Whether documents of these media types may carry them.
    ///
    /// # Errors
    /// [`Misplaced::Docker`], the first.
    pub fn check_dialect(&self, dialect: Dialect) -> Result<(), Misplaced> {
        match self.0.keys().next() {
            Some(key) if dialect == Dialect::Docker => Err(Misplaced::Docker(Box::new(key.clone()))),
            _ => Ok(()),
        }
    }

    /// Those of a level for a platform: what is meant for it alone wins over what is for all.
    ///
    /// There is one index for all platforms, so on its levels the platforms' own count as well.
    pub fn of(&self, level: Level, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let here = |key: &&AnnotationKey| key.level == level;
        let common = self.0.iter().filter(|(key, _)| here(key) && key.platform.is_none());
        let own = self.0.iter().filter(|(key, _)| {
            let fits = |own: &Platform| match platform {
                Some(platform) => same(platform, own),
                None => level.needs_index(),
            };
            here(key) && key.platform.as_ref().is_some_and(fits)
        });
        common.chain(own).map(|(key, value)| (key.key.clone(), value.clone())).collect()
    }
}

fn same(built: &Platform, meant: &Platform) -> bool {
    built.distance(meant) == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(level: Level, platform: Option<&str>, key: &str) -> AnnotationKey {
        let platform = platform.map(|text| text.parse().expect("a platform"));
        AnnotationKey::new(level, platform, key).expect("a key")
    }

    fn all() -> Annotations {
        let mut all = Annotations::default();
        for (at, value) in [
            (key(Level::Manifest, None, "a"), "common"),
            (key(Level::Manifest, Some("linux/arm64/v8"), "a"), "arm"),
            (key(Level::ManifestDescriptor, Some("linux/amd64"), "d"), "amd"),
            (key(Level::Index, Some("linux/amd64"), "i"), "index"),
        ] {
            all.insert(at, value.to_owned());
        }
        all
    }

    #[test]
    fn each_level_has_its_own() {
        let (amd64, arm64) = (Platform::new("linux", "amd64", None), Platform::new("linux", "arm64", None));
        let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        for (level, platform, expected) in [
            (Level::Manifest, Some(&amd64), pair("a", "common")),
            (Level::Manifest, Some(&arm64), pair("a", "arm")),
            (Level::ManifestDescriptor, Some(&amd64), pair("d", "amd")),
            (Level::ManifestDescriptor, Some(&arm64), BTreeMap::new()),
            (Level::Index, None, pair("i", "index")),
            (Level::IndexDescriptor, None, BTreeMap::new()),
        ] {
            assert_eq!(all().of(level, platform), expected, "{level:?} {platform:?}");
        }
    }

    #[test]
    fn what_has_no_place_is_told() {
        let (amd64, arm64) = (Platform::new("linux", "amd64", None), Platform::new("linux", "arm64", None));
        let both = [amd64.clone(), arm64];
        let index = Box::new(key(Level::Index, Some("linux/amd64"), "i"));
        assert_eq!(all().check(&both, true), Ok(()));
        assert_eq!(all().check(&both, false), Err(Misplaced::NoIndex(index.clone())));
        assert_eq!(all().check_dialect(Dialect::Oci), Ok(()));
        assert_eq!(all().check_dialect(Dialect::Docker), Err(Misplaced::Docker(index)));
        assert_eq!(Annotations::default().check_dialect(Dialect::Docker), Ok(()));
        let arm = Box::new(key(Level::Manifest, Some("linux/arm64"), "a"));
        let missing = Misplaced::NoPlatform { key: arm, built: vec![amd64.clone()] };
        assert!(missing.to_string().ends_with("there is only linux/amd64"), "{missing}");
        assert_eq!(all().check(&[amd64], true), Err(missing));
    }

    #[test]
    fn keys_and_levels_are_checked() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert!("layer".parse::<Level>().is_err());
        for bad in ["", "a b", "a\t"] {
            assert!(AnnotationKey::new(Level::Index, None, bad).is_err(), "{bad:?}");
        }
    }
}
