//! `kiln build --call`: what is asked of a Dockerfile instead of building it. The answer goes to standard output.
//!
//! The JSON is BuildKit's, field by field (`json.rs`), and so are the layouts of the texts (`text.rs`), but for broken
//! rules: those look as they do beside a build.

mod json;
mod text;

use std::{io::Write as _, path::Path, sync::Arc};

use dockerfile_parser::Span;
use engine::{BuildRequest, Cancel, Engine, Error, progress::Warning};
use graph::SourceRange;
use serde::Serialize;
use serde_json::{Value, json};

use super::write_file;
use crate::{
    failure::{self, Failure, Source},
    flags::{Call, Method},
    machine::Machine,
    progress::{Display, Mode, Shown},
};

/// The version of BuildKit's forms that the answers have.
const VERSION: &str = "1.0.0";

/// An answer in both forms.
struct Answer {
    json: String,
    text: String,
    /// The exit status of a check: 1 where rules are broken.
    status: Option<u8>,
    /// Why the Dockerfile cannot be built, where that was asked.
    error: Option<Error>,
}

/// Asks, answers, and gives the exit status.
pub async fn run(
    call: Call,
    engine: &Engine,
    (request, machine): (BuildRequest, Machine),
    source: &mut Source,
    mode: Mode,
    metadata: Option<&Path>,
    cancel: Cancel,
) -> Result<u8, Failure> {
    let display = mode.display();
    let answer = ask(call.method, engine, (request, machine), source, &display, cancel).await;
    display.finish();
    let answer = answer?;
    if let Some(path) = metadata {
        write_file(path, &metadata_of(&answer))?;
    }
    let text = if call.json { format!("{}\n", answer.json) } else { answer.text };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::machine(format!("cannot write to standard output: {error}")))?;
    match (answer.error, answer.status) {
        (Some(error), _) => Err(error.into()),
        (None, Some(status)) if !call.ignore_status => Ok(status),
        (None, _) => Ok(0),
    }
}

async fn ask(
    method: Method,
    engine: &Engine,
    (request, machine): (BuildRequest, Machine),
    source: &mut Source,
    display: &Arc<dyn Display>,
    cancel: Cancel,
) -> Result<Answer, Failure> {
    let (client, shown) = (Arc::new(machine), Arc::new(Shown::new(display.clone())));
    let sink = shown.clone();
    let answer = |json: String, text| Answer { json, text, status: None, error: None };
    Ok(match method {
        Method::Check => {
            let broken = engine.check(request, client, sink, cancel).await;
            shown.tell_source(source);
            checked(broken?, source)
        }
        Method::Outline => {
            let outline = engine.outline(request, client, sink, cancel).await;
            shown.tell_source(source);
            let outline = outline?;
            answer(pretty(&json::Outline::new(&outline, source)), text::outline(&outline))
        }
        Method::Targets => {
            let targets = engine.targets(request, client, sink, cancel).await;
            shown.tell_source(source);
            let targets = targets?;
            answer(pretty(&json::Targets::new(&targets, source)), text::targets(&targets))
        }
        Method::Describe => answer(pretty(&json::calls()), text::calls(&json::calls())),
    })
}

fn checked(checked: engine::Checked, source: &Source) -> Answer {
    let broken = checked.error.as_ref().map(|error| {
        let span = match error {
            Error::Parse(errors) => errors.first().map(|error| error.span),
            Error::Lower(error) => error.span,
            Error::Vertex { source_range, .. } => source_range.map(|range| Span::new(range.start, range.end)),
            Error::Other(_) | Error::Cancelled => None,
        };
        (failure::summary(error), span)
    });
    let json = pretty(&json::Check::new(&checked.warnings, broken, source));
    let (colour, width) = (console::colors_enabled(), failure::screen().1);
    let shown = checked.warnings.iter().map(|warning| {
        let warning = Warning {
            vertex: None,
            code: warning.rule.name.to_owned(),
            message: warning.message.clone(),
            source: Some(SourceRange { start: warning.span.start, end: warning.span.end }),
        };
        failure::warning(source, &warning, colour, width)
    });
    let text = text::check(&shown.collect::<Vec<_>>(), checked.error.is_some());
    let status = u8::from(!checked.warnings.is_empty() || checked.error.is_some());
    Answer { json, text, status: Some(status), error: checked.error }
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("JSON can be written")
}

/// What `--metadata-file` gets, under buildx's names.
fn metadata_of(answer: &Answer) -> Vec<u8> {
    let result: Value = serde_json::from_str(&answer.json).unwrap_or_default();
    let text = console::strip_ansi_codes(&answer.text);
    let mut metadata = json!({ "result.json": result, "result.txt": text, "version": VERSION });
    if let Some(status) = answer.status {
        metadata["result.statuscode"] = json!(status.to_string());
    }
    pretty(&metadata).into_bytes()
}
