//! `LABEL <key>=<value> …`, and the older `LABEL <key> <value>`.

use super::env::{Pair, parse_pairs};
use crate::error::ParseError;
use crate::statement::Statement;

/// `LABEL`: key and value pairs about the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The pairs in order; at least one. Keys and values are expanded.
    pub pairs: Vec<Pair>,
    /// Whether it was the older form, whose value is the rest of the line.
    pub legacy: bool,
}

impl Label {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Label, ParseError> {
        statement.read_flags(&[])?;
        let (pairs, legacy) = parse_pairs(statement, "LABEL")?;
        Ok(Label { pairs, legacy })
    }
}
