//! Wildcards as Go has them, because Dockerfiles are written for Go's.
//!
//! Two dialects share the parts: [`Glob`] is `filepath.Match`, the wildcards of `COPY` and `ADD` sources, in
//! which `**` is no more than `*`; [`Pattern`] is moby's patternmatcher, the language of `.dockerignore`,
//! `--exclude` and `COPY --parents`, in which `**` crosses folders and a match of a folder is one of all
//! below it.
//!
//! Matching keeps a set of places reached in the text, so that it takes time proportional to pattern times
//! text and no pattern can be made to explode.

/// A pattern that Go's `filepath.Match` calls bad.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is no pattern: {reason}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Whether a path has an unescaped `*`, `?` or `[`.
pub fn contains_wildcard(pattern: &[u8]) -> bool {
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    false
}

/// A compiled `filepath.Match` pattern: `*` any bytes but `/`, `?` one character but `/`, `[a-z]`, `[^a-z]`
/// one character, which may be `/`, and `\x` the character x.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Part>);

/// A compiled pattern of moby's patternmatcher, without its leading `!`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Byte(u8),
    /// One character but `/`.
    Any,
    /// Any bytes but `/`.
    Star,
    /// One character in the ranges, or with `negated` one in none of them.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// Nothing, or any bytes that end in `/`.
    Folders,
    /// Any bytes, at the beginning of a pattern.
    Anything,
    /// Any bytes.
    Rest,
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`BadPattern`] for an unclosed or empty class, a bad range, or a `\` at the end.
    pub fn parse(pattern: &[u8]) -> Result<Glob, BadPattern> {
        parse(pattern, false).map(Glob)
    }

    /// Whether the pattern matches all of `text`.
    pub fn matches(&self, text: &[u8]) -> bool {
        matches(&self.0, text)
    }
}

impl Pattern {
    /// Compiles a pattern, which is cleaned as Go's `filepath.Clean` does, and loses a leading slash.
    ///
    /// # Errors
    /// [`BadPattern`] as [`Glob::parse`].
    pub fn parse(pattern: &[u8]) -> Result<Pattern, BadPattern> {
        // The clean form by Go's rules: a pattern is text, and no path that a kernel would have to take.
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in pattern.trim_ascii().split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parse(&parts.join(&b'/'), true).map(Pattern)
    }

    /// Whether the pattern matches `path`, written without a leading slash, or a folder above it.
    pub fn matches(&self, path: &[u8]) -> bool {
        let ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
        ends.into_iter().any(|end| matches(&self.0, &path[..end]))
    }
}

fn parse(pattern: &[u8], double: bool) -> Result<Vec<Part>, BadPattern> {
    let bad = |reason| BadPattern { pattern: String::from_utf8_lossy(pattern).into_owned(), reason };
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'*' if double && rest.first() == Some(&b'*') => {
                rest = &rest[1..];
                // `**/` is `**`: nothing, or folders with the slash that ends them.
                let ending = parts.is_empty() && is_ending(rest);
                rest = rest.strip_prefix(b"/").unwrap_or(rest);
                parts.push(match (rest.is_empty(), ending) {
                    (true, _) => Part::Rest,
                    (false, true) => Part::Anything,
                    (false, false) => Part::Folders,
                });
            }
            b'*' => {
                if parts.last() != Some(&Part::Star) {
                    parts.push(Part::Star);
                }
            }
            b'?' => parts.push(Part::Any),
            b'[' => {
                let (class, after) = class(rest).map_err(bad)?;
                parts.push(class);
                rest = after;
            }
            b'\\' => {
                let (escaped, after) = rest.split_first().ok_or_else(|| bad("it ends in `\\`"))?;
                parts.push(Part::Byte(*escaped));
                rest = after;
            }
            byte => parts.push(Part::Byte(*byte)),
        }
    }
    Ok(parts)
}

/// Whether `**` before this makes a pattern of what paths end with, in the middle of a name too: `**.go`. moby decides
/// so where nothing else of the pattern is special; with a `/` in front it is names that end so.
fn is_ending(rest: &[u8]) -> bool {
    !rest.starts_with(b"/") && !rest.iter().any(|byte| b"*?[]\\".contains(byte))
}

/// Reads a class after its `[`; gives what follows the `]`.
fn class(mut rest: &[u8]) -> Result<(Part, &[u8]), &'static str> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&b']') && !ranges.is_empty() {
            return Ok((Part::Class { negated, ranges }, &rest[1..]));
        }
        let (low, after) = class_character(rest)?;
        rest = after;
        let mut high = low;
        if rest.first() == Some(&b'-') {
            (high, rest) = class_character(&rest[1..])?;
        }
        ranges.push((low, high));
    }
}

/// One character of a class; there must be more after it.
fn class_character(rest: &[u8]) -> Result<(char, &[u8]), &'static str> {
    const UNCLOSED: &str = "a class has no `]`";
    let rest = match rest.first() {
        None => return Err(UNCLOSED),
        Some(b'-' | b']') => return Err("a class is empty or has a range without a start or an end"),
        Some(b'\\') => &rest[1..],
        Some(_) => rest,
    };
    let (character, length) = character(rest).ok_or(UNCLOSED)?;
    if character == char::REPLACEMENT_CHARACTER && length == 1 {
        return Err("a class holds bytes that are no UTF-8");
    }
    if rest.len() == length { Err(UNCLOSED) } else { Ok((character, &rest[length..])) }
}

/// The first character and its length in bytes; U+FFFD of length 1 for what is no UTF-8, as Go reads it.
fn character(text: &[u8]) -> Option<(char, usize)> {
    let chunk = text.get(..text.len().min(4))?.utf8_chunks().next()?;
    Some(match chunk.valid().chars().next() {
        Some(first) => (first, first.len_utf8()),
        None => (char::REPLACEMENT_CHARACTER, 1),
    })
}

fn matches(parts: &[Part], text: &[u8]) -> bool {
    // `reached[n]`: the parts so far can match the first n bytes.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for part in parts {
        let mut next = vec![false; text.len() + 1];
        let mut any = false;
        let mut folders = false;
        for at in (0..=text.len()).filter(|at| reached[*at]) {
            let rest = &text[at..];
            let mut reach = |length: usize| {
                any = true;
                std::mem::replace(&mut next[at + length], true)
            };
            match part {
                Part::Byte(byte) if rest.first() == Some(byte) => drop(reach(1)),
                Part::Any if !rest.starts_with(b"/") => {
                    character(rest).map(|(_, length)| reach(length));
                }
                Part::Class { negated, ranges } => {
                    let Some((found, length)) = character(rest) else { continue };
                    if ranges.iter().any(|(low, high)| (*low..=*high).contains(&found)) != *negated {
                        reach(length);
                    }
                }
                Part::Star => {
                    // What is already reached has reached all after it as well.
                    let mut length = 0;
                    while !reach(length) && rest.get(length).is_some_and(|byte| *byte != b'/') {
                        length += 1;
                    }
                }
                Part::Folders => {
                    reach(0);
                    // The first place reaches the end of each folder; those after it have no more to add.
                    if !std::mem::replace(&mut folders, true) {
                        for slash in (0..rest.len()).filter(|at| rest[*at] == b'/') {
                            reach(slash + 1);
                        }
                    }
                }
                // It comes first, so nothing but the beginning is reached.
                Part::Anything => {
                    for length in 0..=rest.len() {
                        reach(length);
                    }
                }
                Part::Rest => return true,
                Part::Byte(_) | Part::Any => {}
            }
        }
        if !any {
            return false;
        }
        reached = next;
    }
    reached[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_go_does() {
        // Pattern, text, whether it matches: the table of Go's path/filepath/match_test.go, and classes
        // across slashes.
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("a[^a][^a][^a]b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("a[^x]b", "a/b", true),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "a", false),
            ("*x", "xxx", true),
            ("**/x", "a/x", true),
            ("**/x", "a/b/x", false),
        ] {
            let glob = Glob::parse(pattern.as_bytes()).expect(pattern);
            assert_eq!(glob.matches(text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for pattern in
            ["[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", "[a-b-c]", "a\\", "[a\\", "[]"]
        {
            assert!(Glob::parse(pattern.as_bytes()).is_err(), "{pattern}");
        }
        assert!(Glob::parse(b"[\xff]").is_err());
    }

    #[test]
    fn patterns_cross_folders_and_match_what_is_below() {
        for (pattern, path, expected) in [
            ("a", "a/b/c", true),
            ("a", "b/a", false),
            ("/a/", "a", true),
            ("./a/**", "a/b", true),
            ("a/**", "a", false),
            ("a/*/c", "a/b/c/d", true),
            ("**", "a/b", true),
            ("**/c", "c", true),
            ("**/c", "a/b/c", true),
            ("**/c", "a/bc", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/bz", false),
            ("**c", "a/bc", true),
            ("**c", "a/bc/d", true),
            ("**c", "a/cb", false),
            ("**c*", "a/bc", false),
            ("**[c]", "a/bc", false),
            ("**]", "a]", false),
            ("**/*.tmp", "q/r/y.tmp", true),
            ("pkgs/b/**/*.tmp", "pkgs/b/s/z.tmp", true),
            ("pkgs/*/", "pkgs/a/x", true),
        ] {
            let parsed = Pattern::parse(pattern.as_bytes()).expect(pattern);
            assert_eq!(parsed.matches(path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn wildcards_are_found_unless_escaped() {
        for (text, expected) in [("a/b", false), ("a*", true), ("a\\*", false), ("a\\\\*", true), ("[", true)]
        {
            assert_eq!(contains_wildcard(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let glob = Glob::parse("a*".repeat(200).as_bytes()).expect("a pattern");
        assert!(glob.matches("a".repeat(2000).as_bytes()));
        let glob = Glob::parse(("a*".repeat(200) + "b").as_bytes()).expect("a pattern");
        assert!(!glob.matches("a".repeat(2000).as_bytes()));
    }
}
