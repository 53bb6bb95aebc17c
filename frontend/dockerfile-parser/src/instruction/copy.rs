//! `COPY [flags] <source> … <destination>`

use crate::error::{ErrorKind, ParseError};
use crate::heredoc::Heredoc;
use crate::statement::Statement;
use crate::word::Word;

/// `COPY`: files of the context, of another stage or of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied, in order; at least one.
    pub sources: Vec<Source>,
    /// Where to; expanded. With a `/` at the end a folder.
    pub destination: Word,
    /// `--from`: a stage's name or number, a named context, or an image. Never expanded; a `$` in it is an error.
    pub from: Option<Word>,
    /// `--chown`: expanded, then read by [`owner`](crate::owner).
    pub chown: Option<Word>,
    /// `--chmod`: expanded, then read by [`chmod`](crate::chmod).
    pub chmod: Option<Word>,
    /// `--link`: as a layer of its own, which does not depend on what is below.
    pub link: bool,
    /// `--parents`: keep the sources' paths below the destination.
    pub parents: bool,
    /// `--exclude`, any number of times: patterns, relative to the source. Not expanded.
    pub exclude: Vec<Word>,
}

/// A source of `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path or pattern; for `ADD` also a URL or a Git repository. Expanded.
    Path(Word),
    /// A file of mode 0644 whose name is the heredoc's.
    Heredoc(Heredoc),
}

impl Copy {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Copy, ParseError> {
        let mut flags = statement.read_flags(&["chmod", "chown", "exclude", "from", "link", "parents"])?;
        let from = flags.value("from")?.filter(|word| !word.text.is_empty());
        if let Some(word) = from.as_ref().filter(|word| word.has_variable()) {
            return Err(ParseError::new(ErrorKind::FromVariable { instruction: "COPY" }, word.span));
        }
        let (chown, chmod) = (flags.value("chown")?, flags.value("chmod")?);
        let (link, parents) = (flags.boolean("link")?, flags.boolean("parents")?);
        let exclude = flags.values("exclude")?;
        let (sources, destination) = parse_paths(statement, "COPY")?;
        Ok(Copy {
            sources,
            destination,
            from,
            chown,
            chmod,
            link: link.unwrap_or(false),
            parents: parents.unwrap_or(false),
            exclude,
        })
    }
}

/// Reads the sources and the destination of `COPY` or `ADD`.
pub(super) fn parse_paths(
    statement: &Statement<'_>,
    instruction: &'static str,
) -> Result<(Vec<Source>, Word), ParseError> {
    let mut sources = match statement.json(statement.rest())? {
        Some(words) => words.into_iter().map(Source::Path).collect(),
        None => blank_sources(statement),
    };
    match (sources.pop(), sources.len()) {
        (Some(Source::Path(destination)), 1..) => Ok((sources, destination)),
        (Some(Source::Heredoc(heredoc)), 1..) => {
            Err(ParseError::new(ErrorKind::HeredocDestination { instruction }, heredoc.span))
        }
        _ => Err(statement.error(ErrorKind::NoDestination { instruction })),
    }
}

/// Words between blanks, and heredocs, which may hold blanks (`<< EOF`, `<<'a b'`), in the order of the line.
fn blank_sources(statement: &Statement<'_>) -> Vec<Source> {
    let mut heredocs = statement.heredocs().iter().peekable();
    let mut sources = Vec::new();
    for range in statement.blank_ranges() {
        // Both lists are in the order of the line.
        while heredocs.next_if(|(opening, _)| opening.end <= range.start).is_some() {}
        match heredocs.peek() {
            Some((opening, heredoc)) if opening.start == range.start => {
                sources.push(Source::Heredoc(heredoc.clone()))
            }
            Some((opening, _)) if opening.start < range.start => {}
            _ => sources.push(Source::Path(statement.word(range))),
        }
    }
    sources
}
