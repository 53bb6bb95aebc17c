//! `CMD ["program", "argument"]` or `CMD text`

use super::command::Command;
use crate::error::ParseError;
use crate::statement::Statement;

/// `CMD`: the default command, or the default arguments of the entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    /// The command; an empty array takes an inherited one away.
    pub command: Command,
}

impl Cmd {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Cmd, ParseError> {
        statement.read_flags(&[])?;
        Ok(Cmd { command: Command::parse(statement, statement.rest())? })
    }
}
