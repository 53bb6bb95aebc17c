//! The smallest piece of an instruction, and the character that escapes in it.

use crate::span::Span;

/// A piece of an instruction, not expanded: a path, a name, a flag's value, a command.
///
/// `text` has continuations joined, comments taken out, and JSON strings decoded; quotes, escapes and `$` are still in
/// it, ready for [`expand`](crate::expand). Bytes that are not UTF-8 are in it escaped, see [`text`](crate::text).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word {
    /// What was written, before expansion.
    pub text: String,
    /// Where it was written; for a JSON string with its quotes.
    pub span: Span,
}

impl Word {
    /// The part of `span` that a byte range of `text` stands for, where the two run in step (no continuation, quote
    /// or JSON escape between them); else all of `span`.
    pub fn span_at(&self, start: usize, end: usize) -> Span {
        if self.span.len() == self.text.len() && start <= end && end <= self.text.len() {
            Span::new(self.span.start + start, self.span.start + end)
        } else {
            self.span
        }
    }

    /// Whether expansion could change it because it names a variable: a `$` with something behind it.
    pub fn has_variable(&self) -> bool {
        has_variable(&self.text)
    }
}

/// Whether a text has a `$` with something behind it.
pub(crate) fn has_variable(text: &str) -> bool {
    text.find('$').is_some_and(|at| at + 1 < text.len())
}

/// The character that continues lines and escapes in words: the `# escape=` directive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Escape {
    /// `\`, the default.
    #[default]
    Backslash,
    /// `` ` ``, for Windows paths.
    Backtick,
}

impl Escape {
    /// The character itself.
    pub fn char(self) -> char {
        match self {
            Escape::Backslash => '\\',
            Escape::Backtick => '`',
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_of_a_part() {
        let word = Word { text: "a$bc".into(), span: Span::new(10, 14) };
        assert_eq!(word.span_at(1, 4), Span::new(11, 14));
        assert_eq!(word.span_at(1, 5), Span::new(10, 14));
        let folded = Word { text: "a$b".into(), span: Span::new(10, 16) };
        assert_eq!(folded.span_at(1, 3), Span::new(10, 16));
        assert!(word.has_variable());
        assert!(!Word { text: "cost: 5$".into(), span: Span::default() }.has_variable());
    }
}
