//! One stage: from what it stands on to its last instruction.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile_parser::{Span, instruction::Instruction};
use graph::{About, Git, Http, OciLayout, Op, Source};
use oci::{PinnedImage, Platform};

use crate::{
    ErrorKind, Fact, Facts, LowerError, Request,
    describe::{StageUses, Uses},
    draft::{Drafts, Tree},
    error::at,
    git::{self, GitAddress},
    ignore::Ignore,
    limit::LARGEST_ENVIRONMENTS_BYTES,
    lint::from::base_platform,
    plan::{Origin, Plan, PlannedStage, Step},
    state::{Progress, State, range},
    variables::Variables,
    words::{Words, shown},
};

/// What lowering a file for one platform works with.
pub(crate) struct Lowerer<'a> {
    pub(crate) request: &'a Request,
    pub(crate) facts: &'a Facts,
    pub(crate) plan: &'a Plan<'a>,
    /// The platform that is built for.
    pub(crate) platform: &'a Platform,
    /// Whether progress names the platform.
    pub(crate) show_platform: bool,
    pub(crate) globals: &'a Variables,
    pub(crate) proxies: &'a BTreeMap<String, String>,
    /// The main context's.
    pub(crate) ignore: &'a Ignore,
    pub(crate) drafts: &'a mut Drafts,
    pub(crate) words: &'a mut Words,
    pub(crate) pinned: &'a mut BTreeSet<PinnedImage>,
    /// What the stages ask for, on the first platform.
    pub(crate) uses: &'a mut Uses,
    /// The stages done so far, by their number.
    pub(crate) done: BTreeMap<usize, State>,
    /// Bytes that environments and histories took so far.
    pub(crate) taken_bytes: usize,
}

/// A stage in the making.
pub(crate) struct Building {
    pub(crate) state: State,
    pub(crate) progress: Progress,
    /// The last `CMD`, `ENTRYPOINT` and `HEALTHCHECK` of this stage so far, by keyword. An `ENTRYPOINT` leaves a `CMD`
    /// of its own stage alone.
    pub(crate) latest: BTreeMap<&'static str, Span>,
    /// What it asks for.
    pub(crate) uses: StageUses,
}

impl Lowerer<'_> {
    /// Lowers all stages that the target needs, and gives the target.
    ///
    /// # Errors
    /// The first instruction that cannot be lowered.
    pub(crate) fn run(mut self) -> Result<State, LowerError> {
        let plan = self.plan;
        for (index, stage) in plan.stages.iter().enumerate().filter(|(_, stage)| stage.needed) {
            let state = self.stage(index, stage)?;
            self.take(state.variables.length_bytes(), stage.stage.from.span)?;
            self.done.insert(index, state);
        }
        Ok(self.done.remove(&plan.target).expect("the target is needed, so it was lowered"))
    }

    fn stage(&mut self, index: usize, planned: &PlannedStage<'_>) -> Result<State, LowerError> {
        let mut progress = self.progress(index, planned);
        let state = self.base(planned, &mut progress)?;
        if planned.replaced {
            return Ok(state);
        }
        let mut building =
            Building { state, progress, latest: BTreeMap::new(), uses: StageUses::of(planned) };
        building.state.config.config.on_build.clear();
        building.state.begin();
        for step in &planned.steps {
            self.step(&mut building, step)?;
        }
        self.uses.entry(index).or_insert(building.uses);
        Ok(building.state)
    }

    fn progress(&self, index: usize, planned: &PlannedStage<'_>) -> Progress {
        let makes_layer = |step: &&Step<'_>| {
            matches!(
                *step.instruction,
                Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_)
            ) || step.trigger
        };
        let base = usize::from(!matches!(planned.base, Origin::Empty | Origin::Stage(_)));
        let alone = self.plan.stages.len() == 1 && self.plan.images_used == 0;
        let stage = match planned.stage.name() {
            Some(name) => name.to_owned(),
            None => format!("stage-{index}"),
        };
        Progress {
            platform: self.show_platform.then(|| match &planned.base {
                Origin::Stage(below) => self.done[below].platform.clone(),
                _ => planned.platform.as_ref().unwrap_or(self.platform).clone(),
            }),
            stage,
            is_shown: !alone,
            total: base + planned.steps.iter().filter(makes_layer).count(),
            named: 0,
            ignore_cache: self.request.ignores_cache_of(planned.stage.name()),
        }
    }

    fn base(&mut self, planned: &PlannedStage<'_>, progress: &mut Progress) -> Result<State, LowerError> {
        let wanted = planned.platform.as_ref().unwrap_or(self.platform);
        let span = planned.stage.from.span;
        match &planned.base {
            Origin::Stage(below) => {
                Ok(self.done.get(below).expect("a needed stage's base is needed and stands above it").clone())
            }
            Origin::Empty => Ok(State::empty(self.platform)),
            Origin::Image { fact, context } => {
                let about = |name: String| {
                    progress.named += 1;
                    let mut about = progress.current(false, &name, "");
                    about.ignore_cache = false;
                    if let Some(context) = context {
                        about.name = format!("[context {context}] {name}");
                    }
                    About { source: Some(range(span)), ..about }
                };
                let known = self.facts.image(fact).expect("a plan that needs nothing has all its facts");
                if known.layers > 0 && context.is_none() {
                    let (name, actual) = (&planned.base_name, known.config.platform());
                    base_platform(name, wanted, &actual, span, &mut self.words.warnings);
                }
                let (config, layers) = (&known.config, known.layers);
                let own = config.platform();
                let same = own.os == wanted.os && own.architecture == wanted.architecture;
                let asked = planned.platform.is_some() || !self.request.target_platforms().1;
                // Where nobody asked for a platform, the steps are for the one that the image has.
                let platform = if asked || same || context.is_some() { wanted } else { &own };
                Ok(State::of_image(config, self.image_tree(fact, about), layers, platform))
            }
            origin => {
                let tree = self.tree(origin)?;
                Ok(State { tree, ..State::empty(wanted) })
            }
        }
    }

    /// The vertex of an image; `None` for one without layers.
    fn image_tree(&mut self, fact: &Fact, about: impl FnOnce(String) -> About) -> Option<Tree> {
        let known = self.facts.image(fact).expect("a plan that needs nothing has all its facts");
        let (source, name) = match fact {
            Fact::Image { reference, platform } => {
                let image = reference.pin(known.manifest);
                self.pinned.insert(image.clone());
                let name = format!(
                    "FROM {}@{}",
                    image.asked().split('@').next().unwrap_or_default(),
                    known.manifest
                );
                (Source::Image { image, platform: platform.clone() }, name)
            }
            Fact::OciLayout { store, version, platform } => {
                let layout =
                    OciLayout { store: store.clone(), manifest: known.manifest, platform: platform.clone() };
                (Source::OciLayout(layout), format!("FROM {store}{version}"))
            }
            Fact::Time(source) => ((**source).clone(), "FROM a source".to_owned()),
        };
        (known.layers > 0).then(|| self.drafts.add(Op::Source(source), Vec::new(), about(name)))
    }

    /// The tree of what a `--from` names; `None` is an empty one.
    pub(crate) fn tree(&mut self, origin: &Origin) -> Result<Option<Tree>, LowerError> {
        let about = |name: String| About { name, ..About::default() };
        Ok(match origin {
            Origin::Empty => None,
            Origin::Stage(stage) => {
                self.done.get(stage).expect("a needed stage's sources are needed and stand above it").tree
            }
            Origin::Image { fact, context } => self.image_tree(fact, |name| match context {
                Some(context) => about(format!("[context {context}] {name}")),
                None => about(name),
            }),
            Origin::Context { name, ignore } => {
                Some(self.drafts.context(name, ignore, &format!("[context {name}] load from client")))
            }
            Origin::Git { name, address } => {
                let source = git_source(address, None, address.keep_git_dir.unwrap_or(false));
                let about = about(format!("[context {name}] {}", git::shown(&address.remote)));
                Some(self.drafts.add(Op::Source(source), Vec::new(), about))
            }
            Origin::Later { name, span } => {
                return Err(at(*span, ErrorKind::LaterStage { name: name.clone() }));
            }
            Origin::Http { name, url } => {
                let http = Http { url: url.clone(), checksum: None, file_name: "context".to_owned() };
                let about = about(format!("[context {name}] {}", git::shown(url)));
                Some(self.drafts.add(Op::Source(Source::Http(http)), Vec::new(), about))
            }
        })
    }

    /// The main context.
    pub(crate) fn context(&mut self) -> Tree {
        self.drafts.main_context(self.request)
    }

    /// A step's text as progress shows it.
    pub(crate) fn shown(&self, state: &State, step: &Step<'_>) -> String {
        shown(&step.text, self.words.escape, &|name| state.variables.get(name).map(str::to_owned))
    }

    fn step(&mut self, building: &mut Building, step: &Step<'_>) -> Result<(), LowerError> {
        let entries = building.state.config.history.len();
        self.apply(building, step)?;
        let new = building.state.config.history.iter().skip(entries);
        let texts: usize = new.map(|entry| entry.created_by.as_ref().map_or(0, String::len)).sum();
        let runs = matches!(*step.instruction, Instruction::Run(_));
        self.take(texts + if runs { building.state.variables.length_bytes() } else { 0 }, step.span)
    }

    /// Counts what a part of the result takes.
    fn take(&mut self, bytes: usize, span: Span) -> Result<(), LowerError> {
        self.taken_bytes = self.taken_bytes.saturating_add(bytes);
        match self.taken_bytes > LARGEST_ENVIRONMENTS_BYTES {
            true => Err(at(span, ErrorKind::Environments)),
            false => Ok(()),
        }
    }

    fn apply(&mut self, building: &mut Building, step: &Step<'_>) -> Result<(), LowerError> {
        match &*step.instruction {
            Instruction::Add(add) => self.add(building, step, add),
            Instruction::Copy(copy) => self.copy(building, step, copy),
            Instruction::Run(run) => self.run_command(building, step, run),
            Instruction::Workdir(workdir) => self.workdir(building, step, workdir),
            _ => self.configure(building, step),
        }
    }
}

/// The source of a git address; `checksum` is the flag's.
pub(crate) fn git_source(address: &GitAddress, checksum: Option<String>, keep_git_dir: bool) -> Source {
    Source::Git(Git {
        remote: address.remote.clone(),
        reference: address.reference.clone(),
        commit: checksum.or_else(|| address.checksum.clone()),
        subfolder: address.subfolder.clone(),
        keep_git_dir,
        submodules: address.submodules.unwrap_or(true),
        mtime: address.mtime,
        fetch_by_commit: address.fetch_by_commit,
    })
}
