//! `HEALTHCHECK [flags] CMD <command>` or `HEALTHCHECK NONE`

use super::command::Command;
use crate::error::{ErrorKind, ParseError};
use crate::flag::Flags;
use crate::goduration;
use crate::statement::Statement;

/// `HEALTHCHECK`: how to tell that a container works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: an inherited check is taken away.
    None,
    /// `CMD`: a command whose exit status tells.
    Check(Check),
}

/// A check of a container's health. Durations are in nanoseconds as the image config holds them; 0 where not given,
/// which means inherited, or the engine's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is run; never empty.
    pub command: Command,
    /// `--interval`: from one check to the next.
    pub interval_nanoseconds: i64,
    /// `--timeout`: how long a check may take.
    pub timeout_nanoseconds: i64,
    /// `--start-period`: how long failures do not count.
    pub start_period_nanoseconds: i64,
    /// `--start-interval`: from one check to the next in the start period.
    pub start_interval_nanoseconds: i64,
    /// `--retries`: how many failures in a row make it unhealthy; 0 where not given.
    pub retries: i32,
}

const FLAGS: [&str; 5] = ["interval", "retries", "start-interval", "start-period", "timeout"];

/// The shortest duration but 0 (`container.MinimumDuration` of the Docker API).
const SHORTEST_NANOSECONDS: i64 = 1_000_000;

impl Healthcheck {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Healthcheck, ParseError> {
        let mut flags = statement.read_flags(&FLAGS)?;
        let rest = statement.rest();
        if rest.is_empty() {
            return Err(statement.needs_one_argument());
        }
        let text = statement.text(&rest);
        let end = rest.start + text.find(char::is_whitespace).unwrap_or(text.len());
        let blanks = text[end - rest.start..].len() - text[end - rest.start..].trim_start().len();
        let (kind, command) = (rest.start..end, end + blanks..rest.end);
        match &*statement.text(&kind).to_ascii_uppercase() {
            "NONE" if command.is_empty() => Ok(Healthcheck::None),
            "NONE" => Err(statement.error_at(ErrorKind::HealthcheckNoneArguments, command)),
            "CMD" => {
                let command = Command::parse(statement, command)?;
                let empty = match &command {
                    Command::Shell(word) => word.text.is_empty(),
                    Command::Exec(words) => words.is_empty(),
                };
                if empty {
                    return Err(statement.error_at(ErrorKind::HealthcheckNoCommand, kind));
                }
                Ok(Healthcheck::Check(Check {
                    command,
                    interval_nanoseconds: duration(&mut flags, "interval")?,
                    timeout_nanoseconds: duration(&mut flags, "timeout")?,
                    start_period_nanoseconds: duration(&mut flags, "start-period")?,
                    start_interval_nanoseconds: duration(&mut flags, "start-interval")?,
                    retries: retries(&mut flags)?,
                }))
            }
            _ => {
                let name = statement.text(&kind).to_owned();
                Err(statement.error_at(ErrorKind::HealthcheckType { name }, kind))
            }
        }
    }
}

fn duration(flags: &mut Flags, name: &'static str) -> Result<i64, ParseError> {
    let Some(word) = flags.value(name)?.filter(|word| !word.text.is_empty()) else { return Ok(0) };
    match goduration::parse(&word.text) {
        Ok(nanoseconds) if nanoseconds == 0 || nanoseconds >= SHORTEST_NANOSECONDS => Ok(nanoseconds),
        Ok(_) => {
            Err(ParseError::new(ErrorKind::DurationTooShort { flag: name, value: word.text }, word.span))
        }
        Err(reason) => Err(ParseError::new(ErrorKind::Duration { flag: name, reason }, word.span)),
    }
}

fn retries(flags: &mut Flags) -> Result<i32, ParseError> {
    let Some(word) = flags.value("retries")?.filter(|word| !word.text.is_empty()) else { return Ok(0) };
    match word.text.parse() {
        Ok(count @ 0..) => Ok(count),
        _ => Err(ParseError::new(ErrorKind::Retries { value: word.text }, word.span)),
    }
}
