//! `SOURCE_DATE_EPOCH`: a number, or what has a time.
//!
//! | Value | Time |
//! |---|---|
//! | a number | seconds since 1970 |
//! | nothing | none |
//! | `context` | the main context's; a folder has none |
//! | a named context | that one's; a folder and an image have none |
//! | a stage | that of the one thing that it downloads: `FROM scratch`, `ARG`s and one `ADD` of a repository or a file over http |
//!
//! A time that is not written down is a fact, and asked for before everything else: names of base images may hold it.

use std::borrow::Cow;

use dockerfile_parser::{
    Dockerfile, Span, Stage,
    instruction::{Add, Arg, Instruction},
};
use graph::{Http, Source};
use oci::{Digest, Epoch, Platform};

use crate::{
    ErrorKind, Fact, Facts, LowerError, NamedContext, Request, context,
    error::at,
    git::{self, GitAddress},
    globals::globals,
    stage::git_source,
    variables::Variables,
    words::Words,
};

const NAME: &str = "SOURCE_DATE_EPOCH";

/// What the value comes to.
pub(crate) enum Dating<'a> {
    /// This must be known first.
    Needs(Box<Fact>, Span),
    /// It is known.
    Known(Box<Dated<'a>>),
}

/// A request whose time is a number or nothing.
pub(crate) struct Dated<'a> {
    /// The request, with the number in place of what named it.
    pub(crate) request: Cow<'a, Request>,
    pub(crate) epoch: Option<Epoch>,
    /// What the global argument comes to, where the file names the time and the request does not.
    global: Option<String>,
}

impl Dated<'_> {
    /// Sets the global argument to what it comes to.
    pub(crate) fn apply(&self, globals: &mut Variables) {
        if let Some(text) = &self.global {
            globals.set(NAME, text);
        }
    }
}

/// Finds out which time is meant, by the arguments of the first platform.
///
/// # Errors
/// A value that names nothing, or a stage that is not of the form above.
pub(crate) fn date<'a>(
    file: &Dockerfile,
    request: &'a Request,
    facts: &Facts,
    platform: &Platform,
    words: &Words,
) -> Result<Dating<'a>, LowerError> {
    let globals = globals(file, request, &request.build_args, platform, words)?;
    let asked = request.build_args.get(NAME);
    let span = asked.is_none().then(|| written(file)).flatten();
    let mut dated = Dated { request: Cow::Borrowed(request), epoch: None, global: None };
    let value = match asked.map(String::as_str).or_else(|| globals.get(NAME)) {
        None | Some("") => return Ok(Dating::Known(Box::new(dated))),
        Some(value) => value,
    };
    if let Ok(epoch) = value.parse() {
        dated.epoch = Some(epoch);
        return Ok(Dating::Known(Box::new(dated)));
    }
    let named = Named { file, request, platform, globals: &globals, words };
    if let Some((source, place)) = named.source(value, span)? {
        let fact = Fact::Time(Box::new(source));
        match facts.time(&fact) {
            Some(time) => dated.epoch = time,
            None => return Ok(Dating::Needs(Box::new(fact), place.or(span).unwrap_or_default())),
        }
    }
    let text = dated.epoch.map(|epoch| epoch.0.to_string()).unwrap_or_default();
    match asked {
        Some(_) => drop(dated.request.to_mut().build_args.insert(NAME.to_owned(), text)),
        None => dated.global = Some(text),
    }
    Ok(Dating::Known(Box::new(dated)))
}

/// Where the file gives the time.
fn written(file: &Dockerfile) -> Option<Span> {
    let names = file.global_args.iter().flat_map(|node| &node.value.names);
    let values = names.filter(|arg| arg.name.text == NAME).filter_map(|arg| arg.value.as_ref());
    values.map(|word| word.span).next_back()
}

/// A source with the place that names it, if the file does.
type Place = (Source, Option<Span>);

/// What a name may mean.
struct Named<'a> {
    file: &'a Dockerfile,
    request: &'a Request,
    platform: &'a Platform,
    globals: &'a Variables,
    words: &'a Words,
}

impl Named<'_> {
    /// The source that a value names; `None` where that has no time.
    fn source(&self, value: &str, span: Option<Span>) -> Result<Option<Place>, LowerError> {
        if value == "context" {
            return Ok(context::source(self.request).map(|source| (source, None)));
        }
        if let Some((name, context)) = self.request.named_context(value, self.platform) {
            return self.of_context(name, context, span).map(|source| source.map(|source| (source, None)));
        }
        let stage = self
            .file
            .stages
            .iter()
            .find(|stage| stage.name().is_some_and(|name| name.eq_ignore_ascii_case(value)));
        match stage {
            Some(stage) => self.of_stage(stage).map(Some),
            None => Err(LowerError::new(ErrorKind::SourceDateEpoch { value: value.to_owned() }, span)),
        }
    }

    fn of_context(
        &self,
        name: &str,
        context: &NamedContext,
        span: Option<Span>,
    ) -> Result<Option<Source>, LowerError> {
        Ok(match context {
            NamedContext::Git(url) => {
                let address = match GitAddress::parse(url) {
                    Some(address) => {
                        address.map_err(|source| LowerError::new(ErrorKind::Git(source), span))?
                    }
                    None => {
                        let kind = ErrorKind::NoGitAddress { name: name.to_owned(), url: url.clone() };
                        return Err(LowerError::new(kind, span));
                    }
                };
                Some(git_source(&address, None, address.keep_git_dir.unwrap_or(false)))
            }
            NamedContext::Http(url) => Some(context::http(url, context::CONTEXT_FILE)),
            NamedContext::Local { .. }
            | NamedContext::Scratch
            | NamedContext::Image(_)
            | NamedContext::OciLayout { .. } => None,
        })
    }

    /// What a stage downloads, if that is all that it does.
    fn of_stage(&self, stage: &Stage) -> Result<Place, LowerError> {
        let name = stage.name().unwrap_or_default();
        let bad = |span, why| at(span, ErrorKind::EpochStage { name: name.to_owned(), why });
        let mut variables = self.globals.clone();
        // A time cannot come from what depends on it.
        variables.unset(NAME);
        let base = self.words.global_default(&variables, &stage.from.value.image)?;
        if base != "scratch" {
            return Err(bad(stage.from.value.image.span, "stands on an image: write `FROM scratch`"));
        }
        let mut found = None;
        for node in &stage.instructions {
            match &node.value {
                Instruction::Arg(arg) => self.declare(arg, &mut variables)?,
                Instruction::Add(_) if found.is_some() => {
                    return Err(bad(node.span, "has a second `ADD`; it may have one"));
                }
                Instruction::Add(add) => {
                    let source = self.of_add(add, &variables)?;
                    let local =
                        "adds something that is neither a repository nor a file over http, or more than one";
                    found = Some((source.ok_or_else(|| bad(node.span, local))?, Some(node.span)));
                }
                _ => return Err(bad(node.span, "holds more than `ARG` and one `ADD`")),
            }
        }
        found.ok_or_else(|| bad(stage.from.span, "downloads nothing: it must have one `ADD`"))
    }

    fn declare(&self, arg: &Arg, variables: &mut Variables) -> Result<(), LowerError> {
        for arg in &arg.names {
            let name = &arg.name.text;
            let value = match (self.request.build_args.get(name), &arg.value) {
                (Some(value), _) => value.clone(),
                (None, Some(default)) => self.words.global_default(variables, default)?,
                (None, None) => continue,
            };
            variables.set(name, &value);
        }
        Ok(())
    }

    /// What an `ADD` downloads; `None` where it does not, or adds more than that.
    fn of_add(&self, add: &Add, variables: &Variables) -> Result<Option<Source>, LowerError> {
        use dockerfile_parser::instruction::Source::Path;
        let [Path(word)] = &add.sources[..] else { return Ok(None) };
        let url = self.words.global_default(variables, word)?;
        let checksum = match &add.checksum {
            Some(word) => Some((self.words.global_default(variables, word)?, word.span)),
            None => None,
        };
        let checksum = checksum.filter(|(text, _)| !text.is_empty());
        if let Some(address) = GitAddress::parse(&url) {
            let address = address.map_err(|source| at(word.span, ErrorKind::Git(source)))?;
            let keep = address.keep_git_dir.or(add.keep_git_dir).unwrap_or(false);
            return Ok(Some(git_source(&address, checksum.map(|(text, _)| text), keep)));
        }
        if !git::is_http(&url) {
            return Ok(None);
        }
        let checksum = match checksum {
            Some((text, span)) => {
                Some(text.parse::<Digest>().map_err(|_| at(span, ErrorKind::Checksum { checksum: text }))?)
            }
            None => None,
        };
        Ok(Some(Source::Http(Http { file_name: git::file_name(&url), url, checksum })))
    }
}
