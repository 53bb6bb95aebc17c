//! What the picture is about: vertices in the order they were met.

use std::collections::{BTreeMap, VecDeque};

use engine::{
    Time,
    progress::{Event, Status, Vertex},
};
use oci::Digest;

/// How many of its last lines a step may show.
pub const LINES: usize = 6;

/// All vertices so far.
pub struct State {
    pub begun: Time,
    pub steps: Vec<Step>,
    by_digest: BTreeMap<Digest, usize>,
    /// Texts that are to scroll up: warnings.
    pub notes: Vec<String>,
}

/// One vertex.
pub struct Step {
    pub vertex: Vertex,
    pub statuses: Vec<Status>,
    pub lines: VecDeque<Vec<u8>>,
    open: bool,
    /// Whether its last line has scrolled up.
    pub told: bool,
}

impl State {
    pub fn new(begun: Time) -> State {
        State { begun, steps: Vec::new(), by_digest: BTreeMap::new(), notes: Vec::new() }
    }

    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Vertex(vertex) => match self.by_digest.get(&vertex.digest) {
                Some(at) => self.steps[*at].vertex = vertex.clone(),
                None => {
                    self.by_digest.insert(vertex.digest, self.steps.len());
                    self.steps.push(Step {
                        vertex: vertex.clone(),
                        statuses: Vec::new(),
                        lines: VecDeque::new(),
                        open: false,
                        told: false,
                    });
                }
            },
            Event::Status(status) => {
                if let Some(step) = self.step(&status.vertex) {
                    match step.statuses.iter_mut().find(|known| known.id == status.id) {
                        Some(known) => *known = status.clone(),
                        None => step.statuses.push(status.clone()),
                    }
                }
            }
            Event::Log(log) => {
                if let Some(step) = self.step(&log.vertex) {
                    step.log(&log.bytes);
                }
            }
            // One that has a place is shown with it when the build is over.
            Event::Warning(warning) if warning.source.is_some() => {}
            Event::Warning(warning) => self.notes.push(format!("{}: {}", warning.code, warning.message)),
            Event::Usage(_) | Event::Definition(_) => {}
        }
    }

    fn step(&mut self, digest: &Digest) -> Option<&mut Step> {
        self.by_digest.get(digest).map(|at| &mut self.steps[*at])
    }

    /// How many vertices ended, and how many there are.
    pub fn counts(&self) -> (usize, usize) {
        let ended = self.steps.iter().filter(|step| step.vertex.completed.is_some()).count();
        (ended, self.steps.len())
    }
}

impl Step {
    fn log(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if !self.open {
                self.lines.push_back(Vec::new());
                if self.lines.len() > LINES {
                    self.lines.pop_front();
                }
            }
            if let Some(line) = self.lines.back_mut() {
                line.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
                // What a bar drew over itself is gone.
                if let Some(at) = line.iter().rposition(|b| *b == b'\r').filter(|at| at + 1 < line.len()) {
                    line.drain(..=at);
                }
                line.truncate(4096);
            }
            self.open = !piece.ends_with(b"\n");
        }
    }
}
