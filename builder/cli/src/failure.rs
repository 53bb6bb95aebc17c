//! Failures in the voice of the command line: what, where, why, and what to do.

use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Level, Message, Renderer, Snippet};
use dockerfile::lint;
use dockerfile_parser::{LineIndex, ParseError, Span};
use engine::{Cause, Error, progress::Warning};
use graph::SourceRange;
use sandbox::userns::Lack;

use crate::flags::BadFlag;

/// Why a command did not succeed, ready to be shown.
#[derive(Debug)]
pub struct Failure {
    /// 1, 2 or 130.
    pub status: u8,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Flag(BadFlag),
    Usage(String, Option<String>),
    Engine(Box<Error>),
    Lacks(Lack),
}

/// The Dockerfile that a failure may point into.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its name, as messages show it.
    pub name: String,
    /// Its text.
    pub text: Vec<u8>,
}

impl Failure {
    /// A command line that cannot be meant.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { status: 2, kind: Kind::Usage(message.into(), None) }
    }

    /// A command line that cannot be meant, and what to write instead.
    pub fn usage_with(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure { status: 2, kind: Kind::Usage(message.into(), Some(help.into())) }
    }

    /// Something that is not there, and where to look.
    pub fn none(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure { status: 1, kind: Kind::Usage(message.into(), Some(help.into())) }
    }

    /// Something of the machine that failed.
    pub fn machine(message: impl Into<String>) -> Failure {
        Failure { status: 1, kind: Kind::Usage(message.into(), None) }
    }

    /// The machine has not what a mode needs.
    pub fn lacks(lack: Lack) -> Failure {
        Failure { status: 1, kind: Kind::Lacks(lack) }
    }

    /// What is wrong and what would help, without a frame.
    pub fn in_words(&self) -> (String, Option<String>) {
        match &self.kind {
            Kind::Flag(flag) => (flag.to_string(), Some(flag.help.clone())),
            Kind::Usage(message, help) => (message.clone(), help.clone()),
            Kind::Engine(error) => (summary(error), None),
            Kind::Lacks(lack) => (lack.to_string(), lack.fix()),
        }
    }

    /// A command that could not be started: the exit status says why, as a shell's does.
    pub fn of_run(error: Error) -> Failure {
        let status = error.command_status().unwrap_or(error.exit_status());
        Failure { status, ..Failure::from(error) }
    }

    /// The whole message, with an excerpt of `source` where it points into it.
    pub fn render(&self, source: &Source, colour: bool, width: usize) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(width);
        let view = View { source, renderer };
        match &self.kind {
            Kind::Flag(flag) => view.message("flag", &flag.to_string(), None, Some(&flag.help)),
            Kind::Usage(message, help) => view.message("usage", message, None, help.as_deref()),
            Kind::Engine(error) => view.engine(error),
            Kind::Lacks(lack) => {
                let fix = lack.fix().map(|fix| format!("`{fix}`; `kiln info` shows what else there is"));
                let code = if matches!(lack, Lack::Unfit { .. }) { "state-folder" } else { "sandbox-mode" };
                view.message(code, &lack.to_string(), None, fix.as_deref())
            }
        }
    }
}

impl From<BadFlag> for Failure {
    fn from(flag: BadFlag) -> Failure {
        Failure { status: 2, kind: Kind::Flag(flag) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { status: error.exit_status(), kind: Kind::Engine(Box::new(error)) }
    }
}

/// A warning about a place of the Dockerfile, with an excerpt of it and the page about its rule.
pub fn warning(source: &Source, warning: &Warning, colour: bool, width: usize) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(width);
    let page = lint::rule(&warning.code).and_then(|rule| rule.page).map(|page| format!("see {page}"));
    let span = warning.source.map(|range| Span::new(range.start, range.end));
    let note = page.as_deref().map(|page| Level::NOTE.message(page));
    View { source, renderer }.titled(Level::WARNING, &warning.code, &warning.message, span, note)
}

/// Whether standard error takes colours, and how wide it is.
pub fn screen() -> (bool, usize) {
    let width = console::Term::stderr().size_checked().map_or(120, |(_, columns)| usize::from(columns));
    (console::colors_enabled_stderr(), width.max(40))
}

struct View<'a> {
    source: &'a Source,
    renderer: Renderer,
}

impl View<'_> {
    fn engine(&self, error: &Error) -> String {
        match error {
            Error::Parse(errors) => {
                let shown: Vec<String> = errors.iter().map(|error| self.parse(error)).collect();
                shown.join("\n")
            }
            Error::Lower(error) => {
                self.message(error.code(), &error.to_string(), error.span, error.help().as_deref())
            }
            Error::Vertex { vertex, source_range, cause, .. } => {
                self.cause(Some(vertex), *source_range, cause)
            }
            Error::Other(cause) => self.cause(None, None, cause),
            Error::Cancelled => self.message("cancelled", "it was cancelled", None, None),
        }
    }

    fn parse(&self, error: &ParseError) -> String {
        self.message(error.code(), &error.to_string(), Some(error.span), error.help().as_deref())
    }

    fn cause(&self, vertex: Option<&str>, range: Option<SourceRange>, cause: &Cause) -> String {
        let span = range.map(|range| Span::new(range.start, range.end));
        let mut message = chain(cause);
        if let (Some(vertex), None) = (vertex, span) {
            message = format!("{vertex}: {message}");
        }
        let help = cause.help().or_else(|| self.way_in(cause, span));
        let mut text = self.message(cause.code(), &message, span, help.as_deref());
        let last_lines = cause.last_lines();
        if !last_lines.is_empty() {
            // The run's own control sequences would reach the terminal otherwise.
            let lines = last_lines.iter().map(|line| format!("  | {}", printable(line)));
            let _infallible = write!(text, "\n  = last lines:\n{}", lines.collect::<Vec<_>>().join("\n"));
        }
        text
    }

    /// How to look at a step that failed.
    fn way_in(&self, cause: &Cause, span: Option<Span>) -> Option<String> {
        let (Cause::Exit { .. }, Some(span)) = (cause, span) else { return None };
        let line = LineIndex::new(&self.source.text).position(span.start).line;
        let name = self.source.name.rsplit('/').next().filter(|name| !name.contains([' ', ':']))?;
        Some(format!(
            "`kiln shell {name}:{line}` opens a shell in what the step began with, `--on-error=shell` in what it left"
        ))
    }

    fn message(&self, code: &str, message: &str, span: Option<Span>, help: Option<&str>) -> String {
        // It may quote what an image or a registry says as well.
        let help = help.map(visible);
        self.titled(Level::ERROR, code, message, span, help.as_deref().map(|help| Level::HELP.message(help)))
    }

    fn titled(
        &self,
        level: Level<'_>,
        code: &str,
        message: &str,
        span: Option<Span>,
        footer: Option<Message<'_>>,
    ) -> String {
        let message = &visible(message);
        let excerpt = String::from_utf8_lossy(&self.source.text);
        let same_bytes = excerpt.len() == self.source.text.len();
        let mut group = level.primary_title(message).id(code).elements(Vec::<Message<'_>>::new());
        if let Some(span) = span.filter(|span| same_bytes && span.end <= self.source.text.len()) {
            let span = self.first_lines(span);
            let snippet = Snippet::source(excerpt.as_ref())
                .path(self.source.name.as_str())
                .annotation(AnnotationKind::Primary.span(span.range()));
            group = group.element(snippet);
        } else if let Some(span) = span {
            let at = LineIndex::new(&self.source.text).position(span.start);
            group =
                group.element(Level::NOTE.message(format!("{}:{}:{}", self.source.name, at.line, at.column)));
        }
        if let Some(footer) = footer {
            group = group.element(footer);
        }
        self.renderer.render(&[group])
    }

    /// At most the first four lines of a long instruction.
    fn first_lines(&self, span: Span) -> Span {
        let text = &self.source.text[span.range()];
        let newlines = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let end = newlines.map(|(at, _)| at).nth(3).unwrap_or(text.len());
        let text = &text[..end];
        let trimmed = text.len() - text.iter().rev().take_while(|b| b.is_ascii_whitespace()).count();
        Span::new(span.start, span.start + trimmed.max(1).min(span.len().max(1)))
    }
}

/// What is wrong, in a sentence: of several mistakes the first.
pub fn summary(error: &Error) -> String {
    match error {
        Error::Parse(errors) => errors.first().map(ToString::to_string).unwrap_or_default(),
        Error::Vertex { cause, .. } | Error::Other(cause) => chain(cause),
        Error::Lower(_) | Error::Cancelled => error.to_string(),
    }
}

/// An error with what it came from, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// A message that may quote a file: bytes that are no UTF-8 as `\xNN`, other control characters escaped, and no more than a few lines.
pub fn visible(message: &str) -> String {
    const LONGEST: usize = 2000;
    let mut shown = String::new();
    for c in message.chars().take(LONGEST) {
        match u32::from(c) {
            // The frontend's own spelling of a byte that is no UTF-8.
            byte @ 0x10_FF80..=0x10_FFFF => shown.push_str(&format!("\\x{:02x}", byte & 0xFF)),
            _ if c == '\n' || !turns_a_terminal(c) => shown.push(c),
            _ => shown.extend(c.escape_default()),
        }
    }
    if message.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// A line of foreign output without control characters.
pub fn printable(line: &str) -> String {
    let plain = console::strip_ansi_codes(line);
    plain.chars().filter(|c| *c == '\t' || !turns_a_terminal(*c)).collect()
}

/// Whether a character is an order to a terminal: a control character, or one that turns the direction of what follows, so
/// that a text reads otherwise than it is.
pub fn turns_a_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
