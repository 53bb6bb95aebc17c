//! The walk through a text that [`expand`](super) makes.

use super::pattern::Pattern;
use super::{DEEPEST, ExpandError, ExpandErrorKind, Expanded, LARGEST_WORK, Variables};
use std::ops::Range;

/// What a walk does with quotes, escapes and unset variables.
#[derive(Clone, Copy)]
pub(super) struct Options {
    pub(super) escape: char,
    /// Quotes are characters like any other.
    pub(super) ignore_quotes: bool,
    /// Quotes do what they do, and stay.
    pub(super) keep_quotes: bool,
    /// Escape characters do what they do, and stay.
    pub(super) keep_escapes: bool,
    /// The name of an unset variable stays as it is written.
    pub(super) keep_unset: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            escape: '\\',
            ignore_quotes: false,
            keep_quotes: false,
            keep_escapes: false,
            keep_unset: false,
        }
    }
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    options: Options,
    variables: Variables<'a>,
    depth: usize,
    /// How much work patterns may still make.
    work: usize,
    expanded: Expanded,
}

/// What a modifier of `${name…}` does about a variable that is unset.
#[derive(PartialEq, Eq)]
enum Unset {
    /// Something: the name is not reported.
    Handled,
    /// Nothing.
    Empty,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, options: Options, variables: Variables<'a>) -> Lexer<'a> {
        Lexer { text, at: 0, options, variables, depth: 0, work: LARGEST_WORK, expanded: Expanded::default() }
    }

    /// Walks through all of it. The words' places are those of their characters in the text.
    pub(super) fn run(mut self) -> Result<(Expanded, Vec<Range<usize>>), ExpandError> {
        let mut words = Words::default();
        let text = self.until(None, &mut words)?;
        words.finish();
        self.expanded.text = text;
        self.expanded.words = words.list;
        Ok((self.expanded, words.places))
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn error(&self, kind: ExpandErrorKind, start: usize) -> ExpandError {
        ExpandError { kind, range: start..self.at }
    }

    /// Reads up to a character, which is stepped over, or to the end where there is none to stop at. The error of a
    /// character that does not come is `MissingBrace`; whoever looks for another one changes it.
    fn until(&mut self, stop: Option<char>, words: &mut Words) -> Result<String, ExpandError> {
        let begin = self.at;
        let mut result = String::new();
        while let Some(c) = self.peek() {
            let start = self.at;
            if Some(c) == stop {
                self.at += c.len_utf8();
                return Ok(result);
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    words.split(&value, start..self.at);
                    result.push_str(&value);
                }
                '\'' | '"' if !self.options.ignore_quotes => {
                    let quoted = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    words.push(&quoted, start..self.at);
                    result.push_str(&quoted);
                }
                '<' => {
                    let text = self.possible_heredoc();
                    words.push(text, start..self.at);
                    result.push_str(text);
                }
                c if c == self.options.escape => {
                    self.at += c.len_utf8();
                    if self.options.keep_escapes {
                        words.push(&self.text[start..self.at], start..self.at);
                        result.push(c);
                    }
                    let escaped = self.at;
                    // At the end it is dropped.
                    let Some(next) = self.next() else { break };
                    words.push(&self.text[escaped..self.at], start..self.at);
                    result.push(next);
                }
                c => {
                    self.at += c.len_utf8();
                    words.split(&self.text[start..self.at], start..self.at);
                    result.push(c);
                }
            }
        }
        match stop {
            None => Ok(result),
            Some(_) => Err(self.error(ExpandErrorKind::MissingBrace, begin)),
        }
    }

    /// `<`, or `<<` with the blanks behind it: they belong to the word of a heredoc.
    fn possible_heredoc(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = match rest.strip_prefix("<<") {
            Some(behind) => rest.len() - behind.trim_start().len(),
            None => 1,
        };
        self.at += length;
        &rest[..length]
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        let Some(length) = self.text[start + 1..].find('\'') else {
            self.at = self.text.len();
            return Err(self.error(ExpandErrorKind::OpenQuote { quote: '\'' }, start));
        };
        self.at = start + length + 2;
        let quoted = &self.text[start..self.at];
        Ok(if self.options.keep_quotes { quoted.to_owned() } else { quoted[1..=length].to_owned() })
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.at += 1;
        let quote = if self.options.keep_quotes { "\"" } else { "" };
        let mut result = String::from(quote);
        loop {
            match self.peek() {
                None => return Err(self.error(ExpandErrorKind::OpenQuote { quote: '"' }, start)),
                Some('"') => {
                    self.at += 1;
                    result.push_str(quote);
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(c) => {
                    self.at += c.len_utf8();
                    if c != self.options.escape {
                        result.push(c);
                        continue;
                    }
                    if self.options.keep_escapes {
                        result.push(c);
                    }
                    match self.peek() {
                        Some(next) if next == '"' || next == '$' || next == c => {
                            self.at += next.len_utf8();
                            result.push(next);
                        }
                        // The quote is open, which the next turn reports.
                        None => {}
                        Some(_) => result.push(c),
                    }
                }
            }
        }
    }

    /// What a `$` and what belongs to it stand for.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.at += 1;
        if self.peek() == Some('{') {
            if self.depth == DEEPEST {
                return Err(self.error(ExpandErrorKind::TooDeep, start));
            }
            self.depth += 1;
            let value = self.braced(start);
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.look_up(name, &Unset::Empty) {
            None if self.options.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    fn braced(&mut self, start: usize) -> Result<String, ExpandError> {
        self.at += 1;
        match self.peek() {
            None => return Err(self.error(ExpandErrorKind::MissingBrace, start)),
            Some('{' | '}' | ':') => return Err(self.error(ExpandErrorKind::BadSubstitution, start)),
            Some(_) => {}
        }
        let name = self.name();
        let behind_name = self.at;
        let Some(mut operator) = self.next() else {
            return Err(self.error(ExpandErrorKind::MissingBrace, start));
        };
        if operator == '}' {
            let value = self.look_up(name, &Unset::Empty);
            return Ok(self.or_as_written(value, start));
        }
        let or_empty = operator == ':';
        if or_empty {
            operator = self.next().ok_or_else(|| self.error(ExpandErrorKind::MissingBrace, start))?;
        }
        match operator {
            '-' | '+' | '?' => self.conditional(name, operator, or_empty, start),
            '#' | '%' if !or_empty => self.trimmed(name, operator, start),
            '/' if !or_empty => self.replaced(name, start),
            // `${name:1:2}` is the shell's own business where only words are looked for.
            _ if or_empty && self.options.keep_unset => {
                self.word_until('}', false, start)?;
                Ok(self.text[start..self.at].to_owned())
            }
            _ => {
                let operator = self.text[behind_name..self.at].to_owned();
                Err(self.error(ExpandErrorKind::UnsupportedOperator { operator }, start))
            }
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`, and with `:` before the operator.
    fn conditional(
        &mut self,
        name: &str,
        operator: char,
        or_empty: bool,
        start: usize,
    ) -> Result<String, ExpandError> {
        let word = self.word_until('}', false, start)?;
        let value = self.look_up(name, &Unset::Handled);
        if value.is_none() && self.options.keep_unset {
            return Ok(self.text[start..self.at].to_owned());
        }
        let unset = value.is_none();
        let given = value.filter(|value| !(or_empty && value.is_empty()));
        match (operator, given) {
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            (_, None) => {
                let why = if unset { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { why.to_owned() } else { word };
                Err(self.error(ExpandErrorKind::Required { name: name.to_owned(), message }, start))
            }
        }
    }

    /// `${name#pattern}`, `${name##pattern}`, `${name%pattern}`, `${name%%pattern}`.
    fn trimmed(&mut self, name: &str, operator: char, start: usize) -> Result<String, ExpandError> {
        let word = self.word_until('}', true, start)?;
        let value = self.look_up(name, &Unset::Empty);
        if value.is_none() && self.options.keep_unset {
            return Ok(self.text[start..self.at].to_owned());
        }
        let (longest, pattern) = match word.strip_prefix(operator) {
            Some(pattern) => (true, pattern),
            None => (false, &*word),
        };
        let pattern = self.pattern(pattern, start)?;
        let value: Vec<char> = value.unwrap_or_default().chars().collect();
        self.spend(pattern.steps(&value), start)?;
        let rest = match operator {
            '#' => &value[pattern.beginning(&value, longest).unwrap_or(0)..],
            _ => {
                let reversed: Vec<char> = value.iter().rev().copied().collect();
                let length = pattern.reversed().beginning(&reversed, longest).unwrap_or(0);
                &value[..value.len() - length]
            }
        };
        Ok(rest.iter().collect())
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str, start: usize) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let pattern = self.word_until('/', true, start)?;
        let replacement = self.word_until('}', true, start)?;
        let value = self.look_up(name, &Unset::Empty);
        if value.is_none() && self.options.keep_unset {
            return Ok(self.text[start..self.at].to_owned());
        }
        let pattern = self.pattern(&pattern, start)?;
        let value: Vec<char> = value.unwrap_or_default().chars().collect();
        self.spend(pattern.steps(&value), start)?;
        let replaced = if all {
            pattern.replace_all(&value, &replacement, self.work)
        } else {
            Some(pattern.replace_first(&value, &replacement))
        };
        let replaced = replaced.ok_or_else(|| self.error(ExpandErrorKind::TooMuchWork, start))?;
        self.spend(replaced.len(), start)?;
        Ok(replaced)
    }

    /// Takes steps off what is left of them.
    fn spend(&mut self, steps: usize, start: usize) -> Result<(), ExpandError> {
        self.work = match self.work.checked_sub(steps) {
            Some(left) => left,
            None => return Err(self.error(ExpandErrorKind::TooMuchWork, start)),
        };
        Ok(())
    }

    fn pattern(&self, text: &str, start: usize) -> Result<Pattern, ExpandError> {
        Pattern::parse(text).map_err(|escape| {
            let escape = escape.map(String::from).unwrap_or_default();
            self.error(ExpandErrorKind::InvalidEscape { escape }, start)
        })
    }

    /// The expanded text up to a character, in `${…}`; in patterns escapes are kept.
    fn word_until(&mut self, stop: char, keep_escapes: bool, start: usize) -> Result<String, ExpandError> {
        let outer = std::mem::replace(&mut self.options.keep_escapes, keep_escapes);
        let word = self.until(Some(stop), &mut Words::ignored());
        self.options.keep_escapes = outer;
        word.map_err(|error| match error.kind {
            ExpandErrorKind::MissingBrace if stop == '/' => self.error(ExpandErrorKind::MissingSlash, start),
            ExpandErrorKind::MissingBrace => self.error(ExpandErrorKind::MissingBrace, start),
            _ => error,
        })
    }

    /// Letters, digits and `_`; or digits alone where it begins with one; or one of `@*#?-$!`.
    fn name(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = match rest.chars().next() {
            Some(first) if first.is_numeric() => rest.find(|c: char| !c.is_numeric()).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
        };
        self.at += length;
        &rest[..length]
    }

    fn look_up(&mut self, name: &str, unset: &Unset) -> Option<String> {
        let value = (self.variables)(name);
        if value.is_some() {
            self.expanded.used.insert(name.to_owned());
        } else if *unset == Unset::Empty {
            self.expanded.unset.insert(name.to_owned());
        }
        value
    }

    fn or_as_written(&self, value: Option<String>, start: usize) -> String {
        match value {
            None if self.options.keep_unset => self.text[start..self.at].to_owned(),
            value => value.unwrap_or_default(),
        }
    }
}

/// The words of a text, gathered piece by piece.
#[derive(Default)]
struct Words {
    list: Vec<String>,
    places: Vec<Range<usize>>,
    word: String,
    place: Range<usize>,
    /// Whether nobody wants them.
    ignored: bool,
}

impl Words {
    fn ignored() -> Words {
        Words { ignored: true, ..Words::default() }
    }

    /// Adds a piece whose white space does not split.
    fn push(&mut self, piece: &str, place: Range<usize>) {
        if self.ignored || piece.is_empty() {
            return;
        }
        if self.word.is_empty() {
            self.place.start = place.start;
        }
        self.word.push_str(piece);
        self.place.end = place.end;
    }

    /// Adds a piece that is split at its white space.
    fn split(&mut self, piece: &str, place: Range<usize>) {
        if self.ignored {
            return;
        }
        let mut parts = piece.split(char::is_whitespace);
        self.push(parts.next().unwrap_or(""), place.clone());
        for part in parts {
            self.finish();
            self.push(part, place.clone());
        }
    }

    fn finish(&mut self) {
        if !self.word.is_empty() {
            self.list.push(std::mem::take(&mut self.word));
            self.places.push(self.place.clone());
        }
    }
}
