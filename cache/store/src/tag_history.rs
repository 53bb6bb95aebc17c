//! Which images a name had: here, and in its registry as far as this machine has seen.
//!
//! A row is written when a name moves, in the transaction that moves it; for a registry, when Kiln pushed there or was told
//! what the name stands for. The rows keep nothing alive: an image of the past may be gone from the state folder and from
//! the registry. They stay when the name is removed, so that it can be told what it was.

use oci::{Digest, Epoch, Reference};
use rusqlite::{OptionalExtension, params};

use crate::{
    Result, Store,
    contents::Contents,
    database::{Durability, Fault, column, digest, signed, unsigned},
    image::tag_text,
};

/// So many images of a name are remembered, the newest, here and for its registry.
const KEPT: i64 = 100;

/// What was known of a name that the local store does not have is forgotten after this, in seconds.
const FORGOTTEN_SECONDS: u64 = 365 * 24 * 60 * 60;

/// Where a name stands for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TagPlace {
    /// In the local store.
    Local,
    /// In the registry that the name begins with.
    Registry,
}

impl TagPlace {
    fn as_str(self) -> &'static str {
        match self {
            TagPlace::Local => "local",
            TagPlace::Registry => "registry",
        }
    }
}

/// What gave a name its image, or showed that it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaggedBy {
    /// A build.
    Build,
    /// An image that was fetched from its registry.
    Pull,
    /// An archive that was loaded.
    Load,
    /// Another name of the image.
    Tag,
    /// A return to an image that the name had before.
    Rollback,
    /// An image that was sent to the registry.
    Push,
    /// A question to the registry: it had the image already.
    Resolve,
}

impl TaggedBy {
    const ALL: [TaggedBy; 7] = [
        TaggedBy::Build,
        TaggedBy::Pull,
        TaggedBy::Load,
        TaggedBy::Tag,
        TaggedBy::Rollback,
        TaggedBy::Push,
        TaggedBy::Resolve,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TaggedBy::Build => "build",
            TaggedBy::Pull => "pull",
            TaggedBy::Load => "load",
            TaggedBy::Tag => "tag",
            TaggedBy::Rollback => "rollback",
            TaggedBy::Push => "push",
            TaggedBy::Resolve => "resolve",
        }
    }

    fn parse(word: &str) -> Option<TaggedBy> {
        TaggedBy::ALL.into_iter().find(|by| by.as_str() == word)
    }
}

/// One image that a name had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagEvent {
    /// Its manifest or index.
    pub digest: Digest,
    /// Since when.
    pub at: Epoch,
    /// By what; not known where an earlier Kiln wrote it down.
    pub by: Option<TaggedBy>,
}

impl Store {
    /// The images that a name had, the newest first.
    ///
    /// # Errors
    /// [`Error::NotATag`](crate::Error::NotATag); the database cannot be read.
    pub fn tag_history(&self, name: &Reference, place: TagPlace) -> Result<Vec<TagEvent>> {
        let name = tag_text(name)?;
        self.ask("look up a name's history", |contents| {
            let mut query = contents.connection.prepare_cached(
                "SELECT manifest, at, how FROM tag_history WHERE name = ?1 AND place = ?2 ORDER BY seq DESC",
            )?;
            let rows = query.query_map([&name, place.as_str()], |row| {
                let (digest, at) = (digest(row, 0)?, Epoch(unsigned(row, 1)?));
                Ok(TagEvent { digest, at, by: TaggedBy::parse(&row.get::<_, String>(2)?) })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Remembers that a name stands for an image in its registry. Nothing is written where that is the last that was known.
    ///
    /// # Errors
    /// [`Error::NotATag`](crate::Error::NotATag); the database cannot be written.
    pub fn note_registry_tag(&self, name: &Reference, image: &Digest, at: Epoch, by: TaggedBy) -> Result<()> {
        let name = tag_text(name)?;
        let place = TagPlace::Registry;
        if self.ask("look up a name's history", |contents| last(contents, &name, place))? == Some(*image) {
            return Ok(());
        }
        self.change("note a name of a registry", Durability::Lazy, |contents| {
            record(contents, &name, place, &TagEvent { digest: *image, at, by: Some(by) })
        })
    }
}

/// The image that a name had last.
fn last(contents: &Contents<'_>, name: &str, place: TagPlace) -> std::result::Result<Option<Digest>, Fault> {
    let mut query = contents.connection.prepare_cached(
        "SELECT manifest FROM tag_history WHERE name = ?1 AND place = ?2 ORDER BY seq DESC LIMIT 1",
    )?;
    Ok(query.query_row([name, place.as_str()], |row| digest(row, 0)).optional()?)
}

/// Writes down that a name moved, inside the transaction that moves it, and drops what is too long ago.
pub(crate) fn record(
    contents: &Contents<'_>,
    name: &str,
    place: TagPlace,
    event: &TagEvent,
) -> std::result::Result<(), Fault> {
    let (place, how) = (place.as_str(), event.by.map_or("", TaggedBy::as_str));
    contents.connection.execute(
        "INSERT INTO tag_history (name, manifest, at, place, how) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![name, column(&event.digest), signed(event.at.0), place, how],
    )?;
    contents.connection.execute(
        "DELETE FROM tag_history WHERE name = ?1 AND place = ?2 AND seq NOT IN
         (SELECT seq FROM tag_history WHERE name = ?1 AND place = ?2 ORDER BY seq DESC LIMIT ?3)",
        params![name, place, KEPT],
    )?;
    contents.connection.execute(
        "DELETE FROM tag_history WHERE at < ?1 AND name NOT IN (SELECT name FROM tags)",
        [signed(event.at.0.saturating_sub(FORGOTTEN_SECONDS))],
    )?;
    Ok(())
}
