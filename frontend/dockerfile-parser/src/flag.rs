//! `--name[=value]` between the keyword and the arguments.

use crate::error::{ErrorKind, ParseError};
use crate::logical::Logical;
use crate::span::Span;
use crate::suggest::nearest;
use crate::word::Word;
use std::ops::Range;

/// A flag as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The name, without `--`.
    pub name: Word,
    /// The value, its quotes dropped; `None` where there is no `=`.
    pub value: Option<Word>,
    /// All of it, with `--`.
    pub span: Span,
}

/// Reads flags up to the first word without `--`, or behind a `--` alone. Returns them and where the rest begins.
///
/// Quotes hold a word together and are dropped; `\` takes the next character as it is, whatever `# escape=` says.
pub(crate) fn split(line: &Logical, range: Range<usize>) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        let rest = &line.text()[at..range.end];
        let start = at + (rest.len() - rest.trim_start().len());
        if !line.text()[start..range.end].starts_with("--") {
            return (flags, start);
        }
        let word = FlagWord::read(line.text(), start..range.end);
        at = word.end;
        if word.text == "--" {
            return (flags, at);
        }
        flags.push(word.flag(line));
    }
}

/// A word without its quotes, and where its characters were.
struct FlagWord {
    text: String,
    start: usize,
    end: usize,
    /// The first `=`: its place in `text`, and the place behind it in the line.
    equals: Option<(usize, usize)>,
}

impl FlagWord {
    fn read(line: &str, range: Range<usize>) -> FlagWord {
        let mut word = FlagWord { text: String::new(), start: range.start, end: range.end, equals: None };
        let mut quote = None;
        let mut chars = line[range.clone()].char_indices();
        while let Some((offset, c)) = chars.next() {
            match quote {
                None if c.is_whitespace() => {
                    word.end = range.start + offset;
                    break;
                }
                None if c == '\'' || c == '"' => quote = Some(c),
                Some(open) if c == open => quote = None,
                _ if c == '\\' => word.text.extend(chars.next().map(|(_, next)| next)),
                _ => {
                    if c == '=' && word.equals.is_none() {
                        word.equals = Some((word.text.len(), range.start + offset + 1));
                    }
                    word.text.push(c);
                }
            }
        }
        word
    }

    fn flag(&self, line: &Logical) -> Flag {
        let span = line.span(self.start..self.end);
        let name_start = self.start + 2;
        match self.equals {
            None => {
                let name = Word { text: self.text[2..].to_owned(), span: line.span(name_start..self.end) };
                Flag { name, value: None, span }
            }
            Some((at, behind)) => {
                let name =
                    Word { text: self.text[2..at].to_owned(), span: line.span(name_start..behind - 1) };
                let value = Word { text: self.text[at + 1..].to_owned(), span: line.span(behind..self.end) };
                Flag { name, value: Some(value), span }
            }
        }
    }
}

/// The flags of an instruction, taken out one by one by the instruction that knows them.
#[derive(Debug)]
pub(crate) struct Flags {
    list: Vec<Flag>,
}

impl Flags {
    /// # Errors
    /// A flag whose name is not in the list.
    pub(crate) fn new(
        instruction: &'static str,
        list: Vec<Flag>,
        known: &'static [&'static str],
    ) -> Result<Flags, ParseError> {
        match list.iter().find(|flag| !known.contains(&&*flag.name.text)) {
            None => Ok(Flags { list }),
            Some(flag) => {
                let suggestion = nearest(&flag.name.text, known).map(str::to_owned);
                let name = flag.name.text.clone();
                let takes = known;
                Err(ParseError::new(
                    ErrorKind::UnknownFlag { instruction, name, suggestion, takes },
                    flag.span,
                ))
            }
        }
    }

    /// The value of a flag that may be given once.
    pub(crate) fn value(&mut self, name: &'static str) -> Result<Option<Word>, ParseError> {
        let mut values = self.values(name)?.into_iter();
        match (values.next(), values.next()) {
            (first, None) => Ok(first),
            (_, Some(second)) => Err(ParseError::new(ErrorKind::DuplicateFlag { name }, second.span)),
        }
    }

    /// The values of a flag that may be given more than once, in order.
    pub(crate) fn values(&mut self, name: &'static str) -> Result<Vec<Word>, ParseError> {
        let missing = |span| ParseError::new(ErrorKind::FlagWithoutValue { name }, span);
        self.take(name).into_iter().map(|flag| flag.value.ok_or_else(|| missing(flag.span))).collect()
    }

    /// A flag that is on where it has no value.
    pub(crate) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, ParseError> {
        let mut flags = self.take(name).into_iter();
        let Some(flag) = flags.next() else { return Ok(None) };
        if let Some(second) = flags.next() {
            return Err(ParseError::new(ErrorKind::DuplicateFlag { name }, second.span));
        }
        let Some(value) = flag.value else { return Ok(Some(true)) };
        match &*value.text.to_ascii_lowercase() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            "" => Err(ParseError::new(ErrorKind::FlagWithoutValue { name }, flag.span)),
            _ => Err(ParseError::new(ErrorKind::FlagNotBoolean { name, value: value.text }, value.span)),
        }
    }

    fn take(&mut self, name: &str) -> Vec<Flag> {
        self.list.extract_if(.., |flag| flag.name.text == name).collect()
    }
}
