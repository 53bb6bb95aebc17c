//! From a Dockerfile and a request to a graph and image configs, in rounds: what must be known of the world first is
//! asked for, all of it at once, and then lowering starts again.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile_parser::{DirectiveName, Dockerfile, Span, Word};
use graph::{Edge, Graph};
use oci::{Epoch, ImageConfig, PinnedImage, Platform, Reference};

use crate::{
    ErrorKind, Fact, Facts, LowerError, Request, Warning,
    draft::{Drafts, Edges},
    plan::Planner,
    stage::Lowerer,
    state::State,
    variables::{Variables, predefined, proxies},
    warning::Warnings,
    words::Words,
};

/// What came of lowering.
#[derive(Clone, Debug)]
pub enum Lowering {
    /// Facts that must be known first, each with the place of the Dockerfile that asks for it. They do not depend on
    /// one another; answers may show that more are needed (an image's `ONBUILD COPY --from=…`).
    Needs(BTreeMap<Fact, Span>),
    /// All is known.
    Done(Box<Lowered>),
}

/// A Dockerfile, lowered.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// What to do. Every vertex is needed by one of the images.
    pub graph: Graph,
    /// The images to make of it, by the platform that was asked for.
    pub images: BTreeMap<Platform, LoweredImage>,
    /// What was noticed, in the order of the file.
    pub warnings: Vec<Warning>,
    /// The images that names were resolved to.
    pub pinned: BTreeSet<PinnedImage>,
    /// `SOURCE_DATE_EPOCH`: of the build arguments, else of the file, else of the request.
    pub source_date_epoch: Option<Epoch>,
}

/// An image to make.
#[derive(Clone, Debug, PartialEq)]
pub struct LoweredImage {
    /// Its root file system; `None` is an empty one, without a layer.
    pub edge: Option<Edge>,
    /// Its config, but for what is known only once it is built: `rootfs.diff_ids` is empty, `created` is not set, and
    /// neither is that of history entries that are not a base image's.
    pub config: ImageConfig,
    /// How many of the layers, counted from the bottom, are a base image's.
    pub base_layers: usize,
}

/// Lowers a Dockerfile for every platform of the request, into one graph that the platforms share.
///
/// Pure: the same values give the same graph, vertex by vertex.
///
/// # Errors
/// The first thing that cannot be lowered, with its place. Names of stages, contexts and images are checked in every
/// stage; everything else in those that the target needs.
pub fn lower(file: &Dockerfile, request: &Request, facts: &Facts) -> Result<Lowering, LowerError> {
    check_frontend(file, request)?;
    let warnings = Warnings::new(file, request.build_args.get("BUILDKIT_DOCKERFILE_CHECK"));
    let mut words = Words { escape: file.escape, warnings };
    let (platforms, implicit) = request.target_platforms();
    let mut epoch = request.source_date_epoch;
    let mut planned = Vec::with_capacity(platforms.len());
    let mut needs = BTreeMap::new();
    for platform in &platforms {
        let globals = globals(file, request, platform, &words)?;
        epoch = self::epoch(request, &globals)?.or(epoch);
        let plan = Planner { file, request, facts, platform, globals: &globals, words: &mut words }.plan()?;
        for (fact, span) in &plan.needs {
            needs.entry(fact.clone()).or_insert(*span);
        }
        planned.push((platform, globals, plan));
    }
    if !needs.is_empty() {
        return Ok(Lowering::Needs(needs));
    }
    let show_platform = platforms.len() > 1
        || request
            .build_args
            .get("BUILDKIT_MULTI_PLATFORM")
            .is_some_and(|value| value == "1" || value == "true");
    let proxies = proxies(request);
    let mut drafts = Drafts::default();
    let mut pinned = BTreeSet::new();
    let mut states = Vec::with_capacity(planned.len());
    for (platform, globals, plan) in &planned {
        let lowerer = Lowerer {
            request,
            facts,
            plan,
            platform,
            show_platform,
            globals,
            proxies: &proxies,
            drafts: &mut drafts,
            words: &mut words,
            pinned: &mut pinned,
            done: BTreeMap::new(),
        };
        let state = lowerer.run()?;
        if let Some(tree) = state.tree {
            // An image holds all of its tree, also where that is a context's.
            drafts.reach(tree, "/");
        }
        states.push(((*platform).clone(), state));
    }
    let (warnings, rules) = words.warnings.finish();
    if !rules.is_empty() {
        let span = warnings.first().map(|warning| warning.span);
        return Err(LowerError::new(ErrorKind::Checks { rules: rules.into_iter().collect() }, span));
    }
    let (graph, edges) = drafts.finish();
    let image = |(platform, state): (Platform, State)| {
        let image = image(&platform, implicit, state, request, &edges);
        (platform, image)
    };
    let images = states.into_iter().map(image).collect();
    Ok(Lowering::Done(Box::new(Lowered { graph, images, warnings, pinned, source_date_epoch: epoch })))
}

fn image(
    platform: &Platform,
    implicit: bool,
    state: State,
    request: &Request,
    edges: &Edges,
) -> LoweredImage {
    let State { tree, mut config, base_layers, .. } = state;
    config.config.labels.extend(request.labels.clone());
    if !implicit {
        let same = config.os == platform.os && config.architecture == platform.architecture;
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        if platform.variant.is_some() || !same {
            config.variant.clone_from(&platform.variant);
        }
        if platform.os_version.is_some() || !same {
            config.os_version.clone_from(&platform.os_version);
        }
    }
    let normal = config.platform();
    (config.os, config.architecture, config.variant) = (normal.os, normal.architecture, normal.variant);
    LoweredImage { edge: tree.map(|tree| edges.of(tree)), config, base_layers }
}

/// Refuses a `# syntax=` that is not the language built in, which may come from a mirror under any host's name.
fn check_frontend(file: &Dockerfile, request: &Request) -> Result<(), LowerError> {
    let directive = file.directives.iter().find(|directive| directive.name == DirectiveName::Syntax);
    let (text, span) = match (request.build_args.get("BUILDKIT_SYNTAX"), directive) {
        (Some(text), _) => (text, None),
        (None, Some(directive)) => (&directive.value, Some(directive.value_span)),
        (None, None) => return Ok(()),
    };
    let frontend = text.split_whitespace().next().unwrap_or_default();
    let built_in = |repository: &str| {
        ["docker/dockerfile", "docker/dockerfile-upstream"].iter().any(|name| {
            repository == *name || repository.strip_suffix(name).is_some_and(|r| r.ends_with('/'))
        })
    };
    let known = Reference::parse(frontend).is_ok_and(|reference| built_in(&reference.repository));
    match known || matches!(frontend, "" | "dockerfile.v0") {
        true => Ok(()),
        false => Err(LowerError::new(ErrorKind::Frontend { frontend: frontend.to_owned() }, span)),
    }
}

/// The arguments that `FROM` lines see: predefined ones, and the `ARG`s above the first `FROM`.
fn globals(
    file: &Dockerfile,
    request: &Request,
    platform: &Platform,
    words: &Words,
) -> Result<Variables, LowerError> {
    let name = match request.target.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Some(name),
        None => file.stages.last().and_then(|stage| stage.name()),
    };
    let mut globals = predefined(request, platform, name);
    for arg in file.global_args.iter().flat_map(|node| &node.value.names) {
        let name: &Word = &arg.name;
        let value = match (request.build_args.get(&name.text), &arg.value) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => Some(words.global_default(&globals, default)?),
            (None, None) => None,
        };
        if let Some(value) = value {
            globals.set(&name.text, &value);
        }
    }
    Ok(globals)
}

/// `SOURCE_DATE_EPOCH` of the build arguments or the file. A main context that is a folder has no time of its own.
fn epoch(request: &Request, globals: &Variables) -> Result<Option<Epoch>, LowerError> {
    let name = "SOURCE_DATE_EPOCH";
    let value = request.build_args.get(name).map(String::as_str).or_else(|| globals.get(name));
    match value {
        None | Some("" | "context") => Ok(None),
        Some(value) => match value.parse::<u64>() {
            Ok(seconds) => Ok(Some(Epoch(seconds))),
            Err(_) => Err(LowerError::new(ErrorKind::SourceDateEpoch { value: value.to_owned() }, None)),
        },
    }
}
