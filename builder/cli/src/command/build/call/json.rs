//! Answers as JSON, with the names and the order of BuildKit's `frontend/subrequests`.
//!
//! A place is a list of lines. What is empty is left out, where BuildKit leaves it out. `Check::sources` lacks
//! `definition`, BuildKit's own way of loading the file.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dockerfile::{
    Warning,
    describe::{self, ArgumentUse, CacheUse, Needed},
};
use dockerfile_parser::{LineIndex, Span};
use serde::Serialize;

use super::VERSION;
use crate::failure::Source;

/// Lines of the Dockerfile.
#[derive(Debug, Default, Serialize)]
pub struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Position {
    line: usize,
}

/// The lines of a file, to make places of spans.
struct Lines(LineIndex);

impl Lines {
    fn of(source: &Source) -> Lines {
        Lines(LineIndex::new(&source.text))
    }

    /// Each line of a span as a range of its own, as BuildKit has it.
    fn location(&self, span: Span) -> Location {
        let (first, last) = self.0.lines(span);
        let range = |line| Range { start: Position { line }, end: Position { line } };
        Location { ranges: (first..=last).map(range).collect() }
    }
}

/// `--call=check`.
#[derive(Debug, Serialize)]
pub struct Check<'a> {
    warnings: Vec<Broken<'a>>,
    sources: [File<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
}

#[derive(Debug, Serialize)]
struct Broken<'a> {
    #[serde(rename = "ruleName")]
    rule_name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    detail: &'a str,
    location: Location,
}

#[derive(Debug, Serialize)]
struct File<'a> {
    filename: &'a str,
    data: String,
    language: &'a str,
}

#[derive(Debug, Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

impl<'a> Check<'a> {
    /// Broken rules, and why the file cannot be built.
    pub fn new(
        warnings: &'a [Warning],
        error: Option<(String, Option<Span>)>,
        source: &'a Source,
    ) -> Check<'a> {
        let lines = Lines::of(source);
        let broken = |warning: &'a Warning| Broken {
            rule_name: warning.rule.name,
            description: warning.rule.description,
            url: warning.rule.page,
            detail: &warning.message,
            location: lines.location(warning.instruction),
        };
        let build_error = error.map(|(message, span)| BuildError {
            message,
            location: span.map(|span| lines.location(span)).unwrap_or_default(),
        });
        let file = File { filename: &source.name, data: data(source), language: "Dockerfile" };
        Check { warnings: warnings.iter().map(broken).collect(), sources: [file], build_error }
    }
}

/// `--call=outline`.
#[derive(Debug, Serialize)]
pub struct Outline<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Argument<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Asked<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Asked<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache: Vec<Cache<'a>>,
    sources: [String; 1],
}

#[derive(Debug, Serialize)]
struct Argument<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    location: Location,
}

#[derive(Debug, Serialize)]
struct Asked<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Debug, Serialize)]
struct Cache<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    location: Location,
}

impl<'a> Outline<'a> {
    /// What a target takes.
    pub fn new(outline: &'a describe::Outline, source: &Source) -> Outline<'a> {
        let lines = Lines::of(source);
        let argument = |used: &'a ArgumentUse| Argument {
            name: &used.name,
            description: used.description.as_deref(),
            value: used.value.as_deref().filter(|value| !value.is_empty()),
            location: lines.location(used.span),
        };
        let asked = |needed: &'a Needed| Asked {
            name: &needed.id,
            required: needed.required,
            location: lines.location(needed.span),
        };
        let cache = |cache: &'a CacheUse| Cache { id: &cache.id, location: lines.location(cache.span) };
        Outline {
            name: outline.name.as_deref(),
            description: outline.description.as_deref(),
            args: outline.arguments.iter().map(argument).collect(),
            secrets: outline.secrets.iter().map(asked).collect(),
            ssh: outline.ssh.iter().map(asked).collect(),
            cache: outline.caches.iter().map(cache).collect(),
            sources: [data(source)],
        }
    }
}

/// `--call=targets`.
#[derive(Debug, Serialize)]
pub struct Targets<'a> {
    targets: Vec<Target<'a>>,
    sources: [String; 1],
}

#[derive(Debug, Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: Location,
}

impl<'a> Targets<'a> {
    /// The stages of a file.
    pub fn new(targets: &'a [describe::Target], source: &Source) -> Targets<'a> {
        let lines = Lines::of(source);
        let target = |target: &'a describe::Target| Target {
            name: target.name.as_deref(),
            default: target.default,
            description: target.description.as_deref(),
            base: &target.base,
            platform: target.platform.as_deref(),
            location: lines.location(target.span),
        };
        Targets { targets: targets.iter().map(target).collect(), sources: [data(source)] }
    }
}

/// One of `--call=subrequests.describe`.
#[derive(Debug, Serialize)]
pub struct Described {
    /// The method with `frontend.` before it.
    pub name: &'static str,
    /// The version of the answer's form.
    pub version: &'static str,
    r#type: &'static str,
    /// What it tells.
    pub description: &'static str,
    opts: Option<Vec<Named>>,
    inputs: Option<Vec<Named>>,
    metadata: Vec<Named>,
    refs: Option<Vec<Named>>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

/// What can be called, in BuildKit's words.
pub fn calls() -> [Described; 4] {
    let named = |name| Named { name, description: "" };
    let call = |name, description, opts| Described {
        name,
        version: VERSION,
        r#type: "rpc",
        description,
        opts,
        inputs: None,
        metadata: ["result.json", "result.txt"].map(named).to_vec(),
        refs: None,
    };
    let target = Named { name: "target", description: "Target build stage" };
    let mut lint = call("frontend.lint", "Lint a Dockerfile", Some(Vec::new()));
    lint.metadata.push(named("result.statuscode"));
    [
        call("frontend.outline", "List all parameters current build target supports", Some(vec![target])),
        call("frontend.targets", "List all targets current build supports", Some(Vec::new())),
        lint,
        call("frontend.subrequests.describe", "List available subrequest types", None),
    ]
}

fn data(source: &Source) -> String {
    BASE64_STANDARD.encode(&source.text)
}
