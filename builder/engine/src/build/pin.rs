//! From the name of a base image to one manifest: the local store first, then what a registry answered lately, then the
//! registry itself, and where that cannot answer what it answered last.
//!
//! | `--pull`  | the local store | an answer that is fresh | the registry | its last answer |
//! |-----------|-----------------|-------------------------|--------------|-----------------|
//! | `missing` | first           | then                    | then         | if the registry cannot answer |
//! | `always`  |                 |                         | only         | |
//! | `newer`   | if the registry cannot answer | | first      | if the registry cannot answer |
//! | `never`   | first           | then, however old       |              | |
//!
//! A name with a digest cannot move: its documents are asked for once, whatever the policy.

use std::sync::Arc;

use oci::{Digest, Epoch, ImageConfig, Manifest, Platform, Reference};
use registry::Resolved;
use store::{Answer, TaggedBy};

use crate::{
    build::{
        facts::{known, local},
        sources::{Origin, Pinned},
    },
    clock::words_of,
    effect::{Effects, pull::Place},
    error::{Cause, PinError},
    request::{Asking, PullPolicy},
};

/// The warning that something else than the registry's answer of now was taken.
const NOT_ASKED: &str = "registry-not-asked";

/// What is here of a name before its registry is asked.
#[derive(Default)]
struct Held {
    /// An image of the local store for the platform.
    local: Option<Pinned>,
    /// One for another platform, or why there is none.
    other: Option<Result<Pinned, Cause>>,
    /// What the registry answered last.
    answer: Option<Answer>,
}

/// The image that a name means on a platform. `note` takes lines for people.
pub(crate) async fn image(
    effects: &Arc<Effects>,
    reference: &Reference,
    platform: &Platform,
    asking: Asking,
    note: &(dyn Fn(&str) + Sync),
) -> Result<Pinned, Cause> {
    let (name, wanted) = (reference.clone(), platform.clone());
    let held = effects.clone().blocking(move |effects| held(effects, &name, &wanted, asking.pull)).await?;
    let now = effects.clock.now().epoch();
    if let (Some(_), PullPolicy::Missing | PullPolicy::Never) = (&held.local, asking.pull) {
        return Ok(held.local.expect("looked at above"));
    }
    if let Some(answer) = held.answer.as_ref().filter(|answer| is_enough(answer, reference, asking, now)) {
        if reference.digest.is_none() {
            note(&age_of(answer.at, now));
        }
        return remembered(effects, reference, answer, asking.pull);
    }
    if asking.pull == PullPolicy::Never {
        let absent = || PinError::NotHere {
            what: format!("the image `{reference}` for {platform}"),
            name: reference.familiar(),
        };
        return held.other.unwrap_or_else(|| Err(absent().into()));
    }
    match ask(effects, reference, platform, held.answer.as_ref(), asking.pull).await {
        Ok(resolved) => {
            let (effects, name, wanted) = (effects.clone(), reference.clone(), platform.clone());
            effects.blocking(move |effects| answered(effects, &name, &wanted, resolved)).await
        }
        Err(error) => without(effects, reference, held, error, asking.pull),
    }
}

/// Looks at what is here.
fn held(
    effects: &Arc<Effects>,
    reference: &Reference,
    platform: &Platform,
    pull: PullPolicy,
) -> Result<Held, Cause> {
    let mut held = Held::default();
    if pull != PullPolicy::Always {
        match local(effects, reference, platform) {
            Ok(Some(found)) if fits(&found.fact.config, platform) => held.local = Some(found),
            Ok(Some(found)) => held.other = Some(Ok(found)),
            Ok(None) => {}
            Err(cause @ Cause::NoPlatform { .. }) => held.other = Some(Err(cause)),
            Err(cause) => return Err(cause),
        }
    }
    held.answer = effects.store.answer(reference, platform)?;
    Ok(held)
}

/// Whether an image is for a platform, as far as its config says.
fn fits(config: &ImageConfig, wanted: &Platform) -> bool {
    config.architecture.is_empty() || config.platform().distance(wanted).is_some()
}

/// Whether an answer makes a question to the registry needless.
pub(crate) fn is_enough(answer: &Answer, reference: &Reference, asking: Asking, now: Epoch) -> bool {
    if reference.digest.is_some() {
        return true;
    }
    // One of the future is no fresh one: the clock was wrong then or is now.
    let fresh = || answer.at <= now && now.0 - answer.at.0 < asking.fresh_seconds;
    match asking.pull {
        PullPolicy::Never => true,
        PullPolicy::Missing => fresh(),
        PullPolicy::Always | PullPolicy::Newer => false,
    }
}

/// Says how old an answer is.
pub(crate) fn age_of(at: Epoch, now: Epoch) -> String {
    let age = words_of(now.0.saturating_sub(at.0));
    format!("the registry answered this {age} ago; --pull asks again")
}

/// Asks the registry; where its last answer will do, not for longer than a connection may take.
async fn ask(
    effects: &Arc<Effects>,
    reference: &Reference,
    platform: &Platform,
    last: Option<&Answer>,
    pull: PullPolicy,
) -> Result<Resolved, registry::Error> {
    let documents = HeldDocuments::new(effects, last);
    let registry = &effects.registry;
    if last.is_none() || pull == PullPolicy::Always {
        return registry.resolve(reference, platform, Some(&documents)).await;
    }
    let longest = registry.settings().limits.connect;
    registry.resolve_within(longest, reference, platform, Some(&documents)).await
}

/// What is taken where the registry did not answer.
fn without(
    effects: &Arc<Effects>,
    reference: &Reference,
    held: Held,
    error: registry::Error,
    pull: PullPolicy,
) -> Result<Pinned, Cause> {
    let last = held.answer.as_ref().filter(|_| error.may_pass());
    let seconds = |answer: &Answer| effects.clock.now().epoch().0.saturating_sub(answer.at.0);
    if pull == PullPolicy::Always {
        let Some(answer) = last else { return Err(error.into()) };
        let (last, seconds) = (answer.top, seconds(answer));
        return Err(PinError::Offline { error: Box::new(error), last, seconds }.into());
    }
    if let Some(found) = held.local {
        effects.warn_once(NOT_ASKED, &format!("using the local store's {reference}, {}: {error}", found.top));
        return Ok(found);
    }
    let Some(answer) = last else {
        // What is here is for another platform, and better than nothing: a check warns of it.
        return held.other.unwrap_or_else(|| Err(error.into()));
    };
    let age = words_of(seconds(answer));
    effects.warn_once(NOT_ASKED, &format!("using {reference} as it was {age} ago, {}: {error}", answer.top));
    remembered(effects, reference, answer, pull)
}

/// The image of an answer.
fn remembered(
    effects: &Arc<Effects>,
    reference: &Reference,
    answer: &Answer,
    pull: PullPolicy,
) -> Result<Pinned, Cause> {
    let manifest = Manifest::parse(&answer.manifest)?;
    let config = ImageConfig::parse(&answer.config)?;
    let place = match pull {
        PullPolicy::Never => Place::Held(reference.clone()),
        _ => Place::Registry(reference.clone()),
    };
    let fact = known(effects, Digest::of(&answer.manifest), manifest, config, place);
    Ok(Pinned { fact, top: answer.top, origin: Origin::Remembered })
}

/// Takes in what a registry answered.
fn answered(
    effects: &Arc<Effects>,
    reference: &Reference,
    platform: &Platform,
    resolved: Resolved,
) -> Result<Pinned, Cause> {
    if let Some(index) = &resolved.index {
        effects.store.add_blob(&effects.lease, &index.bytes)?;
    }
    effects.store.add_blob(&effects.lease, &resolved.manifest_bytes)?;
    effects.store.add_blob(&effects.lease, &resolved.config_bytes)?;
    effects.remember_answer(reference, platform, &resolved, TaggedBy::Resolve)?;
    let (top, place) = (resolved.top().digest, Place::Registry(reference.clone()));
    let fact = known(effects, resolved.descriptor.digest, resolved.manifest, resolved.config, place);
    Ok(Pinned { fact, top, origin: Origin::Registry })
}

impl Effects {
    /// Remembers what a registry said that a name stands for.
    pub(crate) fn remember_answer(
        &self,
        reference: &Reference,
        platform: &Platform,
        resolved: &Resolved,
        by: TaggedBy,
    ) -> Result<(), Cause> {
        let (top, at) = (resolved.top().digest, self.clock.now().epoch());
        let (manifest, config) = (resolved.manifest_bytes.clone(), resolved.config_bytes.clone());
        let answer = Answer { top, manifest, config, at };
        self.store.remember_answer(&self.lease, reference, platform, answer)?;
        // What a mirror says is no word of the registry's own, which a rollback there would compare with.
        if reference.digest.is_none() && reference.tag.is_some() && !self.registry.is_mirrored(reference) {
            self.store.note_registry_tag(reference, &top, at, by)?;
        }
        Ok(())
    }
}

/// Documents that earlier builds have read.
struct HeldDocuments {
    effects: Arc<Effects>,
    /// Those of the last answer, which no collection takes.
    answer: Vec<(Digest, Vec<u8>)>,
}

impl HeldDocuments {
    fn new(effects: &Arc<Effects>, answer: Option<&Answer>) -> HeldDocuments {
        let documents =
            answer.into_iter().flat_map(|answer| [answer.manifest.clone(), answer.config.clone()]);
        let answer = documents.map(|bytes| (Digest::of(&bytes), bytes)).collect();
        HeldDocuments { effects: effects.clone(), answer }
    }
}

impl registry::Held for HeldDocuments {
    fn document(&self, digest: Digest) -> Option<Vec<u8>> {
        if let Some((_, bytes)) = self.answer.iter().find(|(of, _)| *of == digest) {
            return Some(bytes.clone());
        }
        // What cannot be read here is asked for there.
        self.effects.store.blob_bytes(&self.effects.lease, &digest).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_enough_while_it_is_fresh() {
        use PullPolicy::{Always, Missing, Never, Newer};
        let answer =
            Answer { top: Digest::of(b""), manifest: Vec::new(), config: Vec::new(), at: Epoch(1000) };
        let tag: Reference = "app:1".parse().expect("a name");
        let pinned = Reference { digest: Some(Digest::of(b"")), ..tag.clone() };
        for (pull, fresh_seconds, now, of_tag) in [
            (Missing, 600, 1000, true),
            (Missing, 600, 1599, true),
            (Missing, 600, 1600, false),
            (Missing, 600, 999, false),
            (Missing, 0, 1000, false),
            (Never, 0, 1_000_000, true),
            (Newer, 600, 1000, false),
            (Always, 600, 1000, false),
        ] {
            let asking = Asking { pull, fresh_seconds };
            assert_eq!(
                is_enough(&answer, &tag, asking, Epoch(now)),
                of_tag,
                "{pull:?} {fresh_seconds} {now}"
            );
            assert!(is_enough(&answer, &pinned, asking, Epoch(now)));
        }
    }
}
