//! What a name stands for, as text and as JSON.

use std::io::Write;
use std::sync::Arc;

use engine::{Engine, attests};
use oci::{Descriptor, Index, Manifest, Reference};
use registry::{Document, Parsed, is_image};
use serde_json::{Value, json};

use super::super::{copy::source, images::print};
use crate::{
    arguments::IndexInspect,
    failure::{Failure, printable},
    machine::Machine,
    progress::bytes,
};

/// How it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Raw,
    Json,
    Manifest,
    Digest,
    MediaType,
    Name,
}

/// Shows what a name stands for.
pub async fn inspect(engine: &Engine, arguments: &IndexInspect) -> Result<(), Failure> {
    let format = format(arguments)?;
    let from = source(&arguments.name)?;
    let document = engine.document(&from, Arc::new(Machine::default())).await?;
    let name = match &from {
        engine::ImageSource::Registry(name) => name.to_string(),
        _ => arguments.name.clone(),
    };
    let shown = match format {
        Format::Raw => return raw(&document.bytes),
        Format::Text => text(&name, &document),
        Format::Json => {
            let mut value = manifest(&document);
            value["name"] = json!(name);
            vec![pretty(&value)]
        }
        Format::Manifest => vec![pretty(&manifest(&document))],
        Format::Digest => vec![document.descriptor.digest.to_string()],
        Format::MediaType => vec![document.descriptor.media_type.to_string()],
        Format::Name => vec![name],
    };
    print(&shown)
}

fn format(arguments: &IndexInspect) -> Result<Format, Failure> {
    let Some(text) = &arguments.format else {
        return Ok(if arguments.raw { Format::Raw } else { Format::Text });
    };
    let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let inner = words.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map(str::trim);
    Ok(match inner.unwrap_or(&words) {
        "json" | "json ." => Format::Json,
        "json .Manifest" => Format::Manifest,
        ".Manifest.Digest" => Format::Digest,
        ".Manifest.MediaType" => Format::MediaType,
        ".Name" => Format::Name,
        _ => {
            let message = format!("--format {text}: there is no such format");
            return Err(Failure::usage_with(message, "--format json, or --raw"));
        }
    })
}

/// The bytes, without a line's end: their digest is that of the name.
fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::machine(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON can be written")
}

/// The document's own fields, and what its descriptor says.
fn manifest(document: &Document) -> Value {
    let mut value = match &document.parsed {
        Parsed::Index(index) => json!(index),
        Parsed::Manifest(manifest) => json!(manifest),
    };
    let Descriptor { media_type, digest, size, .. } = &document.descriptor;
    value["mediaType"] = json!(media_type);
    value["digest"] = json!(digest);
    value["size"] = json!(size);
    value
}

fn text(name: &str, document: &Document) -> Vec<String> {
    let Descriptor { media_type, digest, .. } = &document.descriptor;
    let mut rows = vec![
        ("Name", name.to_owned()),
        ("MediaType", printable(media_type.as_str())),
        ("Digest", digest.to_string()),
    ];
    let (own, below) = match &document.parsed {
        Parsed::Index(index) => {
            rows.extend(index.artifact_type().map(|kind| ("ArtifactType", printable(kind))));
            rows.extend(index.subject().map(|subject| ("Subject", subject.digest.to_string())));
            (&index.annotations, manifests(name, index))
        }
        Parsed::Manifest(manifest) => {
            if !is_image(manifest) {
                rows.push(("ArtifactType", printable(manifest.artifact_type())));
            }
            rows.extend(manifest.subject().map(|subject| ("Subject", subject.digest.to_string())));
            (&manifest.annotations, blobs(manifest))
        }
    };
    let mut lines = table("", &rows);
    if !own.is_empty() {
        lines.push("Annotations:".to_owned());
        lines.extend(own.iter().map(|(key, value)| format!("  {}: {}", printable(key), printable(value))));
    }
    lines.extend(below);
    lines
}

fn manifests(name: &str, index: &Index) -> Vec<String> {
    let mut lines = vec![String::new(), "Manifests:".to_owned()];
    // A name with the digest of one of them; a tag beside it would only be about the index.
    let repository = Reference::parse(name).ok().map(|name| name.name());
    for (at, one) in index.manifests.iter().enumerate() {
        if at > 0 {
            lines.push(String::new());
        }
        let digest = one.digest;
        let named = repository.as_ref().map_or_else(|| digest.to_string(), |name| format!("{name}@{digest}"));
        let mut rows = vec![("Name", named), ("MediaType", printable(one.media_type.as_str()))];
        if let Some(platform) = &one.platform {
            rows.push(("Platform", printable(&platform.to_string())));
            rows.extend(platform.os_version.as_ref().map(|version| ("OSVersion", printable(version))));
            if !platform.os_features.is_empty() {
                rows.push(("OSFeatures", printable(&platform.os_features.join(", "))));
            }
        }
        rows.extend(one.artifact_type().map(|kind| ("ArtifactType", printable(kind))));
        if let Some(subject) = attests(one) {
            let of = index.manifests.iter().find(|other| other.digest == subject);
            let platform = of.and_then(|other| other.platform.as_ref()).map(ToString::to_string);
            let about =
                platform.map_or_else(|| subject.to_string(), |platform| format!("{platform}, {subject}"));
            rows.push(("Attests", printable(&about)));
        }
        lines.extend(table("  ", &rows));
        if !one.annotations.is_empty() {
            lines.push("  Annotations:".to_owned());
            let annotation =
                |(key, value): (&String, &String)| format!("    {}: {}", printable(key), printable(value));
            lines.extend(one.annotations.iter().map(annotation));
        }
    }
    lines
}

fn blobs(manifest: &Manifest) -> Vec<String> {
    let mut lines = vec![String::new(), "Blobs:".to_owned()];
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        let title = blob.annotations.get("org.opencontainers.image.title");
        let title = title.map(|title| format!(" {}", printable(title))).unwrap_or_default();
        let (digest, media_type) = (blob.digest, printable(blob.media_type.as_str()));
        lines.push(format!("  {digest} {:>8} {media_type}{title}", bytes(blob.size)));
    }
    lines
}

fn table(indent: &str, rows: &[(&str, String)]) -> Vec<String> {
    let widest = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 1;
    rows.iter().map(|(key, value)| format!("{indent}{:<widest$} {value}", format!("{key}:"))).collect()
}
