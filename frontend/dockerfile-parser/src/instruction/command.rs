//! The two forms of a command: a text for the shell, or a JSON array of arguments.

use crate::error::ParseError;
use crate::statement::Statement;
use crate::word::Word;
use std::ops::Range;

/// A command of `RUN`, `CMD`, `ENTRYPOINT` or `HEALTHCHECK`. Never expanded by the builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Shell form: one text for the stage's `SHELL`. It may be empty.
    Shell(Word),
    /// Exec form: the arguments of a JSON array. It may be empty, which for `CMD` and `ENTRYPOINT` means none.
    Exec(Vec<Word>),
}

impl Command {
    /// Reads a command: an array where the text is JSON, else the text. An array of anything but strings is an error.
    pub(crate) fn parse(statement: &Statement<'_>, range: Range<usize>) -> Result<Command, ParseError> {
        Ok(match statement.json(range.clone())? {
            Some(words) => Command::Exec(words),
            None => Command::Shell(statement.word(range)),
        })
    }

    /// The arguments of the exec form, or the one text of the shell form.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Command::Shell(word) => vec![&word.text],
            Command::Exec(words) => words.iter().map(|word| &*word.text).collect(),
        }
    }
}

/// What a `RUN` runs, its heredocs taken into account: [`Run::script`](super::Run::script).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// These arguments, as they are.
    Exec(Vec<String>),
    /// This text as the command string of the stage's `SHELL`.
    Shell(String),
    /// A file, mounted read-only with mode 0755 at `/dev/pipes/<name>` and run by that path: the only heredoc of a
    /// `RUN`, whose first line begins with `#!`.
    File {
        /// The file's name: the heredoc's.
        name: String,
        /// What is in it.
        content: String,
    },
}
