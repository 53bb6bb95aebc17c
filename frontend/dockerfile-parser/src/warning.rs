//! What the reader of a file notices in passing. The full set of build checks is the frontend's; here are only those
//! that would cost a second look at the text.

use crate::span::Span;

/// A build check of BuildKit's that is decided by the text alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// An empty line inside a continued instruction.
    NoEmptyContinuation,
    /// `ENV key value` or `LABEL key value` instead of `key=value`.
    LegacyKeyValueFormat,
    /// `MAINTAINER`, which a label replaces.
    MaintainerDeprecated,
}

impl Rule {
    /// BuildKit's name of the rule, as in `# check=skip=…` and in its documentation's addresses.
    pub fn name(self) -> &'static str {
        match self {
            Rule::NoEmptyContinuation => "NoEmptyContinuation",
            Rule::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Rule::MaintainerDeprecated => "MaintainerDeprecated",
        }
    }
}

/// A rule that a place in the file breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// What is wrong here, in a sentence.
    pub message: String,
    /// The place to underline.
    pub span: Span,
    /// The whole instruction, whose own `# check=` comments may silence the rule.
    pub instruction: Span,
}
