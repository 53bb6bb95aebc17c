//! Reading an OCI archive back, and showing it as text.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use oci::Digest;
use serde_json::Value;

/// An image in an OCI archive, with its blobs in memory: what the tests build is small.
#[derive(Default)]
pub struct Image {
    /// Digest of the manifest, or of the index of several platforms, as `index.json` has it.
    pub manifest: String,
    /// The config as it stands; of an index none.
    pub config: Value,
    /// The layers' tars, uncompressed, bottom first.
    layers: Vec<Vec<u8>>,
    /// Of an index its images, in its order, each with its platform as the index has it.
    pub platforms: Vec<(Value, Image)>,
    /// `index.json` and the documents below it down to the manifests, without digests and sizes.
    pub documents: String,
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn text<'a>(value: &'a Value, pointer: &str) -> io::Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).ok_or_else(|| bad(format!("no text at {pointer}")))
}

/// The blob of that digest, once its bytes were found to match it.
fn blob<'a>(members: &'a BTreeMap<String, Vec<u8>>, digest: &str) -> io::Result<&'a [u8]> {
    let name = format!("blobs/{}", digest.replace(':', "/"));
    let bytes = members.get(&name).ok_or_else(|| bad(format!("the archive lacks {name}")))?;
    if Digest::of(bytes).to_string() != digest {
        return Err(bad(format!("{name} does not match its name")));
    }
    Ok(bytes)
}

fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
    if !bytes.starts_with(b"\x1f\x8b") {
        return Ok(bytes.to_vec());
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)?;
    Ok(plain)
}

impl Image {
    /// Reads the first image of the OCI archive at `path`; every blob and every diff id is checked.
    ///
    /// # Errors
    /// What is missing or does not match.
    pub fn read(path: &Path) -> io::Result<Image> {
        let mut members = BTreeMap::new();
        for entry in tar::Archive::new(File::open(path)?).entries()? {
            let mut entry = entry?;
            let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            members.insert(name, bytes);
        }
        let index: Value =
            serde_json::from_slice(members.get("index.json").ok_or_else(|| bad("no index.json"))?)?;
        let mut image = Image::of(&members, text(&index, "/manifests/0/digest")?)?;
        image.documents = format!("== index.json\n{}{}", shown(&index)?, image.documents);
        Ok(image)
    }

    /// The image of that digest.
    fn of(members: &BTreeMap<String, Vec<u8>>, digest: &str) -> io::Result<Image> {
        let listed = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let manifest: Value = serde_json::from_slice(blob(members, digest)?)?;
        if manifest.get("manifests").is_some() {
            let one =
                |entry: &Value| Ok((entry["platform"].clone(), Image::of(members, text(entry, "/digest")?)?));
            let platforms: Vec<(Value, Image)> =
                listed(&manifest, "/manifests").iter().map(one).collect::<io::Result<_>>()?;
            let below: String = platforms.iter().map(|(_, image)| image.documents.as_str()).collect();
            let documents = format!("== index\n{}{below}", shown(&manifest)?);
            return Ok(Image { manifest: digest.to_owned(), platforms, documents, ..Image::default() });
        }
        let config: Value = serde_json::from_slice(blob(members, text(&manifest, "/config/digest")?)?)?;
        let mut layers = Vec::new();
        for layer in listed(&manifest, "/layers") {
            layers.push(unpacked(blob(members, text(&layer, "/digest")?)?)?);
        }
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        if listed(&config, "/rootfs/diff_ids") != diff_ids {
            return Err(bad("the config's diff ids are not those of the layers"));
        }
        let documents = format!("== manifest\n{}", shown(&manifest)?);
        Ok(Image { manifest: digest.to_owned(), config, layers, platforms: Vec::new(), documents })
    }

    /// The image as text: the config without times and digests, then one line a file, in the archive's order:
    /// `layer path type mode uid:gid size digest`.
    ///
    /// The lowest `base_layers` layers are left out: they are another's work. Of an index each image behind its platform.
    ///
    /// # Errors
    /// A layer that is no tar archive.
    pub fn show(&self, base_layers: usize) -> io::Result<String> {
        if !self.platforms.is_empty() {
            let shown = |(platform, image): &(Value, Image)| {
                Ok(format!("== {platform}\n{}", image.show(base_layers)?))
            };
            return self.platforms.iter().map(shown).collect();
        }
        let mut config = self.config.clone();
        without_times(&mut config);
        config["rootfs"]["diff_ids"] = format!("{} layers", self.layers.len()).into();
        let mut shown = serde_json::to_string_pretty(&config)?;
        shown.push('\n');
        for (number, layer) in self.layers.iter().enumerate().skip(base_layers) {
            for entry in tar::Archive::new(layer.as_slice()).entries()? {
                shown.push_str(&format!("{number} {}\n", line(&mut entry?)?));
            }
        }
        Ok(shown)
    }

    /// The content of the file at `path` (without a leading slash) in the topmost layer that has it.
    ///
    /// # Errors
    /// No layer has it.
    pub fn file(&self, path: &str) -> io::Result<Vec<u8>> {
        for layer in self.layers.iter().rev() {
            for entry in tar::Archive::new(layer.as_slice()).entries()? {
                let mut entry = entry?;
                if entry.path_bytes().as_ref() == path.as_bytes() {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    return Ok(bytes);
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, path))
    }
}

/// A document without digests and sizes, which differ with every byte.
fn shown(document: &Value) -> io::Result<String> {
    let mut document = document.clone();
    without_digests(&mut document);
    Ok(format!("{}\n", serde_json::to_string_pretty(&document)?))
}

fn without_digests(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| name != "digest" && name != "size");
            fields.values_mut().for_each(without_digests);
        }
        Value::Array(values) => values.iter_mut().for_each(without_digests),
        _ => {}
    }
}

fn without_times(config: &mut Value) {
    if let Some(object) = config.as_object_mut() {
        object.remove("created");
    }
    for entry in config.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(object) = entry.as_object_mut() {
            object.remove("created");
        }
    }
}

fn line(entry: &mut tar::Entry<'_, &[u8]>) -> io::Result<String> {
    use tar::EntryType;
    let path = entry.path_bytes().escape_ascii().to_string();
    let link = entry.link_name_bytes().map(|name| name.escape_ascii().to_string()).unwrap_or_default();
    let header = entry.header();
    let device = |header: &tar::Header| -> io::Result<String> {
        Ok(format!(" {}:{}", header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
    };
    let (kind, rest) = match header.entry_type() {
        EntryType::Directory => ("dir", String::new()),
        EntryType::Symlink => ("symlink", format!(" -> {link}")),
        EntryType::Link => ("hardlink", format!(" => {link}")),
        EntryType::Char => ("char", device(header)?),
        EntryType::Block => ("block", device(header)?),
        EntryType::Fifo => ("fifo", String::new()),
        _ => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            ("file", format!(" {} {}", bytes.len(), Digest::of(&bytes)))
        }
    };
    let mut shown = {
        let header = entry.header();
        format!("{path} {kind} {:04o} {}:{}{rest}", header.mode()? & 0o7777, header.uid()?, header.gid()?)
    };
    let mut attributes = BTreeMap::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        if let Some(name) = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
            attributes.insert(name.to_owned(), record.value_bytes().escape_ascii().to_string());
        }
    }
    for (name, value) in attributes {
        shown.push_str(&format!(" {name}={value}"));
    }
    Ok(shown)
}
