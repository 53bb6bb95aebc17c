//! `WORKDIR <path>`

use crate::error::ParseError;
use crate::statement::Statement;
use crate::word::Word;

/// `WORKDIR`: the folder of what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workdir {
    /// The path, relative to the one before; expanded. The rest of the line, not split.
    pub path: Word,
}

impl Workdir {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Workdir, ParseError> {
        statement.read_flags(&[])?;
        Ok(Workdir { path: statement.only_argument()? })
    }
}
