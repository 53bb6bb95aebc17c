//! The sources of the workspace as text, for tests that look at the shape of the house.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// All Rust files below `folder`, sorted.
///
/// # Errors
/// A folder that cannot be read.
pub fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The code of a Rust text: comments, and what stands in string and character literals, are blanked; lines stay.
pub fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

/// The code without the test modules: everything from the first `#[cfg(test)]` on a `mod` is left out, as tests stand
/// at the end of a file.
pub fn code_without_tests(text: &str) -> String {
    let code = code(text);
    let test_module = |(at, _): &(usize, &str)| {
        let after = code[at + "#[cfg(test)]".len()..].trim_start();
        after.starts_with("mod ")
            && after.split_once(['{', ';']).is_some_and(|(_, rest)| after.contains('{') && !rest.is_empty())
    };
    match code.match_indices("#[cfg(test)]").find(test_module) {
        Some((at, _)) => code[..at].to_owned(),
        None => code,
    }
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Length of the raw string that `text` begins with; 0 where it begins with none.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = 2 + hashes;
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// Length of the character literal that `text` begins with; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(0, |at| 3 + at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The modules of `std` that the code names: `std::fs::read`, and `std::{fs, io}`.
pub fn std_modules(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("std::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "std::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group)),
            None => found.push(path_head(rest)),
        }
    }
    found
}

/// The first two parts of a path: `env::consts` of `env::consts::ARCH`.
fn path_head(text: &str) -> String {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    text[..end].trim_end_matches(':').split("::").take(2).collect::<Vec<_>>().join("::")
}

fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut start) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => start = true,
            c if start && !c.is_whitespace() => {
                heads.push(path_head(&group[at..]));
                start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        for (text, expected) in [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"a("std::fs \" x") b"#, "a(              ) b"),
            ("a(r#\"un\"safe\"#) b", "a(            ) b"),
            ("fn f<'a>(x: &'a str, c: char) { c == '\"' }", "fn f<'a>(x: &'a str, c: char) { c ==     }"),
            ("'\\'' x", "     x"),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn modules_are_found_in_paths_and_groups() {
        let code = "use std::{collections::{BTreeMap, BTreeSet}, fs, io::Read};\nstd::env::var(); mystd::net::x(); std::env::consts::OS;";
        assert_eq!(
            std_modules(code),
            ["collections", "fs", "io::Read", "env::var", "env::consts"].map(str::to_owned)
        );
    }

    #[test]
    fn tests_at_the_end_are_left_out() {
        let text = "use a;\n#[cfg(test)]\nuse b;\nfn f() {}\n#[cfg(test)]\nmod tests {\n use std::fs;\n}\n";
        assert!(code_without_tests(text).contains("fn f"));
        assert!(!code_without_tests(text).contains("std::fs"));
    }
}
