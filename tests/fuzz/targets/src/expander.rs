//! The expander: it ends soon, with a text of bounded length, and does not touch what is literal.
//!
//! The input's first part is the escape character's line and then variables, `name=value` a line; the second part is
//! the text to expand.

use std::cell::Cell;
use std::collections::BTreeMap;

use dockerfile_parser::expand::{self, ExpandError, Expanded, LARGEST_WORK};
use dockerfile_parser::{Escape, text};

use crate::parts;

/// How long a text may be to be compared with its words.
const COMPARED: usize = 64 * 1024;

/// Expands a text as a word and as a heredoc.
pub fn expander(data: &[u8]) {
    let (head, body) = parts(data);
    let (head, body) = (text::decode(head), text::decode(body));
    let mut lines = head.lines();
    let escape = if lines.next() == Some("`") { Escape::Backtick } else { Escape::Backslash };
    let variables: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once('=')).collect();
    for run in [
        &|lookup: expand::Variables<'_>| expand::word(&body, escape, lookup),
        &|lookup: expand::Variables<'_>| expand::heredoc(&body, lookup) as Outcome,
    ] as [&dyn Fn(expand::Variables<'_>) -> Outcome; 2]
    {
        check(&body, &variables, run);
    }
    literal(&body, escape);
}

type Outcome = Result<Expanded, ExpandError>;

fn check(body: &str, variables: &BTreeMap<&str, &str>, run: &dyn Fn(expand::Variables<'_>) -> Outcome) {
    let taken = Cell::new(0);
    let outcome = run(&|name| {
        let value = variables.get(name)?;
        taken.set(taken.get() + value.len());
        Some((*value).to_owned())
    });
    match outcome {
        Err(error) => {
            assert!(body.get(error.range.clone()).is_some(), "{error:?}");
            assert!(!error.to_string().is_empty() && !error.code().is_empty());
        }
        Ok(expanded) => {
            let longest = body.len() + taken.get() + LARGEST_WORK;
            assert!(expanded.text.len() <= longest, "{} bytes", expanded.text.len());
            assert!(expanded.used.iter().all(|name| variables.contains_key(&**name)));
            assert!(expanded.unset.iter().all(|name| !variables.contains_key(&**name)));
            assert!(expanded.words.iter().all(|word| !word.is_empty()));
            // Long texts come of replacements alone, and take longer to compare than to make.
            if expanded.text.len() <= COMPARED {
                let words = expanded.words.iter().flat_map(|word| word.chars());
                let solid = |c: &char| !c.is_whitespace();
                assert!(words.filter(solid).eq(expanded.text.chars().filter(solid)), "a word was lost");
            }
        }
    }
}

/// A text without anything to expand stays, and so does any text of which each character is escaped.
fn literal(body: &str, escape: Escape) {
    let none: expand::Variables<'_> = &|_| None;
    if !body.contains(['$', '\'', '"', escape.char()]) {
        assert_eq!(expand::word(body, escape, none).map(|expanded| expanded.text).as_deref(), Ok(body));
    }
    let escaped: String = body.chars().flat_map(|c| [escape.char(), c]).collect();
    let expanded = expand::word(&escaped, escape, none).expect("nothing in it means anything");
    assert_eq!(expanded.text, body);
    assert_eq!(expanded.words.concat(), body, "an escaped blank does not split");
    if !body.contains('\'') {
        let quoted = format!("'{body}'");
        assert_eq!(expand::word(&quoted, escape, none).map(|expanded| expanded.text).as_deref(), Ok(body));
    }
}
