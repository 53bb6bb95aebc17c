//! What lowering refuses, each with its data, its place, a stable code, and an edit that mends it where there is one.

use dockerfile_parser::{ParseError, Span, suggest::near};
use oci::{BadPlatform, BadReference, Platform};

use crate::{Entitlement, Warning, git::BadGitAddress};

/// Something that cannot be lowered, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct LowerError {
    /// What is wrong.
    pub kind: Box<ErrorKind>,
    /// The bytes of the Dockerfile to underline; `None` where the request is at fault.
    pub span: Option<Span>,
    /// The build checks that had found something before, in the order of the file.
    pub warnings: Vec<Warning>,
}

impl LowerError {
    pub(crate) fn new(kind: ErrorKind, span: Option<Span>) -> LowerError {
        LowerError { kind: Box::new(kind), span, warnings: Vec::new() }
    }

    /// The stable name of what is wrong: `unknown-target`.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// An edit or a flag that mends it, where there is one.
    pub fn help(&self) -> Option<String> {
        self.kind.help()
    }
}

/// An error at a place of the Dockerfile.
pub(crate) fn at(span: Span, kind: ErrorKind) -> LowerError {
    LowerError::new(kind, Some(span))
}

impl From<ParseError> for LowerError {
    fn from(error: ParseError) -> LowerError {
        at(error.span, ErrorKind::Word(error))
    }
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A word that cannot be expanded, or that means nothing once it is.
    #[error(transparent)]
    Word(ParseError),
    /// A value that no system call takes.
    #[error(
        "the value of `{written}` is {length} bytes long; at most {} may be",
        crate::limit::LONGEST_VALUE_BYTES
    )]
    TooLong {
        /// The word as written.
        written: String,
        /// Its length in bytes.
        length: usize,
    },
    /// Steps whose environments are too much together.
    #[error(
        "the environments of the steps up to here take more than {} MiB",
        crate::limit::LARGEST_ENVIRONMENTS_BYTES >> 20
    )]
    Environments,
    /// A value that no system call takes.
    #[error("the value of `{written}` holds a NUL byte")]
    Nul {
        /// The word as written.
        written: String,
    },
    /// `# syntax=` or `BUILDKIT_SYNTAX` names another language.
    #[error("the frontend `{frontend}` is not supported; `docker/dockerfile` is built in")]
    Frontend {
        /// What was named.
        frontend: String,
    },
    /// A file of global arguments only.
    #[error("the file has no stage to build")]
    NoStage,
    /// `--target` names no stage.
    #[error("there is no stage `{name}` to build")]
    UnknownTarget {
        /// What was asked for.
        name: String,
        /// A stage of nearly that name.
        near: Option<String>,
        /// All stages with a name.
        stages: Vec<String>,
    },
    /// A `FROM` that names nothing once it is expanded.
    #[error("`FROM {written}` names no image: it is empty once its variables are replaced")]
    EmptyBase {
        /// The word as written.
        written: String,
    },
    /// A name that is no stage, no context, and no image either.
    #[error("{source}")]
    Image {
        /// Why it names no image.
        source: BadReference,
        /// A stage of nearly that name.
        near: Option<String>,
    },
    /// `--platform` of a `FROM` that is empty once it is expanded.
    #[error("`--platform={written}` is empty once its variables are replaced")]
    EmptyPlatform {
        /// The word as written.
        written: String,
    },
    /// `--platform` of a `FROM` that names none.
    #[error(transparent)]
    Platform(BadPlatform),
    /// `--from` with a number that no stage has.
    #[error("there is no stage number {number}: the file has {stages}, counted from 0")]
    StageNumber {
        /// The number.
        number: usize,
        /// How many stages there are.
        stages: usize,
    },
    /// `--from` names the stage that it stands in.
    #[error("a stage cannot copy from itself: `{name}` is this one")]
    OwnStage {
        /// The name as written.
        name: String,
    },
    /// `--from` names a stage further down.
    #[error("the stage `{name}` is defined further down; only stages above can be used")]
    LaterStage {
        /// The name as written.
        name: String,
    },
    /// An `ONBUILD` of a base image that cannot be read.
    #[error("the base image's trigger `ONBUILD {trigger}` cannot be run: {}", first(.sources))]
    Trigger {
        /// The trigger, as the image config has it.
        trigger: String,
        /// What is wrong with it; at least one.
        sources: Vec<ParseError>,
    },
    /// A named context that should be a git repository.
    #[error("the build context `{name}` is no git repository's address: `{url}`")]
    NoGitAddress {
        /// The context.
        name: String,
        /// What it was given as.
        url: String,
    },
    /// A git repository's address with something wrong in it.
    #[error(transparent)]
    Git(BadGitAddress),
    /// Both the flag and the address say something about a repository, and not the same.
    #[error("the flag `--{flag}={value}` contradicts the address, which says `{address}`")]
    GitConflict {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What the address says.
        address: String,
    },
    /// `COPY` of what only `ADD` fetches.
    #[error("`COPY` cannot fetch `{source_text}`")]
    RemoteCopy {
        /// The source.
        source_text: String,
    },
    /// `--checksum` with more than one source.
    #[error("`--checksum` needs exactly one source; here are {sources}")]
    ChecksumSources {
        /// How many there are.
        sources: usize,
    },
    /// `--checksum` of a file of the context.
    #[error("`--checksum` is for files over http and for git repositories; `{source_text}` is neither")]
    ChecksumLocal {
        /// The source.
        source_text: String,
    },
    /// `--checksum` that is no digest.
    #[error("`{checksum}` is no digest of the form `sha256:` and 64 hexadecimal digits")]
    Checksum {
        /// The value.
        checksum: String,
    },
    /// A heredoc that would become a file of no possible name.
    #[error("`{name}` cannot be the name of a file")]
    HeredocName {
        /// The delimiter.
        name: String,
    },
    /// `RUN []`.
    #[error("`RUN` has no command to run")]
    EmptyCommand,
    /// `RUN` wants what the request does not allow.
    #[error("this `RUN` needs the entitlement `{}`, which the build was not given", .entitlement.name())]
    NotAllowed {
        /// What it needs.
        entitlement: Entitlement,
    },
    /// `SOURCE_DATE_EPOCH` that is no time.
    #[error(
        "`SOURCE_DATE_EPOCH` is `{value}`, which is no count of seconds since 1970, and no context or stage"
    )]
    SourceDateEpoch {
        /// The value.
        value: String,
    },
    /// A stage that `SOURCE_DATE_EPOCH` names and that is not only a download.
    #[error("`SOURCE_DATE_EPOCH` is the time of the stage `{name}`, but that {why}")]
    EpochStage {
        /// The stage.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Part of the language that is not built yet.
    #[error("{what} is not supported yet")]
    NotYet {
        /// What it is.
        what: String,
    },
    /// `# check=error=true`, and a check found something.
    #[error("lint violation found for rules: {}", .rules.join(", "))]
    Checks {
        /// The rules that were broken, each once.
        rules: Vec<String>,
    },
}

/// The usual platform that a text is spelled much like; its system may be left out.
pub fn near_platform(text: &str) -> Option<String> {
    let linux = Platform::COMMON.into_iter().filter_map(|name| name.strip_prefix("linux/"));
    near(text, Platform::COMMON.into_iter())
        .or_else(|| near(text, linux).map(|architecture| format!("linux/{architecture}")))
}

fn first(sources: &[ParseError]) -> String {
    sources.first().map(ParseError::to_string).unwrap_or_default()
}

impl ErrorKind {
    /// The stable name, see [`LowerError::code`].
    pub fn code(&self) -> &'static str {
        match self {
            ErrorKind::Word(error) => error.code(),
            ErrorKind::TooLong { .. } | ErrorKind::Environments => "value-too-long",
            ErrorKind::Nul { .. } => "nul-byte",
            ErrorKind::Frontend { .. } => "unsupported-frontend",
            ErrorKind::NoStage => "no-stage",
            ErrorKind::UnknownTarget { .. } => "unknown-target",
            ErrorKind::EmptyBase { .. } => "empty-from",
            ErrorKind::Image { .. } => "invalid-image-name",
            ErrorKind::EmptyPlatform { .. } | ErrorKind::Platform(_) => "invalid-platform",
            ErrorKind::StageNumber { .. } => "unknown-stage-number",
            ErrorKind::OwnStage { .. } => "copy-from-own-stage",
            ErrorKind::LaterStage { .. } => "copy-from-later-stage",
            ErrorKind::Trigger { .. } => "invalid-onbuild",
            ErrorKind::NoGitAddress { .. } | ErrorKind::Git(_) | ErrorKind::GitConflict { .. } => {
                "invalid-git-address"
            }
            ErrorKind::RemoteCopy { .. } => "copy-from-url",
            ErrorKind::ChecksumSources { .. }
            | ErrorKind::ChecksumLocal { .. }
            | ErrorKind::Checksum { .. } => "invalid-checksum",
            ErrorKind::HeredocName { .. } => "invalid-heredoc-name",
            ErrorKind::EmptyCommand => "no-command",
            ErrorKind::NotAllowed { .. } => "not-allowed",
            ErrorKind::SourceDateEpoch { .. } | ErrorKind::EpochStage { .. } => "invalid-source-date-epoch",
            ErrorKind::NotYet { .. } => "not-supported-yet",
            ErrorKind::Checks { .. } => "checks-failed",
        }
    }

    /// An edit that mends it, see [`LowerError::help`].
    pub fn help(&self) -> Option<String> {
        match self {
            ErrorKind::Word(error) => error.help(),
            ErrorKind::Frontend { .. } => {
                Some("take out the `# syntax=` line, or write `# syntax=docker/dockerfile:1`".to_owned())
            }
            ErrorKind::NoStage => Some("write a `FROM` below the arguments".to_owned()),
            ErrorKind::UnknownTarget { near: Some(near), .. } => {
                Some(format!("build with `--target {near}`"))
            }
            ErrorKind::UnknownTarget { stages, .. } if stages.is_empty() => {
                Some("give a stage a name: `FROM <image> AS <name>`".to_owned())
            }
            ErrorKind::UnknownTarget { stages, .. } => Some(format!("the stages are {}", stages.join(", "))),
            ErrorKind::EmptyBase { written } => Some(format!(
                "give the variable a default above the first `FROM`, or write `FROM {written}` with one, like `${{NAME:-alpine}}`"
            )),
            ErrorKind::Image { near: Some(near), .. } => {
                Some(format!("write `FROM {near}` for the stage of that name"))
            }
            ErrorKind::Platform(BadPlatform(text)) => {
                near_platform(text).map(|near| format!("write `--platform={near}`"))
            }
            ErrorKind::LaterStage { name } => Some(format!("move the stage `{name}` above this one")),
            ErrorKind::SourceDateEpoch { .. } => {
                Some("SOURCE_DATE_EPOCH=$(git log -1 --pretty=%ct)".to_owned())
            }
            ErrorKind::EpochStage { name, .. } => {
                Some(format!("FROM scratch AS {name}\nADD https://host/file /"))
            }
            ErrorKind::RemoteCopy { .. } => Some("write `ADD` instead of `COPY`".to_owned()),
            ErrorKind::NotAllowed { entitlement } => {
                Some(format!("build with `--allow {}`", entitlement.name()))
            }
            _ => None,
        }
    }
}
