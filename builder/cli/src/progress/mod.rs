//! Four readers of the stream of events.
//!
//! | Mode      | Shows |
//! |-----------|-------|
//! | `tty`     | a live picture: what runs, its last lines, timers, transfers |
//! | `plain`   | lines with the step's number, as BuildKit writes them |
//! | `quiet`   | nothing |
//! | `rawjson` | BuildKit's `SolveStatus`, one object a line |

mod plain;
mod rawjson;
mod tty;

use std::sync::{Arc, Mutex, PoisonError};

use engine::progress::{Definition, Event, Sink, Warning};

pub use plain::Plain;
pub use rawjson::RawJson;
pub use tty::Tty;

use crate::{
    failure::{Failure, Source},
    machine,
};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A live picture.
    Tty,
    /// Lines.
    Plain,
    /// Nothing.
    Quiet,
    /// JSON.
    RawJson,
}

/// What writes progress; [`Display::finish`] must be called before anything else is written.
pub trait Display: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event);
    /// Writes what is left and lets the terminal go.
    fn finish(&self);
}

impl Mode {
    /// The mode that the command line asks for, on this terminal.
    pub fn asked(word: &str, quiet: bool) -> Result<Mode, Failure> {
        let terminal = console::Term::stderr().features().is_attended()
            && machine::variable("TERM").as_deref() != Some("dumb");
        Mode::parse(word, quiet, terminal)
    }

    /// The mode of a word; `auto` is `tty` where standard error is a terminal that can move its cursor.
    pub fn parse(word: &str, quiet: bool, terminal: bool) -> Result<Mode, Failure> {
        match word {
            _ if quiet => Ok(Mode::Quiet),
            "auto" | "" if terminal => Ok(Mode::Tty),
            "auto" | "" | "plain" => Ok(Mode::Plain),
            "tty" if terminal => Ok(Mode::Tty),
            "tty" => Err(Failure::usage_with(
                "standard error is no terminal, so progress cannot be `tty`",
                "--progress plain",
            )),
            "quiet" | "none" => Ok(Mode::Quiet),
            "rawjson" => Ok(Mode::RawJson),
            other => {
                let message =
                    format!("there is no progress mode `{other}`: auto, tty, plain, quiet, rawjson, none");
                Err(Failure::usage_with(message, "--progress plain"))
            }
        }
    }

    /// What shows it.
    pub fn display(self) -> Arc<dyn Display> {
        match self {
            Mode::Tty => Arc::new(Tty::start()),
            Mode::Plain => Arc::new(Plain::new(std::io::stderr())),
            Mode::Quiet => Arc::new(Nothing),
            Mode::RawJson => Arc::new(RawJson::new(std::io::stderr())),
        }
    }
}

struct Nothing;

impl Display for Nothing {
    fn event(&self, _: &Event) {}
    fn finish(&self) {}
}

/// A display as the engine's sink. Keeps what is to be told once more, when the build is over.
pub struct Shown {
    display: Arc<dyn Display>,
    warnings: Mutex<Vec<Warning>>,
    definition: Mutex<Option<Definition>>,
}

impl Shown {
    /// Hands everything on to a display.
    pub fn new(display: Arc<dyn Display>) -> Shown {
        Shown { display, warnings: Mutex::default(), definition: Mutex::default() }
    }

    /// Puts the Dockerfile that the engine found into `source`, if it came so far.
    pub fn tell_source(&self, source: &mut Source) {
        if let Some(found) = self.definition.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            *source = Source { name: found.name, text: found.text };
        }
    }

    /// The warnings about places of the Dockerfile, in the order of the file.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        warnings.sort_by_key(|warning| warning.source.map(|place| (place.start, place.end)));
        warnings
    }
}

impl Sink for Shown {
    fn event(&self, event: Event) {
        self.display.event(&event);
        match event {
            Event::Warning(warning) if warning.source.is_some() => {
                self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
            }
            Event::Definition(found) => {
                *self.definition.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            }
            _ => {}
        }
    }
}

/// Seconds with one digit behind the point, as every view shows them.
pub fn seconds(from: engine::Time, to: engine::Time) -> String {
    let tenths = to.0.saturating_sub(from.0) / 100_000_000;
    format!("{}.{}s", tenths / 10, tenths % 10)
}

/// Bytes in the largest unit that leaves a number of three digits: `1.2MB`.
pub fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count}B") } else { format!("{value:.1}{}", units[unit]) }
}
