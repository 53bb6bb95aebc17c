//! Results on their way out: images, archives, folders.
//!
//! Every file is written aside and renamed, so that a reader sees the old one or the new one whole.

pub(crate) mod archive;
mod aside;
mod blobs;
mod image;
mod tree;

use std::{collections::BTreeMap, io::Write, path::Path, sync::Arc};

use self::archive::{ArchiveFile, ArchiveKind};
pub(crate) use self::{blobs::StoreBlobs, image::ImageSet};
use ::image::annotations::Misplaced;
use ::image::layout::{NamedImage, write_archive, write_docker_archive, write_folder};
use oci::{Epoch, Platform, Reference};
use store::TaggedBy;

use crate::{
    build::internal::Internal,
    cancel::{Cancel, Stoppable},
    effect::Effects,
    error::Cause,
    push::{Sendable, Targets},
    request::{Destination, ImageForm, Output, Push},
    result::VertexResult,
};

/// What was built for one platform.
pub(crate) struct Built {
    pub(crate) platform: Platform,
    pub(crate) result: VertexResult,
    pub(crate) config: oci::ImageConfig,
}

/// Writes results to an output.
pub(crate) struct Exporter<'a> {
    pub(crate) effects: &'a Arc<Effects>,
    /// In the order in which the platforms were asked for.
    pub(crate) built: &'a [Built],
    /// Whether an index is wanted, or a folder for each platform; with one platform, too.
    pub(crate) several: bool,
    pub(crate) tags: &'a [Reference],
    pub(crate) epoch: Option<Epoch>,
    pub(crate) cancel: &'a Cancel,
}

impl Exporter<'_> {
    /// Writes to one output. The images that were put together for it, where it is one of images.
    pub(crate) fn write(&self, output: &Output) -> Result<Option<ImageSet>, Cause> {
        let written = self.write_one(output);
        if let Ok(set) = &written {
            self.effects.record(|recorder| recorder.exported(output, set.as_ref()));
        }
        if self.cancel.is_set() { Err(Cause::Cancelled) } else { written }
    }

    /// Where the images' blobs are, documents included.
    fn blobs(&self) -> StoreBlobs<'_> {
        StoreBlobs { store: &self.effects.store, lease: &self.effects.lease }
    }

    /// `out`, but it fails once the build is to stop.
    fn stoppable<'s>(&'s self, out: &'s mut dyn Write) -> Stoppable<'s, &'s mut dyn Write> {
        Stoppable { stream: out, cancel: self.cancel }
    }

    fn write_one(&self, output: &Output) -> Result<Option<ImageSet>, Cause> {
        match output {
            Output::CacheOnly => {
                self.effects.store.keep()?;
                Ok(None)
            }
            Output::Image { store, push, form } => self.image(*store, *push, form).map(Some),
            Output::Oci { to, archive, form } => {
                let shown = Internal::start(self.effects, "exporting to oci image format");
                let set = self.image_set(form, &shown).and_then(|set| {
                    let images = set.named();
                    let send = || match (to, archive) {
                        (Destination::Path(path), false) => {
                            write_folder(&images, &self.blobs(), path).map_err(Cause::from)
                        }
                        (Destination::Path(path), true) => self.archive(ArchiveKind::Oci, &images, path),
                        (to, _) => self.send(to, |out| Ok(write_archive(&images, &self.blobs(), out)?)),
                    };
                    shown.part("sending tarball", 0, || self.keeping(send))?;
                    Ok(set)
                });
                shown.end(set.as_ref().err());
                set.map(Some)
            }
            Output::Docker { to, form } => {
                let shown = Internal::start(self.effects, "exporting to docker image format");
                let set = self.image_set(form, &shown).and_then(|set| {
                    let images = set.named();
                    let send = || match to {
                        Destination::Path(path) => self.archive(ArchiveKind::Docker, &images, path),
                        to => self.send(to, |out| Ok(write_docker_archive(&images, &self.blobs(), out)?)),
                    };
                    shown.part("sending tarball", 0, || self.keeping(send))?;
                    Ok(set)
                });
                shown.end(set.as_ref().err());
                set.map(Some)
            }
            Output::DockerEngine { context, form } => {
                let at = self.effects.client.docker_engine(context.as_deref()).map_err(Box::new)?;
                let shown = Internal::start(self.effects, "exporting to docker image format");
                let set = self.image_set(form, &shown);
                shown.end(set.as_ref().err());
                let set = set?;
                self.keeping(|| {
                    let mut images = set.named().into_iter();
                    images.try_for_each(|image| self.effects.give_to_docker(&image, &at, self.cancel))
                })?;
                Ok(Some(set))
            }
            Output::Local { to, platform_split, epoch } => {
                let shown = Internal::start(self.effects, "exporting to client directory");
                let done = self.local(to, platform_split.unwrap_or(self.several), epoch.of(self.epoch));
                shown.end(done.as_ref().err());
                done.map(|()| None)
            }
            Output::Tar { to, platform_split, epoch } => {
                let shown = Internal::start(self.effects, "exporting to client tarball");
                let done = self.tar(to, platform_split.unwrap_or(self.several), epoch.of(self.epoch));
                shown.end(done.as_ref().err());
                done.map(|()| None)
            }
        }
    }

    /// Sends something that stands beside the state folder, not in it, while what was made is flushed. Nothing is called done
    /// before it is.
    fn keeping(&self, send: impl FnOnce() -> Result<(), Cause>) -> Result<(), Cause> {
        std::thread::scope(|scope| {
            let keeping = scope.spawn(|| self.effects.store.keep());
            let sent = send();
            let kept =
                keeping.join().map_err(|_| Cause::Task("the thread that flushes panicked".to_owned()))?;
            sent.and(kept.map(drop).map_err(Cause::from))
        })
    }

    fn archive(&self, kind: ArchiveKind, images: &[NamedImage], path: &Path) -> Result<(), Cause> {
        if self.effects.is_rehearsal() {
            return Ok(());
        }
        ArchiveFile { kind, images, path }.write(&self.effects.store, &self.effects.lease, self.cancel)
    }

    /// Puts an image into the local store and into registries. The local store has it under its names only when the
    /// registries do.
    fn image(&self, store: bool, push: Option<Push>, form: &ImageForm) -> Result<ImageSet, Cause> {
        let shown = Internal::start(self.effects, "exporting to image");
        let set = self.image_set(form, &shown).and_then(|set| {
            if push.is_none() {
                // Before anything takes its name.
                self.effects.store.keep()?;
                if store {
                    self.name(&set, &shown)?;
                }
            }
            Ok(set)
        });
        shown.end(set.as_ref().err());
        let set = set?;
        if let Some(Push { by_digest, insecure }) = push {
            let targets = Targets { names: &set.names, by_digest, insecure };
            let sendable = Sendable::of(self.effects, &set.top)?;
            self.keeping(|| self.effects.push(&sendable, &targets, self.cancel))?;
            if store {
                let shown = Internal::start(self.effects, "naming the image");
                let named = self.name(&set, &shown);
                shown.end(named.as_ref().err());
                named?;
            }
        }
        Ok(set)
    }

    /// Lists the image in the local store, under its names.
    fn name(&self, set: &ImageSet, shown: &Internal<'_>) -> Result<(), Cause> {
        let (store, lease) = (&self.effects.store, &self.effects.lease);
        let (now, rehearsal) = (self.effects.clock.now().epoch(), self.effects.is_rehearsal());
        // One with the image's own digest is one that every listed image has.
        let (tags, own): (Vec<_>, Vec<_>) = set.names.iter().partition(|name| name.digest.is_none());
        shown.part(&format!("writing image {}", set.top.digest), 0, || {
            if tags.is_empty() && !rehearsal { store.add_image(lease, &set.top, now) } else { Ok(()) }
        })?;
        for name in own {
            shown.part(&format!("naming to {name}"), 0, || Ok::<(), Cause>(()))?;
        }
        for tag in tags {
            shown.part(&format!("naming to {tag}"), 0, || match rehearsal {
                true => Ok(()),
                false => store.tag(lease, tag, &set.top, now, TaggedBy::Build).map(drop),
            })?;
        }
        Ok(())
    }

    fn send(
        &self,
        to: &Destination,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Cause>,
    ) -> Result<(), Cause> {
        send(to, |out| write(&mut self.stoppable(out)))
    }

    fn local(&self, to: &Path, split: bool, epoch: Option<Epoch>) -> Result<(), Cause> {
        self.effects.store.keep()?;
        tree::write_folder(self.effects, &self.trees(split)?, epoch, to)
    }

    fn tar(&self, to: &Destination, split: bool, epoch: Option<Epoch>) -> Result<(), Cause> {
        self.effects.store.keep()?;
        let trees = self.trees(split)?;
        self.send(to, |out| tree::write_tar(&trees, epoch, out))
    }

    /// The trees of all platforms, each with its folder.
    fn trees(&self, split: bool) -> Result<Vec<tree::PlatformTree>, Cause> {
        let tree = |built: &Built| tree::PlatformTree::of(self.effects, built, split);
        self.built.iter().map(tree).collect()
    }
}

/// Gives `write` a file that takes its name when all is written, or standard output.
pub(crate) fn send(
    to: &Destination,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Cause>,
) -> Result<(), Cause> {
    match to {
        Destination::Path(path) => aside::write(path, |out| write(out)).map(drop),
        Destination::Stdout => {
            let mut out = std::io::stdout().lock();
            write(&mut out)?;
            out.flush().map_err(Cause::io("write", "standard output"))
        }
    }
}

/// Whether what outputs ask for has a place in what will be built: asked before anything is.
///
/// # Errors
/// [`Misplaced`].
pub(crate) fn check(outputs: &[Output], built: &[Platform], several: bool) -> Result<(), Misplaced> {
    let mut forms = outputs.iter().filter_map(Output::form);
    forms.try_for_each(|form| {
        form.annotations.check_dialect(form.dialect)?;
        form.annotations.check(built, several)
    })
}

/// What a metadata file says of images (`--metadata-file`).
pub(crate) fn metadata(set: &ImageSet) -> BTreeMap<String, serde_json::Value> {
    let mut metadata = BTreeMap::new();
    let descriptor = serde_json::to_value(&set.top).expect("a descriptor is JSON");
    metadata.insert("containerimage.descriptor".to_owned(), descriptor);
    metadata.insert("containerimage.digest".to_owned(), set.top.digest.to_string().into());
    if let [only] = set.images.as_slice() {
        let config = only.image.config_descriptor.digest.to_string();
        metadata.insert("containerimage.config.digest".to_owned(), config.into());
    }
    if !set.names.is_empty() {
        let names: Vec<String> = set.names.iter().map(Reference::to_string).collect();
        metadata.insert("image.name".to_owned(), names.join(",").into());
    }
    metadata
}
