//! From a Dockerfile and a request to a graph and image configs, in rounds: what must be known of the world first is
//! asked for, all of it at once, and then lowering starts again.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile_parser::{Dockerfile, Span};
use graph::{Edge, Graph};
use oci::{Epoch, ImageConfig, PinnedImage, Platform};

use crate::{
    Fact, Facts, LowerError, Policy, Request, Warning,
    describe::Uses,
    draft::{Drafts, Edges},
    epoch::{self, Dating},
    frontend,
    globals::globals,
    ignore::Ignore,
    lint,
    plan::Planner,
    stage::Lowerer,
    state::State,
    variables::proxies,
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
    /// Their platforms, in the order in which they were asked for.
    pub platforms: Vec<Platform>,
    /// Whether the result is one of several platforms, be it of one only: an index, a folder for each.
    pub several_platforms: bool,
    /// What was noticed, in the order of the file.
    pub warnings: Vec<Warning>,
    /// Which checks the file wants, for those that are made while it is built.
    pub checks: Policy,
    /// The images that names were resolved to.
    pub pinned: BTreeSet<PinnedImage>,
    /// `SOURCE_DATE_EPOCH` of the build arguments, else of the file: times later than this are clamped when the image is
    /// written.
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
    let mut words = Words::new(file, request)?;
    let passed = pass(file, request, facts, Stages::Needed, &mut words);
    let (warnings, checks) = words.warnings.finish();
    let noticed = |error| LowerError { warnings: warnings.clone(), ..error };
    let done = match passed.map_err(noticed)? {
        Passed::Needs(needs) => return Ok(Lowering::Needs(needs)),
        Passed::Done(done) => done,
    };
    if let Some(error) = checks.verdict(&warnings) {
        return Err(noticed(error));
    }
    let (graph, edges) = done.drafts.finish();
    let (platforms, implicit) = request.target_platforms();
    let several_platforms = request.several_platforms();
    let image = |(platform, state): (Platform, State)| {
        let image = image(&platform, implicit, state, request, &edges);
        (platform, image)
    };
    let images = done.states.into_iter().map(image).collect();
    let (pinned, source_date_epoch) = (done.pinned, done.epoch);
    Ok(Lowering::Done(Box::new(Lowered {
        graph,
        images,
        platforms,
        several_platforms,
        warnings,
        checks,
        pinned,
        source_date_epoch,
    })))
}

/// Which stages a pass walks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stages {
    /// Those that the target needs.
    Needed,
    /// Every one.
    All,
}

/// How far a pass came.
pub(crate) enum Passed {
    /// It lacks facts, see [`Lowering::Needs`].
    Needs(BTreeMap<Fact, Span>),
    /// To the end.
    Done(Box<Done>),
}

/// The stages of a whole pass, before they become a graph.
pub(crate) struct Done {
    drafts: Drafts,
    states: Vec<(Platform, State)>,
    pinned: BTreeSet<PinnedImage>,
    epoch: Option<Epoch>,
    /// The number of the stage that is wanted.
    pub(crate) target: usize,
    /// What the stages ask for, on the first platform.
    pub(crate) uses: Uses,
}

/// Walks the stages of a file, for every platform, and gathers warnings in `words`.
///
/// # Errors
/// As [`lower`].
pub(crate) fn pass(
    file: &Dockerfile,
    request: &Request,
    facts: &Facts,
    stages: Stages,
    words: &mut Words,
) -> Result<Passed, LowerError> {
    frontend::check_file(file, request)?;
    lint::text::whole_file(file, &mut words.warnings);
    let (platforms, _) = request.target_platforms();
    let dated = match epoch::date(file, request, facts, &platforms[0], words)? {
        Dating::Needs(fact, span) => return Ok(Passed::Needs([(*fact, span)].into())),
        Dating::Known(dated) => dated,
    };
    let (request, epoch) = (&*dated.request, dated.epoch);
    let mut planned = Vec::with_capacity(platforms.len());
    let mut needs = BTreeMap::new();
    for platform in &platforms {
        lint::from::default_arguments(file, request, platform, words);
        let mut globals = globals(file, request, &request.build_args, platform, words)?;
        dated.apply(&mut globals);
        let plan = Planner { file, request, facts, platform, globals: &globals, stages, words }.plan()?;
        for (fact, span) in &plan.needs {
            needs.entry(fact.clone()).or_insert(*span);
        }
        planned.push((platform, globals, plan));
    }
    if !needs.is_empty() {
        return Ok(Passed::Needs(needs));
    }
    let show_platform = request.several_platforms();
    let proxies = proxies(request);
    // Patterns that are none are refused by whoever reads the context.
    let ignore = Ignore::new(&request.ignore).unwrap_or_default();
    let mut drafts = Drafts::default();
    let mut pinned = BTreeSet::new();
    let mut uses = Uses::new();
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
            ignore: &ignore,
            drafts: &mut drafts,
            words: &mut *words,
            pinned: &mut pinned,
            uses: &mut uses,
            done: BTreeMap::new(),
            taken_bytes: 0,
        };
        let state = lowerer.run()?;
        if let Some(tree) = state.tree {
            // An image holds all of its tree, also where that is a context's.
            drafts.reach(tree, "/");
        }
        states.push(((*platform).clone(), state));
    }
    let target = planned.first().map_or(0, |(_, _, plan)| plan.target);
    Ok(Passed::Done(Box::new(Done { drafts, states, pinned, epoch, target, uses })))
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
