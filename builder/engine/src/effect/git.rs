//! Git repositories: what a name stands for is asked once a build, a commit is fetched once for all builds.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use fetch::{
    Error,
    git::{Access, Bare, Git as Program, Mtime, Remote, Resolved, Tree, Wanted},
};
use graph::{Git, GitMtime, Op, Source, VertexDigest};
use image::{diff::diff, overlay::OverlayXattrs, scan::NoHashCache};
use oci::{Digest, Epoch, Hasher};
use store::Repository;
use tree::Stack;

use super::{
    Effects, Job,
    cache::Ran,
    mounts::forward,
    rest::Made,
    ssh::{Forwarded, Owned},
};
use crate::{cancel::Cancel, client::SshAgent, error::Cause};

/// The agent that a repository over ssh is asked with, as in BuildKit.
const AGENT: &str = "default";

/// What this build has learned of repositories, by address and name.
#[derive(Default)]
pub(crate) struct References(Mutex<BTreeMap<(String, Wanted), Slot>>);

type Slot = Arc<Mutex<Option<Resolved>>>;

impl References {
    fn of(&self, remote: &str, wanted: &Wanted) -> Slot {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((remote.to_owned(), wanted.clone())).or_default().clone()
    }
}

impl Effects {
    /// The commit that a repository is at now, as far as a result depends on it.
    pub(crate) fn git_version(&self, git: &Git) -> Result<Option<Digest>, Cause> {
        let remote = Remote::parse(&git.remote)?;
        let resolved =
            self.with_git(git, &remote, &self.over, None, |program| self.resolved(git, program))?;
        let mut hasher = Hasher::new();
        if git.keep_git_dir {
            // What stays in `.git` tells the name and the tag.
            hasher.field(resolved.object.as_bytes());
            hasher.field(resolved.name.as_deref().unwrap_or_default().as_bytes());
        } else {
            hasher.field(resolved.commit().as_bytes());
        }
        Ok(Some(hasher.finish()))
    }

    /// When the commit was made.
    pub(crate) fn git_time(&self, git: &Git) -> Result<Option<Epoch>, Cause> {
        let remote = Remote::parse(&git.remote)?;
        let time =
            self.with_commit(git, &remote, &self.over, &mut |bare, _, commit| Ok(bare.time(commit)?))?;
        Ok(Some(Epoch(time)))
    }

    /// The layer with the files of the commit.
    pub(crate) fn git(&self, git: &Git, job: &Job) -> Result<Made, Cause> {
        let started = self.clock.now();
        let remote = Remote::parse(&git.remote)?;
        let tree = Tree {
            subfolder: &git.subfolder,
            keep_git_dir: git.keep_git_dir,
            submodules: git.submodules,
            mtime: match git.mtime {
                GitMtime::Commit => Mtime::Commit,
                GitMtime::Checkout => Mtime::At(started.epoch().0),
            },
        };
        let root = self.with_commit(git, &remote, &job.cancel, &mut |bare, resolved, commit| {
            Ok(bare.check_out(resolved, commit, &tree, &self.lease.new_folder()?)?)
        })?;
        let layer = diff(&root, &Stack::default(), OverlayXattrs::default(), &NoHashCache)?;
        self.keep_layer(job, &[], layer, &root, &Ran { started, took: store::Took::default() })
    }

    /// Does something with a commit that was fetched. A copy of the repository that is damaged is made anew, once.
    fn with_commit<T>(
        &self,
        git: &Git,
        remote: &Remote,
        cancel: &Cancel,
        act: &mut dyn FnMut(&Bare<'_>, &Resolved, &str) -> Result<T, Cause>,
    ) -> Result<T, Cause> {
        let repository = self.store.repository(&remote.shown(), &mut |_| match cancel.is_set() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })?;
        let repository = repository.ok_or(Cause::Cancelled)?;
        self.with_git(git, remote, cancel, Some(&repository), |program| {
            let resolved = self.resolved(git, program)?;
            let was_there = repository.exists();
            let mut attempt = || {
                self.make_copy(&repository, program, &resolved)?;
                let bare = program.bare(repository.path())?;
                let commit = bare.fetch(&resolved)?;
                act(&bare, &resolved, &commit)
            };
            let of_the_copy = |error: &Error| matches!(error, Error::Git { doing, .. } if *doing != "ask");
            match attempt() {
                Err(Cause::Fetch(error)) if was_there && of_the_copy(&error) => {
                    repository.discard(&self.lease)?;
                    attempt()
                }
                done => done,
            }
        })
    }

    fn make_copy(
        &self,
        repository: &Repository,
        program: &Program<'_>,
        resolved: &Resolved,
    ) -> Result<(), Cause> {
        if repository.exists() {
            return Ok(());
        }
        let folder = self.lease.new_folder()?;
        program.init_bare(&folder, &resolved.object)?;
        Ok(repository.adopt(&self.lease, &folder)?)
    }

    /// What the name stands for. Asks the server once a build.
    fn resolved(&self, git: &Git, program: &Program<'_>) -> Result<Resolved, Cause> {
        let checksum = git.commit.as_deref();
        let mut wanted = Wanted::parse(&git.reference)?;
        if let (true, Some(commit)) = (git.fetch_by_commit, checksum) {
            wanted = Wanted::parse(commit)?;
        }
        let slot = self.references.of(&git.remote, &wanted);
        // Held while it is asked: another step that wants the same waits for the answer.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut resolved = match &*slot {
            Some(resolved) => resolved.clone(),
            None => slot.insert(program.resolve(&wanted)?).clone(),
        };
        if git.fetch_by_commit {
            resolved.name = named_without_asking(&git.reference);
        }
        if let Some(checksum) = checksum {
            program.check(&resolved, checksum, &git.reference)?;
        }
        Ok(resolved)
    }

    /// Does something with git, logged in to the repository.
    fn with_git<T>(
        &self,
        git: &Git,
        remote: &Remote,
        cancel: &Cancel,
        repository: Option<&Repository>,
        act: impl FnOnce(&Program<'_>) -> Result<T, Cause>,
    ) -> Result<T, Cause> {
        let vertex = VertexDigest::of(&Op::Source(Source::Git(git.clone())), &[]).digest();
        let (access, _forwarded) = self.git_access(remote)?;
        let scratch = self.lease.new_folder()?;
        let cancelled = || cancel.is_set();
        let say = |line: &str| self.say(vertex, &format!("{line}\n"));
        let program = self.git_program(remote, &access, &scratch, &cancelled, &say)?;
        match repository {
            Some(repository) => act(&program.under(repository.lock().share()?)),
            None => act(&program),
        }
    }

    fn git_program<'a>(
        &self,
        remote: &'a Remote,
        access: &Access,
        scratch: &Path,
        cancelled: &'a dyn Fn() -> bool,
        say: &'a dyn Fn(&str),
    ) -> Result<Program<'a>, Cause> {
        let settings = self.registry.settings();
        Ok(Program::new(&self.surroundings, settings, access, remote, scratch, cancelled, say)?)
    }

    /// The login of a repository: over http from the secrets, those of the host before those of all hosts; over ssh
    /// the client's agent, and what that takes as long as it is asked.
    fn git_access(&self, remote: &Remote) -> Result<(Access, Option<Forwarded>), Cause> {
        let mut forwarded = None;
        let mut access =
            Access { known_hosts: self.store.repositories()?.join("known_hosts"), ..Access::default() };
        if remote.is_ssh() {
            let missing = || Cause::SshMissing(AGENT.to_owned());
            access.agent = Some(match self.client.ssh_agent(AGENT).ok_or_else(missing)? {
                SshAgent::Socket { path, raw: _ } => path,
                keys @ SshAgent::Keys(_) => {
                    let owned = Owned { mode: 0o600, uid: 0, gid: 0 };
                    let open = forward(keys, &self.lease.new_folder()?, owned)?;
                    forwarded.insert(open).path().to_owned()
                }
            });
        }
        if remote.is_web() {
            for end in [format!(".{}", remote.host()), String::new()] {
                if let Some(header) = self.login_secret(&format!("GIT_AUTH_HEADER{end}"))? {
                    access.authorization = Some(header);
                } else if let Some(token) = self.login_secret(&format!("GIT_AUTH_TOKEN{end}"))? {
                    access.authorization = Some(Access::token(&token));
                }
                if access.authorization.is_some() {
                    break;
                }
            }
        }
        Ok((access, forwarded))
    }
}

/// The full name of a reference that the server is not asked for: a short one is a branch's, as in BuildKit.
fn named_without_asking(reference: &str) -> Option<String> {
    match Wanted::parse(reference) {
        Ok(Wanted::Named(name)) if name.starts_with("refs/") => Some(name),
        Ok(Wanted::Named(name)) => Some(format!("refs/heads/{name}")),
        _ => None,
    }
}
