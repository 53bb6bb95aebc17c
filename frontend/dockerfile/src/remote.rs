//! What `ADD` fetches from elsewhere: repositories and files.

use dockerfile_parser::Word;
use graph::{About, Http, Op, Source};
use oci::Digest;

use crate::{
    ErrorKind, LowerError,
    draft::Tree,
    error::at,
    files::{AddOptions, CopiedFrom, Draft, Files},
    git::{self, GitAddress},
    plan::Step,
    stage::{Lowerer, git_source},
    state::range,
};

impl Lowerer<'_> {
    /// A repository that `ADD` fetches.
    pub(crate) fn git(
        &mut self,
        files: &Files<'_>,
        address: &GitAddress,
        word: &Word,
        step: &Step<'_>,
        draft: &mut Draft,
    ) -> Result<CopiedFrom, LowerError> {
        let Some(add) = &files.add else { return Err(remote_copy(word)) };
        let conflict = |flag, value: String, address: String| {
            at(word.span, ErrorKind::GitConflict { flag, value, address })
        };
        let keep_git_dir = match (add.keep_git_dir, address.keep_git_dir) {
            (Some(flag), Some(address)) if flag != address => {
                return Err(conflict("keep-git-dir", flag.to_string(), address.to_string()));
            }
            (flag, address) => address.or(flag).unwrap_or(false),
        };
        let checksum = match (&add.checksum, &address.checksum) {
            (Some((flag, _)), Some(address)) if flag != address => {
                return Err(conflict("checksum", flag.clone(), address.clone()));
            }
            (flag, _) => flag.as_ref().map(|(text, _)| text.clone()),
        };
        let source = git_source(address, checksum, keep_git_dir);
        let from = draft.input(self.remote(Op::Source(source), &address.remote, step));
        let (source, unpack) = ("/".to_owned(), Some(false));
        Ok(CopiedFrom { from, source, local: false, contents_only: true, unpack })
    }

    /// A file that `ADD` downloads.
    pub(crate) fn http(
        &mut self,
        files: &Files<'_>,
        url: &str,
        word: &Word,
        step: &Step<'_>,
        draft: &mut Draft,
    ) -> Result<CopiedFrom, LowerError> {
        let Some(add) = &files.add else { return Err(remote_copy(word)) };
        let checksum = match &add.checksum {
            Some((text, span)) => {
                let bad = |_| at(*span, ErrorKind::Checksum { checksum: text.clone() });
                Some(text.parse::<Digest>().map_err(bad)?)
            }
            None => None,
        };
        let file_name = git::file_name(url);
        let source = format!("/{file_name}");
        let op = Op::Source(Source::Http(Http { url: url.to_owned(), checksum, file_name }));
        let from = draft.input(self.remote(op, url, step));
        let unpack = if add.unpack == Some(true) { None } else { Some(false) };
        Ok(CopiedFrom { from, source, local: false, contents_only: false, unpack })
    }

    fn remote(&mut self, op: Op, address: &str, step: &Step<'_>) -> Tree {
        let about = About { name: git::shown(address), source: Some(range(step.span)), ..About::default() };
        self.drafts.add(op, Vec::new(), about)
    }
}

fn remote_copy(word: &Word) -> LowerError {
    at(word.span, ErrorKind::RemoteCopy { source_text: word.text.clone() })
}

/// `--checksum` is for the one source that is fetched.
pub(crate) fn check_checksum(files: &Files<'_>) -> Result<(), LowerError> {
    let Some(AddOptions { checksum: Some((_, span)), .. }) = &files.add else { return Ok(()) };
    match &files.paths[..] {
        [(path, _)] if git::is_http(path) || GitAddress::parse(path).is_some() => Ok(()),
        [(path, _)] => Err(at(*span, ErrorKind::ChecksumLocal { source_text: path.clone() })),
        paths => Err(at(*span, ErrorKind::ChecksumSources { sources: paths.len() + files.heredocs.len() })),
    }
}
