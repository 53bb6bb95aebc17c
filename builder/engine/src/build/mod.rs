//! One build from its Dockerfile's bytes to its outputs: the main flow.

pub(crate) mod call;
pub(crate) mod context;
pub(crate) mod drive;
pub(crate) mod facts;
pub(crate) mod internal;
pub(crate) mod pin;
pub(crate) mod report;
pub(crate) mod sources;
pub(crate) mod time;
pub(crate) mod uses;

use std::{collections::BTreeMap, sync::Arc};

use dockerfile::{Answer, Fact, Facts, Lowered, Lowering, check_frontend, lower};
use dockerfile_parser::{Dockerfile, Span};
use futures_util::future::try_join_all;
use graph::SourceRange;
use oci::Descriptor;
use solver::Solver;

use crate::{
    build::{
        context::{Make, Prepared},
        drive::Driver,
        internal::Internal,
        uses::Uses,
    },
    cancel::Cancel,
    daemon,
    effect::{Effects, early::Exported, rewritten::Checks},
    error::{Cause, Error},
    export::{self, Built, Exporter, metadata},
    progress::{Definition, Event, Warning},
    request::{BuildRequest, ImageForm, Output},
    result::VertexResult,
};

/// How often names may be asked for before lowering is done: an image's `ONBUILD` may name further ones.
const ROUNDS: usize = 16;

/// The base images in a build's metadata: in-toto resource descriptors, as the materials of provenance are.
const MATERIALS: &str = "kiln.build.materials";

/// What a build came to.
#[derive(Clone, Debug, Default)]
pub struct BuildOutcome {
    /// The image, or the index of several platforms; none where no output was one of images.
    pub image: Option<Descriptor>,
    /// What `--metadata-file` says.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

/// Builds.
pub(crate) async fn build(
    effects: Arc<Effects>,
    request: BuildRequest,
    jobs: Option<usize>,
    cancel: Cancel,
) -> Result<BuildOutcome, Error> {
    tokio::select! {
        reachable = daemon::reachable(&effects, &request) => reachable?,
        () = cancel.wait() => return Err(Error::Cancelled),
    }
    let make_first = Make { effects: &effects, jobs, cancel: &cancel };
    let prepared = make_first.prepare(&request).await?;
    let lowered = tokio::select! {
        lowered = lower_all(&make_first, &request, &prepared) => lowered?,
        () = cancel.wait() => return Err(Error::Cancelled),
    };
    effects.record(|recorder| recorder.lowered(&lowered));
    warn(&effects, &lowered.warnings);
    export::check(&request.outputs, &lowered.platforms, lowered.several_platforms).map_err(Cause::from)?;
    effects.checks.get_or_init(|| Checks::new(&lowered));
    if let Some(form) = request.image_form() {
        effects.exported.get_or_init(|| exported(&lowered, form));
    }
    let built = make(&effects, &lowered, jobs, &cancel).await?;
    effects.networks.finish();
    let (epoch, several) = (lowered.source_date_epoch, lowered.several_platforms);
    let exporting = effects.clone();
    let exported = tokio::task::spawn_blocking(move || {
        let (built, tags, cancel) = (&built[..], &request.tags[..], &cancel);
        let exporter = Exporter { effects: &exporting, built, several, tags, epoch, cancel };
        export(&exporter, &request)
    });
    exported.await.map_err(|error| Cause::Task(error.to_string()))?
}

/// Tells of the rules that a Dockerfile breaks.
fn warn(effects: &Effects, warnings: &[dockerfile::Warning]) {
    for warning in warnings {
        effects.sink.event(Event::Warning(Warning {
            vertex: None,
            code: warning.rule.name.to_owned(),
            message: warning.message.clone(),
            source: Some(SourceRange { start: warning.span.start, end: warning.span.end }),
        }));
    }
}

/// Reads the Dockerfile, as a line of progress.
fn parse(effects: &Arc<Effects>, prepared: &Prepared) -> Result<Dockerfile, Error> {
    let Definition { name, text } = &prepared.definition;
    check_frontend(text, &prepared.frontend).map_err(|error| Error::Lower(Box::new(error)))?;
    let shown = Internal::start(effects, &format!("[internal] load build definition from {name}"));
    let parsed = dockerfile_parser::parse(text);
    let count = parsed.as_ref().err().map(|errors| format!("{} errors", errors.len()));
    shown.end(count.as_ref());
    parsed.map_err(Error::Parse)
}

/// Lowers, asking for what must be known until nothing is missing.
async fn lower_all(make: &Make<'_>, request: &BuildRequest, prepared: &Prepared) -> Result<Lowered, Error> {
    let file = parse(make.effects, prepared)?;
    let mut known = Facts::new();
    for _ in 0..ROUNDS {
        let needs = match lower(&file, &prepared.frontend, &known) {
            Ok(Lowering::Done(lowered)) => return Ok(*lowered),
            Ok(Lowering::Needs(needs)) => needs,
            Err(error) => {
                warn(make.effects, &error.warnings);
                return Err(Error::Lower(Box::new(error)));
            }
        };
        let answers = answers(make, request, needs).await?;
        answers.into_iter().for_each(|(fact, answer)| known.insert(fact, answer));
    }
    Err(too_many_rounds())
}

/// Answers all facts at once.
async fn answers(
    make: &Make<'_>,
    request: &BuildRequest,
    needs: BTreeMap<Fact, Span>,
) -> Result<Vec<(Fact, Answer)>, Error> {
    let layouts = Arc::new(request.layouts.clone());
    let answers = needs.into_iter().map(|(fact, span)| {
        let layouts = layouts.clone();
        async move {
            let asked = fact.clone();
            let cause = match facts::answer(make, fact, layouts, request.asking).await {
                Ok(answer) => return Ok((asked, answer)),
                Err(Error::Other(cause)) => cause,
                Err(error) => return Err(error),
            };
            // What only the request asks for has no place in the file.
            let range = (!span.is_empty()).then_some(SourceRange { start: span.start, end: span.end });
            Err(Error::Vertex {
                vertex: format!("[internal] load metadata for {asked}"),
                digest: oci::Digest::of(asked.to_string().as_bytes()),
                source_range: range,
                cause,
            })
        }
    });
    try_join_all(answers).await
}

fn too_many_rounds() -> Error {
    Cause::NotYet(format!("a Dockerfile whose images name further images more than {ROUNDS} times")).into()
}

/// What of a graph ends in images.
fn exported(lowered: &Lowered, form: ImageForm) -> Exported {
    let images = lowered.platforms.iter().map(|platform| &lowered.images[platform]);
    let roots = images.filter_map(|image| image.edge).map(|edge| edge.vertex);
    let latest = form.latest(lowered.source_date_epoch);
    Exported { uses: Uses::of(&lowered.graph, roots), form, latest }
}

/// Makes the results of all platforms.
async fn make(
    effects: &Arc<Effects>,
    lowered: &Lowered,
    jobs: Option<usize>,
    cancel: &Cancel,
) -> Result<Vec<Built>, Error> {
    let mut solve = Solver::new(jobs);
    let ids = solve.add(&lowered.graph);
    let images = || lowered.platforms.iter().map(|platform| (platform, &lowered.images[platform]));
    let edges: Vec<_> = images().filter_map(|(_, image)| image.edge).collect();
    let roots: Vec<_> = edges.iter().map(|edge| ids[edge.vertex.index()]).collect();
    let results = Driver::new(&mut solve, effects).make(&roots, cancel).await;
    if let (Some(witness), false) = (&effects.witness, effects.is_rehearsal()) {
        witness.solved(&solve, &ids, lowered, &*effects.client);
    }
    let results = results?;
    let mut results = results.into_iter();
    let mut built = Vec::new();
    for (platform, image) in images() {
        let result = match image.edge {
            Some(_) => results.next().unwrap_or_else(|| VertexResult::layers(Vec::new())),
            None => VertexResult::layers(Vec::new()),
        };
        let result = effects.with_layers(result)?;
        built.push(Built { platform: platform.clone(), result, config: image.config.clone() });
    }
    Ok(built)
}

/// Writes all outputs; with none, the local store is one.
fn export(exporter: &Exporter<'_>, request: &BuildRequest) -> Result<BuildOutcome, Error> {
    let default = [Output::store()];
    let outputs = if request.outputs.is_empty() { &default[..] } else { &request.outputs };
    let mut outcome = BuildOutcome::default();
    for output in outputs {
        let set = match exporter.write(output) {
            Err(Cause::Cancelled) => return Err(Error::Cancelled),
            written => written?,
        };
        if let Some(set) = set {
            outcome.metadata.extend(metadata(&set));
            outcome.image = Some(set.top);
        }
    }
    let materials = exporter.effects.sources.materials();
    if !materials.is_empty() {
        outcome.metadata.insert(MATERIALS.to_owned(), materials.into());
    }
    Ok(outcome)
}
