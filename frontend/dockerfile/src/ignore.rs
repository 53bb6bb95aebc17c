//! `.dockerignore`: which paths of a context are left out.
//!
//! It is not `.gitignore`. A pattern holds for the context's root, for a path and for all that is below it; the last
//! pattern that matches decides, `!` takes back in, also below what is left out. These are moby's rules
//! (`patternmatcher`), read off its four ways to match:
//!
//! | Pattern | Matches |
//! |---|---|
//! | without `*`, `?`, `[`, `\` | itself |
//! | `a/**` and no more of these | what begins with `a/`, so not `a` |
//! | `**/a`, `**a` and no more of these | `a` and what ends with `/a`; what ends with `a` |
//! | any other | as a regular expression: `*` and `?` stop at `/`, `**` and the `/` behind it do not, `[…]` is a class |
//!
//! One thing surprises: moby walks folder by folder and does not ask a pattern about a folder that is left out already.
//! After `a`, `!a/b`, `a*` the file `a/b` is therefore in the context: `a*` was never asked about `a`, and does not match
//! `a/b`. [`Ignore::excludes`] says what that walk says.

use dockerfile_parser::text;
use regex::Regex;
use std::fmt::Write;
use thiserror::Error;

/// The patterns of a `.dockerignore` file, or of `COPY --exclude`.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// What was found out about a folder, for what is in it: which patterns match it or a folder around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched(Vec<bool>);

/// Why patterns cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// A line of more than 64 KiB.
    #[error("line {line} of the ignore file is longer than 65535 bytes")]
    LineTooLong {
        /// The line, from 1.
        line: usize,
    },
    /// `!` alone.
    #[error("the ignore pattern `!` takes nothing back in")]
    OnlyNegation,
    /// A `[` that is not closed, an empty class or one that ends before it begins, or a `\` at the end.
    #[error("the ignore pattern `{pattern}` is not a pattern: a class or an escape in it is incomplete")]
    Syntax {
        /// The pattern.
        pattern: String,
    },
}

#[derive(Clone, Debug)]
struct Pattern {
    /// Without `!`, cleaned.
    text: String,
    /// Whether it takes back in.
    negated: bool,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Exact,
    /// Everything that begins with this.
    Prefix(String),
    /// Everything that ends with this.
    Suffix(String),
    Regex(Regex),
}

const LONGEST_LINE_BYTES: usize = 64 * 1024 - 1;

impl Ignore {
    /// Reads a `.dockerignore` file: a pattern a line, `#` in the first column for comments.
    ///
    /// # Errors
    /// The first line that is too long, or pattern that is none.
    pub fn parse(source: &[u8]) -> Result<Ignore, Error> {
        Ignore::new(&read(source)?)
    }

    /// Reads patterns as they stand in a list: each trimmed and cleaned, empty ones dropped.
    ///
    /// # Errors
    /// The first that is none.
    pub fn new(patterns: &[String]) -> Result<Ignore, Error> {
        let patterns = patterns.iter().map(|pattern| pattern.trim()).filter(|pattern| !pattern.is_empty());
        Ok(Ignore { patterns: patterns.map(Pattern::new).collect::<Result<_, _>>()? })
    }

    /// The patterns in order, cleaned, `!` in front of those that take back in.
    pub fn patterns(&self) -> Vec<String> {
        let written =
            |pattern: &Pattern| format!("{}{}", if pattern.negated { "!" } else { "" }, pattern.text);
        self.patterns.iter().map(written).collect()
    }

    /// Whether there is no pattern, so that everything is in the context.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path is left out. `path` is relative to the context's root, clean, with `/` between its parts.
    pub fn excludes(&self, path: &[u8]) -> bool {
        let mut around = Matched::default();
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends {
            around = self.check(&path[..end], &around).1;
        }
        self.check(path, &around).0
    }

    /// The same for who walks: `around` is what was found out about the folder that the path is in, and for the root
    /// [`Matched::default`]. Also says what is found out about the path, if it is a folder.
    pub fn check(&self, path: &[u8], around: &Matched) -> (bool, Matched) {
        let path = text::decode(path);
        let mut excluded = false;
        let mut matched = Matched(vec![false; self.patterns.len()]);
        for (index, pattern) in self.patterns.iter().enumerate() {
            let matches = around.0.get(index).copied().unwrap_or(false)
                || (pattern.negated == excluded && pattern.matches(&path));
            if matches {
                matched.0[index] = true;
                excluded = !pattern.negated;
            }
        }
        (excluded, matched)
    }

    /// Whether a path is left out by what matches it or a folder around it, pattern by pattern: moby's
    /// `MatchesOrParentMatches`, which the build checks ask. [`Ignore::excludes`] says what the walk leaves out.
    pub(crate) fn leaves_out(&self, path: &str) -> bool {
        let around = path.match_indices('/').map(|(at, _)| &path[..at]).filter(|folder| !folder.is_empty());
        let paths: Vec<&str> = around.chain([path]).collect();
        let mut out = false;
        for pattern in &self.patterns {
            if pattern.negated == out && paths.iter().any(|path| pattern.matches(path)) {
                out = !pattern.negated;
            }
        }
        out
    }

    /// Whether something in a folder that is left out may be taken back in. Where not, nobody need look into it.
    pub fn may_contain_included(&self, folder: &[u8]) -> bool {
        let folder = text::decode(folder);
        let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        self.patterns.iter().any(|pattern| pattern.negated && pattern.may_match_below(&parts))
    }
}

/// The lines of an ignore file as patterns: comments and empty lines left out, cleaned, without a `/` in front.
fn read(source: &[u8]) -> Result<Vec<String>, Error> {
    let source = source.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(source);
    let mut patterns = Vec::new();
    for (index, line) in source.split(|byte| *byte == b'\n').enumerate() {
        if line.len() > LONGEST_LINE_BYTES {
            return Err(Error::LineTooLong { line: index + 1 });
        }
        let line = text::decode(line);
        if line.starts_with('#') {
            continue;
        }
        let pattern = line.trim();
        let (sign, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", pattern),
        };
        match (sign, pattern) {
            ("", "") => {}
            (_, "") => patterns.push(sign.to_owned()),
            _ => {
                let clean = clean(pattern);
                let relative = clean.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&clean);
                patterns.push(format!("{sign}{relative}"));
            }
        }
    }
    Ok(patterns)
}

/// The shortest path that means the same (Go's `filepath.Clean`).
fn clean(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if root == "/" => {}
            part => parts.push(part),
        }
    }
    let clean = format!("{root}{}", parts.join("/"));
    if clean.is_empty() { ".".to_owned() } else { clean }
}

impl Pattern {
    fn new(written: &str) -> Result<Pattern, Error> {
        let clean = clean(written);
        let (negated, pattern) = match clean.strip_prefix('!') {
            Some("") => return Err(Error::OnlyNegation),
            Some(rest) => (true, rest),
            None => (false, &*clean),
        };
        let kind = compile(pattern).ok_or_else(|| Error::Syntax { pattern: pattern.to_owned() })?;
        Ok(Pattern { text: pattern.to_owned(), negated, kind })
    }

    fn matches(&self, path: &str) -> bool {
        match &self.kind {
            Kind::Exact => self.text == path,
            Kind::Prefix(prefix) => path.starts_with(prefix),
            Kind::Suffix(suffix) => path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path),
            Kind::Regex(regex) => regex.is_match(path),
        }
    }

    /// Whether it may match a path below a folder, given by its parts. What matches the folder or one around it does
    /// not count: that was asked already, and something behind it left the folder out.
    fn may_match_below(&self, folder: &[&str]) -> bool {
        let mut parts = self.text.split('/');
        for name in folder {
            match parts.next() {
                None => return false,
                // These may step over a `/`: a class can hold one.
                Some(part) if part.contains("**") || part.contains('[') => return true,
                Some(part) if part.contains(['*', '?', '\\']) => {}
                Some(part) if part != *name => return false,
                Some(_) => {}
            }
        }
        parts.next().is_some()
    }
}

/// Finds out how a pattern matches; `None` where it is not one.
fn compile(pattern: &str) -> Option<Kind> {
    let mut kind = Kind::Exact;
    let mut is_regex = false;
    let mut regex = String::from("^");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let first = rest.len() == pattern.len();
        let behind = &rest[c.len_utf8()..];
        rest = behind;
        match c {
            '*' if behind.starts_with('*') => {
                rest = behind[1..].strip_prefix('/').unwrap_or(&behind[1..]);
                match (rest.is_empty(), first) {
                    (true, false) if matches!(kind, Kind::Exact) && !is_regex => {
                        kind = Kind::Prefix(pattern[..pattern.len() - 2].to_owned());
                    }
                    (true, false) => {
                        regex.push_str(".*");
                        is_regex = true;
                    }
                    (false, false) => {
                        regex.push_str("(?:.*/)?");
                        is_regex = true;
                    }
                    (_, true) => {
                        regex.push_str("(?:.*/)?");
                        kind = Kind::Suffix(pattern[2..].to_owned());
                    }
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                is_regex = true;
            }
            '?' => {
                regex.push_str("[^/]");
                is_regex = true;
            }
            '[' => {
                rest = class(behind, &mut regex)?;
                is_regex = true;
            }
            // Alone it means itself, but not to moby's eye: `**]` is no ending.
            ']' => {
                literal(c, &mut regex);
                is_regex = true;
            }
            '\\' => {
                let escaped = behind.chars().next()?;
                rest = &behind[escaped.len_utf8()..];
                literal(escaped, &mut regex);
                is_regex = true;
            }
            c => literal(c, &mut regex),
        }
    }
    if !is_regex {
        return Some(kind);
    }
    regex.push('$');
    Regex::new(&regex).ok().map(Kind::Regex)
}

/// Reads a class behind its `[`, `^` first for what is not in it, and returns what is behind its `]`.
fn class<'a>(text: &'a str, regex: &mut String) -> Option<&'a str> {
    let (sign, mut rest) = match text.strip_prefix('^') {
        Some(rest) => ("[^", rest),
        None => ("[", text),
    };
    regex.push_str(sign);
    let mut empty = true;
    loop {
        if let Some(behind) = rest.strip_prefix(']').filter(|_| !empty) {
            regex.push(']');
            return Some(behind);
        }
        let (low, behind) = class_member(rest)?;
        rest = behind;
        literal(low, regex);
        if let Some(behind) = rest.strip_prefix('-') {
            let (high, behind) = class_member(behind)?;
            rest = behind;
            regex.push('-');
            literal(high, regex);
        }
        empty = false;
    }
}

/// A character of a class, and what is behind it; `-` and `]` must be escaped, and the class must go on.
fn class_member(text: &str) -> Option<(char, &str)> {
    let mut chars = text.chars();
    let c = match chars.next()? {
        '-' | ']' => return None,
        '\\' => chars.next()?,
        c => c,
    };
    (!chars.as_str().is_empty()).then_some((c, chars.as_str()))
}

/// A character that means itself, in a class and outside.
fn literal(c: char, regex: &mut String) {
    // Every character of the expressions' syntax is ASCII, and this form is never syntax.
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        regex.push(c);
    } else {
        let _infallible = write!(regex, "\\x{:02x}", u32::from(c));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ignore(patterns: &[&str]) -> Ignore {
        Ignore::new(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn files() {
        let parse = |source: &[u8]| Ignore::parse(source).unwrap().patterns();
        let source = b"\xEF\xBB\xBFa\r\n# no\n #b\n\n  c/ \n! /d/../e//f \n/\n/g/h\n./i\n..\n!\xFFx\n";
        let expected = ["a", "#b", "c", "!e/f", "/", "g/h", "i", "..", "!\u{10FFFF}x"];
        assert_eq!(parse(source), expected);
        assert_eq!(parse(b""), [""; 0]);
        assert_eq!(Ignore::parse(b"a\n !  ").unwrap_err(), Error::OnlyNegation);
        assert_eq!(Ignore::parse(b"a\nb[").unwrap_err(), Error::Syntax { pattern: "b[".into() });
        let long = [&b"a\n"[..], &[b'x'; 65_536]].concat();
        assert_eq!(Ignore::parse(&long).unwrap_err(), Error::LineTooLong { line: 2 });
    }

    #[test]
    fn clean_paths() {
        for (path, expected) in [
            ("", "."),
            ("a//b/./c/..", "a/b"),
            ("/../a", "/a"),
            ("../../a", "../../a"),
            ("a/../..", ".."),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    /// One pattern, paths it leaves out, paths it does not.
    #[test]
    fn single_patterns() {
        let cases: [(&str, &[&str], &[&str]); 42] = [
            ("abc", &["abc", "abc/d"], &["ab", "abcd", "x/abc"]),
            ("a.c", &["a.c"], &["abc"]),
            ("*", &["abc", "a/b", ".x"], &[]),
            ("*c", &["abc", "c", "abc/d"], &["cd", "a/c"]),
            ("a*/b", &["abc/b", "a/b/c"], &["a/c/b"]),
            ("a*b*c*d*e*/f", &["axbxcxdxe/f", "axbxcxdxexxx/f"], &["axbxcxdxe/xxx/f"]),
            ("a*b?c*x", &["abxbbxdbxebxczzx"], &["abxbbxdbxebxczzy"]),
            ("a?b", &["a☺b", "axb"], &["ab", "a/b"]),
            ("a???b", &["axxxb"], &["a☺b"]),
            ("a*b", &["ab", "axb"], &["a/b"]),
            ("a\\*b", &["a*b"], &["ab", "axb"]),
            ("a\\\\b", &["a\\b"], &["a\\\\b"]),
            ("ab[c]", &["abc"], &["abd"]),
            ("ab[b-d]", &["abc"], &["abe", "ab"]),
            ("ab[^c]", &["abd", "ab☺"], &["abc", "ab"]),
            ("a[^a][^a][^a]b", &["axxxb"], &["a☺b"]),
            ("[a-ζ]*", &["α"], &["1"]),
            ("[!a]", &["!", "a"], &["b"]),
            ("[\\]a]", &["]", "a"], &["\\"]),
            ("[x\\-]", &["x", "-"], &["z"]),
            ("[&&a~~[]", &["&", "~", "[", "a"], &["b"]),
            ("{a,b}", &["{a,b}"], &["a"]),
            ("**", &["a", "a/b"], &[]),
            ("**/", &["a", "a/b"], &[]),
            ("**/a", &["a", "x/a", "x/y/a", "a/b"], &["xa", "ax"]),
            ("**a", &["a", "xa", "x/ya"], &["ax"]),
            ("**]", &["]", "x/]"], &["x]"]),
            ("**/a*", &["a", "ab", "x/ab"], &["xa"]),
            ("**/*.go", &["a.go", "x/y/a.go", ".go"], &["go", "a.go2"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "ab"]),
            ("a**", &["a", "ab", "a/b"], &["b"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a/zz", "a", "b/a/z"]),
            ("a/**/*", &["a/b", "a/b/c"], &["a"]),
            ("**/a/**", &["a/b", "x/a/b"], &["a", "x/a"]),
            ("**/**/a", &["a", "x/y/a"], &["xa"]),
            ("a*/**", &["ab/c", "a/b/c"], &["ab"]),
            ("*/x", &["d/x", "d/x/y"], &["x", "a/b/x"]),
            ("a^b$c(d)|e+", &["a^b$c(d)|e+"], &["a"]),
            (".*", &[".git", ".git/x"], &["git", "a/.git"]),
            ("a/./b/../c/", &["a/c"], &["a/b"]),
            ("..", &[".."], &["a"]),
            (" a b ", &["a b"], &["a"]),
        ];
        for (pattern, excluded, included) in cases {
            let ignore = ignore(&[pattern]);
            for path in excluded {
                assert!(ignore.excludes(path.as_bytes()), "{pattern} does not match {path}");
            }
            for path in included {
                assert!(!ignore.excludes(path.as_bytes()), "{pattern} matches {path}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for pattern in
            ["[", "[^", "[^bc", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "a[", "\\", "a\\", "[z-a]", "[a\\"]
        {
            let found = Ignore::new(&[pattern.to_owned()]).unwrap_err();
            assert_eq!(found, Error::Syntax { pattern: pattern.into() });
        }
        assert_eq!(Ignore::new(&["!".into()]).unwrap_err(), Error::OnlyNegation);
    }

    /// Patterns, paths that are left out, paths that are not.
    #[test]
    fn lists_of_patterns() {
        let cases: [(&[&str], &[&str], &[&str]); 12] = [
            (&[], &[], &["a"]),
            (&["*", "!a"], &["b", "b/a"], &["a", "a/b"]),
            (&["!a", "*"], &["a", "b"], &[]),
            (&["a", "!a/b"], &["a", "a/c"], &["a/b", "a/b/c"]),
            (&["a", "!a/b", "a/b/c"], &["a/b/c", "a/b/c/d"], &["a/b", "a/b/d"]),
            (&["**", "!**/*.md", "secret.md"], &["x", "secret.md"], &["a.md", "d/a.md", "d/secret.md"]),
            (&["**/*.tmp", "**/cache"], &["x.tmp", "q/r/y.tmp", "cache/f", "q/cache/f"], &["q/r", "cached"]),
            (
                &["a/**/z", "b/**", "!b/keep/**"],
                &["a/b/c/z", "b/1", "b/keep"],
                &["a/zz", "b", "b/keep/2", "b/keep/d/3"],
            ),
            (&["b*", "!b2"], &["b1"], &["b2", "a"]),
            (&["docs", "!docs/README"], &["docs/x"], &["docs/README"]),
            (&["a", "!*/b"], &["a/c"], &["a/b"]),
            // Left out already, `a` is not held against `a*`.
            (&["a", "!a/b", "a*"], &["a", "a/c", "ax"], &["a/b"]),
        ];
        for (patterns, excluded, included) in cases {
            let ignore = ignore(patterns);
            for path in excluded {
                assert!(ignore.excludes(path.as_bytes()), "{patterns:?} do not leave out {path}");
            }
            for path in included {
                assert!(!ignore.excludes(path.as_bytes()), "{patterns:?} leave out {path}");
            }
        }
    }

    #[test]
    fn names_that_are_not_utf_8() {
        let ignore = Ignore::parse(b"caf\xE9\nx?y\n[^a]z\n").unwrap();
        assert!(ignore.excludes(b"caf\xE9") && ignore.excludes(b"x\xFFy") && ignore.excludes(b"\xFFz"));
        assert!(
            !ignore.excludes(b"caf\xE8")
                && !ignore.excludes(b"x\xFF\xFFy")
                && !ignore.excludes("café".as_bytes())
        );
    }

    #[test]
    fn folders_nobody_need_look_into() {
        let cases: [(&[&str], &[&str], &[&str]); 6] = [
            (&["*"], &[], &["a", "a/b"]),
            (&["*", "!a/b/c"], &["a", "a/b"], &["b", "a/c", "a/b/c", "a/b/c/d"]),
            (&["*", "!a/*.rs"], &["a"], &["b", "a/b"]),
            (&["*", "!*/keep"], &["a", "b"], &["a/b"]),
            (&["*", "!a/**/b"], &["a", "a/x/y"], &["b"]),
            (&["*", "!**/b", "!a[^b]c"], &["a", "x/y"], &[]),
        ];
        for (patterns, open, closed) in cases {
            let ignore = ignore(patterns);
            for folder in open {
                assert!(ignore.may_contain_included(folder.as_bytes()), "{patterns:?}, {folder}");
            }
            for folder in closed {
                assert!(!ignore.may_contain_included(folder.as_bytes()), "{patterns:?}, {folder}");
            }
        }
    }

    /// Patterns and paths of few letters, so that they meet.
    fn any_pattern() -> impl Strategy<Value = String> {
        "!?(\\*\\*/)?([ab*?]|\\*\\*|\\[a-b\\]|\\[\\^a\\]|\\\\a){1,3}(/([ab*?]|\\*\\*)){0,2}"
    }

    proptest! {
        #[test]
        fn nothing_is_included_below_a_folder_that_is_closed(
            patterns in proptest::collection::vec(any_pattern(), 1..5),
            folder in "[ab](/[ab]){0,2}",
            below in "[ab](/[ab]){0,2}",
        ) {
            let ignore = Ignore::new(&patterns).unwrap();
            let path = format!("{folder}/{below}");
            if ignore.excludes(folder.as_bytes()) && !ignore.may_contain_included(folder.as_bytes()) {
                prop_assert!(ignore.excludes(path.as_bytes()), "{patterns:?}");
            }
        }

        #[test]
        fn never_panics(source: Vec<u8>, path: Vec<u8>) {
            if let Ok(ignore) = Ignore::parse(&source) {
                ignore.excludes(&path);
                ignore.may_contain_included(&path);
            }
        }

        #[test]
        fn patterns_read_again_are_the_same(patterns in proptest::collection::vec(any_pattern(), 1..5)) {
            let once = Ignore::new(&patterns).unwrap().patterns();
            prop_assert_eq!(Ignore::new(&once).unwrap().patterns(), once);
        }
    }
}
