//! `USER <user>[:<group>]`

use crate::error::ParseError;
use crate::statement::Statement;
use crate::word::Word;

/// `USER`: who runs what follows, and who containers run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name or number and, behind a colon, the group; expanded. The rest of the line, not split.
    pub user: Word,
}

impl User {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<User, ParseError> {
        statement.read_flags(&[])?;
        Ok(User { user: statement.only_argument()? })
    }
}
