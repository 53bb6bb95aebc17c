//! Names of branches, tags and commits, and what they stand for.

use crate::Error;

/// What of a repository is wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// The default branch.
    Default,
    /// A branch, a tag, or another reference.
    Named(String),
    /// A commit, by all its digits.
    Commit(String),
}

/// What a name stands for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The full name: `refs/heads/main`; none for a commit.
    pub name: Option<String>,
    /// What it names: a commit, or a tag that has a digest of its own.
    pub object: String,
    /// The commit, where it is known that `object` is another.
    pub peeled: Option<String>,
}

impl Wanted {
    /// Reads what stands behind `#` or `?ref=`.
    ///
    /// # Errors
    /// [`Error::BadReference`]: no name that git lets a reference have (git-check-ref-format), or a flag.
    pub fn parse(text: &str) -> Result<Wanted, Error> {
        let bad = || Error::BadReference { reference: text.to_owned() };
        if text.is_empty() {
            return Ok(Wanted::Default);
        }
        if is_commit(text) {
            return Ok(Wanted::Commit(text.to_ascii_lowercase()));
        }
        let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
        let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
        let bad_text = text.starts_with('-')
            || text.ends_with('.')
            || text == "@"
            || ["..", "@{"].iter().any(|two| text.contains(two))
            || text.contains(forbidden);
        match bad_text || text.split('/').any(bad_part) {
            true => Err(bad()),
            false => Ok(Wanted::Named(text.to_owned())),
        }
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        match self {
            Wanted::Default => "",
            Wanted::Named(text) | Wanted::Commit(text) => text,
        }
    }

    /// The names that a server is asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        match self {
            Wanted::Default => vec!["HEAD".to_owned()],
            Wanted::Commit(_) => Vec::new(),
            Wanted::Named(text) => {
                let [full, head, tag] = candidates(text);
                let peeled = format!("{tag}^{{}}");
                let of_full = format!("{full}^{{}}");
                vec![full, of_full, head, tag, peeled]
            }
        }
    }

    /// Picks what this names from the answer of `git ls-remote --symref`.
    pub(crate) fn pick(&self, answer: &str) -> Option<Resolved> {
        let lines = || answer.lines().filter_map(|line| line.split_once('\t'));
        let digest = |name: &str| {
            lines().find(|(digest, of)| *of == name && is_commit(digest)).map(|(digest, _)| digest.to_owned())
        };
        let found = |name: String| {
            let peeled = digest(&format!("{name}^{{}}"));
            digest(&name).map(|object| Resolved { peeled, object, name: Some(name) })
        };
        match self {
            Wanted::Commit(commit) => Some(Resolved { name: None, object: commit.clone(), peeled: None }),
            Wanted::Default => {
                let object = digest("HEAD")?;
                let symbolic =
                    lines().find(|(_, of)| *of == "HEAD").and_then(|(what, _)| what.strip_prefix("ref: "));
                // An old server does not say which branch it is.
                let name = symbolic.filter(|name| name.starts_with("refs/")).unwrap_or("HEAD").to_owned();
                Some(Resolved { name: Some(name), object, peeled: None })
            }
            // A branch before a tag of the same name, as `git checkout` has it.
            Wanted::Named(text) => candidates(text).into_iter().find_map(found),
        }
    }
}

impl Resolved {
    /// The commit, as far as it is known: a tag by its own digest where nobody has told the commit.
    pub fn commit(&self) -> &str {
        self.peeled.as_deref().unwrap_or(&self.object)
    }

    /// Compares with the beginning of a digest: of the commit, or of the tag that names it.
    ///
    /// # Errors
    /// [`Error::BadChecksum`]; [`Error::CommitChecksum`] where it is another.
    pub(crate) fn check(&self, checksum: &str, remote: String, reference: &str) -> Result<(), Error> {
        if checksum.is_empty() || !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::BadChecksum { checksum: checksum.to_owned() });
        }
        let expected = checksum.to_ascii_lowercase();
        let all: Vec<String> = std::iter::once(self.object.clone()).chain(self.peeled.clone()).collect();
        if all.iter().any(|digest| digest.starts_with(&expected)) {
            return Ok(());
        }
        Err(Error::CommitChecksum { remote, reference: reference.to_owned(), expected, actual: all })
    }
}

/// All digits of a digest, of SHA-1 or SHA-256.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The full names that a name may be short for, in order: `pull/1/head`, a branch, a tag.
fn candidates(text: &str) -> [String; 3] {
    ["refs/", "refs/heads/", "refs/tags/"]
        .map(|prefix| format!("{prefix}{}", text.strip_prefix(prefix).unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn names_that_a_reference_can_have() {
        for good in ["main", "v1.0", "feature/x", "refs/pull/1/head", "a-b", "ünï", "abc1234"] {
            assert_eq!(Wanted::parse(good).expect(good), Wanted::Named(good.to_owned()));
        }
        assert_eq!(Wanted::parse("").expect("none"), Wanted::Default);
        assert_eq!(Wanted::parse(&A.to_uppercase()).expect("a commit"), Wanted::Commit(A.to_owned()));
        for bad in [
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a\nb",
            "a:b",
            "a^",
            "a~1",
            "*",
            "a//b",
            "/a",
            "a/",
            ".a",
            "a/.b",
            "a.lock",
            "a.",
            "@",
            "a@{1}",
            "a\\b",
            "a?b",
            "a[b",
        ] {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_picked_from_what_the_server_says() {
        let tag_and_branch = format!("{A}\trefs/tags/x\n{B}\trefs/tags/x^{{}}\n{B}\trefs/heads/x\n");
        let pick = |wanted: &str, answer: &str| Wanted::parse(wanted).expect("a name").pick(answer);
        let of = |name: &str, object: &str, peeled: Option<&str>| {
            let (name, peeled) = (Some(name.to_owned()), peeled.map(str::to_owned));
            Some(Resolved { name, object: object.to_owned(), peeled })
        };
        assert_eq!(pick("x", &tag_and_branch), of("refs/heads/x", B, None));
        assert_eq!(pick("tags/x", &tag_and_branch), of("refs/tags/x", A, Some(B)));
        assert_eq!(pick("refs/tags/x", &tag_and_branch), of("refs/tags/x", A, Some(B)));
        assert_eq!(pick("pull/1/head", &format!("{A}\trefs/pull/1/head\n")), of("refs/pull/1/head", A, None));
        // `ls-remote` matches the ends of names.
        assert_eq!(pick("x", &format!("{A}\trefs/heads/other/x\n")), None);
        let head = format!("ref: refs/heads/trunk\tHEAD\n{A}\tHEAD\n{B}\trefs/remotes/o/HEAD\n");
        assert_eq!(pick("", &head), of("refs/heads/trunk", A, None));
        assert_eq!(pick("", &format!("{A}\tHEAD\n")), of("HEAD", A, None));
        assert_eq!(pick("", ""), None);
        assert_eq!(pick("x", "not\ta\tline\nfatal"), None);
    }

    #[test]
    fn checksums_are_beginnings() {
        let resolved = Resolved { name: None, object: A.to_owned(), peeled: Some(B.to_owned()) };
        let check = |checksum: &str| resolved.check(checksum, "https://h/x.git".to_owned(), "v1");
        assert!(check("aaaa").is_ok() && check("BBBB").is_ok() && check(A).is_ok());
        assert!(matches!(check("zz"), Err(Error::BadChecksum { .. })));
        assert!(matches!(check(""), Err(Error::BadChecksum { .. })));
        let wrong = check("ab").expect_err("another");
        assert_eq!(wrong.help().as_deref(), Some(&*format!("--checksum={B}")));
    }
}
