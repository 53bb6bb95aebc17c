//! `COPY`, `ADD`, `WORKDIR` and heredocs: planned from manifests, then written once.

use dockerfile::{ignore::Ignore, text};
use graph::{ActionInput, Chmod, FileAction, FileOp, Owner, OwnerName};
use image::{
    copy::{
        self, CopyError, CopySpec, Destination, Input, Mkdir, Mkfile, Plan, Planner, Rm, Source, Symlink,
    },
    folder::{PlannedLayer, SourceFolder, write_plan},
};
use tree::{Accounts, LayerPath, Mtime, Stack};

use super::{Effects, Job, archive::Unpacked, cache::Ran, rest::Made};
use crate::{
    error::Cause,
    result::{Mounted, VertexResult, mtime},
};

impl Effects {
    /// Does the actions, and keeps what they made as one layer on top of the first action's tree.
    pub(crate) fn file(&self, file: &FileOp, job: &Job) -> Result<Made, Cause> {
        let started = self.clock.now();
        let work = FileWork::new(self, file, job)?;
        let (base, plan, unpacked) = work.plan(file)?;
        let mut sources = work.inputs.iter().map(Mounted::sources).collect::<Result<Vec<_>, _>>()?;
        for archive in &unpacked {
            let folder = SourceFolder::stored(&archive.folder).map_err(Cause::io("open", &archive.folder))?;
            sources.push(vec![folder]);
        }
        let below = match base {
            Some(input) => job.inputs[input].0.as_layers(),
            None => &[],
        };
        let ran = Ran { started, took: store::Took::default() };
        let planned = PlannedLayer::new(plan, sources);
        if self.is_for_an_archive_only(&job.digest) && planned.fits_a_tar() {
            return Ok(self.keep_planned(job, below, planned, &ran)?.into());
        }
        let upper = self.lease.new_folder()?;
        write_plan(planned.plan(), planned.inputs(), &upper, self.upper_form())?;
        self.keep_layer(job, below, planned.into_layer(), &upper, &ran)
    }
}

/// The trees that one file op works on.
struct FileWork<'a> {
    effects: &'a Effects,
    inputs: Vec<Mounted>,
    job: &'a Job,
    scratch: Stack,
    now: Mtime,
}

/// A tree on its way: which input it stands on, and what the actions so far made of it.
struct Chain<'a> {
    base: Option<usize>,
    planner: Option<Planner<'a>>,
    /// Once something copies from it, it is finished.
    finished: Option<(Plan, Stack)>,
}

impl<'a> FileWork<'a> {
    fn new(effects: &'a Effects, file: &FileOp, job: &'a Job) -> Result<FileWork<'a>, Cause> {
        let read = read_inputs(file);
        let mut inputs = Vec::new();
        for (at, (result, _)) in job.inputs.iter().enumerate() {
            // Of a tree that is only built on, the manifests are enough.
            inputs.push(match (result, read.contains(&at)) {
                (VertexResult::Layers { layers, .. }, false) => Mounted {
                    stack: effects.stack(layers)?,
                    folders: Vec::new(),
                    watched: false,
                    known: None,
                },
                _ => effects.mounted(result)?,
            });
        }
        let now = mtime(effects.clock.now().epoch());
        Ok(FileWork { effects, inputs, job, scratch: Stack::default(), now })
    }

    /// Plans all actions. The input that the result stands on, the plan, and the archives that it takes files from.
    fn plan(&self, file: &FileOp) -> Result<(Option<usize>, Plan, Vec<Unpacked>), Cause> {
        let unpacked = self.unpack_archives(file)?;
        let mut chains: Vec<Chain<'_>> = Vec::new();
        for (at, action) in file.actions.iter().enumerate() {
            let mut chain = self.take(on(action), &mut chains)?;
            if let FileAction::Copy { from: ActionInput::Action(source), .. } = action {
                self.finish(&mut chains, *source)?;
            }
            let planner = chain.planner.as_mut().ok_or_else(branches)?;
            self.act(action, at, planner, chain.base, &chains, &unpacked)?;
            chains.push(chain);
        }
        let last = chains.pop().ok_or_else(|| Cause::Task("a file operation without actions".to_owned()))?;
        let plan = last.planner.ok_or_else(branches)?.finish();
        Ok((last.base, plan, unpacked))
    }

    fn take<'s>(&'s self, on: ActionInput, chains: &mut [Chain<'s>]) -> Result<Chain<'s>, Cause> {
        let begin = |base: Option<usize>| {
            let stack = base.map_or(&self.scratch, |input| &self.inputs[input].stack);
            Chain { base, planner: Some(Planner::new(stack)), finished: None }
        };
        match on {
            ActionInput::Scratch => Ok(begin(None)),
            ActionInput::Input(input) => Ok(begin(Some(input))),
            ActionInput::Action(earlier) => {
                let chain = chains.get_mut(earlier).ok_or_else(branches)?;
                let planner = Some(chain.planner.take().ok_or_else(branches)?);
                Ok(Chain { base: chain.base, planner, finished: None })
            }
        }
    }

    /// Makes the result of an action something to copy from.
    fn finish(&self, chains: &mut [Chain<'_>], at: usize) -> Result<(), Cause> {
        let chain = chains.get_mut(at).ok_or_else(branches)?;
        if chain.finished.is_none() {
            let plan = chain.planner.take().ok_or_else(branches)?.finish();
            let base = chain.base.map_or(&self.scratch, |input| &self.inputs[input].stack);
            let stack = base.with(std::sync::Arc::new(plan.layer.clone()));
            chain.finished = Some((plan, stack));
        }
        Ok(())
    }

    fn act(
        &self,
        action: &FileAction,
        at: usize,
        planner: &mut Planner<'_>,
        base: Option<usize>,
        chains: &[Chain<'_>],
        unpacked: &[Unpacked],
    ) -> Result<(), Cause> {
        let created = self.now;
        match action {
            FileAction::Copy { from, copy, .. } => {
                let input = match from {
                    ActionInput::Scratch => Input { stack: &self.scratch, index: usize::MAX, planned: None },
                    ActionInput::Input(index) => {
                        Input { stack: &self.inputs[*index].stack, index: *index, planned: None }
                    }
                    ActionInput::Action(earlier) => {
                        let finished = chains.get(*earlier).and_then(|chain| chain.finished.as_ref());
                        let (plan, stack) = finished.ok_or_else(branches)?;
                        Input { stack, index: usize::MAX, planned: Some(plan) }
                    }
                };
                self.copy(copy, at, planner, base, &input, unpacked)
            }
            FileAction::MakeDirectory { path, mode, make_parents, owner, .. } => {
                let owner = self.owner(owner.as_ref(), base)?;
                let (path, mode, make_parents) = (clamp(path)?, *mode, *make_parents);
                Ok(planner.mkdir(&Mkdir { path, mode, owner, make_parents, created })?)
            }
            FileAction::MakeFile { path, mode, data, owner, .. } => {
                let owner = self.owner(owner.as_ref(), base)?;
                let (path, mode, data) = (clamp(path)?, *mode, data.as_slice().into());
                Ok(planner.mkfile(&Mkfile { path, mode, owner, data, created })?)
            }
            FileAction::Remove { path, allow_missing, wildcard, .. } => {
                let (path, allow_missing, wildcard) = (clamp(path)?, *allow_missing, *wildcard);
                Ok(planner.rm(&Rm { path, wildcard, allow_missing })?)
            }
            FileAction::Symlink { target, path, owner, .. } => {
                let owner = self.owner(owner.as_ref(), base)?;
                let (path, target) = (clamp(path)?, text::encode(target).into_owned());
                Ok(planner.symlink(&Symlink { path, target, owner, created })?)
            }
        }
    }

    fn copy(
        &self,
        copy: &graph::Copy,
        at: usize,
        planner: &mut Planner<'_>,
        base: Option<usize>,
        input: &Input<'_>,
        unpacked: &[Unpacked],
    ) -> Result<(), Cause> {
        let ignore = excludes(copy)?;
        let excluded = |path: &LayerPath| ignore.excludes(path.as_bytes());
        let symbolic = |mode: u32, is_directory: bool| match &copy.chmod {
            Some(chmod) => chmod.apply(mode, is_directory),
            None => mode,
        };
        let archives = unpacked.iter().enumerate().filter(|(_, archive)| archive.action == at);
        let archives = archives.map(|(number, archive)| {
            let index = self.inputs.len() + number;
            (archive.path.clone(), copy::Archive { layer: &archive.layer, index })
        });
        let spec = CopySpec {
            sources: vec![source(copy)?],
            destination: Destination::parse(&text::encode(&copy.destination)).map_err(CopyError::from)?,
            chown: self.owner(copy.owner.as_ref(), base)?,
            chmod: copy.chmod.as_ref().map(|chmod| match chmod {
                Chmod::Octal(mode) => copy::Chmod::Octal(*mode),
                Chmod::Symbolic(_) => copy::Chmod::Symbolic(&symbolic),
            }),
            exclude: (!copy.exclude.is_empty()).then_some(&excluded),
            created: self.now,
            timestamp: None,
            contents_only: copy.contents_only,
            create_destination: copy.create_destination,
            replace: false,
            archives: archives.collect(),
        };
        planner.copy(input, &spec).map_err(|error| self.missing(error, copy, input))
    }

    /// A missing source, said with what is known of the place where it was looked for.
    fn missing(&self, error: CopyError, copy: &graph::Copy, input: &Input<'_>) -> Cause {
        let (CopyError::SourceNotFound { .. } | CopyError::NoMatch { .. }) = &error else {
            return error.into();
        };
        let path = copy.source.clone();
        match self.job.inputs.get(input.index).map(|(result, _)| result) {
            Some(VertexResult::Context(context)) => context.missing(&path),
            _ => {
                let of = "the tree that it is copied from".to_owned();
                let near = near(input.stack, &path);
                Cause::CopyMissing { path, of, ignored: false, near }
            }
        }
    }

    fn owner(&self, owner: Option<&Owner>, base: Option<usize>) -> Result<Option<(u32, u32)>, Cause> {
        let Some(owner) = owner else { return Ok(None) };
        let mut accounts = Accounts::default();
        let mut texts = Vec::new();
        for name in std::iter::once(&owner.user).chain(&owner.group) {
            texts.push(match name {
                OwnerName::Id(id) => id.to_string(),
                OwnerName::Name { name, of } => {
                    let of = match of {
                        ActionInput::Input(input) => Some(*input),
                        ActionInput::Action(_) => base,
                        ActionInput::Scratch => None,
                    };
                    if let Some(input) = of {
                        accounts = self.effects.accounts(&self.inputs[input])?;
                    }
                    name.clone()
                }
            });
        }
        Ok(Some(accounts.chown(&texts.join(":"))))
    }

    /// Unpacks the archives that `ADD` finds among its sources.
    fn unpack_archives(&self, file: &FileOp) -> Result<Vec<Unpacked>, Cause> {
        let mut unpacked = Vec::new();
        for (at, action) in file.actions.iter().enumerate() {
            let FileAction::Copy { from: ActionInput::Input(input), copy, .. } = action else { continue };
            if copy.unpack == Some(false) {
                continue;
            }
            let exclude = excludes(copy)?;
            let excluded = |path: &LayerPath| exclude.excludes(path.as_bytes());
            let exclude = (!copy.exclude.is_empty()).then_some(&excluded as copy::Exclude<'_>);
            // A source that is missing is told by the plan.
            let sources = copy::sources(&self.inputs[*input].stack, &source(copy)?, exclude);
            for path in sources.unwrap_or_default() {
                let archive = self.effects.unpack_archive(&self.inputs[*input], &path, at)?;
                if archive.is_none() && copy.unpack == Some(true) {
                    return Err(Cause::NoArchive { path: path.to_string() });
                }
                unpacked.extend(archive);
            }
        }
        Ok(unpacked)
    }
}

fn excludes(copy: &graph::Copy) -> Result<Ignore, Cause> {
    Ignore::new(&copy.exclude).map_err(|error| Cause::Task(format!("the pattern of --exclude: {error}")))
}

/// A path of a tree whose last part is spelled much like that of a path which is not there.
fn near(tree: &Stack, path: &str) -> Option<String> {
    let path = std::path::Path::new(path.trim_start_matches('/'));
    let (parent, wanted) = (path.parent()?, path.file_name()?.to_str()?);
    let folder = LayerPath::clamp(&text::encode(parent.to_str()?)).ok()?;
    let names = tree.children(&folder).into_iter().map(|entry| entry.path.to_string());
    let names: Vec<String> = names.filter_map(|path| path.rsplit('/').next().map(str::to_owned)).collect();
    let near = dockerfile_parser::suggest::near(wanted, names.iter().map(String::as_str))?;
    Some(parent.join(near).display().to_string())
}

fn source(copy: &graph::Copy) -> Result<Source, Cause> {
    let path = text::encode(&copy.source);
    let mut source = match copy.parents {
        true => Source::with_parents(&path)
            .map_err(|error| Cause::Task(format!("the pattern `{}`: {error}", copy.source)))?,
        false => Source { wildcard: copy.wildcard, ..Source::new(&path) },
    };
    source.allow_no_match = copy.allow_empty_wildcard;
    source.follow_links = copy.follow_symlink;
    Ok(source)
}

fn clamp(path: &str) -> Result<LayerPath, Cause> {
    Ok(LayerPath::clamp(&text::encode(path)).map_err(CopyError::from)?)
}

fn on(action: &FileAction) -> ActionInput {
    match action {
        FileAction::Copy { on, .. }
        | FileAction::MakeDirectory { on, .. }
        | FileAction::MakeFile { on, .. }
        | FileAction::Remove { on, .. }
        | FileAction::Symlink { on, .. } => *on,
    }
}

/// The inputs that files are read from: sources of copies, and trees whose accounts name an owner.
pub(crate) fn read_inputs(file: &FileOp) -> Vec<usize> {
    let mut read = Vec::new();
    let mut base = None;
    for action in &file.actions {
        if let ActionInput::Input(input) = on(action) {
            base = Some(input);
        }
        let owner = match action {
            FileAction::Copy { from, copy, .. } => {
                if let ActionInput::Input(input) = from {
                    read.push(*input);
                }
                copy.owner.as_ref()
            }
            FileAction::MakeDirectory { owner, .. }
            | FileAction::MakeFile { owner, .. }
            | FileAction::Symlink { owner, .. } => owner.as_ref(),
            FileAction::Remove { .. } => None,
        };
        for name in owner.into_iter().flat_map(|owner| std::iter::once(&owner.user).chain(&owner.group)) {
            match name {
                OwnerName::Name { of: ActionInput::Input(input), .. } => read.push(*input),
                OwnerName::Name { of: ActionInput::Action(_), .. } => read.extend(base),
                _ => {}
            }
        }
    }
    read
}

fn branches() -> Cause {
    Cause::NotYet("a file operation whose actions branch".to_owned())
}
