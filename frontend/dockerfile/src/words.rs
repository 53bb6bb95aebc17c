//! Words of the file with their variables replaced, and what is told on the way.

use std::{cell::Cell, collections::BTreeSet};

use dockerfile_parser::{
    Dockerfile, Escape, Heredoc, ParseError, Span, Word,
    expand::{self, ExpandError, Expanded},
    suggest::variable as nearest,
    text,
};

use crate::{
    ErrorKind, LowerError, Policy, Request,
    error::at,
    limit::LONGEST_VALUE_BYTES,
    lint::{UNDEFINED_ARG_IN_FROM, UNDEFINED_VAR},
    state::State,
    variables::{NOT_IN_ENVIRONMENT, Variables},
    warning::Warnings,
};

/// Replaces variables in words.
pub(crate) struct Words {
    pub(crate) escape: Escape,
    pub(crate) warnings: Warnings,
    /// The names of global `ARG`s, with or without a value.
    declared: BTreeSet<String>,
}

impl Words {
    /// Words of this file.
    ///
    /// # Errors
    /// Build checks that are asked for in a way that cannot be read.
    pub(crate) fn new(file: &Dockerfile, request: &Request) -> Result<Words, LowerError> {
        let names = file.global_args.iter().flat_map(|node| &node.value.names);
        Ok(Words {
            escape: file.escape,
            warnings: Warnings::new(Policy::new(file, request)?),
            declared: names.map(|name| name.name.text.clone()).collect(),
        })
    }

    /// A word of an instruction in a stage: quotes and escapes taken out.
    pub(crate) fn word(&mut self, state: &State, word: &Word) -> Result<String, LowerError> {
        self.expanded(state, word).map(|expanded| expanded.text)
    }

    /// As [`Words::word`], split again at white space that is not quoted.
    pub(crate) fn words(&mut self, state: &State, word: &Word) -> Result<Vec<String>, LowerError> {
        self.expanded(state, word).map(|expanded| expanded.words)
    }

    fn expanded(&mut self, state: &State, word: &Word) -> Result<Expanded, LowerError> {
        let escape = self.escape;
        let expanded = bounded(&state.variables, word, |lookup| expand::word(&word.text, escape, lookup))?;
        self.warn_of_unset(state, &expanded.unset, word.span);
        no_nul(&expanded.text, word)?;
        Ok(expanded)
    }

    /// A word of a `FROM`.
    pub(crate) fn base_word(&mut self, globals: &Variables, word: &Word) -> Result<Expanded, LowerError> {
        let escape = self.escape;
        let expanded = bounded(globals, word, |lookup| expand::word(&word.text, escape, lookup))?;
        for name in expanded.unset.iter().filter(|name| !self.declared.contains(*name)) {
            let known = globals.names().chain(self.declared.iter().map(String::as_str));
            let hint = hint(nearest(name, known), "");
            let message = format!("FROM argument '{name}' is not declared{hint}");
            self.warnings.add(&UNDEFINED_ARG_IN_FROM, message, word.span);
        }
        no_nul(&expanded.text, word)?;
        Ok(expanded)
    }

    /// A default of a global `ARG`, for which unset names are no cause for a warning.
    pub(crate) fn global_default(&self, globals: &Variables, word: &Word) -> Result<String, LowerError> {
        let expand = |lookup: expand::Variables<'_>| expand::word(&word.text, self.escape, lookup);
        let expanded = bounded(globals, word, expand)?;
        no_nul(&expanded.text, word)?;
        Ok(expanded.text)
    }

    /// The bytes of a heredoc that becomes a file.
    pub(crate) fn heredoc(&mut self, state: &State, heredoc: &Heredoc) -> Result<Vec<u8>, LowerError> {
        let mut content = heredoc.text();
        if heredoc.expand {
            let word = Word { text: content, span: heredoc.body };
            let run = |lookup: expand::Variables<'_>| expand::heredoc(&word.text, lookup);
            // A file may be longer than a variable, but not by what variables put into it.
            let expanded = bounded(&state.variables, &word, run)?;
            self.warn_of_unset(state, &expanded.unset, heredoc.span);
            content = expanded.text;
        }
        Ok(text::encode(&content).into_owned())
    }

    fn warn_of_unset(&mut self, state: &State, unset: &BTreeSet<String>, span: Span) {
        for name in unset {
            let declared = state.args.iter().any(|(arg, _)| arg == name);
            if declared || NOT_IN_ENVIRONMENT.contains(&&**name) {
                continue;
            }
            let hint = hint(nearest(name, state.variables.names()), "$");
            let message = format!("Usage of undefined variable '${name}'{hint}");
            self.warnings.add(&UNDEFINED_VAR, message, span);
        }
    }
}

fn hint(near: Option<String>, sign: &str) -> String {
    near.map(|near| format!(" (did you mean {sign}{near}?)")).unwrap_or_default()
}

/// Runs an expansion and refuses values that grow out of all measure, before they have grown.
fn bounded(
    variables: &Variables,
    word: &Word,
    expand: impl Fn(expand::Variables<'_>) -> Result<Expanded, ExpandError>,
) -> Result<Expanded, LowerError> {
    let taken = Cell::new(0usize);
    let lookup = |name: &str| {
        let value = variables.get(name)?;
        taken.set(taken.get() + value.len());
        // What comes of the empty text is thrown away below.
        Some(if taken.get() > LONGEST_VALUE_BYTES { String::new() } else { value.to_owned() })
    };
    let expanded = expand(&lookup).map_err(|error| LowerError::from(ParseError::expansion(word, error)))?;
    // A replacement can make more than was looked up.
    let made = expanded.text.len().saturating_sub(word.text.len());
    let length = taken.get().max(made);
    if length > LONGEST_VALUE_BYTES {
        let kind = ErrorKind::TooLong { written: summary(&word.text), length };
        return Err(at(word.span, kind));
    }
    Ok(expanded)
}

/// Refuses a text that no path, variable or argument can hold.
pub(crate) fn no_nul(text: &str, word: &Word) -> Result<(), LowerError> {
    match text.contains('\0') {
        true => Err(at(word.span, ErrorKind::Nul { written: summary(&word.text) })),
        false => Ok(()),
    }
}

/// The beginning of a text that may be long.
fn summary(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text for JSON and for people: bytes that are no UTF-8 become U+FFFD.
pub(crate) fn plain(value: &str) -> String {
    String::from_utf8_lossy(&text::encode(value)).into_owned()
}

/// An instruction as progress shows it: keyword in upper case, and variables that are set replaced, unless they stand
/// in single quotes or behind an escape. Never fails: it is for people.
pub(crate) fn shown(line: &str, escape: Escape, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let (keyword, rest) = line.split_at(line.find(char::is_whitespace).unwrap_or(line.len()));
    let mut out = keyword.to_uppercase();
    let mut quoted = false;
    let mut at = 0;
    while let Some(c) = rest[at..].chars().next() {
        if out.len() > LONGEST_VALUE_BYTES {
            return line.to_owned();
        }
        let after = at + c.len_utf8();
        at = match c {
            '\'' => {
                quoted = !quoted;
                out.push(c);
                after
            }
            c if c == escape.char() && !quoted => {
                let end = after + rest[after..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[at..end]);
                end
            }
            '$' if !quoted => {
                match variable(&rest[after..]).and_then(|(name, length)| Some((lookup(name)?, length))) {
                    Some((value, length)) => {
                        out.push_str(&value);
                        after + length
                    }
                    None => {
                        out.push(c);
                        after
                    }
                }
            }
            c => {
                out.push(c);
                after
            }
        };
    }
    out
}

/// The name behind a `$`, and how many bytes it takes: `NAME` or `{NAME}`.
fn variable(rest: &str) -> Option<(&str, usize)> {
    let braced = rest.strip_prefix('{');
    let text = braced.unwrap_or(rest);
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    match (braced, end) {
        (_, 0) => None,
        (None, end) => Some((&text[..end], end)),
        (Some(text), end) => text[end..].starts_with('}').then(|| (&text[..end], end + 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_shown_with_what_is_known() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (line, expected) in [
            ("run echo $A ${A} $B '$A' \\$A $(x) $", "RUN echo 1 1 $B '$A' \\$A $(x) $"),
            ("Copy ${A ${A:-x} $AB", "COPY ${A ${A:-x} $AB"),
            ("WORKDIR", "WORKDIR"),
        ] {
            assert_eq!(shown(line, Escape::Backslash, &lookup), expected);
        }
    }

    #[test]
    fn values_do_not_grow_out_of_all_measure() {
        let mut variables = Variables::default();
        variables.set("A", &"x".repeat(LONGEST_VALUE_BYTES / 2));
        let word = |text: &str| Word { text: text.to_owned(), span: Span::new(0, text.len()) };
        let mut words =
            Words { escape: Escape::Backslash, warnings: Warnings::default(), declared: BTreeSet::new() };
        let mut expand = |word: &Word| words.base_word(&variables, word).map(|expanded| expanded.text);
        assert_eq!(expand(&word("$A$A")).expect("just fits").len(), LONGEST_VALUE_BYTES);
        assert_eq!(expand(&word("$A$A$A")).expect_err("too long").code(), "value-too-long");
        assert_eq!(expand(&word("a\0b")).expect_err("NUL").code(), "nul-byte");
    }
}
