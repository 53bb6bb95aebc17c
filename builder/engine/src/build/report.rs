//! Vertices as progress shows them: each is told once as begun and once as ended.

use std::collections::{BTreeMap, BTreeSet};

use graph::{Op, Source};
use solver::{Id, Solver};

use crate::{
    clock::{Clock, Time},
    progress::{Event, SharedSink, Vertex},
    result::VertexResult,
};

/// Tells a sink of vertices.
pub(crate) struct Reporter {
    sink: SharedSink,
    clock: Clock,
    started: BTreeMap<Id, Time>,
    ended: BTreeSet<Id>,
}

impl Reporter {
    pub(crate) fn new(sink: SharedSink, clock: Clock) -> Reporter {
        Reporter { sink, clock, started: BTreeMap::new(), ended: BTreeSet::new() }
    }

    /// Says that work on a vertex began.
    pub(crate) fn started(&mut self, solve: &Solver<VertexResult>, id: Id) {
        if self.started.contains_key(&id) {
            return;
        }
        let now = self.clock.now();
        self.started.insert(id, now);
        self.tell(solve, id, Some(now), None, false, None);
    }

    /// Says that a vertex ended.
    pub(crate) fn completed(
        &mut self,
        solve: &Solver<VertexResult>,
        id: Id,
        cached: bool,
        error: Option<String>,
    ) {
        if !self.ended.insert(id) {
            return;
        }
        let now = self.clock.now();
        let started = *self.started.entry(id).or_insert(now);
        self.tell(solve, id, Some(started), Some(now), cached, error);
    }

    /// Says that a context was read, where `id` is one.
    pub(crate) fn completed_if_local(&mut self, solve: &Solver<VertexResult>, id: Id) {
        if matches!(solve.vertex(id).op, Op::Source(Source::Local(_))) {
            self.completed(solve, id, false, None);
        }
    }

    /// Says that the cache answered for a vertex, and with it for all below that nobody had to ask.
    pub(crate) fn cached(&mut self, solve: &Solver<VertexResult>, id: Id) {
        for below in solve.below(id) {
            // A remote source may have been asked for its version, and no more.
            if !self.started.contains_key(&below) || below == id || solve.is_remote(below) {
                self.completed(solve, below, true, None);
            }
        }
    }

    fn tell(
        &self,
        solve: &Solver<VertexResult>,
        id: Id,
        started: Option<Time>,
        completed: Option<Time>,
        cached: bool,
        error: Option<String>,
    ) {
        let about = &solve.vertex(id).about;
        if about.hidden {
            return;
        }
        self.sink.event(Event::Vertex(Vertex {
            digest: solve.digest(id).digest(),
            name: about.name.clone(),
            inputs: solve.inputs(id).iter().map(|(input, _)| solve.digest(*input).digest()).collect(),
            source: about.source,
            started,
            completed,
            cached,
            error,
        }));
    }
}
