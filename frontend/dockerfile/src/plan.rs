//! Which stages a build needs, what each stands on, and which images must be known first.
//!
//! A stage can name only earlier ones, so one pass down the file from the target finds all that is needed. Names are
//! checked in every stage, needed or not, as BuildKit does; images are asked for in needed stages only.

use std::{borrow::Cow, collections::BTreeMap};

use dockerfile_parser::{
    Dockerfile, Span, Stage, Word,
    instruction::{Instruction, Run},
    parse_trigger,
    suggest::near,
};
use oci::{ImageConfig, Platform, Reference};

use crate::{
    ErrorKind, Fact, Facts, LowerError, NamedContext, Request, error::at, git::GitAddress, lint,
    lower::Stages, variables::Variables, words::Words,
};

/// Where a tree comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// `scratch`.
    Empty,
    /// An earlier stage.
    Stage(usize),
    /// An image, for the platform that the fact names.
    Image { fact: Fact, context: Option<String> },
    /// A folder that a `--build-context` names.
    Context { name: String, ignore: Vec<String> },
    /// A git repository that a `--build-context` names.
    Git { name: String, address: GitAddress },
    /// A file that a `--build-context` names.
    Http { name: String, url: String },
    /// A stage further down the file: a mistake, but one that BuildKit sees in stages that are needed only.
    Later { name: String, span: Span },
}

/// A stage with all its names resolved.
pub(crate) struct PlannedStage<'a> {
    pub(crate) stage: &'a Stage,
    /// What it stands on, by its name in the file, variables replaced.
    pub(crate) base_name: String,
    /// What that is.
    pub(crate) base: Origin,
    /// Whether a named context stands for the whole stage: `base` is its result.
    pub(crate) replaced: bool,
    /// `--platform` of its `FROM`.
    pub(crate) platform: Option<Platform>,
    /// Its instructions, the base's triggers first.
    pub(crate) steps: Vec<Step<'a>>,
    /// Whether the target needs it.
    pub(crate) needed: bool,
}

impl Step<'_> {
    /// The keyword as written, in any case.
    pub(crate) fn keyword(&self) -> &str {
        self.text.split_whitespace().next().unwrap_or_default()
    }
}

/// An instruction with the trees that it names.
#[derive(Clone)]
pub(crate) struct Step<'a> {
    pub(crate) instruction: Cow<'a, Instruction>,
    /// The instruction as one line, as written.
    pub(crate) text: Cow<'a, str>,
    /// Where people are led to: for a trigger the `FROM` that pulls it.
    pub(crate) span: Span,
    /// Whether the base's `ONBUILD` put it here.
    pub(crate) trigger: bool,
    /// `--from` of a `COPY`; for a `RUN` the `from` of each mount.
    pub(crate) from: Vec<Option<Origin>>,
}

/// All stages of a file for one platform.
pub(crate) struct Plan<'a> {
    pub(crate) stages: Vec<PlannedStage<'a>>,
    /// The stage that is wanted.
    pub(crate) target: usize,
    /// Images that must be known before the plan is whole, each with the place that first names it.
    pub(crate) needs: BTreeMap<Fact, Span>,
    /// How many images are copied or mounted from, each place counted.
    pub(crate) images_used: usize,
}

/// What planning looks at.
pub(crate) struct Planner<'a, 'w> {
    pub(crate) file: &'a Dockerfile,
    pub(crate) request: &'a Request,
    pub(crate) facts: &'a Facts,
    /// The platform that is built for.
    pub(crate) platform: &'w Platform,
    /// Global arguments.
    pub(crate) globals: &'w Variables,
    /// Whether stages that the target does not need are wanted too.
    pub(crate) stages: Stages,
    pub(crate) words: &'w mut Words,
}

impl<'a> Planner<'a, '_> {
    /// Resolves every name of the file.
    ///
    /// # Errors
    /// The first name that leads nowhere, with its place.
    pub(crate) fn plan(mut self) -> Result<Plan<'a>, LowerError> {
        let target = self.target()?;
        let mut stages = Vec::with_capacity(self.file.stages.len());
        for (index, stage) in self.file.stages.iter().enumerate() {
            stages.push(self.stage(index, stage)?);
        }
        let mut needs = BTreeMap::new();
        stages[target].needed = true;
        if self.stages == Stages::All {
            stages.iter_mut().for_each(|stage| stage.needed = true);
        }
        for index in (0..stages.len()).rev() {
            if stages[index].needed {
                let triggers = self.triggers(index, &stages)?;
                stages[index].steps.splice(0..0, triggers);
                self.follow(index, &mut stages, &mut needs)?;
            }
        }
        let steps = stages.iter().flat_map(|stage| &stage.steps);
        let is_image = |origin: &&Origin| !matches!(origin, Origin::Stage(_));
        let images_used = steps.flat_map(|step| &step.from).flatten().filter(is_image).count();
        Ok(Plan { stages, target, needs, images_used })
    }

    fn target(&self) -> Result<usize, LowerError> {
        let stages = &self.file.stages;
        let Some(wanted) = self.request.target.as_deref().filter(|name| !name.is_empty()) else {
            return stages.len().checked_sub(1).ok_or_else(|| LowerError::new(ErrorKind::NoStage, None));
        };
        let lower = wanted.to_lowercase();
        stages.iter().rposition(|stage| stage.name() == Some(&lower)).ok_or_else(|| {
            let names = stages.iter().filter_map(Stage::name);
            let kind = ErrorKind::UnknownTarget {
                name: wanted.to_owned(),
                near: near(wanted, names.clone()),
                stages: names.map(str::to_owned).collect(),
            };
            LowerError::new(kind, None)
        })
    }

    fn stage(&mut self, index: usize, stage: &'a Stage) -> Result<PlannedStage<'a>, LowerError> {
        let from = &stage.from.value;
        let name = self.words.base_word(self.globals, &from.image)?.text;
        if name.is_empty() {
            return Err(at(from.image.span, ErrorKind::EmptyBase { written: from.image.text.clone() }));
        }
        let platform = match &from.platform {
            Some(word) => Some(self.platform(stage, word)?),
            None => None,
        };
        let wanted = platform.clone().unwrap_or_else(|| self.platform.clone());
        let replacement = match stage.name() {
            Some(name) => self.context(name, &wanted, stage.from.span)?,
            None => None,
        };
        let replaced = replacement.is_some();
        let base = match replacement {
            Some(origin) => origin,
            None => self.base(index, &name, &wanted, from.image.span)?,
        };
        let mut steps = Vec::new();
        if !replaced {
            for node in &stage.instructions {
                let step = Step {
                    instruction: Cow::Borrowed(&node.value),
                    text: Cow::Borrowed(&node.text),
                    span: node.span,
                    trigger: false,
                    from: self.origins(index, &node.value)?,
                };
                steps.push(step);
            }
        }
        Ok(PlannedStage { stage, base_name: name, base, replaced, platform, steps, needed: false })
    }

    fn platform(&mut self, stage: &Stage, word: &Word) -> Result<Platform, LowerError> {
        let expanded = self.words.base_word(self.globals, word)?;
        lint::from::platform(stage, word, &expanded, self.globals, &mut self.words.warnings);
        let text = expanded.text;
        if text.is_empty() {
            return Err(at(word.span, ErrorKind::EmptyPlatform { written: word.text.clone() }));
        }
        text.parse().map_err(|source| at(word.span, ErrorKind::Platform(source)))
    }

    /// What a `FROM` names. A stage is found by its name in lower case only, as BuildKit does.
    fn base(&self, index: usize, name: &str, wanted: &Platform, span: Span) -> Result<Origin, LowerError> {
        let earlier = &self.file.stages[..index];
        if let Some(stage) = earlier.iter().rposition(|stage| stage.name() == Some(name)) {
            return Ok(Origin::Stage(stage));
        }
        self.elsewhere(name, wanted, span).map_err(|mut error| {
            if let ErrorKind::Image { near: hint, .. } = &mut *error.kind {
                *hint = near(name, earlier.iter().filter_map(Stage::name));
            }
            error
        })
    }

    /// What is no stage: `scratch`, a named context, or an image.
    fn elsewhere(&self, name: &str, wanted: &Platform, span: Span) -> Result<Origin, LowerError> {
        if name == "scratch" {
            return Ok(Origin::Empty);
        }
        if let Some(origin) = self.context(name, wanted, span)? {
            return Ok(origin);
        }
        let reference =
            Reference::parse(name).map_err(|source| at(span, ErrorKind::Image { source, near: None }))?;
        Ok(Origin::Image { fact: Fact::Image { reference, platform: wanted.clone() }, context: None })
    }

    fn context(&self, name: &str, wanted: &Platform, span: Span) -> Result<Option<Origin>, LowerError> {
        let Some((name, context)) = self.request.named_context(name, wanted) else { return Ok(None) };
        let name = name.to_owned();
        Ok(Some(match context {
            NamedContext::Local { ignore } => Origin::Context { name, ignore: ignore.clone() },
            NamedContext::Scratch => Origin::Empty,
            NamedContext::Image(reference) => Origin::Image {
                fact: Fact::Image { reference: reference.clone(), platform: wanted.clone() },
                context: Some(name),
            },
            NamedContext::OciLayout { store, version } => Origin::Image {
                fact: Fact::OciLayout {
                    store: store.clone(),
                    version: version.clone(),
                    platform: wanted.clone(),
                },
                context: Some(name),
            },
            NamedContext::Git(url) => match GitAddress::parse(url) {
                Some(Ok(address)) => Origin::Git { name, address },
                Some(Err(source)) => return Err(at(span, ErrorKind::Git(source))),
                None => return Err(at(span, ErrorKind::NoGitAddress { name, url: url.clone() })),
            },
            NamedContext::Http(url) => Origin::Http { name, url: url.clone() },
        }))
    }

    /// The trees that an instruction of stage `index` names.
    fn origins(&self, index: usize, instruction: &Instruction) -> Result<Vec<Option<Origin>>, LowerError> {
        match instruction {
            Instruction::Copy(copy) => match &copy.from {
                Some(word) => Ok(vec![Some(self.source(index, &word.text, word.span)?)]),
                None => Ok(Vec::new()),
            },
            Instruction::Run(run) => self.mount_origins(index, run),
            _ => Ok(Vec::new()),
        }
    }

    fn mount_origins(&self, index: usize, run: &Run) -> Result<Vec<Option<Origin>>, LowerError> {
        let mut origins = Vec::with_capacity(run.mounts.len());
        for raw in &run.mounts {
            origins.push(match mount_from(&raw.text.text) {
                Some(name) => Some(self.source(index, &name, raw.text.span)?),
                None => None,
            });
        }
        Ok(origins)
    }

    /// What a `--from` in stage `index` names: a stage by number or name, a named context, an image. Images are
    /// taken for the platform that is built for, whatever the stage's.
    fn source(&self, index: usize, name: &str, span: Span) -> Result<Origin, LowerError> {
        let stages = &self.file.stages;
        let lower = name.to_lowercase();
        let named = |stage: &Stage| stage.name() == Some(&lower);
        let number = name.parse::<usize>().ok();
        let found = match number {
            Some(number) if number >= stages.len() => {
                return Err(at(span, ErrorKind::StageNumber { number, stages: stages.len() }));
            }
            Some(number) => Some(number),
            // The nearest stage above wins, else a stage below is what was meant.
            None => stages[..index].iter().rposition(named).or_else(|| stages.iter().position(named)),
        };
        match found {
            Some(stage) if stage < index => Ok(Origin::Stage(stage)),
            Some(stage) if stage == index => Err(at(span, ErrorKind::OwnStage { name: name.to_owned() })),
            Some(_) => Ok(Origin::Later { name: name.to_owned(), span }),
            None => self.elsewhere(name, self.platform, span),
        }
    }

    /// The triggers that the base of a stage pulls. Of a base image they are known once its config is.
    fn triggers(&self, index: usize, stages: &[PlannedStage<'a>]) -> Result<Vec<Step<'a>>, LowerError> {
        let PlannedStage { stage, base, replaced, .. } = &stages[index];
        let span = stage.from.span;
        match base {
            _ if *replaced => Ok(Vec::new()),
            Origin::Stage(below) if stages[*below].replaced => {
                self.image_triggers(index, self.config(&stages[*below].base), span)
            }
            Origin::Stage(below) => {
                let mut triggers = Vec::new();
                for node in &stages[*below].stage.instructions {
                    if let Instruction::Onbuild(onbuild) = &node.value {
                        let from = self.origins(index, &onbuild.instruction)?;
                        let instruction = Cow::Borrowed(&*onbuild.instruction);
                        let text = Cow::Borrowed(first_line(&onbuild.trigger));
                        triggers.push(Step { instruction, text, span, trigger: true, from });
                    }
                }
                Ok(triggers)
            }
            origin => self.image_triggers(index, self.config(origin), span),
        }
    }

    fn image_triggers(
        &self,
        index: usize,
        config: Option<&ImageConfig>,
        span: Span,
    ) -> Result<Vec<Step<'a>>, LowerError> {
        let mut triggers = Vec::new();
        for text in config.iter().flat_map(|config| &config.config.on_build) {
            let bad = |sources| at(span, ErrorKind::Trigger { trigger: text.clone(), sources });
            let node = parse_trigger(text, span).map_err(bad)?;
            let from = self.origins(index, &node.value)?;
            let text = Cow::Owned(node.text);
            triggers.push(Step { instruction: Cow::Owned(node.value), text, span, trigger: true, from });
        }
        Ok(triggers)
    }

    fn config(&self, origin: &Origin) -> Option<&'a ImageConfig> {
        match origin {
            Origin::Image { fact, .. } => self.facts.image(fact).map(|fact| &*fact.config),
            _ => None,
        }
    }

    /// Marks what a needed stage needs: stages, and facts that are not there yet.
    fn follow(
        &self,
        index: usize,
        stages: &mut [PlannedStage<'a>],
        needs: &mut BTreeMap<Fact, Span>,
    ) -> Result<(), LowerError> {
        let (below, from_here) = stages.split_at_mut(index);
        let Some(stage) = from_here.first() else { return Ok(()) };
        let base = (&stage.base, stage.stage.from.value.image.span);
        let steps =
            stage.steps.iter().flat_map(|step| step.from.iter().flatten().map(|from| (from, step.span)));
        for (origin, span) in std::iter::once(base).chain(steps) {
            match origin {
                Origin::Stage(stage) => below[*stage].needed = true,
                Origin::Image { fact, .. } if !self.facts.contains_key(fact) => {
                    needs.entry(fact.clone()).or_insert(span);
                }
                Origin::Later { name, span } => {
                    return Err(at(*span, ErrorKind::LaterStage { name: name.clone() }));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The `from` of a mount's options before any of them is expanded: a variable in it is refused when the file is read.
fn mount_from(options: &str) -> Option<String> {
    let mut from = None;
    for field in fields(options) {
        let (key, value) = field.split_once('=').unwrap_or((&field, ""));
        match &*key.to_lowercase() {
            "from" => from = Some(value.to_owned()),
            // What a file system in memory would be seeded from is never looked at.
            "type" if value.eq_ignore_ascii_case("tmpfs") => return None,
            _ => {}
        }
    }
    from.filter(|name| !name.is_empty())
}

/// Comma-separated values, of which quoted ones may hold commas; they are known to be well-formed.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let Some(field) = fields.last_mut() else { break };
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => field.extend(rest.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

/// The line of a trigger without its heredocs.
fn first_line(text: &str) -> &str {
    text.split('\n').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_name_their_trees() {
        for (options, from) in [
            ("from=a,target=/x", Some("a")),
            ("type=cache,FROM=a,from=b", Some("b")),
            ("\"from=a,b\",target=\"\"\"\"", Some("a,b")),
            ("type=tmpfs,from=a", None),
            ("from=,target=/x", None),
            ("target=/from=a", None),
        ] {
            assert_eq!(mount_from(options).as_deref(), from, "{options}");
        }
    }
}
