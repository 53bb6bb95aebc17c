//! The ignore file: the same paths are left out as by a slow model of moby's matcher, and no folder is closed that
//! something in it is taken back in from.
//!
//! The input's first part is the ignore file, the second part paths, one a line.

use dockerfile::ignore::Ignore;
use dockerfile_parser::text;
use tree::glob::Pattern;

use crate::model::{self, Model};
use crate::parts;

/// How long pattern times path may be for the model, which is slow.
const MOST_STEPS: usize = 64 * 1024;

/// Asks an ignore file about paths.
pub fn ignore(data: &[u8]) {
    let (patterns, paths) = parts(data);
    let Ok(ignore) = Ignore::parse(patterns) else { return };
    let read = ignore.patterns();
    let models: Vec<Model> = read.iter().map(|pattern| Model::new(pattern)).collect();
    let alone = one_by_one(&read);
    let steps = read.iter().map(|pattern| pattern.len() + 1).sum::<usize>();
    for path in paths.split(|byte| *byte == b'\n').filter(|path| is_clean(path)).take(32) {
        let excluded = ignore.excludes(path);
        if steps * path.len() * path.len() <= MOST_STEPS {
            assert_eq!(model::excludes(&models, &text::decode(path)), excluded, "{read:?} and {path:?}");
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for folder in ends.map(|end| &path[..end]) {
            assert!(
                excluded || !ignore.excludes(folder) || ignore.may_contain_included(folder),
                "{read:?} close {folder:?}, but take in {path:?}"
            );
        }
        for (ignore, of_layer) in alone.iter().filter(|_| path.is_ascii() && path.len() <= 200) {
            assert_eq!(of_layer.matches(path), ignore.excludes(path), "{ignore:?} and {path:?}");
        }
    }
}

/// The first patterns alone, for both matchers: this one, and that which selects files of a layer. That one works on
/// bytes, this one on text, so they are held against each other only where both are the same.
fn one_by_one(patterns: &[String]) -> Vec<(Ignore, Pattern)> {
    let fit = patterns.iter().filter(|pattern| !pattern.starts_with('!') && pattern.is_ascii());
    let both = fit.filter(|pattern| pattern.len() <= 100).take(3).map(|pattern| {
        let again = Ignore::new(std::slice::from_ref(pattern));
        let again = again.unwrap_or_else(|error| panic!("read once, but not again: {error}"));
        assert_eq!(again.patterns(), std::slice::from_ref(pattern));
        let of_layer = Pattern::parse(pattern.as_bytes());
        (again, of_layer.unwrap_or_else(|error| panic!("only one of two takes it: {error}")))
    });
    both.collect()
}

/// Whether a path is one that a walk of a folder comes by.
fn is_clean(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}
