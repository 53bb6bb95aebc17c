//! Which language a text says it is in.
//!
//! A text in another language than Dockerfiles is not ours to read, so this is asked before [`parse`](crate::parse). Such
//! a language may know no `#`: BuildKit also takes `// syntax=` and a JSON object with the member `syntax`.

use crate::directive::{Directive, DirectiveName};
use crate::json;
use crate::logical::Lines;
use crate::span::Span;
use crate::text;

/// What a text says about its language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The value as written; its first word is the frontend's image.
    pub value: String,
    /// Where it stands; for JSON with its quotes.
    pub span: Span,
}

/// Finds `# syntax=…`, `// syntax=…` or `{"syntax": "…"}` at the top of a text, the first of them that there is.
///
/// # Source
/// BuildKit's `parser.DetectSyntax`.
pub fn detect_syntax(source: &[u8]) -> Option<Syntax> {
    in_comments(source, "#").or_else(|| in_comments(source, "//")).or_else(|| in_json(source))
}

fn in_comments(source: &[u8], sign: &str) -> Option<Syntax> {
    let mut lines = Lines::new(source);
    let mut first = true;
    while let Some(line) = lines.next_line() {
        let line = lines.content(line);
        let written = text::decode(&source[line.range()]);
        if !(std::mem::take(&mut first) && written.starts_with("#!")) {
            let found = Directive::behind(sign, &written, line)?;
            if found.name == DirectiveName::Syntax {
                return Some(Syntax { value: found.value, span: found.value_span });
            }
        }
    }
    None
}

fn in_json(source: &[u8]) -> Option<Syntax> {
    let start = source.len() - source.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(source).len();
    let text = std::str::from_utf8(&source[start..]).ok()?;
    let element = json::member(text, "syntax")?;
    let span = Span::new(start + element.range.start, start + element.range.end);
    Some(Syntax { value: element.text, span })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages() {
        for (source, expected) in [
            ("# syntax=a/b:1 x\nFROM c", Some("a/b:1 x")),
            ("#!/usr/bin/env x\n# syntax=a\n", Some("a")),
            ("# check=skip=all\n# Syntax = a \r\nx", Some("a")),
            ("// check=x\n//syntax=a\nlet x", Some("a")),
            ("#!x\n// syntax=a", Some("a")),
            (
                "\u{feff}{ \"x\": [1, {\"syntax\": 2}], \"syntax\": \"a\\u0062\", \"y\": null }\n",
                Some("\"a\\u0062\""),
            ),
            ("{\"syntax\": 1}", None),
            ("{\"syntax\": \"a\"} x", None),
            ("{}", None),
            ("{", None),
            ("# x\n# syntax=a", None),
            ("\n# syntax=a", None),
            ("// syntax=a", Some("a")),
            ("  // syntax=a", None),
            ("FROM a\n", None),
            ("", None),
        ] {
            let found = detect_syntax(source.as_bytes());
            assert_eq!(found.as_ref().map(|found| &source[found.span.range()]), expected, "{source:?}");
        }
        assert_eq!(detect_syntax(b"{\"syntax\":\"a\\u0062\"}").unwrap().value, "ab");
    }
}
