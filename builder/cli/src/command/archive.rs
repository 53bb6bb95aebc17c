//! `kiln save`, `kiln load`.

use engine::{ArchiveFormat, Destination, Engine};

use super::images::print;
use crate::{
    arguments::{Load, Save},
    failure::Failure,
};

/// Writes images into an archive.
pub fn save(engine: &Engine, arguments: &Save) -> Result<(), Failure> {
    let format = match arguments.format.as_str() {
        "docker" | "docker-archive" => ArchiveFormat::Docker,
        "oci" | "oci-archive" => ArchiveFormat::Oci,
        other => {
            let message = format!("--format {other}: there is no such format");
            return Err(Failure::usage_with(message, "--format docker or --format oci"));
        }
    };
    if arguments.output.is_none() && console::Term::stdout().features().is_attended() {
        let image = arguments.images.first().map_or("IMAGE", String::as_str);
        return Err(Failure::usage_with(
            "an archive is nothing for a terminal",
            format!("kiln save -o image.tar {image}"),
        ));
    }
    let to = arguments.output.clone().map_or(Destination::Stdout, Destination::Path);
    Ok(engine.save(&arguments.images, format, &to)?)
}

/// Takes the images of an archive.
pub fn load(engine: &Engine, arguments: &Load) -> Result<(), Failure> {
    if arguments.input.is_none() && stdin_is_terminal() {
        return Err(Failure::usage_with("there is no archive on standard input", "kiln load -i image.tar"));
    }
    let from = arguments.input.clone().map_or(Destination::Stdout, Destination::Path);
    let mut lines = Vec::new();
    for image in engine.load(&from)? {
        lines.extend(image.names.iter().map(|name| format!("Loaded image: {}", name.familiar())));
        if image.names.is_empty() {
            lines.push(format!("Loaded image ID: {}", image.descriptor.digest));
        }
    }
    if arguments.quiet { Ok(()) } else { print(&lines) }
}

fn stdin_is_terminal() -> bool {
    rustix::termios::isatty(std::io::stdin())
}
