//! `kiln pull`, `kiln push`, `kiln tags`: images between the local store and registries, without a build.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use oci::{Descriptor, Digest, Platform, Reference};

use crate::{
    build::internal::Internal,
    cancel::Cancel,
    client::Client,
    effect::Effects,
    engine::Engine,
    error::{Cause, Error},
    progress::SharedSink,
    push::{Sendable, Targets},
};

/// How many blobs of an image are fetched at once.
const AT_ONCE: usize = 4;

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The image's name, in its registry and then here.
    pub name: Reference,
    /// For which platform.
    pub platform: Platform,
}

/// What is to be pushed.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The image: a name or the first digits of its digest.
    pub image: String,
    /// The names that it gets, each in its registry.
    pub names: Vec<Reference>,
}

impl Engine {
    /// Fetches an image with all its blobs and names it here. Its manifest.
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
        let pulled = tokio::select! {
            pulled = effects.pull_image(request, shown.digest(), cancel) => pulled,
            () = cancel.wait() => Err(Cause::Cancelled),
        };
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
            let targets = Targets { names: &request.names, by_digest: false };
            effects.push(&image, &targets, &cancel)
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
        let resolved = self.registry.resolve(&request.name, &request.platform, None).await?;
        self.store.add_blob(&self.lease, &resolved.manifest_bytes)?;
        self.store.add_blob(&self.lease, &resolved.config_bytes)?;
        let Reference { registry, repository, .. } = &request.name;
        self.store.add_repository(&self.lease, registry, repository, &resolved.manifest.config.digest)?;
        let fetch = |layer: &Descriptor| {
            let (effects, name, layer, cancel) =
                (self.clone(), request.name.clone(), layer.clone(), cancel.clone());
            async move { effects.download(&name, &layer, vertex, &cancel).await.map(drop) }
        };
        let once: BTreeMap<Digest, &Descriptor> =
            resolved.manifest.layers.iter().map(|layer| (layer.digest, layer)).collect();
        stream::iter(once.into_values().map(fetch))
            .buffer_unordered(AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        let (name, top) = (request.name.clone(), resolved.descriptor.clone());
        let named = self.clone().blocking(move |effects| {
            effects.store.keep()?;
            let name =
                Reference { tag: name.tag.clone().or(Some("latest".to_owned())), digest: None, ..name };
            effects.store.tag(&effects.lease, &name, &top, effects.clock.now().epoch())?;
            Ok(())
        });
        named.await?;
        Ok(resolved.descriptor)
    }
}
