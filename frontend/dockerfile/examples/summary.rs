//! Says of Dockerfiles what becomes of them, a line each, without a registry: every image exists, on every platform.
//!
//!     cargo run -p dockerfile --example summary -- Dockerfile…
//!
//! A line holds the name, the text's digest, how many of the stages have steps that the last one needs, the vertices it
//! is lowered to by kind, the length of the image's history, the images asked for, and the checks that are broken in any
//! stage, with how often. What cannot be read or lowered, in a stage that is not needed either, is named by its code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use dockerfile::{Fact, Facts, ImageFact, LowerError, Lowered, Lowering, Request, lint, lower};
use dockerfile_parser::Dockerfile;
use graph::{Graph, Op, Source};
use oci::{Digest, ImageConfig};

fn main() -> ExitCode {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        match std::fs::read(&path) {
            Ok(text) => println!("{}", line(path.rsplit('/').next().unwrap_or_default(), &text)),
            Err(error) => {
                eprintln!("{path}: {error}");
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

fn line(name: &str, text: &[u8]) -> String {
    format!("{name} | {} | {}", Digest::of(text), outcome(text))
}

fn outcome(text: &[u8]) -> String {
    let request = Request::new("linux/amd64".parse().expect("a platform"));
    if let Err(error) = dockerfile::check_frontend(text, &request) {
        return error.code().to_owned();
    }
    let file = match dockerfile_parser::parse(text) {
        Ok(file) => file,
        Err(errors) => return errors.iter().map(|error| error.code()).collect::<Vec<_>>().join(" "),
    };
    match rounds(&file, &request) {
        Ok((lowered, facts)) => {
            let checks = checks(&file, &request, facts);
            format!("{} | {}", steps(&file, &lowered), checks)
        }
        Err(error) => format!("{}: {error}", error.code()),
    }
}

/// Lowers, with every fact that is asked for made up.
fn rounds(file: &Dockerfile, request: &Request) -> Result<(Box<Lowered>, Facts), LowerError> {
    let mut facts = Facts::new();
    loop {
        match lower(file, request, &facts)? {
            Lowering::Done(lowered) => return Ok((lowered, facts)),
            Lowering::Needs(needs) => needs.into_keys().for_each(|fact| answer(&mut facts, fact)),
        }
    }
}

fn answer(facts: &mut Facts, fact: Fact) {
    let (Fact::Image { platform, .. } | Fact::OciLayout { platform, .. }) = &fact else {
        panic!("only images are made up here, and {fact} is none");
    };
    let text = format!(
        "{{\"architecture\":\"{}\",\"os\":\"{}\",\"config\":{{\"Env\":[\"PATH=/bin\"]}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{}\"]}}}}",
        platform.architecture,
        platform.os,
        Digest::of(b"layer")
    );
    let config = Arc::new(ImageConfig::parse(text.as_bytes()).expect("a config"));
    let manifest = Digest::of(fact.to_string().as_bytes());
    facts.insert(fact, ImageFact { manifest, config, layers: 1 });
}

fn steps(file: &Dockerfile, lowered: &Lowered) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let stages = stages(file, &lowered.graph);
    for id in lowered.graph.ids() {
        *kinds.entry(kind(&lowered.graph.vertex(id).op)).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let images: Vec<String> = lowered.pinned.iter().map(|image| familiar(image.asked())).collect();
    let image = lowered.images.values().next().expect("a platform was asked for");
    format!(
        "{} of {} | {} | {} | {}",
        stages,
        file.stages.len(),
        kinds.join(", "),
        image.config.history.len(),
        images.join(" ")
    )
}

/// How many stages have steps of their own in the graph. Where there is but one, progress does not name it.
fn stages(file: &Dockerfile, graph: &Graph) -> usize {
    let named = |stage: &String| !stage.is_empty() || file.stages.len() == 1;
    let stages = graph.ids().map(|id| graph.vertex(id).about.stage.clone()).filter(named);
    stages.collect::<BTreeSet<_>>().len()
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Source(Source::Image { .. }) => "image",
        Op::Source(Source::Local(_)) => "context",
        Op::Source(Source::OciLayout(_)) => "layout",
        Op::Source(Source::Git(_)) => "git",
        Op::Source(Source::Http(_)) => "http",
        Op::Exec(_) => "run",
        Op::File(_) => "file",
        Op::Merge => "merge",
        Op::Diff => "diff",
    }
}

fn familiar(name: &str) -> String {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name).to_owned()
}

fn checks(file: &Dockerfile, request: &Request, mut facts: Facts) -> String {
    let checked = loop {
        let checked = lint::check(file, request, &facts);
        if checked.needs.is_empty() {
            break checked;
        }
        checked.needs.into_keys().for_each(|fact| answer(&mut facts, fact));
    };
    if let Some(error) = checked.error {
        return error.code().to_owned();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    checked.warnings.iter().for_each(|warning| *counts.entry(warning.rule.name).or_default() += 1);
    let mut text = String::new();
    for (rule, count) in counts {
        let _infallible = write!(text, "{}{rule} {count}", if text.is_empty() { "" } else { ", " });
    }
    text
}
