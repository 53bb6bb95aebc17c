//! A logical line taken apart: keyword, flags, and the rest, which each instruction reads in its own way.

use crate::error::{ErrorKind, ParseError};
use crate::flag::{self, Flag, Flags};
use crate::heredoc::Placed;
use crate::instruction::KEYWORDS;
use crate::json::{self, Array};
use crate::logical::Logical;
use crate::word::{Escape, Word};
use std::ops::Range;

/// A logical line, or the part of it behind `ONBUILD`.
#[derive(Debug)]
pub(crate) struct Statement<'a> {
    line: &'a Logical,
    escape: Escape,
    keyword: Range<usize>,
    flags: Vec<Flag>,
    rest: Range<usize>,
    heredocs: &'a [Placed],
}

/// What separates words: `[\t\v\f\r ]`.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// A range of a text without the white space at both its ends.
fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..(start + part.trim().len())
}

impl<'a> Statement<'a> {
    /// Takes a line apart. Heredocs are known only after that, see [`Statement::with_heredocs`].
    pub(crate) fn new(line: &'a Logical, escape: Escape) -> Statement<'a> {
        Statement::of(line, escape, 0..line.text().len(), &[])
    }

    fn of(line: &'a Logical, escape: Escape, range: Range<usize>, heredocs: &'a [Placed]) -> Statement<'a> {
        let range = trim(line.text(), range);
        let length = line.text()[range.clone()].find(is_blank).unwrap_or(range.len());
        let keyword = range.start..range.start + length;
        let (flags, start) = flag::split(line, keyword.end..range.end);
        let rest = trim(line.text(), start..range.end);
        Statement { line, escape, keyword, flags, rest, heredocs }
    }

    /// The same with the heredocs that the line opens, each with its place in the line.
    pub(crate) fn with_heredocs(self, heredocs: &'a [Placed]) -> Statement<'a> {
        Statement { heredocs, ..self }
    }

    /// The keyword in upper case; empty where it is none.
    pub(crate) fn name(&self) -> &'static str {
        let keyword = &self.line.text()[self.keyword.clone()];
        KEYWORDS.into_iter().find(|name| name.eq_ignore_ascii_case(keyword)).unwrap_or("")
    }

    pub(crate) fn keyword(&self) -> Word {
        self.word(self.keyword.clone())
    }

    pub(crate) fn flags(&self) -> &[Flag] {
        &self.flags
    }

    pub(crate) fn heredocs(&self) -> &'a [Placed] {
        self.heredocs
    }

    /// Everything, from the keyword on.
    pub(crate) fn all(&self) -> Range<usize> {
        self.keyword.start..self.rest.end.max(self.keyword.end)
    }

    /// What is behind the flags.
    pub(crate) fn rest(&self) -> Range<usize> {
        self.rest.clone()
    }

    /// The same with the white space at the end of the line.
    pub(crate) fn rest_of_line(&self) -> &'a str {
        &self.line.text()[self.rest.start..]
    }

    pub(crate) fn text(&self, range: &Range<usize>) -> &'a str {
        &self.line.text()[range.clone()]
    }

    pub(crate) fn word(&self, range: Range<usize>) -> Word {
        self.line.word(range)
    }

    pub(crate) fn error_at(&self, kind: ErrorKind, range: Range<usize>) -> ParseError {
        ParseError::new(kind, self.line.span(range))
    }

    /// An error about the instruction as a whole.
    pub(crate) fn error(&self, kind: ErrorKind) -> ParseError {
        self.error_at(kind, self.all())
    }

    pub(crate) fn needs_one_argument(&self) -> ParseError {
        self.error(ErrorKind::NoArgument { instruction: self.name() })
    }

    /// The flags, none of which may have a name that is not in the list.
    pub(crate) fn read_flags(&self, known: &'static [&'static str]) -> Result<Flags, ParseError> {
        Flags::new(self.name(), self.flags.clone(), known)
    }

    /// The rest as one word, which may not be empty.
    pub(crate) fn only_argument(&self) -> Result<Word, ParseError> {
        if self.rest.is_empty() { Err(self.needs_one_argument()) } else { Ok(self.word(self.rest())) }
    }

    /// The words of the rest, split on blanks; quotes mean nothing.
    pub(crate) fn blank_ranges(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut at = self.rest.start;
        for part in self.text(&self.rest).split(is_blank) {
            if !part.is_empty() {
                ranges.push(at..at + part.len());
            }
            // Every blank is one byte.
            at += part.len() + 1;
        }
        ranges
    }

    pub(crate) fn blank_words(&self) -> Vec<Word> {
        self.blank_ranges().into_iter().map(|range| self.word(range)).collect()
    }

    /// The rest split at the first blanks.
    pub(crate) fn split_at_blank(&self) -> (Range<usize>, Option<Range<usize>>) {
        let text = self.text(&self.rest);
        let Some(at) = text.find(is_blank) else { return (self.rest(), None) };
        let start = self.rest.end - text[at..].trim_start_matches(is_blank).len();
        (self.rest.start..self.rest.start + at, Some(start..self.rest.end))
    }

    /// The words of the rest, split on white space outside quotes; quotes and escapes stay in them.
    pub(crate) fn quoted_words(&self) -> Vec<Range<usize>> {
        let escape = self.escape.char();
        let mut ranges = Vec::new();
        let (mut start, mut quote) = (None, None);
        let mut chars = self.text(&self.rest).char_indices();
        while let Some((offset, c)) = chars.next() {
            let at = self.rest.start + offset;
            if start.is_none() && c.is_whitespace() {
                continue;
            }
            match quote {
                None if c.is_whitespace() => {
                    ranges.extend(start.take().map(|start| start..at));
                    continue;
                }
                None if c == '\'' || c == '"' => quote = Some(c),
                Some(open) if c == open => quote = None,
                _ => {}
            }
            start.get_or_insert(at);
            // Nothing is escaped in single quotes.
            if c == escape && quote != Some('\'') {
                chars.next();
            }
        }
        ranges.extend(start.map(|start| start..self.rest.end));
        ranges
    }

    /// The words of a JSON array; `None` where the text is not JSON.
    ///
    /// # Errors
    /// An array that holds something else than strings.
    pub(crate) fn json(&self, range: Range<usize>) -> Result<Option<Vec<Word>>, ParseError> {
        let text = self.text(&range);
        if !text.starts_with('[') {
            return Ok(None);
        }
        match json::array(text) {
            Array::None => Ok(None),
            Array::Mixed(part) => {
                Err(self
                    .error_at(ErrorKind::JsonNotStrings, range.start + part.start..range.start + part.end))
            }
            Array::Strings(elements) => Ok(Some(
                elements
                    .into_iter()
                    .map(|element| Word {
                        text: element.text,
                        span: self
                            .line
                            .span(range.start + element.range.start..range.start + element.range.end),
                    })
                    .collect(),
            )),
        }
    }

    /// The instruction behind `ONBUILD`.
    pub(crate) fn inner(&self) -> Option<Statement<'a>> {
        let inner = || Statement::of(self.line, self.escape, self.rest(), self.heredocs);
        (!self.rest.is_empty()).then(inner)
    }

    /// Whether the line may open heredocs: `RUN`, `COPY` and `ADD`, also behind `ONBUILD`, not in JSON form.
    pub(crate) fn may_open_heredocs(&self) -> bool {
        match self.name() {
            "RUN" | "COPY" | "ADD" => !matches!(json::array(self.text(&self.rest)), Array::Strings(_)),
            "ONBUILD" => {
                self.inner().is_some_and(|inner| inner.name() != "ONBUILD" && inner.may_open_heredocs())
            }
            _ => false,
        }
    }
}
