//! Addresses of git repositories and files, as `ADD` and `--build-context` take them.

use std::fmt;

use graph::GitMtime;

use crate::gopath;

/// A git address taken apart: `https://host/x.git#ref:folder`, `git@host:x.git?branch=main`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitAddress {
    /// Without fragment and query.
    pub(crate) remote: String,
    /// Branch, tag or commit; empty is the remote's default branch.
    pub(crate) reference: String,
    /// The commit that the reference must name.
    pub(crate) checksum: Option<String>,
    /// The folder of the repository that becomes the root; relative, empty for all of it.
    pub(crate) subfolder: String,
    /// What the query says about keeping `.git`.
    pub(crate) keep_git_dir: Option<bool>,
    /// What the query says about submodules.
    pub(crate) submodules: Option<bool>,
    /// Which time the files get.
    pub(crate) mtime: GitMtime,
    /// Whether the checksum is fetched without asking what the reference names now.
    pub(crate) fetch_by_commit: bool,
}

/// What a git address gets wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGitAddress {
    /// A key of the query that means nothing here.
    #[error("`{0}` is no key of a git address's query")]
    UnknownKey(String),
    /// A key of the query without a value.
    #[error("`{0}` in a git address's query needs a value")]
    NoValue(String),
    /// A key of the query given twice, or against the fragment.
    #[error("`{key}` of the git address is both `{first}` and `{second}`")]
    Conflict {
        /// The key.
        key: String,
        /// One value.
        first: String,
        /// The other.
        second: String,
    },
    /// A value that is neither true nor false.
    #[error("`{key}={value}` in a git address's query is neither true nor false")]
    NoBoolean {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// A value of `mtime` that does not exist.
    #[error("`mtime={0}` in a git address's query is neither `checkout` nor `commit`")]
    NoMtime(String),
    /// `fetch-by-commit` without a commit to fetch.
    #[error("`fetch-by-commit` in a git address's query needs `checksum=` with all digits of a commit")]
    NoCommit,
}

impl fmt::Display for GitAddress {
    /// Repository, reference and folder; the password that may stand in it is not left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.remote)?;
        match (&*self.reference, &*self.subfolder) {
            ("", "") => Ok(()),
            (reference, "") => write!(f, "#{reference}"),
            (reference, folder) => write!(f, "#{reference}:{folder}"),
        }
    }
}

impl GitAddress {
    /// Takes an address apart; `None` where the text is no git address: a path, or a file over http.
    pub fn parse(text: &str) -> Option<Result<GitAddress, BadGitAddress>> {
        let (remote, rest) = text.split_at(text.find(['#', '?']).unwrap_or(text.len()));
        is_git(remote).then(|| GitAddress::of(remote, rest))
    }

    /// As [`GitAddress::parse`], for a main context: `github.com/user/repository` is an address as well.
    pub fn parse_context(text: &str) -> Option<Result<GitAddress, BadGitAddress>> {
        if !text.starts_with("github.com/") {
            return GitAddress::parse(text);
        }
        let (remote, rest) = text.split_at(text.find(['#', '?']).unwrap_or(text.len()));
        Some(GitAddress::of(&format!("https://{remote}"), rest))
    }

    /// `rest` is query and fragment, with the signs before them.
    fn of(remote: &str, rest: &str) -> Result<GitAddress, BadGitAddress> {
        let (query, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let query = query.strip_prefix('?').unwrap_or(query);
        let (reference, subfolder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut address = GitAddress {
            remote: remote.to_owned(),
            reference: reference.to_owned(),
            subfolder: subfolder.to_owned(),
            ..GitAddress::default()
        };
        address.read_query(query)?;
        address.subfolder = gopath::absolute("/", &address.subfolder).trim_start_matches('/').to_owned();
        Ok(address)
    }

    fn read_query(&mut self, query: &str) -> Result<(), BadGitAddress> {
        let (mut tag, mut branch) = (String::new(), String::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value).unwrap_or_else(|| value.to_owned());
            match key {
                "keep-git-dir" => self.keep_git_dir = Some(boolean(key, &value)?),
                "submodules" => self.submodules = Some(boolean(key, &value)?),
                "fetch-by-commit" => self.fetch_by_commit = boolean(key, &value)?,
                "mtime" if !value.is_empty() => self.mtime = mtime(value)?,
                "mtime" | "ref" | "tag" | "branch" | "subdir" | "checksum" | "commit" if value.is_empty() => {
                    return Err(BadGitAddress::NoValue(key.to_owned()));
                }
                "ref" => set(&mut self.reference, "ref", value)?,
                "tag" => set(&mut tag, "tag", value)?,
                "branch" => set(&mut branch, "branch", value)?,
                "subdir" => set(&mut self.subfolder, "subdir", value)?,
                "checksum" | "commit" => {
                    let mut checksum = self.checksum.take().unwrap_or_default();
                    set(&mut checksum, "checksum", value)?;
                    self.checksum = Some(checksum);
                }
                key => return Err(BadGitAddress::UnknownKey(key.to_owned())),
            }
        }
        for (value, prefix) in [(tag, "refs/tags/"), (branch, "refs/heads/")] {
            if !value.is_empty() {
                let full = if value.starts_with(prefix) { value } else { format!("{prefix}{value}") };
                set(&mut self.reference, "ref", full)?;
            }
        }
        if self.fetch_by_commit && !self.checksum.as_deref().is_some_and(is_whole_commit) {
            return Err(BadGitAddress::NoCommit);
        }
        if let (Some(checksum), true) = (&self.checksum, self.reference.is_empty()) {
            self.reference.clone_from(checksum);
        }
        Ok(())
    }
}

fn set(place: &mut String, key: &str, value: String) -> Result<(), BadGitAddress> {
    if !place.is_empty() && *place != value {
        let first = std::mem::take(place);
        return Err(BadGitAddress::Conflict { key: key.to_owned(), first, second: value });
    }
    *place = value;
    Ok(())
}

fn mtime(value: String) -> Result<GitMtime, BadGitAddress> {
    match &*value {
        "checkout" => Ok(GitMtime::Checkout),
        "commit" => Ok(GitMtime::Commit),
        _ => Err(BadGitAddress::NoMtime(value)),
    }
}

/// Whether a text is all digits of a commit, by SHA-1 or SHA-256.
fn is_whole_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn boolean(key: &str, value: &str) -> Result<bool, BadGitAddress> {
    let value = if value.is_empty() { "1" } else { value };
    go_bool(value).ok_or_else(|| BadGitAddress::NoBoolean { key: key.to_owned(), value: value.to_owned() })
}

/// A truth value as Go spells it.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `git://`, `ssh://`, `user@host:path`, and http addresses whose path ends with `.git`.
fn is_git(remote: &str) -> bool {
    let word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    match remote.split_once("://") {
        Some((scheme, rest)) if word(scheme, "") => match &*scheme.to_ascii_lowercase() {
            "git" | "ssh" => !rest.is_empty(),
            "http" | "https" => rest.contains('/') && rest.ends_with(".git"),
            _ => false,
        },
        _ => remote
            .split_once('@')
            .and_then(|(user, rest)| rest.split_once(':').map(|(host, path)| (user, host, path)))
            .is_some_and(|(user, host, path)| word(user, "-_") && word(host, "-.") && !path.is_empty()),
    }
}

/// An address as people may see it: without a login. Over http all that stands before the host is one, because tokens are written as the
/// user's name, too.
pub(crate) fn shown(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let web = ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    match rest[..end].rfind('@') {
        Some(at) if web || rest[..at].contains(':') => format!("{scheme}://{}", &rest[at + 1..]),
        _ => address.to_owned(),
    }
}

/// Whether a source of `ADD` is a file over http or https; git addresses are asked for first.
pub(crate) fn is_http(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// The name that a downloaded file gets: the last part of the address's path.
pub(crate) fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    match percent_decoded(path) {
        Some(path) if !matches!(gopath::base(&path), "." | ".." | "/") => gopath::base(&path).to_owned(),
        _ => "__unnamed__".to_owned(),
    }
}

/// `%41` is `A`. `None` where an escape is broken, or what comes out is no text or holds a NUL.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                tail
            }
            (b'%', _) => return None,
            (byte, tail) => {
                bytes.push(*byte);
                tail
            }
        };
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_addresses() {
        let parse = |text| GitAddress::parse(text).map(|address| address.expect(text));
        for text in [
            "a.git",
            "./git@x:y",
            "https://host/file",
            "https://host.git",
            "ftp://h/x.git",
            "github.com/a/b",
            "a/b@c:d",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let plain = parse("https://github.com/foo/bar.git").expect("git");
        assert_eq!((&*plain.remote, &*plain.reference), ("https://github.com/foo/bar.git", ""));
        let fragment = parse("git@github.com:foo/bar.git#v1:a/../b/").expect("git");
        assert_eq!(
            (&*fragment.remote, &*fragment.reference, &*fragment.subfolder),
            ("git@github.com:foo/bar.git", "v1", "b")
        );
        let query = parse("https://h/b.git?tag=v1&subdir=x&keep-git-dir&submodules=0").expect("git");
        assert_eq!((&*query.reference, &*query.subfolder), ("refs/tags/v1", "x"));
        assert_eq!((query.keep_git_dir, query.submodules), (Some(true), Some(false)));
        let short = GitAddress::parse_context("github.com/a/b#v1:c").expect("git").expect("well-formed");
        assert_eq!(
            (&*short.remote, &*short.reference, &*short.subfolder),
            ("https://github.com/a/b", "v1", "c")
        );
        let commit = parse("ssh://git@h/b?commit=abc").expect("git");
        assert_eq!((commit.checksum.as_deref(), &*commit.reference), (Some("abc"), "abc"));
        let whole = "0123456789012345678901234567890123456789";
        let pinned = format!("git://h/b?fetch-by-commit&mtime=commit&branch=a&checksum={whole}");
        let pinned = parse(&pinned).expect("git");
        assert_eq!((pinned.fetch_by_commit, pinned.mtime), (true, GitMtime::Commit));
    }

    #[test]
    fn bad_git_addresses() {
        let bad = |text| GitAddress::parse(text).expect("git").expect_err(text).to_string();
        assert_eq!(bad("git://h/x?what=1"), "`what` is no key of a git address's query");
        assert_eq!(bad("git://h/x?tag"), "`tag` in a git address's query needs a value");
        assert_eq!(
            bad("git://h/x?branch=a&tag=b"),
            "`ref` of the git address is both `refs/tags/b` and `refs/heads/a`"
        );
        assert_eq!(
            bad("git://h/x?submodules=2"),
            "`submodules=2` in a git address's query is neither true nor false"
        );
        assert_eq!(
            bad("git://h/x?mtime=now"),
            "`mtime=now` in a git address's query is neither `checkout` nor `commit`"
        );
        assert!(bad("git://h/x?fetch-by-commit&checksum=abc").contains("needs `checksum=`"));
    }

    #[test]
    fn passwords_are_not_shown() {
        for (address, seen) in [
            ("https://user:word@h/x.git?a=b", "https://h/x.git?a=b"),
            ("https://token@h/x.git", "https://h/x.git"),
            ("https://h/a@b:c", "https://h/a@b:c"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(shown(address), seen);
        }
    }

    #[test]
    fn downloaded_files_are_named_by_the_path() {
        for (url, name) in [
            ("https://h/a/b.txt?x=/y#z", "b.txt"),
            ("https://h/a%20b", "a b"),
            ("https://h", "__unnamed__"),
            ("https://h/", "__unnamed__"),
            ("https://h/..", "__unnamed__"),
            ("https://h/a%2Fb/", "b"),
            ("https://h/%zz", "__unnamed__"),
            ("https://h/%00", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }
}
