//! Ignore files, hand-written and random, and what BuildKit left out by each.

use std::collections::BTreeMap;

use dockerfile::ignore::{Ignore, Matched};

const VERDICTS: &str = include_str!("ignore/verdicts.txt");

/// Whether a walk from the root copies a path. Folders that are left out are walked too, as those that may hold
/// something to take back in are; what is in them must not depend on it.
fn copies(ignore: &Ignore, path: &str) -> bool {
    let mut around = Matched::default();
    let mut excluded = false;
    let mut pruned = false;
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    for end in ends {
        let part = &path.as_bytes()[..end];
        (excluded, around) = ignore.check(part, &around);
        pruned |= end < path.len() && excluded && !ignore.may_contain_included(part);
    }
    assert!(excluded || !pruned, "{path} is taken back in, but nobody would look for it");
    assert_eq!(excluded, ignore.excludes(path.as_bytes()), "{path}");
    !excluded
}

#[test]
fn what_buildkit_leaves_out() {
    let mut lines = VERDICTS.lines().filter(|line| !line.starts_with('#'));
    let names = lines.next().and_then(|line| line.strip_prefix("names ")).expect("the names come first");
    let names: Vec<String> = serde_json::from_str(names).expect("a list of names");
    let mut wrong = BTreeMap::new();
    let mut count = 0;
    for line in lines {
        let (verdict, text) = line.split_once(' ').expect("a verdict and a text");
        let text: String = serde_json::from_str(text).expect("a text");
        let ignore = Ignore::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(verdict.len(), names.len(), "{text:?}");
        for (name, expected) in names.iter().zip(verdict.bytes()) {
            if copies(&ignore, name) != (expected == b'+') {
                wrong.entry(text.clone()).or_insert_with(Vec::new).push(name);
            }
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 200, "{count} ignore files were read");
}
