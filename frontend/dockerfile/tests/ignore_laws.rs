//! Laws of ignore files that hold for all patterns and paths.

use dockerfile::ignore::Ignore;
use dockerfile_parser::text;
use proptest::prelude::*;

/// Patterns and paths of few letters, so that they meet.
fn pattern() -> impl Strategy<Value = String> {
    "(\\*\\*/)?([ab*?]|\\*\\*|\\[a-b\\]|\\[\\^a\\]|\\\\a){1,3}(/([ab*?]|\\*\\*)){0,2}"
}

fn path() -> impl Strategy<Value = String> {
    "[ab]{1,2}(/[ab]{1,2}){0,3}"
}

fn excludes(patterns: &[String], path: &str) -> bool {
    Ignore::new(patterns).expect("patterns").excludes(path.as_bytes())
}

/// The pattern that means this name alone, as a pattern's text is written within a program.
fn literally(name: &str) -> String {
    let escaped: String = name.chars().flat_map(|c| ['\\', c]).collect();
    text::decode(escaped.as_bytes()).into_owned()
}

/// Of the range that stands for bytes which are no UTF-8.
#[test]
fn a_name_of_private_characters_is_a_name() {
    for name in ["\u{10FF80}", "a\u{10FFFF}b"] {
        let ignore = Ignore::new(&[literally(name)]).expect("a pattern");
        assert!(ignore.excludes(name.as_bytes()) && !ignore.excludes(b"\x80") && !ignore.excludes(b"a\xFFb"));
    }
}

proptest! {
    #[test]
    fn without_exceptions_the_order_does_not_count(
        mut patterns in proptest::collection::vec(pattern(), 1..5),
        path in path(),
    ) {
        let one_of_them = patterns.iter().any(|pattern| excludes(std::slice::from_ref(pattern), &path));
        prop_assert_eq!(excludes(&patterns, &path), one_of_them);
        patterns.reverse();
        prop_assert_eq!(excludes(&patterns, &path), one_of_them);
    }

    #[test]
    fn what_is_excluded_takes_all_below_with_it(
        patterns in proptest::collection::vec(pattern(), 1..5),
        folder in path(),
        below in path(),
    ) {
        if excludes(&patterns, &folder) {
            let path = format!("{folder}/{below}");
            prop_assert!(excludes(&patterns, &path), "{} in {:?}", path, patterns);
        }
    }

    #[test]
    fn an_exception_undoes_its_pattern(pattern in pattern(), path in path()) {
        let exception = format!("!{pattern}");
        let behind = excludes(&[pattern.clone(), exception.clone()], &path);
        prop_assert!(!behind);
        // In front there is nothing yet to take back.
        let alone = excludes(std::slice::from_ref(&pattern), &path);
        let in_front = excludes(&[exception, pattern], &path);
        prop_assert_eq!(in_front, alone);
    }

    #[test]
    fn a_file_and_a_list_say_the_same(
        patterns in proptest::collection::vec(("!?", pattern()), 0..5),
        path in path(),
    ) {
        let patterns: Vec<String> = patterns.into_iter().map(|(sign, pattern)| sign + &pattern).collect();
        let file = patterns.iter().map(|pattern| format!("  {pattern}\t\r\n# {path}\n\n")).collect::<String>();
        let of_file = Ignore::parse(file.as_bytes()).expect("patterns");
        let of_list = Ignore::new(&patterns).expect("patterns");
        prop_assert_eq!(of_file.patterns(), of_list.patterns());
        prop_assert_eq!(of_file.excludes(path.as_bytes()), of_list.excludes(path.as_bytes()));
    }

    #[test]
    fn a_literal_excludes_itself_and_what_is_below(name in "[^/\0]{1,8}", below in "[a-z]{1,3}") {
        let usual = !matches!(&*name, "." | "..") && name.trim() == name;
        if usual && let Ok(ignore) = Ignore::new(&[literally(&name)]) {
            let (inside, beside) = (format!("{name}/{below}"), format!("{name}{below}"));
            prop_assert!(ignore.excludes(name.as_bytes()) && ignore.excludes(inside.as_bytes()));
            prop_assert!(!ignore.excludes(beside.as_bytes()));
            prop_assert!(!ignore.excludes(below.as_bytes()) || below == name);
        }
    }
}
