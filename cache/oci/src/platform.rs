//! What an image runs on: `os/architecture[/variant]`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A platform, normalised as containerd does it (`x86_64` is `amd64`, `aarch64` is `arm64`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, ….
    pub os: String,
    /// Go's name of the architecture: `amd64`, `arm64`, `arm`, ….
    pub architecture: String,
    /// `v6`, `v7`, `v8`, ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows' build number.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: expected os/architecture[/variant], for instance linux/amd64")]
pub struct BadPlatform(pub String);

impl Platform {
    /// A platform of these two, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let os = match os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let (architecture, variant) = normalize(&architecture.to_lowercase(), variant.unwrap_or_default());
        let variant = (!variant.is_empty()).then_some(variant);
        Platform { os, architecture, variant, os_version: None }
    }

    /// Linux on the architecture that this program was compiled for.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// How far an image of this platform is from what was wanted: 0 is the same; `None` is unusable.
    pub fn distance(&self, wanted: &Platform) -> Option<u32> {
        let own = Platform::new(&self.os, &self.architecture, self.variant.as_deref());
        if own.os != wanted.os || own.architecture != wanted.architecture {
            return None;
        }
        match (&own.variant, &wanted.variant) {
            (a, b) if a == b => Some(0),
            (None, _) => Some(1),
            (Some(_), None) => Some(2),
            (Some(own), Some(wanted)) => {
                // An older variant runs on a newer machine; the nearest older one is best.
                let number = |text: &str| text.trim_start_matches('v').parse::<u32>().ok();
                let (own, wanted) = (number(own)?, number(wanted)?);
                (own < wanted).then(|| 2 + wanted - own)
            }
        }
    }
}

fn normalize(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386" | "i686" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(text: &str) -> Result<Platform, BadPlatform> {
        let bad = || BadPlatform(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if !parts.iter().all(word) {
            return Err(bad());
        }
        match parts[..] {
            ["linux" | "windows" | "darwin" | "freebsd"] => {
                Ok(Platform { os: parts[0].to_owned(), ..Platform::host() })
            }
            [architecture] => {
                let platform = Platform::new("linux", architecture, None);
                let known = ["amd64", "arm64", "arm", "386", "riscv64", "ppc64le", "s390x", "loong64"];
                if known.contains(&platform.architecture.as_str()) { Ok(platform) } else { Err(bad()) }
            }
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_normalised() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ] {
            assert_eq!(text.parse::<Platform>().expect(text).to_string(), normal);
        }
        for text in ["", "linux/", "a/b/c/d", "what", "linux/am d"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
