//! Lines with the step's number, as BuildKit's plain progress writes them.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Mutex, PoisonError},
};

use engine::{
    Time,
    progress::{Event, Log, Status, Vertex, Warning},
};
use oci::Digest;

use super::{Display, bytes, seconds};
use crate::failure::{printable, visible};

/// A line without an end is written when it is longer: nobody reads it as a line, and it has to be kept somewhere.
const LINE_BYTES: usize = 1 << 20;

/// Writes lines.
pub struct Plain<W>(Mutex<Lines<W>>);

struct Lines<W> {
    out: W,
    steps: BTreeMap<Digest, Step>,
    last: Option<usize>,
}

struct Step {
    number: usize,
    started: Option<Time>,
    ended: bool,
    /// The line that has no end yet.
    open: Vec<u8>,
}

impl<W: Write> Plain<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Plain<W> {
        Plain(Mutex::new(Lines { out, steps: BTreeMap::new(), last: None }))
    }
}

impl<W: Write + Send> Display for Plain<W> {
    fn event(&self, event: &Event) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Vertex(vertex) => lines.vertex(vertex),
            Event::Status(status) => lines.status(status),
            Event::Log(log) => lines.log(log),
            Event::Warning(warning) => lines.warning(warning),
            Event::Usage(_) | Event::Definition(_) => {}
        }
    }

    fn finish(&self) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A reader that is gone wants no more.
        let _gone = lines.out.flush();
    }
}

impl<W: Write> Lines<W> {
    fn vertex(&mut self, vertex: &Vertex) {
        let known = self.steps.contains_key(&vertex.digest);
        let number = self.steps.len() + 1;
        let step = self.steps.entry(vertex.digest).or_insert(Step {
            number,
            started: None,
            ended: false,
            open: Vec::new(),
        });
        let number = step.number;
        step.started = step.started.or(vertex.started);
        let started = step.started;
        let ends = vertex.completed.is_some() && !step.ended;
        step.ended |= ends;
        let open = if ends { std::mem::take(&mut step.open) } else { Vec::new() };
        if !known {
            // A name may quote an image, and so may an error.
            self.line(number, &visible(&vertex.name));
        }
        let Some(completed) = vertex.completed.filter(|_| ends) else { return };
        if !open.is_empty() {
            self.output(number, started, completed, &open);
        }
        match &vertex.error {
            Some(error) if error == "canceled" => self.line(number, "CANCELED"),
            Some(error) => self.line(number, &format!("ERROR: {}", visible(error))),
            None if vertex.cached => self.line(number, "CACHED"),
            None => self.line(number, &format!("DONE {}", seconds(started.unwrap_or(completed), completed))),
        }
    }

    fn status(&mut self, status: &Status) {
        let Some(number) = self.steps.get(&status.vertex).map(|step| step.number) else { return };
        // One line when it begins and one when it ends: a log is no place for a bar.
        let Some(completed) = status.completed else {
            if status.current == 0 && status.total == 0 {
                self.line(number, &status.id);
            }
            return;
        };
        let took = seconds(status.started, completed);
        let line = match status.total {
            0 => format!("{} {took} done", status.id),
            total => format!("{} {} / {} {took} done", status.id, bytes(status.current), bytes(total)),
        };
        self.line(number, &line);
    }

    fn log(&mut self, log: &Log) {
        let Some(step) = self.steps.get_mut(&log.vertex) else { return };
        let (number, started) = (step.number, step.started);
        let end = log.bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        let (whole, rest) = log.bytes.split_at(end);
        if whole.is_empty() && step.open.len() + rest.len() <= LINE_BYTES {
            step.open.extend_from_slice(rest);
            return;
        }
        step.open.extend_from_slice(whole);
        let lines = std::mem::replace(&mut step.open, rest.to_vec());
        for line in lines.split_inclusive(|b| *b == b'\n') {
            self.output(number, started, log.time, line.strip_suffix(b"\n").unwrap_or(line));
        }
    }

    fn warning(&mut self, warning: &Warning) {
        let text = format!("WARN: {}: {}\n", warning.code, printable(&warning.message));
        let _gone = self.out.write_all(text.as_bytes());
    }

    fn output(&mut self, number: usize, started: Option<Time>, at: Time, line: &[u8]) {
        let since = at.0.saturating_sub(started.unwrap_or(at).0) / 1_000_000;
        // What a progress bar drew over itself ends up as its last state.
        let last = line.rsplit(|b| *b == b'\r').find(|part| !part.is_empty()).unwrap_or_default();
        let text = printable(&String::from_utf8_lossy(last));
        self.line(number, &format!("{}.{:03} {text}", since / 1000, since % 1000));
    }

    fn line(&mut self, number: usize, text: &str) {
        let gap = if self.last.is_some_and(|last| last != number) { "\n" } else { "" };
        self.last = Some(number);
        // One write a line: lines of two processes do not mix.
        let _gone = self.out.write_all(format!("{gap}#{number} {text}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use engine::progress::Stream;

    use super::*;

    #[test]
    fn a_line_that_never_ends_is_written_by_parts() {
        let (mut written, vertex) = (Vec::new(), Digest::of(b"vertex"));
        let plain = Plain::new(&mut written);
        let step = Step { number: 7, started: None, ended: false, open: Vec::new() };
        plain.0.lock().expect("held shortly").steps.insert(vertex, step);
        let log = |bytes: &[u8]| {
            let (stream, time) = (Stream::Stdout, Time::default());
            plain.event(&Event::Log(Log { vertex, stream, bytes: bytes.to_vec(), time }));
        };
        log(b"one\ntw");
        log(b"o");
        log(b"\n\n");
        for _ in 0..LINE_BYTES / 1000 + 1 {
            log(&[b'x'; 1000]);
        }
        log(b"\nlast\n");
        drop(plain);
        let written = String::from_utf8(written).expect("text");
        let lines: Vec<&str> =
            written.lines().map(|line| line.strip_prefix("#7 0.000 ").expect("of it")).collect();
        assert_eq!(lines[..3], ["one", "two", ""]);
        let lengths: Vec<usize> = lines[3..].iter().map(|line| line.len()).collect();
        assert_eq!(lengths, [LINE_BYTES / 1000 * 1000, 1000, 4]);
    }
}
