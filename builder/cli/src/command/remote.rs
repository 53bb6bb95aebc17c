//! `kiln pull`, `kiln push`, `kiln tags`.

use std::sync::Arc;

use engine::{Cancel, Engine, PullRequest, PushRequest};
use oci::{Descriptor, Platform, Reference};

use super::{build::first_platform, images::print};
use crate::{
    arguments::{Pull, Push, Shown as How, Tags},
    failure::Failure,
    machine::{self, Machine},
    progress::{Display, Mode, Shown},
    signals,
};

/// How the name of an image in the Docker Engine begins.
const DOCKER: &str = "docker-daemon:";

/// Fetches images; prints their digests.
pub async fn pull(engine: &Engine, arguments: &Pull) -> Result<(), Failure> {
    let platform = first_platform(arguments.platform.as_deref())?.unwrap_or_else(Platform::host);
    let unpack = !arguments.no_unpack && machine::may_unpack();
    for name in &arguments.images {
        let request = PullRequest { name: reference(name)?, platform: platform.clone(), unpack };
        let (display, cancel) = begin(&arguments.shown)?;
        let sink = Arc::new(Shown::new(display.clone()));
        let pulled = engine.pull(&request, Arc::new(Machine::default()), sink, &cancel).await;
        display.finish();
        say(&pulled?)?;
    }
    Ok(())
}

/// Sends an image of the local store; prints its digest.
pub async fn push(engine: &Engine, arguments: &Push) -> Result<(), Failure> {
    let (mut names, mut docker) = (Vec::new(), Vec::new());
    for name in &arguments.names {
        match name.strip_prefix(DOCKER) {
            Some(name) => docker.push(reference(name)?),
            None => names.push(reference(name)?),
        }
    }
    if arguments.names.is_empty() {
        let own = reference(&arguments.image).map_err(|_| {
            Failure::usage_with(
                format!("`{}` is no name in a registry", arguments.image),
                format!("kiln push {} REGISTRY/NAME:TAG", arguments.image),
            )
        })?;
        names.push(own);
    }
    let request = PushRequest { image: arguments.image.clone(), names, docker };
    let (display, cancel) = begin(&arguments.shown)?;
    let sink = Arc::new(Shown::new(display.clone()));
    let pushed = engine.push(request, Arc::new(Machine::default()), sink, &cancel).await;
    display.finish();
    say(&pushed?)
}

/// Lists the tags of a repository.
pub async fn tags(engine: &Engine, arguments: &Tags) -> Result<(), Failure> {
    print(&engine.remote_tags(&reference(&arguments.repository)?).await?)
}

/// What shows progress, and what the first signal sets.
pub fn begin(how: &How) -> Result<(Arc<dyn Display>, Cancel), Failure> {
    let mode = Mode::asked(&how.progress, how.quiet)?;
    let cancel = Cancel::new();
    signals::cancel_on_interrupt(&cancel)?;
    Ok((mode.display(), cancel))
}

/// A name of an image, as the command line has it.
pub fn reference(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text).map_err(|error| Failure::usage(error.to_string()))
}

/// Prints the digest.
pub fn say(descriptor: &Descriptor) -> Result<(), Failure> {
    print(&[descriptor.digest.to_string()])
}
