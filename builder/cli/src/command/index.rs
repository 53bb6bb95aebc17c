//! `kiln index create`, `kiln index inspect`.

mod show;

use std::{fs, io::Read, path::Path, sync::Arc};

use engine::{Engine, ImageSource, IndexRequest, IndexSource, MadeIndex, PartialDescriptor};
use image::annotations::Annotations;
use oci::{Digest, Reference};
use serde_json::{Value, json};

use super::{
    build::write_file,
    copy::{platforms, source, target},
    images::print,
    remote::{begin, say},
};
use crate::{
    arguments::{Index, IndexCommand, IndexCreate},
    failure::Failure,
    flags,
    machine::Machine,
    progress::Shown,
};

/// Makes or shows an index.
pub async fn run(engine: &Engine, arguments: &Index) -> Result<(), Failure> {
    match &arguments.command {
        IndexCommand::Create(create) => self::create(engine, create).await,
        IndexCommand::Inspect(inspect) => show::inspect(engine, inspect).await,
    }
}

/// Makes an index and puts it into registries; prints its digest, or with `--dry-run` the index.
async fn create(engine: &Engine, arguments: &IndexCreate) -> Result<(), Failure> {
    let names = arguments.tags.iter().map(|name| target(name)).collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() && !arguments.dry_run {
        let help = "-t REGISTRY/NAME:TAG, or --dry-run";
        return Err(Failure::usage_with("an index that gets no name can only be shown", help));
    }
    let request = IndexRequest {
        sources: sources(arguments, &names)?,
        names: if arguments.dry_run { Vec::new() } else { names.clone() },
        annotations: annotations(&arguments.annotations)?,
        platforms: platforms(&arguments.platform)?,
        prefer_index: arguments.prefer_index,
    };
    let (display, cancel) = begin(&arguments.shown)?;
    let sink = Arc::new(Shown::new(display.clone()));
    let made = engine.create_index(request, Arc::new(Machine::default()), sink, &cancel).await;
    display.finish();
    let made = made?;
    if let Some(path) = &arguments.metadata_file {
        let text = serde_json::to_vec_pretty(&metadata(&made, &names)).expect("JSON can be written");
        write_file(path, &text)?;
    }
    if arguments.dry_run {
        let index: Value = serde_json::from_slice(&made.bytes).expect("it was read, or made here");
        return print(&[serde_json::to_string_pretty(&index).expect("JSON can be written")]);
    }
    say(&made.descriptor)
}

fn metadata(made: &MadeIndex, names: &[Reference]) -> Value {
    let names: Vec<String> = names.iter().map(Reference::to_string).collect();
    json!({
        "containerimage.descriptor": made.descriptor,
        "containerimage.digest": made.descriptor.digest,
        "image.name": names.join(","),
    })
}

/// Without a level, what is annotated is the index: nothing else is made.
fn annotations(texts: &[String]) -> Result<Annotations, Failure> {
    let mut leveled = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let place = text.split('=').next().unwrap_or_default();
        let Some((levels, _)) = place.split_once(':') else {
            leveled.push(format!("index:{text}"));
            continue;
        };
        for level in levels.split(',') {
            let (why, instead) = match level.split('[').next().unwrap_or_default() {
                "manifest" => ("manifests are taken as they are", "manifest-descriptor"),
                "index-descriptor" => ("nothing names the index", "index"),
                _ => continue,
            };
            let message = format!("--annotation {text}: {why}, so there is no `{level}` to annotate");
            return Err(Failure::usage_with(message, format!("--annotation '{instead}:NAME=VALUE'")));
        }
        leveled.push(text.clone());
    }
    Ok(flags::annotations(&leveled)?)
}

/// A source as it is written.
enum Written {
    Image(ImageSource),
    Descriptor(PartialDescriptor),
}

fn sources(arguments: &IndexCreate, names: &[Reference]) -> Result<Vec<IndexSource>, Failure> {
    let mut texts = arguments.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    texts.extend(arguments.sources.iter().cloned());
    let written = texts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let mut all = Vec::new();
    if arguments.append {
        let first = names.first().ok_or_else(|| {
            Failure::usage_with(
                "--append adds to what a name stands for, and there is none",
                "-t REGISTRY/NAME:TAG",
            )
        })?;
        let image = ImageSource::Registry(first.clone());
        all.push(IndexSource { image, descriptor: None, current: true });
    }
    if written.is_empty() {
        let help = "kiln index create -t REGISTRY/NAME:TAG SOURCE SOURCE…";
        return Err(Failure::usage_with("an index is made of at least one source", help));
    }
    let mut repositories: Vec<Reference> = names.to_vec();
    repositories.extend(written.iter().filter_map(|one| match one {
        Written::Image(ImageSource::Registry(name)) => Some(name.clone()),
        _ => None,
    }));
    repositories.iter_mut().for_each(|name| (name.tag, name.digest) = (None, None));
    repositories.sort();
    repositories.dedup();
    for one in written {
        all.push(match one {
            Written::Image(image) => IndexSource { image, descriptor: None, current: false },
            Written::Descriptor(descriptor) => {
                let [repository] = &repositories[..] else {
                    let digest = descriptor.digest;
                    let message = format!(
                        "`{digest}` does not tell its repository, and not all other names are of one"
                    );
                    return Err(Failure::usage_with(message, format!("REGISTRY/NAME@{digest}")));
                };
                let name = Reference { digest: Some(descriptor.digest), ..repository.clone() };
                let image = ImageSource::Registry(name);
                IndexSource { image, descriptor: Some(descriptor), current: false }
            }
        });
    }
    Ok(all)
}

fn parse(text: &str) -> Result<Written, Failure> {
    if text.starts_with('{') {
        let bad = |error: serde_json::Error| {
            let help =
                "{\"digest\": \"sha256:…\", \"platform\": {\"os\": \"linux\", \"architecture\": \"arm64\"}}";
            Failure::usage_with(format!("a source is no descriptor: {error}"), help)
        };
        return serde_json::from_str(text).map(Written::Descriptor).map_err(bad);
    }
    match text.parse::<Digest>() {
        Ok(digest) => Ok(Written::Descriptor(PartialDescriptor::of(digest))),
        Err(error) if text.starts_with("sha256:") => Err(Failure::usage(error.to_string())),
        Err(_) => source(text).map(Written::Image),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        false => fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|error| Failure::usage(format!("--file {}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}
