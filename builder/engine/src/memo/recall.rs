//! Answering a build with what was remembered of it.

use std::path::Path;

use image::layout::NamedImage;
use oci::{Platform, Reference};
use store::{BootId, Memos, Options, Store};

use super::{
    answer::{Answer, Archive, Image, LONGEST_SECONDS, Shown},
    contexts, key,
};
use crate::{
    build::{BuildOutcome, pin},
    cancel::Cancel,
    client::Client,
    clock::Clock,
    engine,
    export::archive::{ArchiveFile, ArchiveKind},
    progress::{Definition, Sink},
    request::{Asking, BuildRequest, Destination, DockerfileFrom, Output},
};

/// What a build gives that was remembered. Its outputs are what they are to be.
#[derive(Debug)]
pub struct Recalled {
    answer: Answer,
    definition: Definition,
    /// The lines about the images of the answer.
    ages: Vec<String>,
    clock: Clock,
}

/// What a build gives, where it was remembered and nothing has changed since; its outputs are then written. None where that
/// is not known, for whatever reason: [`Engine::build`](crate::Engine::build) knows.
///
/// Where the outputs are what they are to be, nothing is written, locked or waited for, and of the state folder a few small
/// files are read.
pub fn recall(root: &Path, request: &BuildRequest, client: &dyn Client, clock: &Clock) -> Option<Recalled> {
    let memos = Memos::at(root, BootId::of_kernel())?;
    let key = key::key(request, client, || memos.secret_key())?;
    let answer: Answer = serde_json::from_slice(&memos.get(&key)?).ok()?;
    let now = clock.now().epoch().0;
    if answer.at > now || now - answer.at >= LONGEST_SECONDS {
        return None;
    }
    let ages = answer.images.iter().map(|image| image.age(&memos, request.asking, clock));
    let ages = ages.collect::<Option<Vec<String>>>()?;
    for context in &answer.contexts {
        let folder = client.context(&context.name).ok()??;
        if contexts::stamp(&folder, &context.local()) != Some(context.stamp) {
            return None;
        }
    }
    let DockerfileFrom::Text { name, bytes } = &request.dockerfile else { return None };
    write(root, &memos, request, &answer, clock)?;
    let definition = Definition { name: name.clone(), text: bytes.clone() };
    Some(Recalled { answer, definition, ages, clock: clock.clone() })
}

impl Recalled {
    /// Shows what the build shows, and gives what it gives.
    pub fn tell(self, sink: &dyn Sink) -> BuildOutcome {
        let Answer { events, image, metadata, .. } = self.answer;
        let now = self.clock.now();
        for event in events {
            sink.event(Shown::event(event, now, &self.definition, |image| format!("{}\n", self.ages[image])));
        }
        BuildOutcome { image, metadata }
    }
}

impl Image {
    /// How old the registry's answer is, where that is what it was and will still do.
    fn age(&self, memos: &Memos, asking: Asking, clock: &Clock) -> Option<String> {
        let (reference, platform): (Reference, Platform) =
            (self.reference.parse().ok()?, self.platform.parse().ok()?);
        let answer = memos.answer(&reference, &platform)?;
        let now = clock.now().epoch();
        let same = Image::of(&reference, &platform, &answer) == *self;
        (same && pin::is_enough(&answer, &reference, asking, now)).then(|| pin::age_of(answer.at, now))
    }
}

/// Writes the archives that are not there.
fn write(root: &Path, memos: &Memos, request: &BuildRequest, answer: &Answer, clock: &Clock) -> Option<()> {
    let mut lacking = Vec::new();
    for (at, archive) in answer.archives.iter().enumerate() {
        let Some(Archive { top, names }) = archive else { continue };
        let (kind, path) = match request.outputs.get(at)? {
            Output::Oci { to: Destination::Path(path), archive: true, .. } => (ArchiveKind::Oci, path),
            Output::Docker { to: Destination::Path(path), .. } => (ArchiveKind::Docker, path),
            _ => return None,
        };
        let names = names.iter().map(|name| name.parse().ok()).collect::<Option<Vec<Reference>>>()?;
        let images = vec![NamedImage { descriptor: top.clone(), names }];
        if !(ArchiveFile { kind, images: &images, path })
            .is_there(|path, what, found| memos.holds(path, what, found))
        {
            lacking.push((kind, images, path));
        }
    }
    if lacking.is_empty() {
        return Some(());
    }
    let options =
        Options { id_map: memos.id_map().clone(), ..Options::new(root, engine::clock_of_store(clock)) };
    let store = Store::open(options).ok()?;
    let lease = store.lease().ok()?;
    for (kind, images, path) in lacking {
        // What keeps it from being written is told by the ordinary way, which meets it too.
        ArchiveFile { kind, images: &images, path }.write(&store, &lease, &Cancel::new()).ok()?;
    }
    Some(())
}
