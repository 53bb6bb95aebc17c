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
    /// What of Windows it needs: `win32k`.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: expected os/architecture[/variant], for instance linux/amd64")]
pub struct BadPlatform(pub String);

/// Systems that are known by their name alone; the architecture is then that of the machine.
const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// Architectures that are known by their name alone; the system is then Linux.
const ARCHITECTURES: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// A platform of these two, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let os = match os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let (architecture, variant) = normalize(&architecture.to_lowercase(), variant.unwrap_or_default());
        let variant = (!variant.is_empty()).then_some(variant);
        Platform { os, architecture, variant, os_version: None, os_features: Vec::new() }
    }

    /// Platforms that people build for: what a misspelt one may have been meant to be.
    pub const COMMON: [&str; 9] = [
        "linux/amd64",
        "linux/arm64",
        "linux/arm/v7",
        "linux/arm/v6",
        "linux/386",
        "linux/ppc64le",
        "linux/riscv64",
        "linux/s390x",
        "windows/amd64",
    ];

    /// Linux on the architecture that this program was compiled for.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// How far an image of this platform is from what was wanted: 0 is the same; `None` is unusable.
    pub fn distance(&self, wanted: &Platform) -> Option<u32> {
        let own = Platform::new(&self.os, &self.architecture, self.variant.as_deref());
        if own.os != wanted.os {
            return None;
        }
        if own.architecture != wanted.architecture {
            return own.runs_on_wider(wanted);
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

/// Further than any variant.
const NARROW: u32 = 100;

impl Platform {
    /// As [`Platform::distance`], for programs of a narrower architecture that a wider one runs as well: 386 on amd64, arm
    /// on arm64. containerd falls back to the same.
    fn runs_on_wider(&self, wider: &Platform) -> Option<u32> {
        match (self.architecture.as_str(), wider.architecture.as_str()) {
            ("386", "amd64") => Some(NARROW),
            ("arm", "arm64") => {
                let number = self.variant.as_deref()?.strip_prefix('v')?.parse::<u32>().ok()?;
                Some(NARROW + 8u32.checked_sub(number)?)
            }
            _ => None,
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
        let (system, version) = system(parts[0]).ok_or_else(bad)?;
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if !word(system) || !parts[1..].iter().copied().all(word) {
            return Err(bad());
        }
        let platform = match parts[..] {
            [_] => {
                let lower = system.to_lowercase();
                let of_machine = Platform { os: Platform::new(&lower, "", None).os, ..Platform::host() };
                let of_linux = Platform::new("linux", &lower, None);
                if SYSTEMS.contains(&of_machine.os.as_str()) {
                    of_machine
                } else if version.is_none() && ARCHITECTURES.contains(&of_linux.architecture.as_str()) {
                    of_linux
                } else {
                    return Err(bad());
                }
            }
            [_, architecture] => Platform::new(system, architecture, None),
            [_, architecture, variant] => Platform::new(system, architecture, Some(variant)),
            _ => return Err(bad()),
        };
        Ok(Platform { os_version: version.map(str::to_owned), ..platform })
    }
}

/// A system, and its version where it stands in brackets behind it: `windows(10.0.17763)`.
fn system(text: &str) -> Option<(&str, Option<&str>)> {
    let Some((system, rest)) = text.split_once('(') else { return Some((text, None)) };
    let version = rest.strip_suffix(')')?;
    let fits = version.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    (!version.is_empty() && fits).then_some((system, Some(version)))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
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
            ("linux/amd64/v1", "linux/amd64"),
            ("Linux/AArch64", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("x86_64", "linux/amd64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("s390x", "linux/s390x"),
            ("linux/whatever", "linux/whatever"),
        ] {
            assert_eq!(text.parse::<Platform>().expect(text).to_string(), normal);
        }
        for text in [
            "",
            "linux/",
            "a/b/c/d",
            "what",
            "linux/am d",
            "local",
            "windows(/amd64",
            "windows()/amd64",
            "windows(1/2)",
            "(1)/amd64",
            "amd64(1)",
            "linux/amd64(1)",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_nearest_that_runs_is_taken() {
        for (wanted, best_first) in [
            ("linux/arm64", &["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6"][..]),
            ("linux/amd64", &["linux/amd64", "linux/386"]),
            ("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64", "linux/amd64/v2", "linux/386"]),
            ("linux/arm/v7", &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ] {
            let wanted: Platform = wanted.parse().expect(wanted);
            let distances = best_first.iter().map(|text| {
                let own: Platform = text.parse().expect(text);
                own.distance(&wanted).unwrap_or_else(|| panic!("{text} for {wanted}"))
            });
            assert!(distances.is_sorted(), "{wanted}");
        }
        for (own, wanted) in [
            ("linux/amd64", "linux/386"),
            ("linux/arm64", "linux/arm/v7"),
            ("linux/arm/v7", "linux/arm/v6"),
            ("windows/amd64", "linux/amd64"),
            ("linux/riscv64", "linux/amd64"),
        ] {
            let parse = |text: &str| text.parse::<Platform>().expect("a platform");
            assert_eq!(parse(own).distance(&parse(wanted)), None, "{own} for {wanted}");
        }
    }

    #[test]
    fn a_system_may_have_a_version() {
        let windows: Platform = "windows(10.0.17763)/amd64".parse().expect("a platform");
        let expected =
            Platform { os_version: Some("10.0.17763".into()), ..Platform::new("windows", "amd64", None) };
        assert_eq!(windows, expected);
        assert_eq!(windows.to_string(), "windows(10.0.17763)/amd64");
        let here: Platform = "windows".parse().expect("a platform");
        assert_eq!(here, Platform { os: "windows".into(), ..Platform::host() });
    }

    #[test]
    fn common_platforms_are_platforms() {
        for text in Platform::COMMON {
            assert_eq!(text.parse::<Platform>().expect(text).to_string(), text);
        }
    }
}
