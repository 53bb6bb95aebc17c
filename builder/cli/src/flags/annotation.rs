//! `--annotation [LEVEL[PLATFORM],…:]KEY=VALUE`, and the same as a key of `--output`.

use image::annotations::{AnnotationKey, Annotations, Level};
use oci::Platform;

use super::BadFlag;

const FLAG: &str = "--annotation";
const EXAMPLE: &str = "--annotation 'index,manifest[linux/amd64]:KEY=VALUE'";

/// All values of the flag. Without a level, an annotation is one of the manifest; later ones win.
pub fn annotations(texts: &[String]) -> Result<Annotations, BadFlag> {
    let mut all = Annotations::default();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let bad = |why: String| BadFlag::new(FLAG, text, why, EXAMPLE);
        let (place, value) = text.split_once('=').ok_or_else(|| bad("expected KEY=VALUE".to_owned()))?;
        let (levels, key) = place.split_once(':').unwrap_or(("manifest", place));
        for level in levels.split(',') {
            let (level, platform) = level_and_platform(level).map_err(bad)?;
            let key = AnnotationKey::new(level, platform, key).map_err(|error| bad(error.to_string()))?;
            all.insert(key, value.to_owned());
        }
    }
    Ok(all)
}

/// `annotation`, `-LEVEL`, `[PLATFORM]`, `.KEY`.
pub fn of_output(place: &str) -> Result<AnnotationKey, String> {
    let (head, key) = place.split_once('.').ok_or_else(|| format!("`{place}` lacks `.KEY`"))?;
    let head = head.strip_prefix("annotation").unwrap_or(head);
    let (level, platform) = match head.strip_prefix('-') {
        Some(level) => level_and_platform(level)?,
        None => level_and_platform(&format!("manifest{head}"))?,
    };
    AnnotationKey::new(level, platform, key).map_err(|error| error.to_string())
}

/// `LEVEL` or `LEVEL[PLATFORM]`.
fn level_and_platform(text: &str) -> Result<(Level, Option<Platform>), String> {
    let (level, platform) = match text.split_once('[') {
        None => (text, None),
        Some((level, rest)) => {
            let platform =
                rest.strip_suffix(']').ok_or_else(|| format!("`{text}` lacks a `]` at its end"))?;
            let platform =
                super::platform(platform).map_err(|error| format!("`{platform}`: {}", error.why))?;
            (level, Some(platform))
        }
    };
    Ok((level.parse().map_err(|error: image::annotations::BadLevel| error.to_string())?, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(level: Level, platform: Option<&str>, key: &str) -> AnnotationKey {
        let platform = platform.map(|text| text.parse().expect("a platform"));
        AnnotationKey::new(level, platform, key).expect("a key")
    }

    fn of(pairs: &[(AnnotationKey, &str)]) -> Annotations {
        let mut all = Annotations::default();
        pairs.iter().for_each(|(key, value)| all.insert(key.clone(), (*value).to_owned()));
        all
    }

    #[test]
    fn levels_stand_before_a_colon() {
        let arm = Some("linux/arm64");
        for (text, expected) in [
            ("a=1", of(&[(key(Level::Manifest, None, "a"), "1")])),
            ("a=b:c=d", of(&[(key(Level::Manifest, None, "a"), "b:c=d")])),
            ("index:Org.A=", of(&[(key(Level::Index, None, "Org.A"), "")])),
            (
                "index-descriptor,manifest-descriptor[linux/arm64]:a=1",
                of(&[
                    (key(Level::IndexDescriptor, None, "a"), "1"),
                    (key(Level::ManifestDescriptor, arm, "a"), "1"),
                ]),
            ),
            ("", Annotations::default()),
        ] {
            assert_eq!(annotations(&[text.to_owned()]), Ok(expected), "{text}");
        }
        for bad in
            ["a", "=1", "layer:a=1", "index,:a=1", "manifest[linux/arm64:a=1", "manifest[x y]:a=1", "a b=1"]
        {
            assert!(annotations(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_output_spells_them_as_a_key() {
        for (text, expected) in [
            ("annotation.a.b", Ok(key(Level::Manifest, None, "a.b"))),
            ("annotation[linux/arm64].a", Ok(key(Level::Manifest, Some("linux/arm64"), "a"))),
            ("annotation-index.a", Ok(key(Level::Index, None, "a"))),
            (
                "annotation-manifest-descriptor[linux/386].a",
                Ok(key(Level::ManifestDescriptor, Some("linux/386"), "a")),
            ),
        ] {
            assert_eq!(of_output(text), expected, "{text}");
        }
        for bad in
            ["annotation", "annotation.", "annotations.a", "annotation-layer.a", "annotation[linux/386.a"]
        {
            assert!(of_output(bad).is_err(), "{bad}");
        }
    }
}
