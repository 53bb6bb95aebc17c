//! What a step writes: handed on as it comes, its last lines kept for the message if it fails.

use std::{
    collections::VecDeque,
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use oci::Digest;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{
    clock::Clock,
    error::Cause,
    progress::{Event, Log, SharedSink, Stream},
};

/// How many lines a failure shows.
const LAST_LINES: usize = 20;

/// A line that is longer is cut in the message of a failure; the log has all of it.
const LINE_BYTES: usize = 4096;

/// Two pipes and the threads that read them.
pub(crate) struct Logs {
    tail: Arc<Mutex<Tail>>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

impl Logs {
    /// Starts to read; the two descriptors are the step's output and error.
    pub(crate) fn start(
        sink: &SharedSink,
        clock: &Clock,
        vertex: Digest,
    ) -> Result<(Logs, OwnedFd, OwnedFd), Cause> {
        let tail = Arc::new(Mutex::new(Tail::default()));
        let mut readers = Vec::new();
        let mut open = |stream| -> Result<OwnedFd, Cause> {
            let (read, write) =
                pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Cause::io("open", "a pipe")(errno.into()))?;
            let (sink, clock, tail) = (sink.clone(), clock.clone(), tail.clone());
            let reader = thread::Builder::new()
                .name("log".to_owned())
                .spawn(move || read_all(File::from(read), stream, vertex, &sink, &clock, &tail))
                .map_err(Cause::io("start", "a thread"))?;
            readers.push(reader);
            Ok(write)
        };
        let (stdout, stderr) = (open(Stream::Stdout)?, open(Stream::Stderr)?);
        Ok((Logs { tail, readers }, stdout, stderr))
    }

    /// Waits until all is read, and gives the last lines.
    pub(crate) fn finish(self) -> Vec<String> {
        for reader in self.readers {
            // A reader that panicked has said so on standard error; the lines that it read are here.
            let _ended = reader.join();
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

fn read_all(
    mut from: File,
    stream: Stream,
    vertex: Digest,
    sink: &SharedSink,
    clock: &Clock,
    tail: &Mutex<Tail>,
) {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                let bytes = buffer[..read].to_vec();
                tail.lock().unwrap_or_else(PoisonError::into_inner).add(&bytes);
                sink.event(Event::Log(Log { vertex, stream, bytes, time: clock.now() }));
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if !self.open {
                self.lines.push_back(Vec::new());
                if self.lines.len() > LAST_LINES {
                    self.lines.pop_front();
                }
            }
            let ends = piece.ends_with(b"\n");
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            if let Some(line) = self.lines.back_mut() {
                let room = LINE_BYTES.saturating_sub(line.len());
                line.extend_from_slice(&text[..text.len().min(room)]);
            }
            self.open = !ends;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_however_they_come() {
        let mut tail = Tail::default();
        for n in 0..30 {
            tail.add(b"li");
            tail.add(format!("ne {n}\nx").as_bytes());
            tail.add(b"\n");
        }
        tail.add(b"open");
        let lines: Vec<String> = tail.lines.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines[LAST_LINES - 3..], ["line 29", "x", "open"]);
    }
}
