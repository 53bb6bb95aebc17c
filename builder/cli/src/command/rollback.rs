//! `kiln rollback`, and `kiln history --tag`: what a name stood for, and back to it.

use engine::{Engine, RollbackRequest, TagPlace};
use oci::Reference;
use serde_json::json;

use super::images::print;
use crate::{
    arguments::{History, Rollback},
    failure::Failure,
};

/// Lists the images that a name had.
pub fn tag_history(engine: &Engine, arguments: &History) -> Result<(), Failure> {
    let name = tagged("kiln history --tag", &arguments.image)?;
    let place = if arguments.registry { TagPlace::Registry } else { TagPlace::Local };
    let records = engine.tag_history(&name, place)?;
    if records.is_empty() {
        let (name, elsewhere) = (name.familiar(), if arguments.registry { "" } else { " --registry" });
        let message = match place {
            TagPlace::Local => format!("the local store never had an image `{name}`"),
            TagPlace::Registry => format!("nothing is known of `{name}` in its registry"),
        };
        return Err(Failure::none(message, format!("kiln history --tag{elsewhere} {name}, or kiln images")));
    }
    let mut lines = Vec::new();
    if !arguments.json {
        lines.push(format!("{:<14} {:<21} {:<9} STATE", "DIGEST", "SINCE", "BY"));
    }
    for record in records {
        let by = record.by.unwrap_or_default();
        if arguments.json {
            let line = json!({
                "digest": record.digest, "since": record.at.rfc3339(), "by": record.by,
                "current": record.current, "here": record.here,
            });
            lines.push(line.to_string());
            continue;
        }
        let state = match (record.current, record.here, place) {
            (true, true, TagPlace::Local) => "current",
            (true, _, _) => "last known",
            (false, true, _) => "here",
            (false, false, TagPlace::Local) => "no longer here",
            (false, false, TagPlace::Registry) => "",
        };
        let digest = if arguments.no_trunc { record.digest.to_string() } else { record.digest.short() };
        lines.push(format!("{digest:<14} {:<21} {by:<9} {state}", record.at.rfc3339()).trim_end().to_owned());
    }
    print(&lines)
}

/// Points a name back to an image that it had; prints the image's digest.
pub async fn rollback(engine: &Engine, arguments: &Rollback) -> Result<(), Failure> {
    let name = tagged("kiln rollback", &arguments.name)?;
    let request =
        RollbackRequest { name: name.clone(), to: arguments.digest.clone(), force: arguments.force };
    let done = match arguments.registry {
        true => engine.rollback_registry(&request).await?,
        false => engine.rollback(&request)?,
    };
    let (shown, flag) = (name.familiar(), if arguments.registry { "--registry " } else { "" });
    let place = if arguments.registry { " in its registry" } else { "" };
    match done.from {
        Some(from) if from == done.to => eprintln!("{shown} is that image{place} already"),
        Some(from) => {
            let back: String = from.hex().chars().take(12).collect();
            eprintln!("{shown} was {from}{place}; back to it: kiln rollback {flag}{shown} {back}");
        }
        None => eprintln!("{shown} was nothing{place}"),
    }
    print(&[done.to.to_string()])
}

/// A name with a tag and without a digest.
fn tagged(command: &str, text: &str) -> Result<Reference, Failure> {
    let name = Reference::parse(text).map_err(|error| Failure::usage(error.to_string()))?;
    match name.digest {
        None => Ok(name),
        Some(_) => {
            let bare = Reference { digest: None, tag: name.tag.or(Some("latest".to_owned())), ..name };
            let message = format!("`{text}` names an image for ever: what it is does not change");
            Err(Failure::usage_with(message, format!("{command} {}", bare.familiar())))
        }
    }
}
