//! Laws of wildcards that hold for all patterns and names.

use proptest::prelude::*;
use tree::glob::{Glob, Pattern, contains_wildcard};

fn escaped(text: &[u8]) -> Vec<u8> {
    text.iter().flat_map(|byte| [b'\\', *byte]).collect()
}

proptest! {
    #[test]
    fn an_escaped_name_matches_itself_alone(name: Vec<u8>, other: Vec<u8>) {
        let glob = Glob::parse(&escaped(&name)).expect("a pattern");
        prop_assert!(glob.matches(&name));
        prop_assert_eq!(glob.matches(&other), name == other);
    }

    #[test]
    fn without_a_wildcard_a_pattern_is_a_name(name in "[ab/\\-^.]{0,6}", other in "[ab/\\-^.]{0,6}") {
        prop_assert!(!contains_wildcard(name.as_bytes()));
        let glob = Glob::parse(name.as_bytes()).expect("a pattern");
        prop_assert_eq!(glob.matches(other.as_bytes()), name == other);
    }

    #[test]
    fn wildcards_do_not_cross_folders(pattern in "[ab*?/]{0,7}", path in "[ab/]{0,9}") {
        let glob = Glob::parse(pattern.as_bytes()).expect("a pattern");
        if glob.matches(path.as_bytes()) {
            prop_assert_eq!(pattern.matches('/').count(), path.matches('/').count());
        }
    }

    #[test]
    fn parts_match_one_by_one(first in "[ab*?]{0,4}", second in "[ab*?]{0,4}", a in "[ab]{0,4}", b in "[ab]{0,4}") {
        let matches = |pattern: &str, text: &str| {
            Glob::parse(pattern.as_bytes()).expect("a pattern").matches(text.as_bytes())
        };
        let both = matches(&format!("{first}/{second}"), &format!("{a}/{b}"));
        prop_assert_eq!(both, matches(&first, &a) && matches(&second, &b));
    }

    #[test]
    fn a_pattern_holds_for_all_below_what_it_matches(
        pattern in "(\\*\\*/)?[ab*?]{1,3}(/([ab*?]|\\*\\*)){0,2}",
        folder in "[ab]{1,2}(/[ab]{1,2}){0,2}",
        below in "[ab]{1,2}",
    ) {
        let pattern = Pattern::parse(pattern.as_bytes()).expect("a pattern");
        if pattern.matches(folder.as_bytes()) {
            let path = format!("{folder}/{below}");
            prop_assert!(pattern.matches(path.as_bytes()));
        }
    }

    #[test]
    fn any_bytes_are_a_pattern_or_none(pattern: Vec<u8>, text: Vec<u8>) {
        if let Ok(glob) = Glob::parse(&pattern) {
            glob.matches(&text);
        }
        if let Ok(pattern) = Pattern::parse(&pattern) {
            pattern.matches(&text);
        }
    }
}
