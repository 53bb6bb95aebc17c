//! `ENV <key>=<value> …`, and the older `ENV <key> <value>`.

use crate::error::{ErrorKind, ParseError};
use crate::statement::Statement;
use crate::word::Word;

/// `ENV`: variables of the image and of what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    /// The pairs in order; at least one. Keys and values are expanded, all with the variables from before the line.
    pub pairs: Vec<Pair>,
    /// Whether it was the older form, whose value is the rest of the line.
    pub legacy: bool,
}

/// A key and a value, of `ENV` and `LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key, quotes still in it.
    pub key: Word,
    /// The value, quotes still in it.
    pub value: Word,
}

impl Env {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Env, ParseError> {
        statement.read_flags(&[])?;
        let (pairs, legacy) = parse_pairs(statement, "ENV")?;
        Ok(Env { pairs, legacy })
    }
}

/// Reads the pairs of `ENV` or `LABEL`, and says whether they were in the older form.
pub(super) fn parse_pairs(
    statement: &Statement<'_>,
    instruction: &'static str,
) -> Result<(Vec<Pair>, bool), ParseError> {
    let words = statement.quoted_words();
    let Some(first) = words.first() else { return Err(statement.needs_one_argument()) };
    if !statement.text(first).contains('=') {
        let (key, value) = statement.split_at_blank();
        let Some(value) = value else {
            return Err(statement.error_at(ErrorKind::PairWithoutValue { instruction }, key));
        };
        return Ok((vec![Pair { key: statement.word(key), value: statement.word(value) }], true));
    }
    let mut pairs = Vec::with_capacity(words.len());
    for range in words {
        let Some(at) = statement.text(&range).find('=').map(|at| range.start + at) else {
            let word = statement.text(&range).to_owned();
            return Err(statement.error_at(ErrorKind::PairWithoutEquals { instruction, word }, range));
        };
        if at == range.start {
            return Err(statement.error_at(ErrorKind::BlankName { instruction }, range));
        }
        pairs.push(Pair { key: statement.word(range.start..at), value: statement.word(at + 1..range.end) });
    }
    Ok((pairs, false))
}
