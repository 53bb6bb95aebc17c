//! What a step writes: handed on as it comes, its last lines kept for the message if it fails.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use oci::Digest;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, ioctl_fionbio, read},
    pipe::{PipeFlags, pipe_with},
};

use super::bounds::Alarm;
use crate::{
    clock::Clock,
    error::Cause,
    progress::{Event, Log, SharedSink, Stream},
};

/// How many lines a failure shows.
const LAST_LINES: usize = 20;

/// A line that is longer is cut in the message of a failure; the log has all of it.
const LINE_BYTES: usize = 4096;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Two pipes, read by the thread that waits for the step.
pub(crate) struct Logs<'a> {
    sink: &'a SharedSink,
    clock: &'a Clock,
    vertex: Digest,
    /// Those that are open.
    pipes: Vec<(Stream, OwnedFd)>,
    tail: Tail,
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

impl<'a> Logs<'a> {
    /// Makes the pipes; the two descriptors are the step's output and error.
    pub(crate) fn open(
        sink: &'a SharedSink,
        clock: &'a Clock,
        vertex: Digest,
    ) -> Result<(Logs<'a>, OwnedFd, OwnedFd), Cause> {
        let pipe = || -> Result<(OwnedFd, OwnedFd), Errno> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            ioctl_fionbio(&read, true)?;
            Ok((read, write))
        };
        let opened = |errno: Errno| Cause::io("open", "a pipe")(errno.into());
        let (from_stdout, stdout) = pipe().map_err(opened)?;
        let (from_stderr, stderr) = pipe().map_err(opened)?;
        let pipes = vec![(Stream::Stdout, from_stdout), (Stream::Stderr, from_stderr)];
        Ok((Logs { sink, clock, vertex, pipes, tail: Tail::default() }, stdout, stderr))
    }

    /// Hands on what comes, until `ended` hangs up: then nobody writes any more. Gives the last lines. Meanwhile the alarm may
    /// ring.
    pub(crate) fn follow(mut self, ended: BorrowedFd<'_>, alarm: &mut Option<Alarm>) -> Vec<String> {
        loop {
            let (ready, has_ended) = self.wait(ended, alarm);
            self.pipes = std::mem::take(&mut self.pipes)
                .into_iter()
                .zip(ready)
                .filter_map(|((stream, pipe), ready)| {
                    let open = match has_ended {
                        // All that is still in the pipe.
                        true => self.read(stream, &pipe, usize::MAX),
                        // Some of it, so that neither pipe has to wait for the other.
                        false => !ready || self.read(stream, &pipe, 1),
                    };
                    open.then_some((stream, pipe))
                })
                .collect();
            if has_ended {
                let lines = self.tail.lines.iter();
                return lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            }
        }
    }

    /// Waits for something to do: which of the pipes have something, and whether the step has ended.
    fn wait(&self, ended: BorrowedFd<'_>, alarm: &mut Option<Alarm>) -> (Vec<bool>, bool) {
        let pipes = self.pipes.iter().map(|(_, pipe)| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
        let mut polled: Vec<PollFd<'_>> = pipes.collect();
        polled.push(PollFd::from_borrowed_fd(ended, PollFlags::IN));
        if let Some(alarm) = alarm {
            polled.push(PollFd::from_borrowed_fd(alarm.timer(), PollFlags::IN));
        }
        match poll(&mut polled, None) {
            Ok(_) => {
                let mut ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
                let rings = alarm.is_some() && ready.pop() == Some(true);
                let has_ended = ready.pop().unwrap_or(true);
                if let (true, Some(alarm)) = (rings, alarm) {
                    alarm.ring();
                }
                (ready, has_ended)
            }
            Err(Errno::INTR) => (vec![false; self.pipes.len()], false),
            // The log ends here, and the step is waited for without it.
            Err(_) => (vec![false; self.pipes.len()], true),
        }
    }

    /// Reads what a pipe holds, so many times at most. Whether it is still open.
    fn read(&mut self, stream: Stream, pipe: &OwnedFd, times: usize) -> bool {
        let mut buffer = [0; READ_BYTES];
        let mut left = times;
        while left > 0 {
            match read(pipe, buffer.as_mut_slice()) {
                Ok(0) => return false,
                Ok(length) => {
                    let (vertex, bytes) = (self.vertex, buffer[..length].to_vec());
                    self.tail.add(&bytes);
                    self.sink.event(Event::Log(Log { vertex, stream, bytes, time: self.clock.now() }));
                    left -= 1;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return errno == Errno::AGAIN,
            }
        }
        true
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
    use std::{
        collections::BTreeMap,
        fs::File,
        io::Write,
        sync::{Arc, Mutex},
        thread,
        time::Duration,
    };

    use super::*;
    use crate::{clock::Time, progress::Sink};

    /// Keeps what it is told.
    #[derive(Default)]
    struct Told(Mutex<BTreeMap<&'static str, Vec<u8>>>);

    impl Sink for Told {
        fn event(&self, event: Event) {
            let Event::Log(Log { stream, bytes, .. }) = event else { panic!("a log has nothing else") };
            let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
            self.0.lock().expect("held shortly").entry(name).or_default().extend(bytes);
        }
    }

    #[test]
    fn both_pipes_are_read_to_the_end_of_the_step() {
        let told = Arc::new(Told::default());
        let (sink, clock): (SharedSink, _) = (told.clone(), Clock::new(Time::default));
        let (logs, stdout, stderr) = Logs::open(&sink, &clock, Digest::of(b"vertex")).expect("opened");
        let (ended, alive) = pipe_with(PipeFlags::CLOEXEC).expect("opened");
        let much = vec![b'o'; 300_000];
        let writer = {
            let much = much.clone();
            thread::spawn(move || {
                let (mut stdout, mut stderr) = (File::from(stdout), File::from(stderr));
                stdout.write_all(&much).expect("read");
                stderr.write_all(b"e\n").expect("read");
                drop(stderr);
                stdout.write_all(b"\nlast").expect("read");
                // The end, while one pipe is open and holds something.
                drop(alive);
                thread::sleep(Duration::from_millis(50));
            })
        };
        let lines = logs.follow(ended.as_fd(), &mut None);
        writer.join().expect("it wrote");
        // Which of the pipes is read first is the kernel's to say.
        assert!(lines.iter().any(|line| line.contains("last")), "{lines:?}");
        let told = told.0.lock().expect("held shortly");
        assert_eq!(told["stdout"], [much, b"\nlast".to_vec()].concat());
        assert_eq!(told["stderr"], b"e\n");
    }

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
