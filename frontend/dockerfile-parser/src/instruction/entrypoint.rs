//! `ENTRYPOINT ["program", "argument"]` or `ENTRYPOINT text`

use super::command::Command;
use crate::error::ParseError;
use crate::statement::Statement;

/// `ENTRYPOINT`: the command that a container starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrypoint {
    /// The command; an empty array takes an inherited one away.
    pub command: Command,
}

impl Entrypoint {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Entrypoint, ParseError> {
        statement.read_flags(&[])?;
        Ok(Entrypoint { command: Command::parse(statement, statement.rest())? })
    }
}
