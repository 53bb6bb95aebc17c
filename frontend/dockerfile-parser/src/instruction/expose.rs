//! `EXPOSE <port>[/<protocol>] …`

use crate::error::ParseError;
use crate::statement::Statement;
use crate::word::Word;

/// `EXPOSE`: ports that a container listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expose {
    /// The ports as written; at least one. Each is expanded, split on blanks again
    /// ([`Expanded::words`](crate::expand::Expanded)), and only then read by [`port`](crate::port).
    pub ports: Vec<Word>,
}

impl Expose {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Expose, ParseError> {
        statement.read_flags(&[])?;
        let ports = statement.blank_words();
        if ports.is_empty() { Err(statement.needs_one_argument()) } else { Ok(Expose { ports }) }
    }
}
