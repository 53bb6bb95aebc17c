//! Filters of `du`, `prune` and policies, in the language that BuildKit has from containerd:
//! `type==regular,description~=apt,!=…`.
//!
//! A filter is a list of selectors, separated by commas, which must all hold. Several filters are alternatives.

use std::fmt;

use regex::Regex;

use crate::usage::{Usage, UsageType};

/// What a filter can ask about, in the order in which messages name it.
const FIELDS: [&str; 9] =
    ["id", "type", "description", "parents", "inuse", "shared", "private", "mutable", "immutable"];

/// Selectors that must all hold.
#[derive(Clone, Debug)]
pub struct Filter(Vec<Selector>);

/// A filter that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// It asks about something that entries do not have.
    #[error("`{field}` is nothing that a filter can ask about: there are {}", FIELDS.join(", "))]
    Field {
        /// What it asks about.
        field: String,
    },
    /// It asks about a type that there is not.
    #[error("`{word}` is no type: there are {}", UsageType::names())]
    Type {
        /// The word that is none.
        word: String,
    },
    /// Something stands behind the field that is no `==`, `!=` or `~=` with a value.
    #[error("`{0}` is no filter: a field stands alone, or before ==, != or ~= and a value")]
    Form(String),
    /// The pattern behind `~=` cannot be read.
    #[error("`{pattern}` is no regular expression: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Clone, Debug)]
struct Selector {
    field: &'static str,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Is(String),
    IsNot(String),
    Matches(Regex),
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// [`BadFilter`].
    pub fn parse(text: &str) -> Result<Filter, BadFilter> {
        split(text)
            .into_iter()
            .filter(|part| !part.trim().is_empty())
            .map(selector)
            .collect::<Result<_, _>>()
            .map(Filter)
    }

    /// Whether an entry is meant.
    pub fn matches(&self, entry: &Usage) -> bool {
        self.0.iter().all(|selector| selector.holds(entry))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Selector { field, test }) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            match test {
                Test::Present => write!(f, "{field}")?,
                Test::Is(value) => write!(f, "{field}=={value}")?,
                Test::IsNot(value) => write!(f, "{field}!={value}")?,
                Test::Matches(pattern) => write!(f, "{field}~={pattern}")?,
            }
        }
        Ok(())
    }
}

/// Parts between commas that are not inside quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut quoted, mut start, mut parts) = (false, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn selector(text: &str) -> Result<Selector, BadFilter> {
    let text = text.trim();
    let end = text.find(['=', '!', '~']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let known = FIELDS.into_iter().find(|field| *field == name.trim());
    let field = known.ok_or_else(|| BadFilter::Field { field: name.trim().to_owned() })?;
    let value =
        |operator: &str| rest.strip_prefix(operator).map(|value| value.trim().trim_matches('"').to_owned());
    let test = if rest.is_empty() {
        Test::Present
    } else if let Some(value) = value("==") {
        Test::Is(value)
    } else if let Some(value) = value("!=") {
        Test::IsNot(value)
    } else if let Some(pattern) = value("~=") {
        let bad =
            |error: regex::Error| BadFilter::Pattern { pattern: pattern.clone(), why: last_line(&error) };
        Test::Matches(Regex::new(&pattern).map_err(bad)?)
    } else {
        return Err(BadFilter::Form(text.to_owned()));
    };
    match &test {
        Test::Is(value) | Test::IsNot(value) if field == "type" && UsageType::parse(value).is_none() => {
            Err(BadFilter::Type { word: value.clone() })
        }
        _ => Ok(Selector { field, test }),
    }
}

/// The reason without the drawing of the pattern above it.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl Selector {
    fn holds(&self, entry: &Usage) -> bool {
        let flag = |is: bool| if is { vec!["true"] } else { Vec::new() };
        let id = entry.id.clone();
        let values: Vec<&str> = match self.field {
            "id" => vec![&id],
            "type" => vec![entry.kind.as_str()],
            "description" => vec![&entry.description],
            "parents" => entry.parents.iter().map(String::as_str).collect(),
            "inuse" => flag(entry.in_use),
            "shared" => flag(entry.shared),
            "private" => flag(!entry.shared),
            "mutable" => flag(entry.mutable),
            _ => flag(!entry.mutable),
        };
        let is_flag = FIELDS[4..].contains(&self.field);
        match &self.test {
            Test::Present => values.iter().any(|value| !value.is_empty()),
            Test::Is(wanted) if is_flag && wanted == "false" => values.is_empty(),
            Test::IsNot(wanted) if is_flag && wanted == "false" => !values.is_empty(),
            Test::Is(wanted) => values.contains(&wanted.as_str()),
            Test::IsNot(wanted) => !values.contains(&wanted.as_str()),
            Test::Matches(pattern) => values.iter().any(|value| pattern.is_match(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_hold_or_not() {
        let entry = Usage {
            id: "0123abcd".to_owned(),
            description: "RUN apt-get install, and more".to_owned(),
            parents: vec!["aa".to_owned(), "bb".to_owned()],
            shared: true,
            ..Usage::of(UsageType::Regular)
        };
        for (filter, holds) in [
            ("", true),
            ("shared", true),
            ("private", false),
            ("shared==true", true),
            ("shared==false", false),
            ("inuse==false", true),
            ("mutable", false),
            ("immutable", true),
            ("type==regular", true),
            ("type!=regular", false),
            ("type==exec.cachemount", false),
            ("id~=^0123", true),
            ("id==0123", false),
            ("parents==bb", true),
            ("parents!=bb", false),
            ("parents", true),
            ("description~=apt", true),
            ("description~=\"install, and\"", true),
            ("type==regular,inuse", false),
            ("type==regular, shared", true),
        ] {
            assert_eq!(Filter::parse(filter).expect(filter).matches(&entry), holds, "{filter}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        for (filter, says) in [
            ("colour==red", "there are id, type, description"),
            ("type==layer", "there are regular, image"),
            ("type=regular", "no filter"),
            ("id~=(", "regular expression: unclosed group"),
            ("==x", "`` is nothing"),
        ] {
            let error = Filter::parse(filter).expect_err(filter).to_string();
            assert!(error.contains(says), "{filter}: {error}");
        }
    }
}
