//! `COPY`, `ADD` and `WORKDIR`: operations on files.

use dockerfile_parser::{
    Heredoc, Span, Word,
    instruction::{self, Add, Source, Workdir},
};
use graph::{About, ActionInput, Chmod, Copy, FileAction, FileOp, Op};

use crate::{
    ErrorKind, LowerError,
    draft::Tree,
    error::at,
    git::{self, GitAddress},
    gopath,
    lint::{broad::Copied, ignored, settings::first_folder},
    owner::{chmod, has_name, owner},
    plan::Step,
    remote::check_checksum,
    stage::{Building, Lowerer},
};

/// What `COPY` and `ADD` have in common, expanded.
pub(crate) struct Files<'a> {
    pub(crate) keyword: &'static str,
    /// Paths in the order of the file, each with its word.
    pub(crate) paths: Vec<(String, &'a Word)>,
    pub(crate) heredocs: Vec<&'a Heredoc>,
    pub(crate) destination: String,
    pub(crate) chown: String,
    pub(crate) chmod: String,
    pub(crate) chmod_span: Span,
    pub(crate) link: bool,
    pub(crate) parents: bool,
    pub(crate) exclude: Vec<String>,
    /// The tree of `--from`; the outer `None` is the context.
    pub(crate) from: Option<Option<Tree>>,
    /// `ADD`.
    pub(crate) add: Option<AddOptions>,
}

pub(crate) struct AddOptions {
    pub(crate) checksum: Option<(String, Span)>,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) unpack: Option<bool>,
}

/// A source as the graph copies it.
pub(crate) struct CopiedFrom {
    pub(crate) from: ActionInput,
    pub(crate) source: String,
    /// Local files: symbolic links are followed, folders stand for what is in them, wildcards are expanded.
    pub(crate) local: bool,
    pub(crate) contents_only: bool,
    pub(crate) unpack: Option<bool>,
}

/// Inputs of the vertex and actions so far.
pub(crate) struct Draft {
    pub(crate) inputs: Vec<Tree>,
    pub(crate) actions: Vec<FileAction>,
}

impl Draft {
    pub(crate) fn input(&mut self, tree: Tree) -> ActionInput {
        let place = self.inputs.iter().position(|input| *input == tree).unwrap_or_else(|| {
            self.inputs.push(tree);
            self.inputs.len() - 1
        });
        ActionInput::Input(place)
    }
}

impl Lowerer<'_> {
    /// `COPY`.
    pub(crate) fn copy(
        &mut self,
        building: &mut Building,
        step: &Step<'_>,
        copy: &instruction::Copy,
    ) -> Result<(), LowerError> {
        let from = match step.from.first() {
            Some(Some(origin)) => Some(self.tree(origin)?),
            _ => None,
        };
        let flags = (&copy.chown, &copy.chmod, &*copy.exclude);
        let files = self.expand(building, "COPY", (&copy.sources, &copy.destination), flags)?;
        self.place(building, step, Files { link: copy.link, parents: copy.parents, from, ..files })
    }

    /// `ADD`.
    pub(crate) fn add(
        &mut self,
        building: &mut Building,
        step: &Step<'_>,
        add: &Add,
    ) -> Result<(), LowerError> {
        let flags = (&add.chown, &add.chmod, &*add.exclude);
        let files = self.expand(building, "ADD", (&add.sources, &add.destination), flags)?;
        let checksum = match &add.checksum {
            Some(word) => Some((self.words.word(&building.state, word)?, word.span)),
            None => None,
        };
        let options = AddOptions {
            checksum: checksum.filter(|(text, _)| !text.is_empty()),
            keep_git_dir: add.keep_git_dir,
            unpack: add.unpack,
        };
        self.place(building, step, Files { link: add.link, add: Some(options), ..files })
    }

    fn expand<'a>(
        &mut self,
        building: &Building,
        keyword: &'static str,
        (sources, destination): (&'a [Source], &'a Word),
        (chown, mode, exclude): (&Option<Word>, &Option<Word>, &[Word]),
    ) -> Result<Files<'a>, LowerError> {
        let state = &building.state;
        let mut paths = Vec::new();
        let mut heredocs = Vec::new();
        for source in sources {
            match source {
                Source::Path(word) => paths.push((self.words.word(state, word)?, word)),
                Source::Heredoc(heredoc) => heredocs.push(heredoc),
            }
        }
        let mut flag = |word: &Option<Word>| match word {
            Some(word) => self.words.word(state, word),
            None => Ok(String::new()),
        };
        Ok(Files {
            keyword,
            paths,
            heredocs,
            chown: flag(chown)?,
            chmod: flag(mode)?,
            chmod_span: mode.as_ref().map(|word| word.span).unwrap_or_default(),
            destination: self.words.word(state, destination)?,
            link: false,
            parents: false,
            exclude: exclude.iter().map(|word| word.text.clone()).collect(),
            from: None,
            add: None,
        })
    }

    /// Adds the vertices, and moves the stage on to their result.
    fn place(
        &mut self,
        building: &mut Building,
        step: &Step<'_>,
        files: Files<'_>,
    ) -> Result<(), LowerError> {
        check_checksum(&files)?;
        if !step.trigger {
            self.note_copy(building, step, &files);
        }
        let mode = match &*files.chmod {
            "" => None,
            text => Some(chmod(text, files.chmod_span)?),
        };
        // BuildKit takes no notice of `--link` beside `--chmod`, and results would differ if this did.
        let link = files.link && mode.is_none();
        let history = history(&files);
        let shown = self.shown(&building.state, step);
        let about = building.progress.next(step, &shown, &history);
        let base = building.state.tree;
        let mut draft = Draft { inputs: Vec::new(), actions: Vec::new() };
        let below = base.map_or(ActionInput::Scratch, |base| {
            // A linked copy looks at what is below only to find a name in its passwd file.
            if link && !has_name(&files.chown) {
                return ActionInput::Scratch;
            }
            self.drafts.reach(base, "/");
            draft.input(base)
        });
        let copied = self.sources(building, step, &files, &mut draft)?;
        let mut on = if link { ActionInput::Scratch } else { below };
        let destination = gopath::absolute_destination(&building.state.folder(), &files.destination);
        for source in copied {
            let from = source.from;
            let copy = Box::new(action_copy(source, &files, &destination, mode.clone(), below));
            draft.actions.push(FileAction::Copy { on, from, copy });
            on = ActionInput::Action(draft.actions.len() - 1);
        }
        let op = Op::File(FileOp { actions: draft.actions });
        let mut tree = self.drafts.add(op, draft.inputs, about.clone());
        if let (true, Some(base)) = (link, base) {
            self.drafts.reach(base, "/");
            let named = building.progress.current(step.trigger, &format!("LINK {shown}"), &history);
            let about = About { source: about.source, ..named };
            tree = self.drafts.add(Op::Merge, vec![base, tree], about);
        }
        building.state.tree = Some(tree);
        building.state.record_layer(&history);
        Ok(())
    }

    /// Leaves a trail for the build checks.
    fn note_copy(&self, building: &mut Building, step: &Step<'_>, files: &Files<'_>) {
        let sources: Vec<&str> = files.paths.iter().map(|(path, _)| &**path).collect();
        let heredocs: Vec<&str> = files.heredocs.iter().map(|heredoc| &*heredoc.name).collect();
        let copied = Copied {
            keyword: files.keyword,
            sources: &sources,
            heredocs: &heredocs,
            destination: &files.destination,
            of_context: files.from.is_none(),
            folder: &building.state.folder(),
            span: step.span,
        };
        building.state.trail.copied(&copied, self.ignore);
    }

    /// The trees and paths that are copied, in the order of the actions: paths first, then heredocs.
    fn sources(
        &mut self,
        building: &Building,
        step: &Step<'_>,
        files: &Files<'_>,
        draft: &mut Draft,
    ) -> Result<Vec<CopiedFrom>, LowerError> {
        let mut copied = Vec::new();
        for (path, word) in &files.paths {
            let source = match GitAddress::parse(path) {
                Some(Ok(address)) => self.git(files, &address, word, step, draft)?,
                Some(Err(source)) => return Err(at(word.span, ErrorKind::Git(source))),
                None if git::is_http(path) => self.http(files, path, word, step, draft)?,
                None => {
                    if files.from.is_none() {
                        let warnings = &mut self.words.warnings;
                        ignored::copied(files.keyword, path, word.span, self.ignore, warnings);
                    }
                    self.local(files, path, draft)
                }
            };
            copied.push(source);
        }
        for heredoc in &files.heredocs {
            let data = self.words.heredoc(&building.state, heredoc)?;
            let path = format!("/{}", heredoc_name(heredoc)?);
            let on = ActionInput::Scratch;
            draft.actions.push(FileAction::MakeFile {
                on,
                path: path.clone(),
                mode: 0o644,
                data,
                owner: None,
            });
            let from = ActionInput::Action(draft.actions.len() - 1);
            let unpack = Some(false);
            copied.push(CopiedFrom { from, source: path, local: false, contents_only: false, unpack });
        }
        Ok(copied)
    }

    fn local(&mut self, files: &Files<'_>, path: &str, draft: &mut Draft) -> CopiedFrom {
        let tree = match files.from {
            Some(tree) => tree,
            None => Some(self.context()),
        };
        let reached = gopath::absolute("/", path);
        let from = match tree {
            Some(tree) => {
                self.drafts.reach(tree, &reached);
                draft.input(tree)
            }
            None => ActionInput::Scratch,
        };
        let source = if files.parents { with_pivot(path) } else { reached };
        let unpack = match &files.add {
            Some(AddOptions { unpack: None | Some(true), .. }) => None,
            _ => Some(false),
        };
        CopiedFrom { from, source, local: true, contents_only: true, unpack }
    }

    /// `WORKDIR`: a layer with the folder, unless it is the root.
    pub(crate) fn workdir(
        &mut self,
        building: &mut Building,
        step: &Step<'_>,
        workdir: &Workdir,
    ) -> Result<(), LowerError> {
        let text = self.words.word(&building.state, &workdir.path)?;
        let shown = self.shown(&building.state, step);
        let state = &mut building.state;
        first_folder(state, &text, workdir.path.span, &mut self.words.warnings);
        // An absolute path is stored as it is written, slash and all; a relative one is joined and clean.
        let folder = match &*text {
            "" => state.folder(),
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => gopath::absolute(&state.folder(), relative),
        };
        let history = format!("WORKDIR {folder}");
        state.config.config.working_dir = crate::words::plain(&folder);
        if folder == "/" {
            state.record(&history);
            return Ok(());
        }
        let mut about = building.progress.next(step, &shown, &history);
        // Making a folder gives the same folder each time: `--no-cache` is not about it.
        about.ignore_cache = false;
        let on = state.tree.map_or(ActionInput::Scratch, |_| ActionInput::Input(0));
        let user = &state.config.config.user;
        let action = FileAction::MakeDirectory {
            on,
            path: gopath::absolute("/", &folder),
            mode: 0o755,
            make_parents: true,
            owner: (!user.is_empty()).then(|| owner(user, on)),
        };
        if let Some(tree) = state.tree {
            self.drafts.reach(tree, "/");
        }
        let op = Op::File(FileOp { actions: vec![action] });
        state.tree = Some(self.drafts.add(op, state.tree.into_iter().collect(), about));
        state.record_layer(&history);
        Ok(())
    }
}

/// The name of the file that a heredoc becomes.
///
/// # Errors
/// A delimiter that is no file's name.
pub(crate) fn heredoc_name(heredoc: &Heredoc) -> Result<&str, LowerError> {
    let name = &*heredoc.name;
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(at(heredoc.span, ErrorKind::HeredocName { name: name.to_owned() }));
    }
    Ok(name)
}

fn action_copy(
    source: CopiedFrom,
    files: &Files<'_>,
    destination: &str,
    chmod: Option<Chmod>,
    names: ActionInput,
) -> Copy {
    let CopiedFrom { from: _, source, local, contents_only, unpack } = source;
    Copy {
        source,
        destination: destination.to_owned(),
        owner: (!files.chown.is_empty()).then(|| owner(&files.chown, names)),
        chmod,
        follow_symlink: local,
        contents_only,
        unpack,
        create_destination: true,
        wildcard: local,
        allow_empty_wildcard: local,
        parents: files.parents && local,
        exclude: files.exclude.clone(),
    }
}

/// A source of `--parents`: clean, with its first `/./` kept, below which the folders are kept.
fn with_pivot(path: &str) -> String {
    match path.split_once("/./") {
        Some((above, below)) => {
            let (above, below) = (gopath::absolute("/", above), gopath::absolute("/", below));
            format!("{}/.{below}", above.trim_end_matches('/'))
        }
        None => gopath::absolute("/", path),
    }
}

/// What the history says: only flags that change what is in the layer, as BuildKit has it.
fn history(files: &Files<'_>) -> String {
    let mut text = files.keyword.to_owned();
    if files.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [("chown", &files.chown), ("chmod", &files.chmod)] {
        if !value.is_empty() {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    files.paths.iter().for_each(|(path, _)| text.push_str(&format!(" {path}")));
    files.heredocs.iter().for_each(|heredoc| text.push_str(&format!(" <<{}", heredoc.name)));
    format!("{text} {} # buildkit", files.destination)
}
