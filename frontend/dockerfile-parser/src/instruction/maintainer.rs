//! `MAINTAINER <author>`

use crate::error::ParseError;
use crate::statement::Statement;
use crate::word::Word;

/// `MAINTAINER`: the author of the image; deprecated for a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintainer {
    /// The author; not expanded. The rest of the line, not split.
    pub author: Word,
}

impl Maintainer {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Maintainer, ParseError> {
        statement.read_flags(&[])?;
        Ok(Maintainer { author: statement.only_argument()? })
    }
}
