//! `COPY` and `ADD` of what the ignore file leaves out.

use dockerfile_parser::Span;

use super::COPY_IGNORED_FILE;
use crate::{gopath, gotext::quoted, ignore::Ignore, warning::Warnings};

/// A source that the context never holds cannot be copied. `keyword` is that of the instruction, in upper case.
pub(crate) fn copied(keyword: &str, source: &str, span: Span, ignore: &Ignore, warnings: &mut Warnings) {
    if ignore.is_empty() {
        return;
    }
    let source = gopath::clean(source);
    let is_root = matches!(&*source, "." | "/");
    if (is_root && !leaves_out_everything(ignore)) || may_take_back(ignore, &source) {
        return;
    }
    if ignore.leaves_out(&source) {
        let verb = if keyword == "ADD" { "Add" } else { "Copy" };
        let message =
            format!("Attempting to {verb} file {} that is excluded by .dockerignore", quoted(&source));
        warnings.add(&COPY_IGNORED_FILE, message, span);
    }
}

/// Whether a pattern leaves out all that stands in the root: the ignore file lists what is let in.
pub(super) fn leaves_out_everything(ignore: &Ignore) -> bool {
    ignore.patterns().iter().any(|pattern| matches!(&**pattern, "*" | "**" | "**/*"))
}

/// Whether a `!` may take something back in that stands at the source or below it. Only the context itself could say
/// what a wildcard finds, so one is taken to find anything below the folders that are named before it.
fn may_take_back(ignore: &Ignore, source: &str) -> bool {
    let source = match source.trim_start_matches('/') {
        "." => "",
        source => source,
    };
    let patterns = ignore.patterns();
    let mut negated = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!'));
    negated.any(|pattern| {
        let named = pattern.split('/').take_while(|part| !part.contains(['*', '?', '['])).collect::<Vec<_>>();
        let named = named.join("/");
        is_in(&named, source) || (named.len() < pattern.len() && is_in(source, &named))
    })
}

/// Whether a path is a folder or stands in it; everything stands in the root, which is empty.
fn is_in(path: &str, folder: &str) -> bool {
    let behind = path.strip_prefix(folder);
    folder.is_empty() || behind.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warning::Policy;

    #[test]
    fn sources_that_are_left_out() {
        for (patterns, source, left_out) in [
            (&["a"][..], "a", true),
            (&["a"], "./a/", true),
            (&["a"], "a/b", true),
            (&["a"], "b", false),
            // What is looked up is the path as it is written.
            (&["a"], "/a", false),
            (&["*.log"], "x.log", true),
            (&["*.log"], "*.log", true),
            (&["*"], ".", true),
            (&["**"], ".", true),
            (&["*/"], ".", true),
            (&["?"], ".", false),
            (&["a", "!a/keep"], "a", false),
            (&["a", "!a/keep"], "a/other", true),
            (&["a", "!b"], "a", true),
            (&["a", "!*/keep"], "a", false),
            (&["*", "!src"], ".", false),
            (&["*", "!src"], "other", true),
            (&["*", "!src"], "src", false),
            (&[], "a", false),
        ] {
            let list: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            let ignore = Ignore::new(&list).expect("patterns");
            let mut warnings = Warnings::new(Policy::default());
            copied("COPY", source, Span::default(), &ignore, &mut warnings);
            assert_eq!(!warnings.finish().0.is_empty(), left_out, "{patterns:?} {source}");
        }
    }
}
