//! Sees what a build shows, and remembers what of it concerns its steps.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use dockerfile::Lowered;
use dockerfile_parser::LineIndex;
use graph::{About, Op, Source};
use oci::Digest;
use solver::{Id, Solver};
use store::{ResultLayer, Took};

use super::{BuildSteps, Came, Step, VERSION, What};
use crate::{
    client::Client,
    clock::{Clock, Time},
    effect::stack::is_base,
    progress::{Definition, Event, SharedSink, Sink, Vertex},
    result::VertexResult,
};

/// A sink that hands everything on, and remembers.
pub(crate) struct Witness {
    sink: SharedSink,
    target: Option<String>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    definition: Option<Definition>,
    /// By the digests of vertices.
    shown: BTreeMap<Digest, Shown>,
    /// What steps took, by the digests of their vertices.
    took: BTreeMap<Digest, Took>,
    /// The layers of images by the digests of their vertices: a solver lets go of a result when nobody needs it any more.
    pulled: BTreeMap<Digest, Vec<ResultLayer>>,
    contexts: BTreeMap<String, std::path::PathBuf>,
    steps: Vec<Step>,
}

struct Shown {
    number: usize,
    came: Came,
}

impl Witness {
    pub(crate) fn new(sink: SharedSink, target: Option<String>) -> Witness {
        Witness { sink, target, seen: Mutex::default() }
    }

    /// The layers of an image are here.
    pub(crate) fn pulled(&self, vertex: Digest, layers: &[ResultLayer]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pulled.insert(vertex, layers.to_vec());
    }

    /// The build's graph has been solved as far as it was.
    pub(crate) fn solved(
        &self,
        solve: &Solver<VertexResult>,
        ids: &[Id],
        lowered: &Lowered,
        client: &dyn Client,
    ) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = LineIndex::new(seen.definition.as_ref().map_or(&[], |known| &known.text));
        let mut contexts = BTreeMap::new();
        let steps = lowered.graph.ids().map(|id| {
            let vertex = lowered.graph.vertex(id);
            let solved = ids[id.index()];
            if let Op::Source(Source::Local(local)) = &vertex.op
                && let Ok(Some(folder)) = client.context(&local.name)
            {
                contexts.insert(local.name.clone(), folder);
            }
            let About { name, stage_name, shell, source, .. } = &vertex.about;
            let shown = seen.shown.get(&solve.digest(solved).digest());
            Step {
                number: shown.map(|shown| shown.number),
                name: name.clone(),
                stage: stage_name.clone(),
                lines: source.map(|range| {
                    let last = range.end.saturating_sub(1).max(range.start);
                    (lines.position(range.start).line, lines.position(last).line)
                }),
                came: shown.map_or(Came::Nothing, |shown| shown.came.clone()),
                took: seen.took.get(&solve.digest(solved).digest()).copied(),
                shell: shell.clone(),
                what: what(&vertex.op),
                inputs: vertex.inputs.iter().map(|edge| edge.vertex.index()).collect(),
                base: (0..vertex.inputs.len())
                    .find(|input| is_base(&vertex.op, *input))
                    .map(|input| vertex.inputs[input].vertex.index()),
                definition: solve.definition(solved).map(|(key, _)| key.digest()),
                layers: seen.pulled.get(&solve.digest(solved).digest()).cloned(),
            }
        });
        let steps = steps.collect();
        (seen.steps, seen.contexts) = (steps, contexts);
    }

    /// What the build did; none where it came to no steps.
    pub(super) fn told(&self, clock: &Clock) -> Option<BuildSteps> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = std::mem::take(&mut seen.steps);
        let contexts = std::mem::take(&mut seen.contexts);
        let Definition { name, text } = seen.definition.as_ref()?;
        (!steps.is_empty()).then(|| BuildSteps {
            version: VERSION,
            at: clock.now().0,
            dockerfile: name.clone(),
            text: Digest::of(text),
            target: self.target.clone(),
            contexts,
            steps,
        })
    }
}

fn what(op: &Op) -> What {
    match op {
        Op::Exec(exec) => What::Run(exec.clone()),
        Op::Source(Source::Local(local)) => What::Context(local.clone()),
        Op::Merge => What::Merge,
        Op::File(_) => What::Change,
        Op::Source(Source::Image { .. } | Source::OciLayout(_)) => What::Image,
        Op::Source(_) | Op::Diff => What::Source,
    }
}

impl Seen {
    fn vertex(&mut self, vertex: &Vertex) {
        let number = self.shown.len() + 1;
        let shown = self.shown.entry(vertex.digest).or_insert(Shown { number, came: Came::Nothing });
        let Some(completed) = vertex.completed else { return };
        shown.came = came(vertex, completed);
    }
}

fn came(vertex: &Vertex, completed: Time) -> Came {
    let milliseconds = completed.milliseconds_since(vertex.started.unwrap_or(completed));
    match &vertex.error {
        Some(error) if error == "canceled" => Came::Canceled,
        Some(_) => Came::Failed { milliseconds },
        None if vertex.cached => Came::Cached,
        None => Came::Ran { milliseconds },
    }
}

impl Sink for Witness {
    fn event(&self, event: Event) {
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                Event::Vertex(vertex) => seen.vertex(vertex),
                Event::Usage(usage) => drop(seen.took.insert(usage.vertex, usage.took)),
                Event::Definition(definition) => seen.definition = Some(definition.clone()),
                _ => {}
            }
        }
        self.sink.event(event);
    }
}
