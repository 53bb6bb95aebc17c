//! Commits on their way into a bare repository.
//!
//! A commit is fetched by the name that it was asked by, with nothing before it; then by its digest, which most servers allow;
//! then, from a server that allows neither, with all branches and tags. What is there is kept below `refs/kiln/`, by digest.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use super::{Git, Resolved, Wanted, program::Run, reference::is_commit};
use crate::Error;

/// Files that git makes while it writes and removes when it has written. Where nobody else writes, one that is there is of a git that
/// was killed.
const LOCKS: [&str; 5] = ["shallow.lock", "packed-refs.lock", "config.lock", "HEAD.lock", "index.lock"];

/// A bare repository that nobody else uses meanwhile.
pub struct Bare<'a> {
    git: &'a Git<'a>,
    path: PathBuf,
}

impl Git<'_> {
    /// What a name of the repository stands for now. Asks the server once, and not at all for a commit.
    ///
    /// # Errors
    /// [`Error::NoReference`], [`Error::Git`].
    pub fn resolve(&self, wanted: &Wanted) -> Result<Resolved, Error> {
        let answer = match wanted {
            Wanted::Commit(_) => Vec::new(),
            _ => {
                let mut arguments = vec!["ls-remote", "--quiet", "--symref", "--", self.remote().text()];
                let asked = wanted.asked();
                arguments.extend(asked.iter().map(String::as_str));
                self.run(Run { loud: false, ..Run::of("ask", &arguments, self.scratch()) })?
            }
        };
        let missing =
            || Error::NoReference { remote: self.remote().shown(), reference: wanted.text().to_owned() };
        wanted.pick(&String::from_utf8_lossy(&answer)).ok_or_else(missing)
    }

    /// Compares what a name stands for with the beginning of a digest: of the commit, or of the tag that names it.
    ///
    /// # Errors
    /// [`Error::BadChecksum`]; [`Error::CommitChecksum`] where it is another.
    pub fn check(&self, resolved: &Resolved, checksum: &str, reference: &str) -> Result<(), Error> {
        resolved.check(checksum, self.remote().shown(), reference)
    }

    /// Makes a bare repository of an empty folder, for digests as long as this one.
    ///
    /// # Errors
    /// [`Error::Git`].
    pub fn init_bare(&self, folder: &Path, digest: &str) -> Result<(), Error> {
        let format = object_format(digest);
        self.run(Run::of("make a copy of", &["init", "--quiet", "--bare", &format, "--", "."], folder))?;
        Ok(())
    }

    /// A bare repository that is there. Takes away what a git that was killed left in the way.
    ///
    /// # Errors
    /// Nothing can be taken away.
    pub fn bare(&self, path: &Path) -> Result<Bare<'_>, Error> {
        for name in LOCKS {
            let lock = path.join(name);
            if lock.exists() {
                fs::remove_file(&lock).map_err(Error::io("remove", &lock))?;
            }
        }
        Ok(Bare { git: self, path: path.to_owned() })
    }
}

impl Bare<'_> {
    /// Fetches what a name stood for when it was resolved, unless it is here. Gives the commit.
    ///
    /// # Errors
    /// [`Error::NoCommit`] where the server does not give it any more; [`Error::Git`].
    pub fn fetch(&self, resolved: &Resolved) -> Result<String, Error> {
        let object = &resolved.object;
        if let Some(commit) = self.commit_of(object) {
            return Ok(commit);
        }
        let what = resolved.name.as_deref().unwrap_or(object);
        self.git.say(&format!("fetching {what}"));
        // The name may have been moved since; what it named then is fetched by digest.
        if let Some(name) = resolved.name.as_deref().filter(|_| resolved.name.as_deref() != Some("HEAD")) {
            self.fetch_one(name, object, true)?;
        }
        if self.commit_of(object).is_none() {
            match self.fetch_one(object, object, false) {
                Err(Error::Git { .. }) => self.fetch_all()?,
                fetched => fetched?,
            }
        }
        let missing = || Error::NoCommit { remote: self.git.remote().shown(), commit: object.clone() };
        let commit = self.commit_of(object).ok_or_else(missing)?;
        self.run("keep", &["update-ref", &kept(object), object])?;
        Ok(commit)
    }

    /// When a commit was made, in seconds since 1970.
    ///
    /// # Errors
    /// [`Error::Git`].
    pub fn time(&self, commit: &str) -> Result<u64, Error> {
        let answer = self.run("read", &["log", "-1", "--no-show-signature", "--format=%ct", commit, "--"])?;
        // A time before 1970 is none that a file of an image has.
        Ok(String::from_utf8_lossy(&answer).trim().parse().unwrap_or(0))
    }

    pub(super) fn git(&self) -> &Git<'_> {
        self.git
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs git in this repository.
    pub(super) fn run(&self, doing: &'static str, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        self.git.run(Run::of(doing, arguments, &self.path).in_repository(&self.path))
    }

    /// Whether an object is here, without a word where it is not.
    pub(super) fn has(&self, object: &str) -> bool {
        let run = Run::of("read", &["cat-file", "-e", object], &self.path).in_repository(&self.path);
        self.git.run(Run { loud: false, ..run }).is_ok()
    }

    /// The commit that a digest names by itself or as a tag, if it is here.
    fn commit_of(&self, object: &str) -> Option<String> {
        let name = format!("{object}^{{commit}}");
        let arguments = ["rev-parse", "--quiet", "--verify", "--end-of-options", &name];
        let run = Run::of("read", &arguments, &self.path).in_repository(&self.path);
        let answer = self.git.run(Run { loud: false, ..run }).ok()?;
        Some(String::from_utf8_lossy(&answer).trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Fetches one reference or digest, with nothing before it where the server can cut there.
    fn fetch_one(&self, what: &str, object: &str, loud: bool) -> Result<(), Error> {
        let to = format!("+{what}:{}", kept(object));
        match self.fetch_refs(&["--depth=1", "--no-tags"], &[&to], loud) {
            Err(Error::Git { lines, .. }) if lines.iter().any(|line| no_depth(line)) => {
                self.fetch_refs(&["--no-tags"], &[&to], loud)
            }
            fetched => fetched,
        }
    }

    fn fetch_all(&self) -> Result<(), Error> {
        let whole = self.path.join("shallow").exists().then_some("--unshallow");
        let flags: Vec<&str> = ["--no-tags"].into_iter().chain(whole).collect();
        let all = ["+refs/heads/*:refs/kiln-all/heads/*", "+refs/tags/*:refs/kiln-all/tags/*"];
        self.fetch_refs(&flags, &all, true)
    }

    fn fetch_refs(&self, flags: &[&str], refs: &[&str], loud: bool) -> Result<(), Error> {
        let mut arguments = vec!["fetch", "--quiet", "--no-write-fetch-head", "--no-recurse-submodules"];
        arguments.extend(flags);
        arguments.extend(["--", self.git.remote().text()]);
        arguments.extend(refs);
        let run = Run::of("fetch", &arguments, &self.path).in_repository(&self.path);
        self.git.run(Run { loud, ..run }).map(drop)
    }
}

impl<'a> Run<'a> {
    pub(super) fn of(doing: &'static str, arguments: &[&str], folder: &'a Path) -> Run<'a> {
        let arguments = arguments.iter().map(OsString::from).collect();
        Run { doing, arguments, folder, environment: Vec::new(), loud: true }
    }

    /// In this repository, wherever the folder is.
    pub(super) fn in_repository(self, path: &Path) -> Run<'a> {
        self.with("GIT_DIR", path.as_os_str().to_owned())
    }

    /// With one more variable.
    pub(super) fn with(mut self, name: &'static str, value: OsString) -> Run<'a> {
        self.environment.push((name, value));
        self
    }
}

/// Where what was fetched is kept from being collected.
pub(super) fn kept(object: &str) -> String {
    format!("refs/kiln/{object}")
}

pub(super) fn object_format(digest: &str) -> String {
    format!("--object-format={}", if digest.len() == 64 { "sha256" } else { "sha1" })
}

/// Whether a complaint is about a server that cannot cut a history short.
fn no_depth(line: &str) -> bool {
    line.contains("shallow") || line.contains("--depth")
}
