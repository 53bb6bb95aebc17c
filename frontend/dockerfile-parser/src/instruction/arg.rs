//! `ARG <name>[=<default>] …`

use crate::error::{ErrorKind, ParseError};
use crate::statement::Statement;
use crate::word::Word;

/// `ARG`: variables that a build may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The names in order; at least one. A later default may use an earlier name.
    pub names: Vec<ArgName>,
}

/// One name of an `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgName {
    /// The name, quotes still in it.
    pub name: Word,
    /// The default. None (`ARG X`) is not the same as an empty one (`ARG X=`): the former takes over a global value.
    pub value: Option<Word>,
    /// What a comment above says about it: `# name text` gives `text`.
    pub description: Option<String>,
}

impl Arg {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Arg, ParseError> {
        statement.read_flags(&[])?;
        let words = statement.quoted_words();
        if words.is_empty() {
            return Err(statement.needs_one_argument());
        }
        let names = words.into_iter().map(|range| {
            let Some(at) = statement.text(&range).find('=').map(|at| range.start + at) else {
                return Ok(ArgName { name: statement.word(range), value: None, description: None });
            };
            if at == range.start {
                return Err(statement.error_at(ErrorKind::BlankName { instruction: "ARG" }, range));
            }
            let value = statement.word(at + 1..range.end);
            Ok(ArgName { name: statement.word(range.start..at), value: Some(value), description: None })
        });
        Ok(Arg { names: names.collect::<Result<_, _>>()? })
    }
}
