//! Files about registries that cannot be used.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// A file about registries that cannot be used, with the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a file about registries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is there and cannot be read.
    #[error("it cannot be read: {why}")]
    Unreadable {
        /// The system's words.
        why: String,
    },
    /// It is no TOML, no JSON, or a value is of another kind than expected.
    #[error("{why}")]
    Syntax {
        /// The parser's words.
        why: String,
    },
    /// A `[[registry]]` table is about nothing.
    #[error("a [[registry]] table has neither `prefix` nor `location`")]
    Nothing,
    /// A text is no host with an optional port and path.
    #[error("{field} `{text}` is no `HOST[:PORT][/PATH]`")]
    Place {
        /// The field.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// A text is no address of a host.
    #[error("{field} `{text}` is no address")]
    Address {
        /// The field.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// A field has a value that it cannot have.
    #[error("{field} is `{text}`; it can be {can}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value.
        text: String,
        /// What it can be.
        can: &'static str,
    },
    /// Two fields that may not stand together.
    #[error("`{one}` and `{other}` contradict each other; keep one of them")]
    Contradiction {
        /// One.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A client certificate without its key, or the other way round.
    #[error("it needs {needs} beside it")]
    Half {
        /// The missing file's name.
        needs: String,
    },
}

impl BadFile {
    pub(crate) fn new(path: &Path, problem: Problem) -> BadFile {
        BadFile { path: path.to_owned(), line: None, problem }
    }

    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> BadFile {
        BadFile::new(path, Problem::Unreadable { why: error.to_string() })
    }

    pub(crate) fn toml(path: &Path, text: &str, error: &toml::de::Error) -> BadFile {
        let line =
            error.span().and_then(|span| text.get(..span.start)).map(|before| before.lines().count().max(1));
        BadFile { line, ..BadFile::new(path, Problem::Syntax { why: error.message().to_owned() }) }
    }

    pub(crate) fn json(path: &Path, error: &serde_json::Error) -> BadFile {
        // The parser repeats the place at the end of its words.
        let told = error.to_string();
        let why = told.split(" at line ").next().unwrap_or_default().to_owned();
        BadFile { line: Some(error.line()), ..BadFile::new(path, Problem::Syntax { why }) }
    }

    /// How it is mended.
    pub(crate) fn help(&self) -> Option<String> {
        let path = self.path.display();
        Some(match &self.problem {
            Problem::Place { field, .. } => {
                format!("write {field} in {path} without a scheme or a tag: `registry.example:5000/team`")
            }
            Problem::Address { field, .. } => {
                format!("write {field} in {path} with its scheme: `https://registry.example:5000`")
            }
            Problem::Nothing => format!("give the table in {path} a line `location = \"registry.example\"`"),
            Problem::Half { needs } => {
                format!("put {needs} there, or remove {path}; authorities are named `*.crt`")
            }
            Problem::Unreadable { .. } | Problem::Syntax { .. } => format!("correct {path}, or remove it"),
            Problem::Value { .. } | Problem::Contradiction { .. } => format!("correct {path}"),
        })
    }
}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

// The problem is told by `Display`, so it is not the source as well.
impl std::error::Error for BadFile {}
