//! A commit as a folder.
//!
//! Without `.git` and without submodules, git writes the files straight out of the bare repository. Else a repository is
//! made in the folder, as BuildKit leaves it: one commit without history, `HEAD` at it, the branch or tag that it was
//! asked by, and the remote's address. Submodules are git's own work in it; where `.git` is not to stay, all of it goes afterwards.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    Bare, Resolved,
    program::Run,
    repository::{kept, object_format},
    tidy,
};
use crate::Error;

/// How a commit becomes a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree<'a> {
    /// The folder of the repository that becomes the root; empty for all of it.
    pub subfolder: &'a str,
    /// Whether `.git` stays. It does not where `subfolder` is one, as in BuildKit.
    pub keep_git_dir: bool,
    /// Whether submodules are filled, and theirs.
    pub submodules: bool,
    /// The time of all files.
    pub mtime: Mtime,
}

/// A time that files get, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtime {
    /// That of the commit.
    Commit,
    /// This one.
    At(u64),
}

impl Bare<'_> {
    /// Writes a commit, which [`Bare::fetch`] gave, into an empty folder. Gives the folder that is the result: that, or one in it.
    ///
    /// Files have the mode 0644 or 0755, folders 0755; all belong to who runs this and have one time.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::FolderOutside`], [`Error::Git`]; the folder cannot be written.
    pub fn check_out(
        &self,
        resolved: &Resolved,
        commit: &str,
        tree: &Tree<'_>,
        folder: &Path,
    ) -> Result<PathBuf, Error> {
        let keep = tree.keep_git_dir && tree.subfolder.is_empty();
        let fill = tree.submodules && self.has(&format!("{commit}:.gitmodules"));
        if keep || fill {
            let work = Work { bare: self, folder, git_dir: folder.join(".git") };
            work.begin(resolved, commit)?;
            if fill {
                work.fill_submodules()?;
            }
            match keep {
                true => work.leave(commit)?,
                false => tidy::without_git(folder)?,
            }
        } else {
            let index = self.git().scratch().join("index");
            // One that an earlier commit left would have git believe that its files are here.
            match fs::remove_file(&index) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", index)(error));
                }
                _ => {}
            }
            let arguments = ["read-tree", "-u", "--reset", commit];
            let run = Run::of("check out", &arguments, folder).in_repository(self.path());
            let run = run.with("GIT_WORK_TREE", folder.as_os_str().to_owned());
            self.git().run(run.with("GIT_INDEX_FILE", index.into_os_string()))?;
        }
        let root = self.inside(tree.subfolder, commit, folder)?;
        let seconds = match tree.mtime {
            Mtime::Commit => self.time(commit)?,
            Mtime::At(seconds) => seconds,
        };
        tidy::normalise(&root, seconds)?;
        Ok(root)
    }

    /// The folder of the result. Links on the way to it are followed as long as they stay inside.
    fn inside(&self, subfolder: &str, commit: &str, folder: &Path) -> Result<PathBuf, Error> {
        if subfolder.is_empty() {
            return Ok(folder.to_owned());
        }
        let (remote, subfolder) = (self.git().remote().shown(), subfolder.to_owned());
        let top = fs::canonicalize(folder).map_err(Error::io("open", folder))?;
        let found = fs::canonicalize(top.join(subfolder.trim_start_matches('/')));
        match found {
            Ok(found) if !found.starts_with(&top) => Err(Error::FolderOutside { remote, subfolder }),
            Ok(found) if found.is_dir() => Ok(found),
            _ => Err(Error::NoFolder { remote, subfolder, commit: commit.to_owned() }),
        }
    }
}

/// A repository in the folder of the result.
struct Work<'a> {
    bare: &'a Bare<'a>,
    folder: &'a Path,
    git_dir: PathBuf,
}

impl Work<'_> {
    /// Makes the repository, and the files.
    fn begin(&self, resolved: &Resolved, commit: &str) -> Result<(), Error> {
        let object = &resolved.object;
        self.run("make", &["init", "--quiet", &object_format(object)])?;
        // A commit that was asked for by its digest has no name here.
        let named = resolved.name.as_deref().filter(|name| *name != "HEAD");
        let to = named.map_or_else(|| kept(object), str::to_owned);
        let url = file_url(self.bare.path());
        let refs = format!("+{}:{to}", kept(object));
        let arguments = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--update-head-ok",
            "--",
            &url,
            &refs,
        ];
        let run = self.of("copy", &arguments);
        self.bare.git().run(run.with("GIT_ALLOW_PROTOCOL", "file".into()))?;
        self.run("check out", &["update-ref", "--no-deref", "HEAD", commit])?;
        if named.is_none() {
            self.run("check out", &["update-ref", "-d", &kept(object)])?;
        }
        self.run("check out", &["read-tree", "-u", "--reset", "HEAD"])?;
        let url = self.bare.git().remote().text();
        self.run("write the settings of", &["config", "remote.origin.url", url])?;
        self.run(
            "write the settings of",
            &["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"],
        )?;
        Ok(())
    }

    /// Fills submodules, and theirs. Their addresses may be relative to the remote's.
    fn fill_submodules(&self) -> Result<(), Error> {
        let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
        let shallow: Vec<&str> = update.into_iter().chain(["--depth=1"]).collect();
        let run = || self.of("fetch the submodules of", &shallow);
        match self.bare.git().run(Run { loud: false, ..run() }) {
            // A server that cannot cut histories short, or does not give a commit that is no branch's last.
            Err(Error::Git { .. }) => self.run("fetch the submodules of", &update).map(drop),
            filled => filled.map(drop),
        }
    }

    /// Leaves a repository without facts of this machine: no inode numbers in the index.
    fn leave(&self, commit: &str) -> Result<(), Error> {
        for git_dir in tidy::repositories(&self.git_dir)? {
            let head = if git_dir == self.git_dir { commit } else { "HEAD" };
            let index = git_dir.join("index");
            if index.exists() {
                fs::remove_file(&index).map_err(Error::io("remove", &index))?;
            }
            // Without `-u` and `-m`, the entries tell of no file; git looks again when it is asked.
            let run = Run::of("check out", &["read-tree", head], self.folder).in_repository(&git_dir);
            self.bare.git().run(run.with("GIT_WORK_TREE", self.folder.as_os_str().to_owned()))?;
        }
        Ok(())
    }

    fn run(&self, doing: &'static str, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        self.bare.git().run(self.of(doing, arguments))
    }

    fn of(&self, doing: &'static str, arguments: &[&str]) -> Run<'_> {
        let run = Run::of(doing, arguments, self.folder).in_repository(&self.git_dir);
        run.with("GIT_WORK_TREE", self.folder.as_os_str().to_owned())
    }
}

/// A folder as an address, for git's file protocol, which copies objects instead of linking to them.
fn file_url(path: &Path) -> String {
    let mut url = OsString::from("file://").to_string_lossy().into_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => url.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => url.push(char::from(*byte)),
            byte => url.push_str(&format!("%{byte:02x}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_as_addresses() {
        assert_eq!(file_url(Path::new("/var/lib/kiln/git/0a")), "file:///var/lib/kiln/git/0a");
        assert_eq!(file_url(Path::new("/a b/%")), "file:///a%20b/%25");
    }
}
