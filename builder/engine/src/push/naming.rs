//! A name of a registry given to an image, and what it stood for before: that is how a later `rollback` knows.

use oci::{Digest, MediaType, Reference};
use store::{Store, TaggedBy};

use crate::{clock::Clock, error::Cause};

/// Gives names in registries.
pub(crate) struct Naming<'a> {
    pub(crate) registry: &'a registry::Client,
    pub(crate) store: &'a Store,
    pub(crate) clock: &'a Clock,
}

impl Naming<'_> {
    /// What a name stands for. A registry that does not tell is no reason not to move it.
    pub(crate) async fn before(&self, name: &Reference) -> Option<Digest> {
        self.registry.tagged(name).await.ok().flatten()
    }

    /// Puts a manifest or an index under a name's tag, which stood for `before`. Remembers both.
    ///
    /// # Errors
    /// What the registry did, or the state folder cannot be written.
    pub(crate) async fn give(
        &self,
        name: &Reference,
        before: Option<Digest>,
        media_type: &MediaType,
        bytes: &[u8],
        by: TaggedBy,
    ) -> Result<(), Cause> {
        if let Some(before) = before {
            self.note(name, &before, TaggedBy::Resolve)?;
        }
        self.registry.push_document(name, media_type, bytes).await?;
        self.note(name, &Digest::of(bytes), by)?;
        // What builds were told of it is not so any more.
        Ok(self.store.forget_answers(name)?)
    }

    /// Remembers what a name stands for.
    pub(crate) fn note(&self, name: &Reference, image: &Digest, by: TaggedBy) -> Result<(), Cause> {
        if name.tag.is_some() && name.digest.is_none() {
            self.store.note_registry_tag(name, image, self.clock.now().epoch(), by)?;
        }
        Ok(())
    }
}
