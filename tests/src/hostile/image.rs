//! What a registry has: an image that runs, and the ways to spoil it.

use std::{collections::BTreeMap, fs, io, path::Path};

use oci::{Digest, Platform};
use serde_json::{Value, json};

use super::{Answer, Asked, bomb::gzip, tar::Tar};

/// OCI's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI's layers.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The contents of one repository, by which every question of the distribution specification is answered.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// By digest: blobs, and documents too.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// By tag: media type and digest.
    pub tags: BTreeMap<String, (String, String)>,
}

/// `sha256:…`.
pub fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// A descriptor.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// A layer: what its descriptor says, and its diff id.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its descriptor.
    pub descriptor: Value,
    /// Its diff id.
    pub diff_id: String,
    /// Its blob; none where the registry does not have it.
    pub blob: Option<Vec<u8>>,
}

impl Layer {
    /// A layer of a tar, in gzip.
    pub fn of(tar: Tar) -> Layer {
        let tar = tar.end();
        Layer::packed(gzip(&tar), &digest(&tar))
    }

    /// A layer of a blob that is there.
    pub fn packed(blob: Vec<u8>, diff_id: &str) -> Layer {
        Layer { descriptor: descriptor(LAYER, &blob), diff_id: diff_id.to_owned(), blob: Some(blob) }
    }

    /// A layer that is like any other.
    pub fn honest() -> Layer {
        Layer::of(Tar::default().folder("etc/").file("etc/honest", b"yes\n"))
    }
}

/// The config of layers, for this machine.
pub fn config(layers: &[Layer]) -> Value {
    let Platform { os, architecture, .. } = Platform::host();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    json!({
        "os": os, "architecture": architecture, "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// The manifest of a config's bytes and of layers.
pub fn manifest(config: &[u8], layers: &[Layer]) -> Value {
    let layers: Vec<&Value> = layers.iter().map(|layer| &layer.descriptor).collect();
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config), "layers": layers,
    })
}

impl Content {
    /// An image of these layers as `1`.
    pub fn of(layers: Vec<Layer>) -> Content {
        let config = config(&layers);
        Content::with_config(layers, config.to_string().into_bytes())
    }

    /// An image of these layers and this config as `1`.
    pub fn with_config(layers: Vec<Layer>, config: Vec<u8>) -> Content {
        let manifest = manifest(&config, &layers).to_string();
        let mut content = Content::default().document("1", MANIFEST, manifest);
        content.blobs.insert(digest(&config), config);
        for layer in layers {
            content.blobs.extend(layer.blob.map(|blob| (digest(&blob), blob)));
        }
        content
    }

    /// With a document under a tag.
    pub fn document(mut self, tag: &str, media_type: &str, document: impl Into<Vec<u8>>) -> Content {
        let document = document.into();
        self.tags.insert(tag.to_owned(), (media_type.to_owned(), digest(&document)));
        self.blobs.insert(digest(&document), document);
        self
    }

    /// The document of a tag as JSON.
    ///
    /// # Panics
    /// Where there is none.
    pub fn json(&self, tag: &str) -> Value {
        serde_json::from_slice(&self.blobs[&self.tags[tag].1]).expect("it was made of JSON")
    }

    /// With another document under the tag `1`, made of the one that is there.
    pub fn changed(self, change: impl FnOnce(&mut Value)) -> Content {
        let mut document = self.json("1");
        change(&mut document);
        let media_type = self.tags["1"].0.clone();
        self.document("1", &media_type, document.to_string())
    }

    /// What an honest registry with these contents would answer.
    pub fn answer(&self, asked: &Asked) -> Option<Answer> {
        let path = asked.target.split('?').next().unwrap_or_default();
        if let Some((_, name)) = path.rsplit_once("/manifests/") {
            let by_digest = || (MANIFEST.to_owned(), name.to_owned());
            let (media_type, digest) = self.tags.get(name).cloned().unwrap_or_else(by_digest);
            let bytes = self.blobs.get(&digest)?.clone();
            let own = serde_json::from_slice::<Value>(&bytes).ok();
            let own = own.and_then(|own| Some(own.get("mediaType")?.as_str()?.to_owned()));
            let media_type = if name.contains(':') { own.unwrap_or(media_type) } else { media_type };
            return Some(Answer::new(200, bytes).typed(&media_type).with("docker-content-digest", digest));
        }
        if let Some((_, name)) = path.rsplit_once("/blobs/") {
            return Some(Answer::new(200, self.blobs.get(name)?.clone()).typed("application/octet-stream"));
        }
        path.ends_with("/tags/list").then(|| {
            let tags: Vec<&String> = self.tags.keys().collect();
            Answer::new(200, json!({"name": "evil", "tags": tags}).to_string()).typed("application/json")
        })
    }

    /// Writes the contents as an OCI layout whose image has the name `evil.example/evil:1`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_layout(&self, folder: &Path) -> io::Result<()> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes)?;
        }
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let (media_type, digest) = &self.tags["1"];
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
            "mediaType": media_type, "digest": digest,
            "size": self.blobs.get(digest).map_or(0, Vec::len),
            "annotations": {
                "io.containerd.image.name": "evil.example/evil:1",
                "org.opencontainers.image.ref.name": "1",
            },
        }]});
        fs::write(folder.join("index.json"), index.to_string())
    }
}
