//! `ADD [flags] <source> … <destination>`

use super::copy::{Source, parse_paths};
use crate::error::ParseError;
use crate::statement::Statement;
use crate::word::Word;

/// `ADD`: like `COPY`, and also URLs, Git repositories, and archives, which are unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// What is added, in order; at least one.
    pub sources: Vec<Source>,
    /// Where to; expanded. With a `/` at the end a folder.
    pub destination: Word,
    /// `--chown`: expanded, then read by [`owner`](crate::owner).
    pub chown: Option<Word>,
    /// `--chmod`: expanded, then read by [`chmod`](crate::chmod).
    pub chmod: Option<Word>,
    /// `--checksum`: the digest of the one remote source; for Git its commit. Expanded.
    pub checksum: Option<Word>,
    /// `--link`: as a layer of its own, which does not depend on what is below.
    pub link: bool,
    /// `--keep-git-dir`: keep `.git` of a Git source. None where not given: a Git address may say so itself.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`: whether archives are unpacked. None where not given: local ones are, remote ones are not.
    pub unpack: Option<bool>,
    /// `--exclude`, any number of times: patterns, relative to the source. Not expanded.
    pub exclude: Vec<Word>,
}

const FLAGS: [&str; 7] = ["checksum", "chmod", "chown", "exclude", "keep-git-dir", "link", "unpack"];

impl Add {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Add, ParseError> {
        let mut flags = statement.read_flags(&FLAGS)?;
        let (chown, chmod) = (flags.value("chown")?, flags.value("chmod")?);
        let checksum = flags.value("checksum")?.filter(|word| !word.text.is_empty());
        let link = flags.boolean("link")?.unwrap_or(false);
        let (keep_git_dir, unpack) = (flags.boolean("keep-git-dir")?, flags.boolean("unpack")?);
        let exclude = flags.values("exclude")?;
        let (sources, destination) = parse_paths(statement, "ADD")?;
        Ok(Add { sources, destination, chown, chmod, checksum, link, keep_git_dir, unpack, exclude })
    }
}
