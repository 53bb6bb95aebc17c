//! Variables, quotes and escapes in words: what BuildKit's `shell/lex.go` does.
//!
//! | Form | Means |
//! |---|---|
//! | `$v` `${v}` | the value; empty where unset |
//! | `${v:-w}` `${v-w}` | `w` where unset or empty; where unset |
//! | `${v:+w}` `${v+w}` | `w` where set and not empty; where set |
//! | `${v:?w}` `${v?w}` | an error that says `w` where unset or empty; where unset |
//! | `${v#p}` `${v##p}` | without the shortest, the longest beginning that is like `p` |
//! | `${v%p}` `${v%%p}` | without the shortest, the longest end that is like `p` |
//! | `${v/p/r}` `${v//p/r}` | with `r` for the first, for each longest part that is like `p` |
//!
//! Single quotes keep everything, double quotes all but `$` and escaped `"`, `$` and escape characters. In a pattern `*`
//! is any text and `?` any character, but for line ends; there is no `[…]`. `$1`, `$@` and the like are names.
//!
//! Three things surprise:
//! - the word of an operator is expanded even where it is not used, so an error in it is one;
//! - in `${v//p/r}`, and only there, `r` is a template of Go's: `$$` is `$`, `$0` the part replaced, `$x` nothing;
//! - in patterns and replacements escapes are kept, so `${v/a/\/}` gives `\/`.

mod lexer;
mod pattern;

use crate::word::Escape;
use lexer::{Lexer, Options};
use std::collections::BTreeSet;
use std::ops::Range;
use thiserror::Error;

/// Looks a variable up; `None` where it is unset.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How deep one `${…}` may stand in another: enough for any file, little enough for any stack.
pub const DEEPEST: usize = 64;

/// How much work patterns may make in one text: for each, its length times that of the value, and then the length of what
/// it is replaced with. A `${v//?/…}` in another multiplies lengths, so that a line could else fill the memory.
pub const LARGEST_WORK: usize = 1 << 22;

/// A text, expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The text split at white space that is not quoted, values' white space included; empty words are dropped.
    pub words: Vec<String>,
    /// The variables that were looked up and are set.
    pub used: BTreeSet<String>,
    /// The variables that were looked up and are not set, but for those whose form says what then: `-`, `+`, `?`.
    pub unset: BTreeSet<String>,
}

/// Why a text cannot be expanded, and where in the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct ExpandError {
    /// What is wrong.
    pub kind: ExpandErrorKind,
    /// The part of the text, in bytes.
    pub range: Range<usize>,
}

/// Why a text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExpandErrorKind {
    /// A quote that is not closed.
    #[error("a {quote} is not closed")]
    OpenQuote {
        /// The quote.
        quote: char,
    },
    /// `${` without its `}`.
    #[error("a `${{` is not closed by `}}`")]
    MissingBrace,
    /// `${v/p` without a second `/`.
    #[error("a `/` is missing: the form is `${{name/pattern/replacement}}`")]
    MissingSlash,
    /// `${}`, `${{`, `${:`.
    #[error("there is no name in `${{…}}`")]
    BadSubstitution,
    /// An operator that there is not.
    #[error("`{operator}` cannot follow a name in `${{…}}`")]
    UnsupportedOperator {
        /// The operator.
        operator: String,
    },
    /// `\` before something else than `*`, `?`, `\`, `/` and `}` in a pattern.
    #[error("`{escape}` cannot be escaped in a pattern")]
    InvalidEscape {
        /// What stands behind the `\`; empty at the end.
        escape: String,
    },
    /// `${v?…}` or `${v:?…}` asked for a variable.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the file says, or else that it is unset or empty.
        message: String,
    },
    /// One `${…}` in another, more than [`DEEPEST`] deep.
    #[error("more than {DEEPEST} `${{…}}` stand in one another")]
    TooDeep,
    /// A value, pattern or replacement that makes more work than [`LARGEST_WORK`].
    #[error(
        "a pattern in `${{…}}` takes more than {LARGEST_WORK} steps: its value or replacement is too long"
    )]
    TooMuchWork,
}

impl ExpandError {
    /// A stable name, as of [`ParseError::code`](crate::ParseError::code).
    pub fn code(&self) -> &'static str {
        match self.kind {
            ExpandErrorKind::OpenQuote { .. } => "open-quote",
            ExpandErrorKind::Required { .. } => "required-variable",
            ExpandErrorKind::TooDeep => "expansion-too-deep",
            ExpandErrorKind::TooMuchWork => "value-too-long",
            _ => "bad-substitution",
        }
    }
}

/// Expands a word: variables replaced, quotes and escapes taken out.
///
/// # Errors
/// [`ExpandError`]; with [`ParseError::expansion`](crate::ParseError::expansion) it gets its place in the file.
pub fn word(text: &str, escape: Escape, variables: Variables<'_>) -> Result<Expanded, ExpandError> {
    run(text, Options { escape: escape.char(), ..Options::default() }, variables)
        .map(|(expanded, _)| expanded)
}

/// Expands the text of a heredoc of `COPY` or `ADD`: quotes stay, variables are replaced, and `\` is taken out before
/// any character, whatever `# escape=` says.
///
/// # Errors
/// [`ExpandError`], at bytes of the text.
pub fn heredoc(text: &str, variables: Variables<'_>) -> Result<Expanded, ExpandError> {
    run(text, Options { ignore_quotes: true, ..Options::default() }, variables).map(|(expanded, _)| expanded)
}

/// The shell words of a line as they stand there, each with its place; `None` where the line is not in order.
pub(crate) fn raw_words(line: &str) -> Option<Vec<(String, Range<usize>)>> {
    let options = Options { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Options::default() };
    let (expanded, places) = run(line, options, &|_| None).ok()?;
    Some(expanded.words.into_iter().zip(places).collect())
}

/// A heredoc's delimiter, with or without its quotes; `None` where it is not one word.
pub(crate) fn delimiter(text: &str, keep_quotes: bool) -> Option<String> {
    let options = Options { keep_quotes, keep_unset: true, ..Options::default() };
    let mut words = run(text, options, &|_| None).ok()?.0.words;
    let word = words.pop()?;
    words.is_empty().then_some(word)
}

fn run(
    text: &str,
    options: Options,
    variables: Variables<'_>,
) -> Result<(Expanded, Vec<Range<usize>>), ExpandError> {
    Lexer::new(text, options, variables).run()
}

#[cfg(test)]
mod tests;
