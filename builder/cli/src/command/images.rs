//! `kiln images`, `inspect`, `history`, `tag`, `rmi`.

use std::io::Write;

use engine::{Engine, FoundImage, words_of};
use oci::Reference;
use serde_json::json;

use crate::{
    arguments::{History, Images, Inspect, Rmi, Tag},
    failure::{Failure, printable, turns_a_terminal},
    machine,
    progress::bytes,
};

type Done = Result<(), Failure>;

/// Lists images.
pub fn images(engine: &Engine, arguments: &Images) -> Done {
    let images = engine.images()?;
    let now = machine::clock().now().epoch().0;
    let mut lines = Vec::new();
    for image in &images {
        let digest = image.descriptor.digest;
        if arguments.quiet {
            lines.push(digest.to_string());
        } else if arguments.json {
            let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
            let line = json!({
                "digest": digest, "names": names, "added": image.added.rfc3339(),
                "created": image.config.created, "size": image.size_bytes(),
                "platform": image.config.platform().to_string(),
            });
            lines.push(plain_json(&line.to_string()));
        } else {
            lines.extend(table_lines(image, now));
        }
    }
    if !arguments.quiet && !arguments.json {
        lines.insert(0, row("REPOSITORY", "TAG", "DIGEST", "ADDED", "SIZE"));
    }
    print(&lines)
}

fn table_lines(image: &FoundImage, now: u64) -> Vec<String> {
    let (digest, size) = (image.descriptor.digest.short(), bytes(image.size_bytes()));
    let added = format!("{} ago", words_of(now.saturating_sub(image.added.0)));
    if image.names.is_empty() {
        return vec![row("<none>", "<none>", &digest, &added, &size)];
    }
    let line = |name: &Reference| {
        let familiar = name.familiar();
        let tag = name.tag.as_deref().unwrap_or("<none>");
        let repository = familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar).to_owned();
        row(&repository, tag, &digest, &added, &size)
    };
    image.names.iter().map(line).collect()
}

fn row(repository: &str, tag: &str, digest: &str, added: &str, size: &str) -> String {
    format!("{repository:<32} {tag:<16} {digest:<14} {added:<16} {size}")
}

/// Shows images as JSON, in one list.
pub fn inspect(engine: &Engine, arguments: &Inspect) -> Done {
    let mut found = Vec::new();
    for name in &arguments.images {
        let image = engine.image(name)?;
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        found.push(json!({
            "Digest": image.descriptor.digest,
            "MediaType": image.descriptor.media_type,
            "Names": names,
            "Size": image.size_bytes(),
            "Manifest": image.manifest,
            "Config": image.config,
        }));
    }
    let text = serde_json::to_string_pretty(&found).expect("JSON can be written");
    print(&[plain_json(&text)])
}

/// Shows an image's history.
pub fn history(engine: &Engine, arguments: &History) -> Done {
    let entries = engine.history(&arguments.image)?;
    let mut lines = Vec::new();
    if !arguments.json {
        lines.push(format!("{:<14} {:<21} {:<50} SIZE", "LAYER", "CREATED", "CREATED BY"));
    }
    for entry in entries {
        let (digest, size) = entry.layer.map_or((None, 0), |(digest, size)| (Some(digest), size));
        if arguments.json {
            let line = json!({
                "layer": digest, "created": entry.created, "createdBy": entry.created_by,
                "comment": entry.comment, "size": size,
            });
            lines.push(plain_json(&line.to_string()));
            continue;
        }
        let layer = digest.map_or("<none>".to_owned(), |digest| digest.short());
        let created = printable(&entry.created.unwrap_or_default());
        let by = printable(&entry.created_by.replace(['\n', '\t'], " "));
        let by = if arguments.no_trunc { by } else { console::truncate_str(&by, 50, "…").into_owned() };
        lines.push(format!("{layer:<14} {created:<21} {by:<50} {}", bytes(size)));
    }
    print(&lines)
}

/// Names an image.
pub fn tag(engine: &Engine, arguments: &Tag) -> Done {
    let name = Reference::parse(&arguments.name).map_err(|error| Failure::usage(error.to_string()))?;
    engine.tag(&arguments.image, &name)?;
    Ok(())
}

/// Removes images.
pub fn rmi(engine: &Engine, arguments: &Rmi) -> Done {
    let mut failure = None;
    for name in &arguments.images {
        match engine.remove_image(name) {
            Ok(said) => print(&said)?,
            // With --force a missing image is what was wanted.
            Err(_) if arguments.force && engine.image(name).is_err() => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// JSON that a terminal can be given: what an image says may hold orders to it. JSON itself escapes only a part of them.
pub fn plain_json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        // Such a character stands in a string, where each may be written so; all of them are below U+10000.
        match c != '\n' && turns_a_terminal(c) {
            true => plain.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => plain.push(c),
        }
    }
    plain
}

/// Writes lines to standard output.
pub fn print(lines: &[String]) -> Done {
    let mut text = lines.join("\n");
    if !lines.is_empty() {
        text.push('\n');
    }
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // `kiln images | head` has read enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::machine(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
