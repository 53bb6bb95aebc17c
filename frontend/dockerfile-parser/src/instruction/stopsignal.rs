//! `STOPSIGNAL <signal>`

use crate::error::ParseError;
use crate::statement::Statement;
use crate::word::Word;

/// `STOPSIGNAL`: the signal that ends a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopsignal {
    /// A name or number, to be read by [`signal`](crate::signal) once expanded. The rest of the line, not split.
    pub signal: Word,
}

impl Stopsignal {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Stopsignal, ParseError> {
        statement.read_flags(&[])?;
        Ok(Stopsignal { signal: statement.only_argument()? })
    }
}
