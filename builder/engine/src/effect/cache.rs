//! Records: asked for by key, added for every finished step; and results that come out as before are the earlier ones.

use std::path::Path;

use graph::{Op, OpDigest, Vertex};
use image::folder::PlannedLayer;
use oci::Digest;
use solver::{DefinitionKey, Key, key};
use store::{Ingredient, Origin, Record, ResultLayer, Took};
use tokio::runtime::Handle;
use tree::{Layer, LayerPath, Stack};

use super::{Effects, Job, rest::Made};
use crate::{
    clock::Time,
    error::Cause,
    result::{VertexResult, created},
};

/// A layer of so many entries takes the disk longer than the end of a build should wait.
const MANY_ENTRIES: usize = 2000;

/// Steps that take less memory than this run beside each other as they come.
const COUNTED_BYTES: u64 = 64 << 20;

/// How a step went.
pub(crate) struct Ran {
    pub(crate) started: Time,
    pub(crate) took: Took,
}

impl Effects {
    /// The result of a key; else whether a result of the same operation is known.
    ///
    /// What its content key finds is from then on known by its definition key, too: the next build need not look below it.
    pub(crate) fn look_up(
        &self,
        vertex: &Vertex,
        key: Key,
        definition: Option<(DefinitionKey, &[graph::Ingredient])>,
    ) -> Result<Result<VertexResult, bool>, Cause> {
        let record = match key {
            Key::Definition(key) => self.store.by_definition_key(&self.lease, &key.digest())?,
            Key::Content(key) => self.store.by_content_key(&self.lease, &key.digest())?,
        };
        if let (Some(record), Key::Content(_), Some((definition, ingredients))) = (&record, key, definition) {
            let (definition_key, ingredients) = (definition.digest(), stored(ingredients));
            self.store.put_record(&self.lease, &Record { definition_key, ingredients, ..record.clone() })?;
        }
        match record {
            Some(record) => Ok(Ok(VertexResult::layers(record.result))),
            None => Ok(Err(self.store.has_op(&OpDigest::of(&vertex.op).digest())?)),
        }
    }

    /// Digests of what the vertex can see of each input.
    pub(crate) fn identify(
        &self,
        vertex: &Vertex,
        inputs: &[(VertexResult, u32)],
    ) -> Result<Vec<Digest>, Cause> {
        let numbered = inputs.iter().enumerate();
        numbered.map(|(at, (result, _))| self.seen(vertex, at, result)).collect()
    }

    /// Digest of what the vertex can see of one input.
    pub(crate) fn seen(&self, vertex: &Vertex, input: usize, result: &VertexResult) -> Result<Digest, Cause> {
        let picks = match (key::selection(vertex, input), result) {
            (key::Selection::Everything, VertexResult::Layers { layers, .. }) => {
                return self.content_of(layers);
            }
            (key::Selection::Everything, VertexResult::Context(context)) => {
                // As if it were a result of one layer.
                let mut hasher = oci::Hasher::new();
                hasher.field(context.layer.content_digest().digest().raw());
                return Ok(hasher.finish());
            }
            (key::Selection::Picks(picks), _) => picks,
        };
        match result {
            VertexResult::Layers { layers, .. } => picked(&self.stack(layers)?, &picks),
            VertexResult::Context(context) => {
                context.picked(picks, |picks| picked(&Stack::new(vec![context.layer.clone()]), picks))
            }
        }
    }

    /// Says in a step's log why no result of it was found: what differs from the nearest one that there was.
    pub(crate) fn explain(&self, job: &Job) -> Result<(), Cause> {
        let (Some((_, now)), about) = (&job.definition, &job.vertex.about) else { return Ok(()) };
        let op = OpDigest::of(&job.vertex.op).digest();
        let why = match self.store.nearest(&op, &about.stage, written(&about.name))? {
            _ if about.ignore_cache => "the cache was not asked".to_owned(),
            None => "it never ran before".to_owned(),
            Some(record) => {
                let before = record.ingredients.iter();
                let before: Vec<_> =
                    before.map(|i| graph::Ingredient::new(i.name.as_str(), i.value.as_str())).collect();
                match key::changed(&before, now).as_slice() {
                    [] => "its earlier result is gone".to_owned(),
                    names => format!("{} changed", names.join(", ")),
                }
            }
        };
        self.say(job.digest, &format!("not cached: {why}\n"));
        Ok(())
    }

    /// How much memory a step is going to take: as much as it took when it ran last, or as an earlier form of the same
    /// instruction took. 0 where that is little, or nobody knows.
    pub(crate) fn weight(&self, vertex: &Vertex) -> u64 {
        let (op, about) = (OpDigest::of(&vertex.op).digest(), &vertex.about);
        // What cannot be read is not known; whoever needs the database itself will say why.
        let earlier = self.store.nearest(&op, &about.stage, written(&about.name)).ok().flatten();
        let bytes =
            earlier.and_then(|record| record.took.memory_bytes()).filter(|bytes| *bytes >= COUNTED_BYTES);
        let most = self.step_limits.resources.memory_bytes.unwrap_or(u64::MAX);
        bytes.unwrap_or(0).min(most)
    }

    /// Keeps the layer that a step made on top of `below`, or adopts an equal one that the same operation made before. The
    /// record is still to be written.
    pub(crate) fn keep_layer(
        &self,
        job: &Job,
        below: &[ResultLayer],
        layer: Layer,
        folder: &Path,
        ran: &Ran,
    ) -> Result<Made, Cause> {
        let op = OpDigest::of(&job.vertex.op).digest();
        let inputs = match &job.definition {
            Some(_) => self.identify(&job.vertex, &job.inputs)?,
            None => Vec::new(),
        };
        let origin = Origin { op, created: self.clock.now().epoch() };
        let mut result = below.to_vec();
        let many = layer.entries.len() >= MANY_ENTRIES;
        let kept = self.store.finish_step(&self.lease, layer, folder, origin)?;
        result.push(kept);
        let record = self.record_of(job, op, &inputs, result.clone(), ran);
        let record = record.map(|record| self.store.late_record(&self.lease, record));
        if many && let Ok(handle) = Handle::try_current() {
            let store = self.store.clone();
            handle.spawn_blocking(move || store.write_ahead());
        }
        Ok(Made { result: VertexResult::layers(result), record })
    }

    /// As [`Effects::keep_layer`], of a layer that has no folder yet: it is here once it has one, or a blob, and nobody
    /// else finds its record before.
    pub(crate) fn keep_planned(
        &self,
        job: &Job,
        below: &[ResultLayer],
        planned: PlannedLayer,
        ran: &Ran,
    ) -> Result<VertexResult, Cause> {
        let op = OpDigest::of(&job.vertex.op).digest();
        let now = self.clock.now().epoch();
        let layer = &planned.plan().layer;
        let content = layer.content_digest();
        let mut result = below.to_vec();
        match self.store.intern(&self.lease, &op, &content)? {
            Some(earlier) => {
                result.push(ResultLayer { layer: earlier.layer, created: Some(earlier.created) })
            }
            None => {
                let origin = Origin { op, created: now };
                let id = self.store.commit_planned(&self.lease, layer, origin, content)?;
                self.store.promise_layer(&self.lease, id)?;
                self.planned.add(id, planned);
                result.push(ResultLayer { layer: id, created: Some(now) });
            }
        }
        self.put_record(job, op, result.clone(), ran)?;
        Ok(VertexResult::layers(result))
    }

    /// Keeps layers that are here as what a step made; `fresh` says that they were made by this build.
    pub(crate) fn keep_result(
        &self,
        job: &Job,
        layers: Vec<ResultLayer>,
        ran: &Ran,
        fresh: bool,
    ) -> Result<VertexResult, Cause> {
        self.put_record(job, OpDigest::of(&job.vertex.op).digest(), layers.clone(), ran)?;
        Ok(if fresh { VertexResult::layers(layers) } else { VertexResult::found(layers) })
    }

    /// Adds the record of a finished step.
    fn put_record(&self, job: &Job, op: Digest, result: Vec<ResultLayer>, ran: &Ran) -> Result<(), Cause> {
        if job.definition.is_none() {
            return Ok(());
        }
        let inputs = self.identify(&job.vertex, &job.inputs)?;
        if let Some(record) = self.record_of(job, op, &inputs, result, ran) {
            self.store.put_record(&self.lease, &record)?;
        }
        Ok(())
    }

    /// The record of a finished step; none where nothing of its key is known.
    fn record_of(
        &self,
        job: &Job,
        op: Digest,
        inputs: &[Digest],
        result: Vec<ResultLayer>,
        ran: &Ran,
    ) -> Option<Record> {
        let (definition, ingredients) = job.definition.as_ref()?;
        let now = self.clock.now();
        Some(Record {
            definition_key: definition.digest(),
            content_key: Some(key::content(&job.vertex, inputs, &job.own).digest()),
            op,
            ingredients: stored(ingredients),
            created: created(&result).unwrap_or(now.epoch()),
            result,
            duration_ms: now.milliseconds_since(ran.started),
            took: ran.took,
            stage: job.vertex.about.stage.clone(),
            instruction: written(&job.vertex.about.name).to_owned(),
            stays_here: matches!(job.vertex.op, Op::Exec(_)) && !job.own.is_empty(),
        })
    }

    /// What of a vertex's keys is not in its definition: of a remote source the version that it has now, of a process the
    /// marks of its secrets that count.
    pub(crate) fn own(&self, vertex: &Vertex) -> Result<Vec<graph::Ingredient>, Cause> {
        let version = match &vertex.op {
            Op::Source(graph::Source::Http(http)) => self.http_version(http)?,
            Op::Source(graph::Source::Git(git)) => self.git_version(git)?,
            Op::Exec(exec) => return self.secret_marks(exec),
            _ => None,
        };
        let ingredient = |digest: Digest| graph::Ingredient::new("remote version", digest.to_string());
        Ok(version.map(ingredient).into_iter().collect())
    }
}

fn stored(ingredients: &[graph::Ingredient]) -> Vec<Ingredient> {
    ingredients.iter().map(|i| Ingredient { name: i.name.clone(), value: i.value.clone() }).collect()
}

/// The instruction as it was written, without the stage and the count that progress puts before it.
fn written(name: &str) -> &str {
    name.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(name, |(_, instruction)| instruction)
}

/// The content identity of some parts of a tree.
fn picked(stack: &Stack, picks: &[key::Pick]) -> Result<Digest, Cause> {
    let mut hasher = oci::Hasher::new();
    for pick in picks {
        hasher.field(pick_digest(stack, pick)?.raw());
    }
    Ok(hasher.finish())
}

/// The content identity of a part of a tree.
fn pick_digest(stack: &Stack, pick: &key::Pick) -> Result<Digest, Cause> {
    let ignore = dockerfile::ignore::Ignore::new(&pick.exclude)
        .map_err(|error| Cause::Task(format!("the pattern of --exclude: {error}")))?;
    let excluded = |path: &LayerPath| ignore.excludes(path.as_bytes());
    if pick.parents {
        return parents_digest(stack, pick, &excluded);
    }
    let selector = tree::Selector {
        path: pick.path.as_bytes(),
        wildcard: pick.wildcard,
        follow_links: pick.follow_symlink,
        include: None,
        exclude: (!pick.exclude.is_empty()).then_some(&excluded),
    };
    Ok(stack.selection_digest(&selector)?.digest())
}

/// `COPY --parents`: what the source's pattern finds below its pivot, with the folders above.
fn parents_digest(
    stack: &Stack,
    pick: &key::Pick,
    excluded: &dyn Fn(&LayerPath) -> bool,
) -> Result<Digest, Cause> {
    let source = image::copy::Source::with_parents(pick.path.as_bytes())
        .map_err(|error| Cause::Task(format!("the pattern `{}`: {error}", pick.path)))?;
    let includes = |path: &LayerPath| source.include.iter().any(|pattern| pattern.matches(path.as_bytes()));
    let selector = tree::Selector {
        path: &source.path,
        wildcard: false,
        follow_links: true,
        include: Some(&includes),
        exclude: (!pick.exclude.is_empty()).then_some(excluded),
    };
    Ok(stack.selection_digest(&selector)?.digest())
}
