//! `kiln history --tag`, `kiln rollback`: what a name stood for, and back to it.

use oci::{Digest, Epoch, Reference};
use registry::{Fault, Whom};
use store::{TagEvent, TagPlace, TaggedBy};

use crate::{
    engine::Engine,
    error::{Cause, Error},
    push::Naming,
};

/// The fewest digits of a digest that name an image.
const FEWEST_DIGITS: usize = 6;

/// One image that a name had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// Its manifest or index.
    pub digest: Digest,
    /// Since when.
    pub at: Epoch,
    /// By what, in a word: `build`, `pull`; none where an earlier Kiln did not write it down.
    pub by: Option<&'static str>,
    /// Whether it is what the name stands for: here now, or in the registry as far as is known.
    pub current: bool,
    /// Whether the local store has it.
    pub here: bool,
}

/// What is to be rolled back.
#[derive(Clone, Debug)]
pub struct RollbackRequest {
    /// The name.
    pub name: Reference,
    /// To which image of its past: the first digits of a digest. `None` is the one before.
    pub to: Option<String>,
    /// Whether a name that somebody else has moved in the registry is moved all the same.
    pub force: bool,
}

/// What a rollback changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// What the name stood for.
    pub from: Option<Digest>,
    /// What it stands for now. The same where there was nothing to do.
    pub to: Digest,
}

/// Why a name cannot be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// It had no other image, as far as is known.
    #[error("as far as is known, `{name}` had no other image before {}", place_text(*.place))]
    NoEarlier {
        /// The name.
        name: String,
        /// Where.
        place: TagPlace,
    },
    /// The text is no beginning of a digest.
    #[error("`{text}` is no digest: at least {FEWEST_DIGITS} hexadecimal digits, with or without `sha256:`")]
    NoDigest {
        /// The text.
        text: String,
    },
    /// No image of the name's past has this digest, or several begin so.
    #[error("{} of the images that `{name}` had {} begins with `{text}`", if .several.is_empty() { "none" } else { "more than one" }, place_text(*.place))]
    NotInHistory {
        /// The name.
        name: String,
        /// Where.
        place: TagPlace,
        /// What was asked for.
        text: String,
        /// Those that begin so.
        several: Vec<Digest>,
    },
    /// The image of the past is not there any more.
    #[error("{}", match place {
        TagPlace::Local => format!("{digest}, which `{name}` was, is no longer in the local store"),
        TagPlace::Registry => format!("the registry of `{name}` does not have {digest}"),
    })]
    Gone {
        /// The name.
        name: String,
        /// The image.
        digest: Digest,
        /// Where.
        place: TagPlace,
        /// Whether the local store has it.
        here: bool,
        /// The newest image of the past that is there.
        other: Option<Digest>,
    },
    /// In the registry, the name is not what this machine knows.
    #[error("`{name}` is {} in its registry, and {expected} is what Kiln knows of: somebody else has moved it", now.map_or("nothing".to_owned(), |now| now.to_string()))]
    Moved {
        /// The name.
        name: String,
        /// What it is.
        now: Option<Digest>,
        /// What it was when it was last seen or moved from here.
        expected: Digest,
    },
}

impl RollbackError {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            RollbackError::NoEarlier { .. } | RollbackError::NotInHistory { .. } => "no-history",
            RollbackError::NoDigest { .. } => "digest",
            RollbackError::Gone { .. } => "image-gone",
            RollbackError::Moved { .. } => "tag-moved",
        }
    }

    /// A command that mends it.
    pub fn help(&self) -> Option<String> {
        let listed = |name: &str, place: &TagPlace| match place {
            TagPlace::Local => format!("kiln history --tag {name}"),
            TagPlace::Registry => format!("kiln history --tag --registry {name}"),
        };
        Some(match self {
            RollbackError::NoEarlier { name, place: TagPlace::Local } => {
                format!("name an image yourself: kiln tag IMAGE {name}")
            }
            RollbackError::NoEarlier { name, place: TagPlace::Registry } => {
                format!("give the whole digest of an image there: kiln rollback --registry {name} sha256:…")
            }
            RollbackError::NoDigest { .. } => return None,
            RollbackError::NotInHistory { name, place, .. } => listed(name, place),
            RollbackError::Gone { name, digest, place: TagPlace::Registry, here: true, .. } => {
                format!("the local store has it: kiln push {digest} {name}")
            }
            RollbackError::Gone { name, place, other: Some(other), .. } => {
                let flag = if *place == TagPlace::Registry { "--registry " } else { "" };
                format!("kiln rollback {flag}{name} {}", other.short())
            }
            RollbackError::Gone { name, place, .. } => listed(name, place),
            RollbackError::Moved { name, .. } => {
                format!("kiln rollback --registry --force {name}, if it is to be moved all the same")
            }
        })
    }
}

fn place_text(place: TagPlace) -> &'static str {
    match place {
        TagPlace::Local => "in the local store",
        TagPlace::Registry => "in its registry",
    }
}

impl Engine {
    /// The images that a name had, the newest first. Nobody is asked: of a registry, what this machine did and saw there.
    ///
    /// # Errors
    /// The name has no tag, or the state folder cannot be read.
    pub fn tag_history(&self, name: &Reference, place: TagPlace) -> Result<Vec<TagRecord>, Error> {
        let events = self.store.tag_history(name, place)?;
        let current = match place {
            TagPlace::Local => self.named(name)?,
            TagPlace::Registry => events.first().map(|event| event.digest),
        };
        let here: Vec<Digest> = self.store.images()?.iter().map(|row| row.descriptor.digest).collect();
        let mut current_seen = false;
        let record = |event: &TagEvent| {
            // An image that came back stands there twice, and is what the name has since the last time.
            let is_current = !current_seen && current == Some(event.digest);
            current_seen |= is_current;
            TagRecord {
                digest: event.digest,
                at: event.at,
                by: event.by.map(TaggedBy::as_str),
                current: is_current,
                here: here.contains(&event.digest),
            }
        };
        Ok(events.iter().map(record).collect())
    }

    /// Points a name of the local store back to an image that it had.
    ///
    /// # Errors
    /// [`RollbackError`]; the state folder cannot be written.
    pub fn rollback(&self, request: &RollbackRequest) -> Result<RolledBack, Error> {
        let (place, lease) = (TagPlace::Local, self.store.lease()?);
        let events = self.store.tag_history(&request.name, place)?;
        let from = self.named(&request.name)?;
        let to = target(request, place, &events, from).map_err(Cause::from)?;
        if from == Some(to) {
            return Ok(RolledBack { from, to });
        }
        let by_digest = Reference { tag: None, digest: Some(to), ..request.name.clone() };
        let Some(row) = self.store.image(&lease, &by_digest)? else {
            return Err(self.gone(request, place, to, &events, from)?.into());
        };
        self.store.keep()?;
        let now = self.clock.now().epoch();
        self.store.tag(&lease, &request.name, &row.descriptor, now, TaggedBy::Rollback)?;
        Ok(RolledBack { from, to })
    }

    /// Points a name of a registry back to an image that it had there. The registry is asked what the name is now, and whether
    /// it has that image still.
    ///
    /// # Errors
    /// [`RollbackError`], or what the registry did. Then the name is as it was.
    pub async fn rollback_registry(&self, request: &RollbackRequest) -> Result<RolledBack, Error> {
        let (name, place) = (&request.name, TagPlace::Registry);
        let events = self.store.tag_history(name, place)?;
        let naming = Naming { registry: &self.registry, store: &self.store, clock: &self.clock };
        let from = self.registry.tagged(name).await.map_err(Cause::from)?;
        let expected = events.first().map(|event| event.digest);
        if let Some(expected) = expected.filter(|expected| !request.force && from != Some(*expected)) {
            let moved = RollbackError::Moved { name: name.familiar(), now: from, expected };
            return Err(Cause::from(moved).into());
        }
        let to = target(request, place, &events, from).map_err(Cause::from)?;
        if from == Some(to) {
            naming.note(name, &to, TaggedBy::Resolve)?;
            return Ok(RolledBack { from, to });
        }
        let by_digest = Reference { digest: Some(to), ..name.clone() };
        let found = match self.registry.manifest(&by_digest, None, Whom::Itself).await {
            Ok(found) => found,
            Err(error) if matches!(*error.fault, Fault::NotFound { .. }) => {
                return Err(self.gone(request, place, to, &[], from)?.into());
            }
            Err(error) => return Err(Cause::from(error).into()),
        };
        let media_type = &found.descriptor.media_type;
        naming.give(name, from, media_type, &found.bytes, TaggedBy::Rollback).await?;
        Ok(RolledBack { from, to })
    }

    /// The image that a name has in the local store.
    fn named(&self, name: &Reference) -> Result<Option<Digest>, Cause> {
        let images = self.store.images()?;
        Ok(images.iter().find(|row| row.names.contains(name)).map(|row| row.descriptor.digest))
    }

    /// Says that an image is not there any more, and which other one of `events` is in the local store.
    fn gone(
        &self,
        request: &RollbackRequest,
        place: TagPlace,
        digest: Digest,
        events: &[TagEvent],
        current: Option<Digest>,
    ) -> Result<Cause, Cause> {
        let here: Vec<Digest> = self.store.images()?.iter().map(|row| row.descriptor.digest).collect();
        let mut others = events.iter().map(|event| event.digest);
        let other = others.find(|other| here.contains(other) && Some(*other) != current);
        let (name, here) = (request.name.familiar(), here.contains(&digest));
        Ok(RollbackError::Gone { name, digest, place, here, other }.into())
    }
}

/// The image that is asked for. `events` are the newest first.
fn target(
    request: &RollbackRequest,
    place: TagPlace,
    events: &[TagEvent],
    current: Option<Digest>,
) -> Result<Digest, RollbackError> {
    let name = || request.name.familiar();
    let Some(text) = &request.to else {
        return previous(events, current).ok_or_else(|| RollbackError::NoEarlier { name: name(), place });
    };
    let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !(FEWEST_DIGITS..=64).contains(&digits.len()) {
        return Err(RollbackError::NoDigest { text: text.clone() });
    }
    let mut found: Vec<Digest> = events.iter().map(|event| event.digest).collect();
    found.retain(|digest| digest.hex().starts_with(&digits));
    found.sort();
    found.dedup();
    match found.as_slice() {
        [only] => Ok(*only),
        // The registry itself knows whether it has an image that this machine knows nothing of.
        [] if place == TagPlace::Registry && digits.len() == 64 => {
            Digest::from_hex(&digits).map_err(|_| RollbackError::NoDigest { text: text.clone() })
        }
        _ => Err(RollbackError::NotInHistory { name: name(), place, text: text.clone(), several: found }),
    }
}

/// What a name had before `current`. A rollback takes back what came after the image that it went to, so that the next one
/// goes on from there and does not return to what was left.
fn previous(events: &[TagEvent], current: Option<Digest>) -> Option<Digest> {
    let mut past: Vec<Digest> = Vec::new();
    for event in events.iter().rev() {
        let before = past.iter().rposition(|digest| *digest == event.digest);
        match before.filter(|_| event.by == Some(TaggedBy::Rollback)) {
            Some(at) => past.truncate(at + 1),
            None if past.last() == Some(&event.digest) => {}
            None => past.push(event.digest),
        }
    }
    if past.last().copied() == current {
        past.pop();
    }
    past.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> Digest {
        Digest::of(letter.to_string().as_bytes())
    }

    /// `ab<a` is: a was built, then b, then it was rolled back to a. The newest first.
    fn events(text: &str) -> Vec<TagEvent> {
        let mut by = TaggedBy::Build;
        let mut events = Vec::new();
        for letter in text.chars() {
            if letter == '<' {
                by = TaggedBy::Rollback;
                continue;
            }
            events.insert(0, TagEvent { digest: digest(letter), at: Epoch(1), by: Some(by) });
            by = TaggedBy::Build;
        }
        events
    }

    #[test]
    fn each_rollback_goes_one_image_further_back() {
        for (past, current, expected) in [
            ("", None, None),
            ("a", Some('a'), None),
            ("ab", Some('b'), Some('a')),
            ("abc<b", Some('b'), Some('a')),
            ("abc<b<a", Some('a'), None),
            ("abc<b<c", Some('c'), Some('b')),
            ("ab<ac", Some('c'), Some('a')),
            ("aba", Some('a'), Some('b')),
            // The name was removed, or somebody else moved it.
            ("ab", None, Some('b')),
            ("ab", Some('x'), Some('b')),
            // What is too long ago is forgotten.
            ("<ab", Some('b'), Some('a')),
        ] {
            let found = previous(&events(past), current.map(digest));
            assert_eq!(found, expected.map(digest), "{past} {current:?}");
        }
    }

    fn asked(to: &str) -> RollbackRequest {
        RollbackRequest { name: "app".parse().expect("a name"), to: Some(to.to_owned()), force: false }
    }

    #[test]
    fn an_image_is_named_by_the_start_of_its_digest() {
        let events = events("abcab");
        let target = |text: &str, place| target(&asked(text), place, &events, Some(digest('b')));
        let hex = digest('a').hex();
        for text in [&hex[..6], &hex[..], &format!("sha256:{hex}"), &hex[..10].to_uppercase()] {
            assert_eq!(target(text, TagPlace::Local).expect(text), digest('a'));
        }
        for (text, code) in
            [(&hex[..5], "digest"), ("", "digest"), ("zzzzzz", "digest"), ("000000", "no-history")]
        {
            assert_eq!(target(text, TagPlace::Local).expect_err(text).code(), code);
        }
        let unknown = digest('x').hex();
        assert_eq!(target(&unknown, TagPlace::Registry).expect("whole"), digest('x'));
        assert!(target(&unknown, TagPlace::Local).is_err());
        assert!(target(&unknown[..20], TagPlace::Registry).is_err());
    }
}
