//! Images on their way into a Docker Engine, which is sent what it lacks.

use std::{collections::BTreeSet, io::Write, sync::Arc};

use docker::{Archive, ImageStore, Progress};
use image::layout::{NamedImage, write_archive, write_docker_archive, write_docker_rest};
use oci::{DiffId, Digest, ImageConfig, Manifest, Reference};

use crate::{
    build::internal::Internal,
    cancel::Cancel,
    effect::Effects,
    error::Cause,
    export::StoreBlobs,
    progress::{Event, Status},
    request::{BuildRequest, Output},
};

/// What of an image is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    /// All of it, as an OCI layout: of several platforms, too.
    Layout,
    /// All of it, as `docker save` writes it.
    Whole,
    /// The layers whose blobs these are.
    Layers(BTreeSet<Digest>),
}

/// Sees that each Docker Engine that is to get the result is there and can take it, before anything is built for it.
///
/// # Errors
/// As of [`Effects::give_to_docker`].
pub(crate) async fn reachable(effects: &Effects, request: &BuildRequest) -> Result<(), Cause> {
    for output in &request.outputs {
        let Output::DockerEngine { context, .. } = output else { continue };
        let at = effects.client.docker_engine(context.as_deref()).map_err(Box::new)?;
        let engine = docker::Engine::connect(&at).await.map_err(Box::new)?;
        if request.frontend.platforms.len() > 1 && engine.store() != ImageStore::Containerd {
            return Err(Cause::DockerPlatforms { address: engine.address().to_owned() });
        }
    }
    Ok(())
}

impl Effects {
    /// Gives an image of the state folder to a Docker Engine, under these names. Blocks; runs where it may.
    ///
    /// # Errors
    /// No engine answers, it refuses, or the image is an index and the engine keeps none.
    pub(crate) fn give_to_docker(
        self: &Arc<Self>,
        image: &NamedImage,
        at: &docker::Address,
        cancel: &Cancel,
    ) -> Result<(), Cause> {
        let shown = Internal::start(self, "importing to docker");
        let giving = self.give(image, at, &shown);
        let given = tokio::runtime::Handle::current().block_on(cancel.unless(giving));
        shown.end(given.as_ref().err());
        given
    }

    async fn give(
        self: &Arc<Self>,
        image: &NamedImage,
        at: &docker::Address,
        shown: &Internal<'_>,
    ) -> Result<(), Cause> {
        let engine = docker::Engine::connect(at).await.map_err(Box::new)?;
        let top = &image.descriptor;
        let (id, layers) = if top.media_type.is_index() {
            if engine.store() != ImageStore::Containerd {
                return Err(Cause::DockerPlatforms { address: engine.address().to_owned() });
            }
            (top.digest, None)
        } else {
            let manifest = Manifest::parse(&self.store.blob_bytes(&self.lease, &top.digest)?)?;
            let config = ImageConfig::parse(&self.store.blob_bytes(&self.lease, &manifest.config.digest)?)?;
            let id =
                if engine.store() == ImageStore::Containerd { top.digest } else { manifest.config.digest };
            (id, Some((manifest, config.rootfs.diff_ids)))
        };
        if let Some(there) = engine.image(&id.to_string()).await.map_err(Box::new)? {
            let missing = missing_names(&image.names, &there.names);
            for name in &missing {
                engine.tag(&there.id, name).await.map_err(Box::new)?;
            }
            self.say(shown.digest(), &format!("{} has the image already\n", engine.address()));
            return Ok(());
        }
        let sent = match layers {
            None => Sent::Layout,
            Some((manifest, diff_ids)) => what_to_send(&engine, &manifest, &diff_ids).await?,
        };
        if let Sent::Layers(lacked) = &sent {
            self.say(
                shown.digest(),
                &format!("sending the {} layers that {} lacks\n", lacked.len(), engine.address()),
            );
            match self.send_to(&engine, image, sent, shown).await {
                // A layer that was there a moment ago may be gone.
                Err(Cause::Docker(error)) if matches!(*error, docker::Error::Refused { .. }) => {}
                done => return done,
            }
            return self.send_to(&engine, image, Sent::Whole, shown).await;
        }
        self.send_to(&engine, image, sent, shown).await
    }

    async fn send_to(
        self: &Arc<Self>,
        engine: &docker::Engine,
        image: &NamedImage,
        sent: Sent,
        shown: &Internal<'_>,
    ) -> Result<(), Cause> {
        let (mut writer, archive) = Archive::new();
        let (effects, image) = (self.clone(), image.clone());
        let writing = tokio::task::spawn_blocking(move || {
            let written = effects.write_for_docker(&image, &sent, &mut writer);
            writer.end(written.map_err(std::io::Error::other));
        });
        let (vertex, started) = (shown.digest(), self.clock.now());
        let tell = |progress: Progress| {
            let Progress { layer, what, current, total } = progress;
            let completed = (total > 0 && current >= total).then(|| self.clock.now());
            let id = format!("{what} {layer}");
            self.sink.event(Event::Status(Status { vertex, id, current, total, started, completed }));
        };
        let loaded = engine.load(archive, &tell).await.map_err(|error| Cause::Docker(Box::new(error)));
        writing.await.map_err(|error| Cause::Task(error.to_string()))?;
        loaded
    }

    fn write_for_docker(
        &self,
        image: &NamedImage,
        sent: &Sent,
        out: &mut dyn Write,
    ) -> Result<(), image::layout::LayoutError> {
        let blobs = StoreBlobs { store: &self.store, lease: &self.lease };
        let images = std::slice::from_ref(image);
        match sent {
            Sent::Layout => write_archive(images, &blobs, out),
            Sent::Whole => write_docker_archive(images, &blobs, out),
            Sent::Layers(lacked) => write_docker_rest(image, lacked, &blobs, out),
        }
    }
}

async fn what_to_send(
    engine: &docker::Engine,
    manifest: &Manifest,
    diff_ids: &[DiffId],
) -> Result<Sent, Cause> {
    // A manifest that says something else than its config is refused by the engine, in its own words.
    if engine.store() != ImageStore::Layers || manifest.layers.len() != diff_ids.len() {
        return Ok(Sent::Whole);
    }
    let lacked = engine.lacks(diff_ids).await.map_err(Box::new)?;
    let blobs = manifest.layers.iter().zip(diff_ids).filter(|(_, diff_id)| lacked.contains(diff_id));
    Ok(Sent::Layers(blobs.map(|(layer, _)| layer.digest).collect()))
}

/// The names that an engine does not have for an image yet, as it shows those that it has.
fn missing_names(wanted: &[Reference], there: &[String]) -> Vec<Reference> {
    let tagged = |name: &&Reference| {
        let tag = name.tag.clone().or(Some("latest".to_owned()));
        let shown = Reference { tag, digest: None, ..(*name).clone() }.familiar();
        !there.contains(&shown)
    };
    wanted.iter().filter(tagged).cloned().collect()
}
