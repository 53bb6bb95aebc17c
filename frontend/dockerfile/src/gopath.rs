//! Slash-separated paths as Go's `path` package cleans and joins them; only texts, no file system.

/// The shortest path of the same meaning: no `.`, no inner `..`, no doubled or trailing slash. Empty gives `.`.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}

/// `path` seen from the folder `base`, absolute and clean; `..` stops at the root.
pub(crate) fn absolute(base: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("/{base}/{path}")) }
}

/// As [`absolute`], with a slash at the end where `path` says that it is a folder: it ends with `/` or `/.`, or is
/// `.` or empty.
pub(crate) fn absolute_destination(base: &str, path: &str) -> String {
    let folder = path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.");
    let mut absolute = absolute(base, path);
    if folder && !absolute.ends_with('/') {
        absolute.push('/');
    }
    absolute
}

/// The last part of a path, or `.` of nothing and `/` of the root.
pub(crate) fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    match path.trim_end_matches('/') {
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, cleaned) in [
            ("", "."),
            ("a//b/./c/", "a/b/c"),
            ("../a/../..", "../.."),
            ("/../a", "/a"),
            ("/", "/"),
            ("a/..", "."),
            ("/a/b/../..", "/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn destinations_keep_what_says_folder() {
        for (base, path, expected) in [
            ("/w", "", "/w/"),
            ("/w", ".", "/w/"),
            ("/w", "./", "/w/"),
            ("/w", "rel", "/w/rel"),
            ("/w", "dir/", "/w/dir/"),
            ("/w", "dir/.", "/w/dir/"),
            ("/w", "../up", "/up"),
            ("", "x", "/x"),
            ("/w", "/", "/"),
            ("/w", "/a//b/", "/a/b/"),
        ] {
            assert_eq!(absolute_destination(base, path), expected, "{base} {path}");
        }
        assert_eq!([base("/a/b/"), base(""), base("///"), base("x")], ["b", ".", "/", "x"]);
    }
}
