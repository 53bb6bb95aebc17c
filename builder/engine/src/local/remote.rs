//! `kiln pull`, `kiln push`, `kiln tags`: images between the local store and registries, without a build.

use std::{collections::BTreeMap, sync::Arc};

use image::layout::NamedImage;
use oci::{Descriptor, Digest, Manifest, Platform, Reference};
use store::TaggedBy;
use tokio::task::JoinSet;

use crate::{
    build::internal::Internal,
    cancel::Cancel,
    client::Client,
    effect::{
        Effects,
        pull::{KnownImage, Place},
    },
    engine::Engine,
    error::{Cause, Error},
    progress::SharedSink,
    push::{Sendable, Targets},
};

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The image's name, in its registry and then here.
    pub name: Reference,
    /// For which platform.
    pub platform: Platform,
    /// Whether its layers are unpacked while they come, for the builds and runs that follow. Else that is done when one of
    /// them needs it.
    pub unpack: bool,
}

/// What is to be pushed.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The image: a name or the first digits of its digest.
    pub image: String,
    /// The names that it gets, each in its registry.
    pub names: Vec<Reference>,
    /// The names that it gets in the Docker Engine of this machine.
    pub docker: Vec<Reference>,
}

impl Engine {
    /// Fetches an image with all its blobs, unpacked or not, and names it here. Its manifest.
    ///
    /// # Errors
    /// What the registry did; blobs that came are kept, and a second try goes on where this one stopped.
    pub async fn pull(
        &self,
        request: &PullRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: &Cancel,
    ) -> Result<Descriptor, Error> {
        let effects = Arc::new(self.effects(client, sink, false)?);
        let shown = Internal::start(&effects, &format!("pulling {}", request.name));
        let pulled = effects.pull_image(request, shown.digest(), cancel).await;
        shown.end(pulled.as_ref().err());
        Ok(pulled?)
    }

    /// Sends an image of the local store to registries. Its manifest or index.
    ///
    /// # Errors
    /// There is no such image, the store lacks a platform of it, or what a registry did.
    pub async fn push(
        &self,
        request: PushRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: &Cancel,
    ) -> Result<Descriptor, Error> {
        let effects = Arc::new(self.effects(client, sink, false)?);
        let found = self.find(&effects.lease, &request.image)?;
        let cancel = cancel.clone();
        let top = found.descriptor.clone();
        let pushed = effects.blocking(move |effects| {
            let image = Sendable::of(effects, &found.descriptor)?;
            let targets = Targets { names: &request.names, by_digest: false, insecure: false };
            effects.push(&image, &targets, &cancel)?;
            if request.docker.is_empty() {
                return Ok(());
            }
            let at = effects.client.docker_engine(None).map_err(Box::new)?;
            let named = NamedImage { descriptor: found.descriptor, names: request.docker };
            effects.give_to_docker(&named, &at, &cancel)
        });
        pushed.await?;
        Ok(top)
    }

    /// The tags of a repository.
    ///
    /// # Errors
    /// What the registry did.
    pub async fn remote_tags(&self, repository: &Reference) -> Result<Vec<String>, Error> {
        // What is asked about is all of it, whatever tag the name has.
        let all = Reference { tag: None, digest: None, ..repository.clone() };
        Ok(self.registry.tags(&all).await.map_err(Cause::from)?)
    }
}

impl Effects {
    async fn pull_image(
        self: &Arc<Self>,
        request: &PullRequest,
        vertex: Digest,
        cancel: &Cancel,
    ) -> Result<Descriptor, Cause> {
        let resolved = tokio::select! {
            resolved = self.registry.resolve(&request.name, &request.platform, None) => resolved?,
            () = cancel.wait() => return Err(Cause::Cancelled),
        };
        self.remember_answer(&request.name, &request.platform, &resolved, TaggedBy::Pull)?;
        self.store.add_blob(&self.lease, &resolved.manifest_bytes)?;
        self.store.add_blob(&self.lease, &resolved.config_bytes)?;
        let Reference { registry, repository, .. } = &request.name;
        self.store.add_repository(&self.lease, registry, repository, &resolved.manifest.config.digest)?;
        if request.unpack {
            let image = Arc::new(KnownImage {
                manifest: resolved.manifest.clone(),
                config: Arc::new(resolved.config),
                place: Place::Registry(request.name.clone()),
            });
            self.layers_of(&image, vertex, cancel).await?;
        } else {
            self.blobs_of(&request.name, &resolved.manifest, vertex, cancel).await?;
        }
        let (name, top) = (request.name.clone(), resolved.descriptor.clone());
        let named = self.clone().blocking(move |effects| {
            effects.store.keep()?;
            let name =
                Reference { tag: name.tag.clone().or(Some("latest".to_owned())), digest: None, ..name };
            let now = effects.clock.now().epoch();
            effects.store.tag(&effects.lease, &name, &top, now, TaggedBy::Pull)?;
            Ok(())
        });
        named.await?;
        Ok(resolved.descriptor)
    }

    /// The layers of an image as blobs of the state folder.
    async fn blobs_of(
        self: &Arc<Self>,
        name: &Reference,
        manifest: &Manifest,
        vertex: Digest,
        cancel: &Cancel,
    ) -> Result<(), Cause> {
        let once: BTreeMap<Digest, &Descriptor> =
            manifest.layers.iter().map(|layer| (layer.digest, layer)).collect();
        let over = Cancel::new();
        let stop = over.clone();
        let _stopped = cancel.on_set(move || stop.set());
        let mut coming = JoinSet::new();
        for layer in once.into_values() {
            let (effects, name, layer, over) = (self.clone(), name.clone(), layer.clone(), over.clone());
            coming.spawn(async move { effects.download(&name, &layer, vertex, &over).await.map(drop) });
        }
        let mut came = Ok(());
        while let Some(next) = coming.join_next().await {
            let next = next.unwrap_or_else(|error| Err(Cause::Task(error.to_string())));
            if next.is_err() {
                // What failed first makes the others stop.
                over.set();
                came = came.and(next);
            }
        }
        came
    }
}
