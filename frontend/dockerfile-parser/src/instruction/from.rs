//! `FROM [--platform=<platform>] <image> [AS <name>]`

use crate::error::{ErrorKind, ParseError};
use crate::statement::Statement;
use crate::word::Word;

/// `FROM`: the beginning of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// An image reference, the name of an earlier stage, or `scratch`. Expanded with the global `ARG`s only.
    pub image: Word,
    /// What is behind `AS`.
    pub name: Option<StageName>,
    /// `--platform`: expanded with the global `ARG`s only, then read as a platform.
    pub platform: Option<Word>,
}

/// The name of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageName {
    /// As the builder knows it: in lower case, `[a-z][a-z0-9-_.]*`.
    pub name: String,
    /// As it was written.
    pub written: Word,
    /// The word before it: `AS`, in any case.
    pub keyword: Word,
}

impl From {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<From, ParseError> {
        let mut flags = statement.read_flags(&["platform"])?;
        let platform = flags.value("platform")?;
        let count = |count| statement.error(ErrorKind::FromArguments { count });
        let mut words = statement.blank_words().into_iter();
        let Some(image) = words.next() else { return Err(count(0)) };
        let name = match (words.next(), words.next(), words.len()) {
            (None, _, _) => None,
            (Some(keyword), Some(written), 0) if keyword.text.eq_ignore_ascii_case("as") => {
                Some(StageName::new(keyword, written)?)
            }
            (Some(_), None, _) => return Err(count(2)),
            (Some(_), Some(_), more) => return Err(count(3 + more)),
        };
        Ok(From { image, name, platform })
    }
}

impl StageName {
    fn new(keyword: Word, written: Word) -> Result<StageName, ParseError> {
        let name = written.text.to_lowercase();
        let first = name.starts_with(|c: char| c.is_ascii_lowercase());
        if first && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c)) {
            return Ok(StageName { name, written, keyword });
        }
        let span = written.span;
        Err(ParseError::new(ErrorKind::InvalidStageName { name: written.text }, span))
    }
}
