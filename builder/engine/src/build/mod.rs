//! One build from its Dockerfile's bytes to its outputs: the main flow.

pub(crate) mod drive;
pub(crate) mod facts;
pub(crate) mod internal;
pub(crate) mod report;

use std::{collections::BTreeMap, sync::Arc};

use dockerfile::{Facts, Lowered, Lowering, lower};
use futures_util::future::try_join_all;
use graph::SourceRange;
use oci::Descriptor;
use solver::Solver;

use crate::{
    build::{drive::Driver, internal::Internal},
    cancel::Cancel,
    effect::Effects,
    error::{Cause, Error},
    export::{Built, Exporter, metadata},
    progress::{Event, Warning},
    request::{BuildRequest, Output},
    result::VertexResult,
};

/// How often names may be asked for before lowering is done: an image's `ONBUILD` may name further ones.
const ROUNDS: usize = 16;

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
    let lowered = tokio::select! {
        lowered = lower_all(&effects, &request) => lowered?,
        () = cancel.wait() => return Err(Error::Cancelled),
    };
    for warning in &lowered.warnings {
        effects.sink.event(Event::Warning(Warning {
            vertex: None,
            code: warning.code.to_owned(),
            message: warning.message.clone(),
            source: Some(SourceRange { start: warning.span.start, end: warning.span.end }),
        }));
    }
    let built = make(&effects, &lowered, jobs, &cancel).await?;
    let epoch = lowered.source_date_epoch;
    let exporting = effects.clone();
    let exported = tokio::task::spawn_blocking(move || {
        let exporter =
            Exporter { effects: &exporting, built: &built, tags: &request.tags, epoch, cancel: &cancel };
        export(&exporter, &request)
    });
    exported.await.map_err(|error| Cause::Task(error.to_string()))?
}

/// Lowers, asking for what must be known until nothing is missing.
async fn lower_all(effects: &Arc<Effects>, request: &BuildRequest) -> Result<Lowered, Error> {
    let shown = Internal::start(
        effects,
        &format!("[internal] load build definition from {}", request.dockerfile_name),
    );
    let parsed = dockerfile_parser::parse(&request.dockerfile);
    let count = parsed.as_ref().err().map(|errors| format!("{} errors", errors.len()));
    shown.end(count.as_ref());
    let file = parsed.map_err(Error::Parse)?;
    let layouts = Arc::new(request.layouts.clone());
    let mut known = Facts::new();
    for _ in 0..ROUNDS {
        let needs =
            match lower(&file, &request.frontend, &known).map_err(|error| Error::Lower(Box::new(error)))? {
                Lowering::Done(lowered) => return Ok(*lowered),
                Lowering::Needs(needs) => needs,
            };
        let answers = needs.into_iter().map(|(fact, span)| {
            let (effects, layouts) = (effects.clone(), layouts.clone());
            async move {
                let asked = fact.clone();
                match facts::answer(effects, fact, layouts, request.pull).await {
                    Ok(answer) => Ok((asked, answer)),
                    Err(cause) => Err(Error::Vertex {
                        vertex: format!("[internal] load metadata for {asked}"),
                        digest: oci::Digest::of(asked.to_string().as_bytes()),
                        source_range: Some(SourceRange { start: span.start, end: span.end }),
                        cause: Box::new(cause),
                    }),
                }
            }
        });
        known.extend(try_join_all(answers).await?);
    }
    Err(Cause::NotYet(format!("a Dockerfile whose images name further images more than {ROUNDS} times"))
        .into())
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
    let edges: Vec<_> = lowered.images.values().filter_map(|image| image.edge).collect();
    let roots: Vec<_> = edges.iter().map(|edge| ids[edge.vertex.index()]).collect();
    let results = Driver::new(&mut solve, effects).make(&roots, cancel).await?;
    effects.contexts.save(effects)?;
    let mut results = results.into_iter();
    let mut built = Vec::new();
    for (platform, image) in &lowered.images {
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
    let default = [Output::Store];
    let outputs = if request.outputs.is_empty() { &default[..] } else { &request.outputs };
    let mut outcome = BuildOutcome::default();
    for output in outputs {
        let set = match exporter.write(output) {
            Err(Cause::Cancelled) => return Err(Error::Cancelled),
            written => written?,
        };
        if let Some(set) = set {
            outcome.metadata = metadata(&set, &request.tags);
            outcome.image = Some(set.top);
        }
    }
    Ok(outcome)
}
