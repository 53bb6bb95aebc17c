//! `VOLUME ["/path"]` or `VOLUME /path …`

use crate::error::{ErrorKind, ParseError};
use crate::statement::Statement;
use crate::word::Word;

/// `VOLUME`: paths that containers keep outside the image's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The paths, trimmed; at least one, none empty. Expanded.
    pub paths: Vec<Word>,
}

impl Volume {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Volume, ParseError> {
        statement.read_flags(&[])?;
        let mut paths = match statement.json(statement.rest())? {
            Some(words) => words,
            None => statement.blank_words(),
        };
        if paths.is_empty() {
            return Err(statement.needs_one_argument());
        }
        for path in &mut paths {
            let trimmed = path.text.trim();
            if trimmed.is_empty() {
                return Err(ParseError::new(ErrorKind::EmptyVolume, path.span));
            }
            if trimmed.len() != path.text.len() {
                path.text = trimmed.to_owned();
            }
        }
        Ok(Volume { paths })
    }
}
