//! What is written down of a build.

use std::collections::{BTreeMap, BTreeSet};

use graph::{Local, SourceRange};
use oci::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    clock::Time,
    progress::{Definition, Event, Log, Status, Stream, Vertex, Warning},
};

/// An answer is believed for this long, in seconds: then the ordinary way renews what has a stamp of its last use.
pub(super) const LONGEST_SECONDS: u64 = 24 * 60 * 60;

/// What a build gave, and what must not have changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// When it was recorded, in seconds since 1970.
    pub(super) at: u64,
    pub(super) contexts: Vec<Context>,
    pub(super) images: Vec<Image>,
    /// For each output the archive that it is, if it is one.
    pub(super) archives: Vec<Option<Archive>>,
    pub(super) events: Vec<Shown>,
    pub(super) image: Option<Descriptor>,
    pub(super) metadata: BTreeMap<String, Value>,
}

/// A context that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Context {
    pub(super) name: String,
    pub(super) reaches: BTreeSet<String>,
    pub(super) ignore: Vec<String>,
    /// As `image::scan::stamp_at` gives it.
    pub(super) stamp: Digest,
}

/// A base image whose registry's last answer was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) reference: String,
    pub(super) platform: String,
    /// What the name stood for.
    pub(super) top: Digest,
    pub(super) manifest: Digest,
    pub(super) config: Digest,
}

/// An image in an archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Archive {
    pub(super) top: Descriptor,
    pub(super) names: Vec<String>,
}

/// An event without its times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Shown {
    Definition,
    Vertex {
        digest: Digest,
        name: String,
        inputs: Vec<Digest>,
        source: Option<(usize, usize)>,
        started: bool,
        completed: bool,
        cached: bool,
    },
    Status {
        vertex: Digest,
        id: String,
        current: u64,
        total: u64,
        completed: bool,
    },
    /// The line that says how old the answer about an image is: its place in the list of images.
    Age {
        vertex: Digest,
        image: usize,
    },
    Warning {
        code: String,
        message: String,
        source: (usize, usize),
    },
}

impl Context {
    pub(super) fn new(local: &Local, stamp: Digest) -> Context {
        let Local { name, reaches, ignore } = local.clone();
        Context { name, reaches, ignore, stamp }
    }

    pub(super) fn local(&self) -> Local {
        let Context { name, reaches, ignore, stamp: _ } = self.clone();
        Local { name, reaches, ignore }
    }
}

impl Shown {
    /// An event of a build that may be remembered; `age` finds the image that a log's line is about. None for what only
    /// that build could show.
    pub(super) fn of(event: &Event, age: impl Fn(&Log) -> Option<usize>) -> Option<Shown> {
        Some(match event {
            Event::Definition(_) => Shown::Definition,
            Event::Vertex(vertex) => {
                let Vertex { digest, name, inputs, source, started, completed, cached, error } =
                    vertex.clone();
                if error.is_some() {
                    return None;
                }
                let source = source.map(|range| (range.start, range.end));
                let (started, completed) = (started.is_some(), completed.is_some());
                Shown::Vertex { digest, name, inputs, source, started, completed, cached }
            }
            Event::Status(status) => {
                let Status { vertex, id, current, total, started: _, completed } = status.clone();
                Shown::Status { vertex, id, current, total, completed: completed.is_some() }
            }
            Event::Log(log) => Shown::Age { vertex: log.vertex, image: age(log)? },
            // Of the Dockerfile. What has no place in it is about this machine or this moment.
            Event::Warning(Warning { vertex: None, code, message, source: Some(range) }) => Shown::Warning {
                code: code.clone(),
                message: message.clone(),
                source: (range.start, range.end),
            },
            Event::Warning(_) | Event::Usage(_) => return None,
        })
    }

    /// The event, as if it happened now; `age` gives the line about an image.
    pub(super) fn event(self, now: Time, definition: &Definition, age: impl Fn(usize) -> String) -> Event {
        let range = |(start, end)| SourceRange { start, end };
        match self {
            Shown::Definition => Event::Definition(definition.clone()),
            Shown::Vertex { digest, name, inputs, source, started, completed, cached } => {
                let time = |happened: bool| happened.then_some(now);
                let (started, completed, source) = (time(started), time(completed), source.map(range));
                Event::Vertex(Vertex {
                    digest,
                    name,
                    inputs,
                    source,
                    started,
                    completed,
                    cached,
                    error: None,
                })
            }
            Shown::Status { vertex, id, current, total, completed } => {
                let completed = completed.then_some(now);
                Event::Status(Status { vertex, id, current, total, started: now, completed })
            }
            Shown::Age { vertex, image } => {
                let bytes = age(image).into_bytes();
                Event::Log(Log { vertex, stream: Stream::Stderr, bytes, time: now })
            }
            Shown::Warning { code, message, source } => {
                Event::Warning(Warning { vertex: None, code, message, source: Some(range(source)) })
            }
        }
    }
}
