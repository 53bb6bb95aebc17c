//! What an engine answers, as far as it is read (Docker Engine API, § Image).

use oci::DiffId;
use serde::Deserialize;

/// An image that an engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What the engine knows it by: its config's digest, or its manifest's.
    pub id: String,
    /// Its names, short as Docker shows them.
    pub names: Vec<String>,
    /// Its layers.
    pub diff_ids: Vec<DiffId>,
}

/// How far the engine is with one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The layer, by the beginning of its id.
    pub layer: String,
    /// What is done with it: `Loading layer`.
    pub what: String,
    /// Bytes so far.
    pub current: u64,
    /// Bytes in all; 0 where the engine does not know.
    pub total: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Info {
    #[serde(default)]
    pub(crate) driver_status: Option<Vec<Vec<String>>>,
}

impl Info {
    /// Whether containerd keeps the images.
    pub(crate) fn is_containerd(&self) -> bool {
        let pairs = self.driver_status.iter().flatten();
        pairs.into_iter().any(|pair| matches!(pair.as_slice(), [key, kind] if key == "driver-type" && kind.starts_with("io.containerd.")))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    pub(crate) id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Inspected {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default, rename = "RootFS")]
    root_fs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    #[serde(default)]
    layers: Option<Vec<DiffId>>,
}

impl From<Inspected> for Image {
    fn from(inspected: Inspected) -> Image {
        Image {
            id: inspected.id,
            names: inspected.repo_tags.unwrap_or_default(),
            diff_ids: inspected.root_fs.layers.unwrap_or_default(),
        }
    }
}

/// What the engine says of an error.
#[derive(Deserialize)]
pub(crate) struct Refusal {
    pub(crate) message: String,
}

/// A line of the answer to a load.
#[derive(Deserialize)]
pub(crate) struct Line {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default, rename = "progressDetail")]
    detail: Option<Detail>,
    #[serde(default)]
    pub(crate) error: Option<String>,
}

#[derive(Default, Deserialize)]
struct Detail {
    #[serde(default)]
    current: u64,
    #[serde(default)]
    total: u64,
}

impl Line {
    pub(crate) fn progress(self) -> Option<Progress> {
        let (what, layer) = (self.status?, self.id?);
        let Detail { current, total } = self.detail.unwrap_or_default();
        Some(Progress { layer, what, current, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_store_is_told() {
        for (text, containerd) in [
            (r#"{"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#, true),
            (r#"{"DriverStatus":[["Backing Filesystem","extfs"],["Supports d_type","true"]]}"#, false),
            (r#"{"DriverStatus":null}"#, false),
            ("{}", false),
        ] {
            let info: Info = serde_json::from_str(text).expect(text);
            assert_eq!(info.is_containerd(), containerd, "{text}");
        }
    }

    #[test]
    fn lines_of_a_load_are_read() {
        let line = |text: &str| serde_json::from_str::<Line>(text).expect(text);
        let text = r#"{"status":"Loading layer","progressDetail":{"current":5,"total":9},"progress":"[=>]","id":"8d3a"}"#;
        let expected = Progress { layer: "8d3a".into(), what: "Loading layer".into(), current: 5, total: 9 };
        assert_eq!(line(text).progress(), Some(expected));
        assert_eq!(line(r#"{"stream":"Loaded image: a:b\n"}"#).progress(), None);
        let failed = line(r#"{"errorDetail":{"message":"no space"},"error":"no space"}"#);
        assert_eq!(failed.error.as_deref(), Some("no space"));
    }
}
