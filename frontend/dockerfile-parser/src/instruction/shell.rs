//! `SHELL ["program", "argument"]`

use crate::error::{ErrorKind, ParseError};
use crate::statement::Statement;
use crate::word::Word;

/// `SHELL`: what the shell form of commands is given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    /// The program and its arguments; at least one. The command's text becomes one more. Not expanded.
    pub shell: Vec<Word>,
}

impl Shell {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Shell, ParseError> {
        statement.read_flags(&[])?;
        let rest = statement.rest();
        match statement.json(rest.clone())? {
            Some(shell) if !shell.is_empty() => Ok(Shell { shell }),
            None if !rest.is_empty() => {
                let words = statement.blank_words().into_iter().map(|word| word.text).collect();
                Err(statement.error_at(ErrorKind::ShellNotJson { words }, rest))
            }
            _ => Err(statement.needs_one_argument()),
        }
    }
}
