//! `# syntax=`, `# escape=`, `# check=`: comments at the top of the file that the builder obeys.
//!
//! They end at the first line that is not one: a blank line, another comment, an unknown name, an instruction. A byte
//! order mark and a first line that begins with `#!` are stepped over; behind such a line `escape` has no effect, as in
//! BuildKit.

use crate::csv;
use crate::span::Span;

/// A directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Which one.
    pub name: DirectiveName,
    /// What is behind `=`, trimmed; never empty. For `syntax` the first word is the frontend's image, for `check`
    /// [`CheckOptions::parse`] reads it.
    pub value: String,
    /// From `#` to the end of the value.
    pub span: Span,
    /// The value's place.
    pub value_span: Span,
}

/// The directives there are; names are matched without regard to case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DirectiveName {
    /// `# syntax=<image>`: which frontend reads the file.
    Syntax,
    /// `# escape=<character>`: what continues lines and escapes.
    Escape,
    /// `# check=<options>`: which build checks are made.
    Check,
}

impl DirectiveName {
    /// The name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            DirectiveName::Syntax => "syntax",
            DirectiveName::Escape => "escape",
            DirectiveName::Check => "check",
        }
    }
}

impl Directive {
    /// Reads a comment as a directive: `# name = value`. `None` where it is an ordinary comment.
    ///
    /// `comment` begins with `#` and has no line end; `span` is its place. Where it was escaped on decoding, the
    /// value's place is all of it.
    pub(crate) fn parse(comment: &str, span: Span) -> Option<Directive> {
        Directive::behind("#", comment, span)
    }

    /// As [`Directive::parse`], where another sign than `#` begins a comment.
    pub(crate) fn behind(sign: &str, comment: &str, span: Span) -> Option<Directive> {
        let body = comment.strip_prefix(sign)?.trim_start();
        let (name, value) = body.split_once('=')?;
        let name = match &*name.trim_end().to_ascii_lowercase() {
            "syntax" => DirectiveName::Syntax,
            "escape" => DirectiveName::Escape,
            "check" => DirectiveName::Check,
            _ => return None,
        };
        let (behind, value) = (value.len() - value.trim_start().len(), value.trim());
        if value.is_empty() {
            return None;
        }
        let start = comment.len() - body.len() + body.find('=')? + 1 + behind;
        let value_span = match span.len() == comment.len() {
            true => Span::new(span.start + start, span.start + start + value.len()),
            false => span,
        };
        let span = Span::new(span.start, value_span.end);
        Some(Directive { name, value: value.to_owned(), span, value_span })
    }
}

/// What `# check=` says: `skip=all|<rules>;experimental=all|<rules>;error=<bool>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Rules that are not checked.
    pub skip: Selection,
    /// Rules that are checked though they are experimental.
    pub experimental: Selection,
    /// Whether a broken rule fails the build.
    pub error: bool,
}

/// Some rules, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// `all`.
    All,
    /// These names, as written and in order.
    Rules(Vec<String>),
}

impl Default for Selection {
    fn default() -> Self {
        Selection::Rules(Vec::new())
    }
}

impl Selection {
    fn parse(text: &str) -> Selection {
        match text.trim() {
            "all" => Selection::All,
            names => Selection::Rules(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    /// Whether a rule is among them; names are matched without regard to case.
    pub fn contains(&self, rule: &str) -> bool {
        match self {
            Selection::All => true,
            Selection::Rules(rules) => rules.iter().any(|name| name.eq_ignore_ascii_case(rule)),
        }
    }
}

/// Why the value of `# check=` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// An option without `=`.
    #[error("`{option}` is not of the form `name=value`")]
    NoValue {
        /// The option.
        option: String,
    },
    /// An option that there is not.
    #[error("there is no option `{name}`; there are `skip`, `experimental` and `error`")]
    UnknownOption {
        /// Its name.
        name: String,
    },
    /// `error=` with something else than a truth value.
    #[error("`error={value}` is neither true nor false")]
    NotBoolean {
        /// The value.
        value: String,
    },
}

impl CheckOptions {
    /// Reads the value of a `# check=` directive, or of the build argument that replaces it.
    ///
    /// # Errors
    /// [`CheckError`] names the option that is wrong.
    pub fn parse(text: &str) -> Result<CheckOptions, CheckError> {
        let mut options = CheckOptions::default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let Some((name, value)) = option.split_once('=') else {
                return Err(CheckError::NoValue { option: option.to_owned() });
            };
            let value = value.trim();
            match name.trim() {
                "skip" => options.skip = Selection::parse(value),
                "experimental" => options.experimental = Selection::parse(value),
                "error" => {
                    options.error = csv::boolean(value)
                        .ok_or_else(|| CheckError::NotBoolean { value: value.to_owned() })?;
                }
                name => return Err(CheckError::UnknownOption { name: name.to_owned() }),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives() {
        let parse = |comment: &str| Directive::parse(comment, Span::new(5, 5 + comment.len()));
        let found = parse("#  Syntax  =  a/b:1 x  ").unwrap();
        assert_eq!((found.name, &*found.value), (DirectiveName::Syntax, "a/b:1 x"));
        assert_eq!((found.value_span, found.span), (Span::new(19, 26), Span::new(5, 26)));
        for comment in ["# syntax", "# syntax=", "# syntax=  ", "# syn tax=x", "# other=x", "#", "# =x"] {
            assert_eq!(parse(comment), None, "{comment}");
        }
    }

    #[test]
    fn checks() {
        let options = CheckOptions::parse("skip=JSONArgsRecommended, StageNameCasing ;error=true").unwrap();
        assert!(options.skip.contains("stagenamecasing") && !options.skip.contains("Other") && options.error);
        assert_eq!(CheckOptions::parse("skip=all").unwrap().skip, Selection::All);
        assert_eq!(CheckOptions::parse(" ").unwrap(), CheckOptions::default());
        assert_eq!(CheckOptions::parse("skip"), Err(CheckError::NoValue { option: "skip".into() }));
        assert_eq!(CheckOptions::parse("skp=all"), Err(CheckError::UnknownOption { name: "skp".into() }));
        assert_eq!(CheckOptions::parse("error=maybe"), Err(CheckError::NotBoolean { value: "maybe".into() }));
    }
}
