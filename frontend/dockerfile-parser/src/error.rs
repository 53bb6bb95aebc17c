//! What can be wrong with a Dockerfile, each with its data, a stable code and, where there is one, the edit that mends it.

use crate::chmod::ChmodError;
pub use crate::csv::CsvError;
pub use crate::directive::CheckError;
use crate::expand::ExpandError;
use crate::goduration::DurationError;
use crate::port::PortError;
use crate::signal::SignalError;
use crate::span::Span;
use crate::word::Word;
use thiserror::Error;

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct ParseError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// The place to underline.
    pub span: Span,
}

impl ParseError {
    /// An error at a place.
    pub fn new(kind: impl Into<ErrorKind>, span: Span) -> ParseError {
        ParseError { kind: kind.into(), span }
    }

    /// An error in the expansion of a word, placed inside the word where that can be done.
    pub fn expansion(word: &Word, error: ExpandError) -> ParseError {
        let span = word.span_at(error.range.start, error.range.end);
        ParseError { kind: error.into(), span }
    }

    /// The stable name of what is wrong: `unknown-instruction`.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// An edit that mends it, ready to be pasted, where there is one.
    pub fn help(&self) -> Option<String> {
        self.kind.help()
    }
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message of each variant is its documentation, and names its fields")]
pub enum ErrorKind {
    #[error("the file has no instruction")]
    NoInstruction,
    #[error("the file has no `FROM`, and so no build stage")]
    NoFrom,
    #[error("the line is {length} bytes long; a line may have {}", crate::logical::LONGEST_LINE_BYTES)]
    LineTooLong { length: usize },
    #[error("there can be only one `{name}` directive")]
    DuplicateDirective { name: &'static str, first: Span },
    #[error("the escape character is `{value}`; it can be `\\` or `` ` ``")]
    EscapeDirective { value: String },
    #[error("`# check=` cannot be read: {reason}")]
    CheckDirective { reason: CheckError },
    #[error("unknown instruction `{name}`")]
    UnknownInstruction { name: String, suggestion: Option<String> },
    #[error("`{instruction}` stands before the first `FROM`, in no build stage")]
    NoStage { instruction: &'static str },
    #[error("the heredoc `{name}` is not closed")]
    UnterminatedHeredoc { name: String },
    #[error("`{instruction}` needs at least one argument")]
    NoArgument { instruction: &'static str },
    #[error("a JSON array here must hold strings only")]
    JsonNotStrings,

    #[error("`{instruction}` has no flag `--{name}`")]
    UnknownFlag {
        instruction: &'static str,
        name: String,
        suggestion: Option<String>,
        takes: &'static [&'static str],
    },
    #[error("the flag `--{name}` is given twice")]
    DuplicateFlag { name: &'static str },
    #[error("the flag `--{name}` needs a value")]
    FlagWithoutValue { name: &'static str },
    #[error("the value of `--{name}` is `{value}`; it can be `true` or `false`")]
    FlagNotBoolean { name: &'static str, value: String },
    #[error("the value of `--{flag}` is `{value}`; it can be {}", list(.choices))]
    FlagChoice { flag: &'static str, value: String, choices: Vec<&'static str>, suggestion: Option<String> },

    #[error("a name of `{instruction}` is empty")]
    BlankName { instruction: &'static str },
    #[error("`{instruction}` needs a name and a value")]
    PairWithoutValue { instruction: &'static str },
    #[error("`{word}` is not of the form `name=value`")]
    PairWithoutEquals { instruction: &'static str, word: String },
    #[error("`FROM` takes one word, or three: `<image> AS <name>`; here are {count}")]
    FromArguments { count: usize },
    #[error("`{name}` cannot be the name of a stage: a letter first, then letters, digits, `-`, `_` and `.`")]
    InvalidStageName { name: String },
    #[error("`{instruction} --from` does not expand variables")]
    FromVariable { instruction: &'static str },
    #[error("`{instruction}` needs a source and a destination")]
    NoDestination { instruction: &'static str },
    #[error("the destination of `{instruction}` cannot be a heredoc")]
    HeredocDestination { instruction: &'static str },
    #[error("the path of a volume is empty")]
    EmptyVolume,
    #[error("`SHELL` takes a JSON array of strings")]
    ShellNotJson { words: Vec<String> },
    #[error("`HEALTHCHECK NONE` takes no arguments")]
    HealthcheckNoneArguments,
    #[error("`HEALTHCHECK CMD` needs a command")]
    HealthcheckNoCommand,
    #[error("`HEALTHCHECK` takes `CMD <command>` or `NONE`, not `{name}`")]
    HealthcheckType { name: String },
    #[error("`--{flag}={value}` is shorter than 1ms")]
    DurationTooShort { flag: &'static str, value: String },
    #[error("the value of `--{flag}` is not a duration: {reason}")]
    Duration { flag: &'static str, reason: DurationError },
    #[error("`--retries={value}` is not a number from 0 to 2147483647")]
    Retries { value: String },
    #[error("`{name}` cannot stand behind `ONBUILD`")]
    OnbuildTrigger { name: &'static str },
    #[error("the image's `ONBUILD` is not one instruction: {trigger:?}")]
    TriggerNotOne { trigger: String },

    #[error("`--{flag}` is not comma-separated: {reason}")]
    Csv { flag: &'static str, reason: CsvError },
    #[error("`--{flag}` has no option `{key}`")]
    UnknownOption { flag: &'static str, key: String, suggestion: Option<String> },
    #[error("the option `{key}` of `--{flag}` needs a value")]
    OptionWithoutValue { flag: &'static str, key: String },
    #[error("the option `{key}` of `--{flag}` cannot be `{value}`")]
    OptionValue { flag: &'static str, key: String, value: String },
    #[error("the option `{key}` of `--{flag}` is given twice")]
    OptionTwice { flag: &'static str, key: String },
    #[error("the option `{key}` is not for mounts of type `{kind}`")]
    OptionNotForType { key: &'static str, kind: &'static str },
    #[error("there is no mount type `{value}`; there are {}", list(&crate::instruction::MountKind::NAMES))]
    MountType { value: String, suggestion: Option<String> },
    #[error("the option `from` of `--mount` does not expand variables")]
    MountFromVariable,
    #[error("a secret mount needs an `id`, a `source` or a `target`")]
    SecretWithoutName,
    #[error("a secret mount cannot have both `source` and `id`")]
    SecretSourceAndId,
    #[error("the target of a mount cannot be `/`")]
    MountTargetRoot,

    #[error(transparent)]
    Expansion(#[from] ExpandError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Chmod(#[from] ChmodError),
    #[error(transparent)]
    Signal(#[from] SignalError),
}

/// `a`, `b` or `c`.
fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

impl ErrorKind {
    /// The stable name, see [`ParseError::code`].
    pub fn code(&self) -> &'static str {
        match self {
            ErrorKind::NoInstruction => "no-instruction",
            ErrorKind::NoFrom => "no-stage",
            ErrorKind::LineTooLong { .. } => "line-too-long",
            ErrorKind::DuplicateDirective { .. } => "duplicate-directive",
            ErrorKind::EscapeDirective { .. } => "invalid-escape-directive",
            ErrorKind::CheckDirective { .. } => "invalid-check-directive",
            ErrorKind::UnknownInstruction { .. } => "unknown-instruction",
            ErrorKind::NoStage { .. } => "no-stage",
            ErrorKind::UnterminatedHeredoc { .. } => "unterminated-heredoc",
            ErrorKind::NoArgument { .. } => "no-argument",
            ErrorKind::JsonNotStrings => "json-not-strings",
            ErrorKind::UnknownFlag { .. } => "unknown-flag",
            ErrorKind::DuplicateFlag { .. } => "duplicate-flag",
            ErrorKind::FlagWithoutValue { .. } => "flag-without-value",
            ErrorKind::FlagNotBoolean { .. } | ErrorKind::FlagChoice { .. } => "invalid-flag-value",
            ErrorKind::BlankName { .. } => "blank-name",
            ErrorKind::PairWithoutValue { .. } | ErrorKind::PairWithoutEquals { .. } => "no-value",
            ErrorKind::FromArguments { .. } => "from-arguments",
            ErrorKind::InvalidStageName { .. } => "invalid-stage-name",
            ErrorKind::FromVariable { .. } | ErrorKind::MountFromVariable => "variable-in-from",
            ErrorKind::NoDestination { .. } => "no-destination",
            ErrorKind::HeredocDestination { .. } => "heredoc-destination",
            ErrorKind::EmptyVolume => "empty-volume",
            ErrorKind::ShellNotJson { .. } => "shell-not-json",
            ErrorKind::HealthcheckNoneArguments
            | ErrorKind::HealthcheckNoCommand
            | ErrorKind::HealthcheckType { .. }
            | ErrorKind::Retries { .. } => "invalid-healthcheck",
            ErrorKind::DurationTooShort { .. } | ErrorKind::Duration { .. } => "invalid-duration",
            ErrorKind::OnbuildTrigger { .. } | ErrorKind::TriggerNotOne { .. } => "invalid-onbuild",
            ErrorKind::Csv { .. }
            | ErrorKind::UnknownOption { .. }
            | ErrorKind::OptionWithoutValue { .. }
            | ErrorKind::OptionValue { .. }
            | ErrorKind::OptionTwice { .. } => "invalid-option",
            ErrorKind::OptionNotForType { .. }
            | ErrorKind::MountType { .. }
            | ErrorKind::SecretWithoutName
            | ErrorKind::SecretSourceAndId
            | ErrorKind::MountTargetRoot => "invalid-mount",
            ErrorKind::Expansion(error) => error.code(),
            ErrorKind::Port(_) => "invalid-port",
            ErrorKind::Chmod(_) => "invalid-chmod",
            ErrorKind::Signal(_) => "invalid-signal",
        }
    }

    /// An edit that mends it, see [`ParseError::help`].
    pub fn help(&self) -> Option<String> {
        let change = |from: &str, to: &str| Some(format!("write `{to}` instead of `{from}`"));
        match self {
            ErrorKind::NoInstruction => Some("begin with `FROM <image>`".to_owned()),
            ErrorKind::NoFrom => Some("write `FROM <image>` below the `ARG`s".to_owned()),
            ErrorKind::LineTooLong { .. } => Some("continue it on another line with `\\`".to_owned()),
            ErrorKind::NoStage { .. } => Some("write a `FROM` above it".to_owned()),
            ErrorKind::UnterminatedHeredoc { name } => Some(format!("write a line that is just `{name}` behind it")),
            ErrorKind::UnknownInstruction { name, suggestion } => change(name, suggestion.as_ref()?),
            ErrorKind::UnknownFlag { name, suggestion: Some(known), .. } => {
                change(&format!("--{name}"), &format!("--{known}"))
            }
            ErrorKind::UnknownFlag { instruction, takes, .. } => match takes {
                [] => None,
                names => {
                    let flags: Vec<String> = names.iter().map(|name| format!("--{name}")).collect();
                    Some(format!("`{instruction}` has {}", flags.join(", ")))
                }
            },
            ErrorKind::FlagChoice { flag, value, suggestion: Some(known), .. } => {
                change(&format!("--{flag}={value}"), &format!("--{flag}={known}"))
            }
            ErrorKind::UnknownOption { key, suggestion, .. } => change(key, suggestion.as_ref()?),
            ErrorKind::MountType { value, suggestion } => {
                change(&format!("type={value}"), &format!("type={}", suggestion.as_ref()?))
            }
            ErrorKind::PairWithoutEquals { word, .. } => {
                Some(format!("if `{word}` belongs to the value before it, quote the value: `name=\"… {word}\"`"))
            }
            ErrorKind::FromVariable { .. } | ErrorKind::MountFromVariable => Some(
                "name the image in a stage, `FROM $IMAGE AS name` with `ARG IMAGE` above the first `FROM`, and write \
                 `from=name`"
                    .to_owned(),
            ),
            ErrorKind::ShellNotJson { words } => {
                let quoted: Vec<String> = words.iter().map(|word| json_string(word)).collect();
                Some(format!("write `SHELL [{}]`", quoted.join(", ")))
            }
            ErrorKind::HealthcheckType { name } => Some(format!("write `HEALTHCHECK CMD {name} …`")),
            ErrorKind::HealthcheckNoneArguments => Some("write `HEALTHCHECK NONE`".to_owned()),
            ErrorKind::EscapeDirective { .. } => Some("write `# escape=\\` or ``# escape=` ``".to_owned()),
            _ => None,
        }
    }
}

/// A text as a JSON string.
fn json_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
