//! Writes down what a build shows, and what it did.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use dockerfile::Lowered;
use graph::{Local, Op, Source};
use oci::{Descriptor, Digest, Platform, Reference};
use store::Store;

use crate::{
    build::sources::{Origin, Pinned},
    client::Client,
    export::ImageSet,
    progress::{Event, SharedSink, Sink},
    request::{BuildRequest, Output},
};

/// A sink that hands everything on and writes it down, until the build does something that a build in which nothing changed
/// would not do.
pub(crate) struct Recorder {
    key: Digest,
    sink: SharedSink,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether the ordinary way is gone once more: nothing is shown and nothing written.
    silent: bool,
    /// Whether something was done.
    ran: bool,
    /// Whether layers of an image were wanted, which may have been here.
    pulled: bool,
    /// Whether the build cannot be remembered, whatever it does.
    unfit: bool,
    seen: Recorded,
}

/// What was written down.
#[derive(Clone, Default)]
pub(super) struct Recorded {
    pub(super) events: Vec<Event>,
    pub(super) locals: BTreeSet<Local>,
    pub(super) images: Vec<Answered>,
    /// One for each output: none for one that is no image.
    pub(super) exported: Vec<Option<Exported>>,
}

/// A base image's name that was answered.
#[derive(Clone)]
pub(super) struct Answered {
    pub(super) reference: Reference,
    pub(super) platform: Platform,
    pub(super) top: Digest,
    pub(super) manifest: Digest,
    pub(super) origin: Origin,
}

/// An image that an output was made of.
#[derive(Clone)]
pub(super) struct Exported {
    pub(super) top: Descriptor,
    pub(super) names: Vec<Reference>,
    /// Whether it is in the local store's list.
    pub(super) listed: bool,
    pub(super) archive: bool,
}

impl Recorder {
    /// One for a build that may be remembered.
    pub(crate) fn of(
        request: &BuildRequest,
        client: &dyn Client,
        sink: &SharedSink,
        store: &Store,
    ) -> Option<Arc<Recorder>> {
        // A key that cannot be made is an error of the step that needs it.
        let key = super::key::key(request, client, || store.secret_key().ok())?;
        Some(Arc::new(Recorder { key, sink: sink.clone(), state: Mutex::default() }))
    }

    pub(super) fn key(&self) -> Digest {
        self.key
    }

    /// Whether nothing is to be written: what the build does was done.
    pub(crate) fn is_silent(&self) -> bool {
        self.state().silent
    }

    /// A vertex is run.
    pub(crate) fn runs(&self, op: &Op) {
        let mut state = self.state();
        match op {
            // Read or stacked in every build.
            Op::Source(Source::Local(_)) | Op::Merge | Op::Diff => {}
            Op::Source(Source::Image { .. }) => state.pulled = true,
            Op::Source(_) | Op::Exec(_) | Op::File(_) => state.ran = true,
        }
        if state.ran {
            // Nobody will ask for it.
            state.seen.events = Vec::new();
        }
    }

    /// The graph is known.
    pub(crate) fn lowered(&self, lowered: &Lowered) {
        let mut state = self.state();
        for id in lowered.graph.ids() {
            match &lowered.graph.vertex(id).op {
                Op::Source(Source::Local(local)) => {
                    state.seen.locals.insert(local.clone());
                }
                Op::Source(Source::Image { .. }) | Op::Exec(_) | Op::File(_) | Op::Merge | Op::Diff => {}
                Op::Source(Source::Git(_) | Source::Http(_) | Source::OciLayout(_)) => state.unfit = true,
            }
        }
        for edge in lowered.images.values().filter_map(|image| image.edge) {
            // A context that is the result is one with its times, and those are not looked at.
            state.unfit |= matches!(lowered.graph.vertex(edge.vertex).op, Op::Source(Source::Local(_)));
        }
    }

    /// A base image's name was answered.
    pub(crate) fn answered(&self, reference: &Reference, platform: &Platform, pinned: &Pinned) {
        let (reference, platform) = (reference.clone(), platform.clone());
        let (top, manifest, origin) = (pinned.top, pinned.fact.manifest, pinned.origin);
        self.state().seen.images.push(Answered { reference, platform, top, manifest, origin });
    }

    /// Something was asked for that may have another answer each time.
    pub(crate) fn asked_elsewhere(&self) {
        self.state().unfit = true;
    }

    /// An output was written.
    pub(crate) fn exported(&self, output: &Output, set: Option<&ImageSet>) {
        let exported = set.map(|set| Exported {
            top: set.top.clone(),
            names: set.names.clone(),
            listed: matches!(output, Output::Image { store: true, .. }),
            archive: matches!(output, Output::Oci { .. } | Output::Docker { .. }),
        });
        self.state().seen.exported.push(exported);
    }

    /// What a build showed in which nothing was done; none where something was, or it cannot be remembered. `added` says
    /// whether anything came into the store.
    pub(super) fn of_no_op(&self, added: bool) -> Option<Recorded> {
        let state = self.state();
        let done = state.unfit || state.ran || state.pulled && (added || state.silent);
        (!done).then(|| state.seen.clone())
    }

    /// Whether going the ordinary way once more may show what a build shows in which nothing is done.
    pub(super) fn may_rehearse(&self) -> bool {
        let state = self.state();
        !state.unfit && !state.silent
    }

    /// The base images' names that were answered so far.
    pub(super) fn images(&self) -> Vec<Answered> {
        self.state().seen.images.clone()
    }

    /// Begins anew, and shows nothing from here on.
    pub(super) fn rehearse(&self) {
        *self.state() = State { silent: true, ..State::default() };
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Recorder {
    fn event(&self, event: Event) {
        let mut state = self.state();
        if !state.ran {
            state.seen.events.push(event.clone());
        }
        let silent = state.silent;
        // Not while it is held: the other sink may take its time.
        mem::drop(state);
        if !silent {
            self.sink.event(event);
        }
    }
}
