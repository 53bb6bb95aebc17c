//! `RUN [flags] <command>`

use super::command::{Command, Script};
use super::mount::RawMount;
use crate::csv;
use crate::error::{ErrorKind, ParseError};
use crate::heredoc::{self, Heredoc};
use crate::statement::Statement;
use crate::suggest::nearest;
use crate::word::Word;
use std::fmt::Write;

/// `RUN`: a command run while building.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command as written; with heredocs, use [`Run::script`].
    pub command: Command,
    /// The heredocs of the shell form, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, any number of times, in order.
    pub mounts: Vec<RawMount>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`, any number of times, in order.
    pub devices: Vec<RawDevice>,
}

/// `--network` of a `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// The builder's network.
    #[default]
    Default,
    /// No network but loopback.
    None,
    /// The host's, for which the build needs the entitlement `network.host`.
    Host,
}

/// `--security` of a `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Security {
    /// Confined.
    #[default]
    Sandbox,
    /// With every capability, for which the build needs the entitlement `security.insecure`.
    Insecure,
}

/// `--device` of a `RUN`, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDevice {
    /// The options, comma-separated. Not expanded.
    pub text: Word,
    /// What they say.
    pub device: Device,
}

/// A device that a `RUN` asks for, by its name in the Container Device Interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Vendor, class and name: `vendor.com/class=name`.
    pub name: String,
    /// Whether the step fails where there is no such device.
    pub required: bool,
}

impl Run {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Run, ParseError> {
        let mut flags = statement.read_flags(&["device", "mount", "network", "security"])?;
        let mounts = flags.values("mount")?.into_iter().map(RawMount::new).collect::<Result<_, _>>()?;
        let devices = flags.values("device")?.into_iter().map(RawDevice::new).collect::<Result<_, _>>()?;
        let network = choose(
            flags.value("network")?,
            "network",
            &[("default", Network::Default), ("host", Network::Host), ("none", Network::None)],
        )?;
        let security = choose(
            flags.value("security")?,
            "security",
            &[("insecure", Security::Insecure), ("sandbox", Security::Sandbox)],
        )?;
        let command = Command::parse(statement, statement.rest())?;
        let heredocs = match command {
            Command::Shell(_) => statement.heredocs().iter().map(|(_, heredoc)| heredoc.clone()).collect(),
            Command::Exec(_) => Vec::new(),
        };
        Ok(Run { command, heredocs, mounts, network, security, devices })
    }

    /// What is run. A heredoc that is all of the command is the script itself; with anything beside it, or a second
    /// one, text and heredocs are put together again for the shell, which does what shells do with them.
    pub fn script(&self) -> Script {
        let text = match &self.command {
            Command::Exec(words) => {
                return Script::Exec(words.iter().map(|word| word.text.clone()).collect());
            }
            Command::Shell(word) => &word.text,
        };
        match &self.heredocs[..] {
            [] => Script::Shell(text.clone()),
            [only] if heredoc::is_all_of(text) => {
                let content = only.text();
                if content.starts_with("#!") {
                    Script::File { name: only.name.clone(), content }
                } else {
                    Script::Shell(content)
                }
            }
            several => {
                let mut whole = text.clone();
                for heredoc in several {
                    let _infallible = write!(whole, "\n{}{}", heredoc.content, heredoc.name);
                }
                Script::Shell(whole)
            }
        }
    }
}

/// The value that a flag's word names; the type's default where the flag is not given.
fn choose<T: Clone + Default>(
    word: Option<Word>,
    flag: &'static str,
    choices: &[(&'static str, T)],
) -> Result<T, ParseError> {
    let Some(word) = word else { return Ok(T::default()) };
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word.text) {
        return Ok(value.clone());
    }
    let names: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
    let suggestion = nearest(&word.text, &names).map(str::to_owned);
    let kind = ErrorKind::FlagChoice { flag, value: word.text, choices: names, suggestion };
    Err(ParseError::new(kind, word.span))
}

impl RawDevice {
    fn new(text: Word) -> Result<RawDevice, ParseError> {
        let fields = csv::fields(&text.text)
            .map_err(|reason| ParseError::new(ErrorKind::Csv { flag: "device", reason }, text.span))?;
        let mut device = Device::default();
        let fail = |kind| Err(ParseError::new(kind, text.span));
        for csv::Field { text: field, .. } in fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            match (&*key, value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => match csv::boolean(value) {
                    Some(required) => device.required = required,
                    None => {
                        return fail(ErrorKind::OptionValue { flag: "device", key, value: value.to_owned() });
                    }
                },
                ("name", Some(name)) if device.name.is_empty() => device.name = name.to_owned(),
                ("name", Some(_)) => return fail(ErrorKind::OptionTwice { flag: "device", key }),
                // A name has a `=` of its own: `vendor.com/class=name`.
                _ if device.name.is_empty() => device.name = field,
                (_, None) => return fail(ErrorKind::OptionWithoutValue { flag: "device", key }),
                _ => {
                    let suggestion = nearest(&key, &["name", "required"]).map(str::to_owned);
                    return fail(ErrorKind::UnknownOption { flag: "device", key, suggestion });
                }
            }
        }
        Ok(RawDevice { text, device })
    }
}
