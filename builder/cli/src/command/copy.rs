//! `kiln copy`, `kiln referrers`, `kiln artifact fetch`.

use std::sync::Arc;

use engine::{CopyRequest, Engine, ImageSource};
use oci::{Descriptor, Index, Platform, Reference};

use super::{
    images::print,
    remote::{begin, reference, say},
};
use crate::{
    arguments::{ArtifactFetch, Copy, Referrers},
    failure::{Failure, printable},
    flags,
    machine::Machine,
    progress::{Shown, bytes},
};

/// Copies an image to registries; prints its digest.
pub async fn copy(engine: &Engine, arguments: &Copy) -> Result<(), Failure> {
    let from = source(&arguments.source)?;
    if arguments.referrers && !matches!(from, ImageSource::Registry(_)) {
        return Err(Failure::usage_with(
            format!("--referrers: what refers to `{}` is not known: it is in no registry", arguments.source),
            format!("kiln copy {} {}", arguments.source, arguments.targets.join(" ")),
        ));
    }
    let to = arguments.targets.iter().map(|name| target(name)).collect::<Result<_, _>>()?;
    let platforms = platforms(&arguments.platform)?;
    let request = CopyRequest { from, to, platforms, referrers: arguments.referrers };
    let (display, cancel) = begin(&arguments.shown)?;
    let sink = Arc::new(Shown::new(display.clone()));
    let copied = engine.copy(request, Arc::new(Machine::default()), sink, &cancel).await;
    display.finish();
    say(&copied?)
}

/// Lists what refers to an image.
pub async fn referrers(engine: &Engine, arguments: &Referrers) -> Result<(), Failure> {
    let json = match arguments.format.as_str() {
        "table" => false,
        "json" => true,
        other => {
            let message = format!("--format {other}: there is no such format");
            return Err(Failure::usage_with(message, "--format table or --format json"));
        }
    };
    let name = target(&arguments.name)?;
    let found = engine.referrers(&name, arguments.artifact_type.as_deref()).await?;
    if json {
        let index = serde_json::to_string_pretty(&Index::new(found)).expect("JSON can be written");
        return print(&[index]);
    }
    let widest = found.iter().filter_map(Descriptor::artifact_type).map(str::len).max().unwrap_or(0).max(13);
    let mut lines = vec![format!("{:<71} {:<widest$} SIZE", "DIGEST", "ARTIFACT TYPE")];
    for one in &found {
        let kind = printable(one.artifact_type().unwrap_or("<none>"));
        lines.push(format!("{:<71} {kind:<widest$} {}", one.digest.to_string(), bytes(one.size)));
        let annotation =
            |(key, value): (&String, &String)| format!("  {}: {}", printable(key), printable(value));
        lines.extend(one.annotations.iter().map(annotation));
    }
    print(&lines)
}

/// Writes the files of an artifact; prints their paths.
pub async fn fetch(engine: &Engine, arguments: &ArtifactFetch) -> Result<(), Failure> {
    let from = source(&arguments.name)?;
    let (display, cancel) = begin(&arguments.shown)?;
    let sink = Arc::new(Shown::new(display.clone()));
    let folder = &arguments.output;
    let fetched = engine.fetch_artifact(&from, folder, Arc::new(Machine::default()), sink, &cancel).await;
    display.finish();
    print(&fetched?.iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>())
}

/// Where an image is. Names that begin as skopeo's do are understood.
pub fn source(text: &str) -> Result<ImageSource, Failure> {
    let bad = |why: String| {
        let help = "REGISTRY/NAME[:TAG|@DIGEST], oci-layout://PATH[:TAG|@DIGEST] or local-store://NAME";
        Failure::usage_with(format!("`{text}`: {why}"), help)
    };
    if let Some(layout) = text.strip_prefix("oci-layout://") {
        let (path, version) = flags::layout_version(layout).map_err(bad)?;
        return Ok(ImageSource::Layout { path, version });
    }
    match text.strip_prefix("local-store://") {
        Some("") => Err(bad("the name is empty".to_owned())),
        Some(name) => Ok(ImageSource::Store(name.to_owned())),
        None => match registry_name(text).split_once("://") {
            Some((scheme, _)) => Err(bad(format!("there are no images at `{scheme}://`"))),
            None => target(text).map(ImageSource::Registry),
        },
    }
}

/// A name in a registry.
pub fn target(text: &str) -> Result<Reference, Failure> {
    let name = registry_name(text);
    if let Some((scheme, _)) = name.split_once("://") {
        let message = format!("`{text}`: expected a name in a registry, and `{scheme}://` is none");
        return Err(Failure::usage_with(message, "REGISTRY/NAME:TAG"));
    }
    reference(name)
}

/// Without the words that say that it is in a registry.
fn registry_name(text: &str) -> &str {
    ["docker://", "docker-image://"].iter().find_map(|front| text.strip_prefix(front)).unwrap_or(text)
}

/// The values of `--platform`.
pub fn platforms(texts: &[String]) -> Result<Vec<Platform>, Failure> {
    let given = texts.iter().filter(|text| !text.is_empty());
    Ok(given.map(|text| flags::platform(text)).collect::<Result<_, _>>()?)
}
