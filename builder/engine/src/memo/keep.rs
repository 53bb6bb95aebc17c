//! Remembering a build that is done.

use std::sync::{Arc, PoisonError};

use oci::{Digest, Platform, Reference};
use store::Claims;

use super::{
    answer::{Answer, Archive, Context, Image, Shown},
    recorder::{Answered, Exported, Recorded},
};
use crate::{
    build::{self, BuildOutcome, facts, internal, sources::Origin},
    cancel::Cancel,
    effect::Effects,
    progress::Log,
    request::{Asking, BuildRequest},
};

/// Remembers a build, if it can be said what the same build would show next. That it could not be is no failure: the next
/// one goes the ordinary way.
pub(crate) async fn keep(
    effects: &Arc<Effects>,
    request: BuildRequest,
    built: &BuildOutcome,
    jobs: Option<usize>,
    cancel: Cancel,
) {
    let Some(recorder) = effects.recorder.clone() else { return };
    let asking = request.asking;
    let (recorded, outcome) = match recorder.of_no_op(effects.store.has_added()) {
        Some(recorded) => (recorded, built.clone()),
        None if recorder.may_rehearse() && asks_nobody(effects, &recorder.images(), asking) => {
            recorder.rehearse();
            // What was said once is said again by a build that knows nothing of this one.
            effects.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let Ok(outcome) = build::build(effects.clone(), request, jobs, cancel).await else { return };
            let Some(recorded) = recorder.of_no_op(false) else { return };
            (recorded, outcome)
        }
        None => return,
    };
    // A step that has another result each time it is looked up is nothing to build on.
    if outcome.image != built.image {
        return;
    }
    let key = recorder.key();
    let remembered = effects.clone().blocking(move |effects| {
        let Some((answer, claims)) = answer(effects, recorded, outcome, asking) else { return Ok(false) };
        let bytes = serde_json::to_vec(&answer).expect("text, numbers and maps with text for keys are JSON");
        Ok(effects.store.memo_put(&effects.lease, &key, &claims, &bytes)?)
    });
    let _remembered_or_not = remembered.await;
}

/// Whether the same build would now have the answers that it needs about base images.
fn asks_nobody(effects: &Effects, images: &[Answered], asking: Asking) -> bool {
    let now = effects.clock.now().epoch();
    images.iter().filter(|one| one.origin != Origin::LocalStore).all(|one| {
        let answer = effects.store.answer(&one.reference, &one.platform).ok().flatten();
        answer.is_some_and(|answer| build::pin::is_enough(&answer, &one.reference, asking, now))
    })
}

fn answer(
    effects: &Effects,
    recorded: Recorded,
    outcome: BuildOutcome,
    asking: Asking,
) -> Option<(Answer, Claims)> {
    let Recorded { events, locals, images: answered, exported } = recorded;
    let mut claims = Claims::default();
    let mut images = Vec::new();
    let mut asked: Vec<&Answered> = Vec::new();
    for one in &answered {
        claims.names.push((one.reference.clone(), (one.origin == Origin::LocalStore).then_some(one.top)));
        if one.origin == Origin::LocalStore {
            continue;
        }
        images.push(image(effects, one, asking)?);
        asked.push(one);
    }
    for set in exported.iter().flatten().filter(|set| set.listed) {
        claims.listed.push(set.top.digest);
        let tags = set.names.iter().filter(|name| name.digest.is_none());
        claims.names.extend(tags.map(|name| (name.clone(), Some(set.top.digest))));
    }
    let age = |log: &Log| age(&asked, log);
    let events = events.iter().map(|event| Shown::of(event, age)).collect::<Option<Vec<Shown>>>()?;
    let contexts = locals.iter().map(|local| {
        let read = effects.contexts.read(local)?;
        let stamp = read.stamp(local)?;
        Some(Context::new(local, stamp))
    });
    let contexts = contexts.collect::<Option<Vec<Context>>>()?;
    let archives = exported.into_iter().map(|set| set.filter(|set| set.archive).map(archive)).collect();
    let at = effects.clock.now().epoch().0;
    let BuildOutcome { image, metadata } = outcome;
    Some((Answer { at, contexts, images, archives, events, image, metadata }, claims))
}

/// What an image's registry answered, if that is what the build went by.
fn image(effects: &Effects, asked: &Answered, asking: Asking) -> Option<Image> {
    if asked.origin != Origin::Remembered {
        return None;
    }
    let Answered { reference, platform, top, manifest, origin: _ } = asked;
    let answer = effects.store.answer(reference, platform).ok()??;
    let now = effects.clock.now().epoch();
    let image = Image::of(reference, platform, &answer);
    let same = image.top == *top && image.manifest == *manifest;
    (same && build::pin::is_enough(&answer, reference, asking, now)).then_some(image)
}

impl Image {
    /// An image by an answer about it.
    pub(super) fn of(reference: &Reference, platform: &Platform, answer: &store::Answer) -> Image {
        Image {
            reference: reference.to_string(),
            platform: platform.to_string(),
            top: answer.top,
            manifest: Digest::of(&answer.manifest),
            config: Digest::of(&answer.config),
        }
    }
}

/// The image that a line says the age of. Where one name was asked for several platforms, nobody can tell which.
fn age(asked: &[&Answered], log: &Log) -> Option<usize> {
    let is_of = |one: &&Answered| internal::digest_of(&facts::loading(&one.reference)) == log.vertex;
    let mut images = asked.iter().enumerate().filter(|(_, one)| is_of(one));
    let (image, _) = images.next()?;
    images.next().is_none().then_some(image)
}

fn archive(set: Exported) -> Archive {
    Archive { top: set.top, names: set.names.iter().map(Reference::to_string).collect() }
}
